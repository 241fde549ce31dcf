//! The place of a setting's value.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::env_file::EnvFile;
use super::names;
use super::settings::{SETTINGS, setting};

/// The environment of the process, and a file with settings.
#[derive(Default)]
pub struct Source {
    variables: HashMap<String, OsString>,
    /// A file with settings. A variable of the environment replaces the one in the file, even if it is empty.
    file: Option<EnvFile>,
    credentials: Option<PathBuf>,
}

/// A value that was given.
pub struct GivenValue {
    /// The value as the start of a sentence: `WORKERS`, `the file that JWT_SECRET_FILE names`.
    pub subject: String,
    /// The place of the value, for a list of all settings.
    pub place: String,
    /// The file that holds the value.
    file: Option<PathBuf>,
    /// The value, or the sentence that says why it cannot be read.
    value: Result<String, String>,
}

impl Source {
    /// The environment of this process.
    pub fn of_process() -> Source {
        let variables: HashMap<String, OsString> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        // systemd puts the credentials of a unit here: systemd.exec(5), LoadCredential.
        let credentials = variables.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Source {
            variables,
            credentials,
            ..Source::default()
        }
    }

    /// An environment of these names and values alone.
    pub fn of_pairs(pairs: &[(&str, &str)]) -> Source {
        let pairs = pairs.iter();
        let variables = pairs.map(|(name, value)| ((*name).to_owned(), value.into()));
        Source {
            variables: variables.collect(),
            ..Source::default()
        }
    }

    /// The same, with a file.
    pub fn with_file(self, file: EnvFile) -> Source {
        Source {
            file: Some(file),
            ..self
        }
    }

    /// The file with settings.
    pub fn file(&self) -> Option<&EnvFile> {
        self.file.as_ref()
    }

    /// Whether systemd has handed over sockets to this process (sd_listen_fds(3)).
    pub fn activated(&self) -> bool {
        let get = |name| self.variables.get(name).and_then(|value| value.to_str());
        get("LISTEN_FDS").is_some_and(|count| count != "0")
            && get("LISTEN_PID") == Some(&std::process::id().to_string())
    }

    /// The value of a setting, under its name or an alias. An empty variable counts as none.
    ///
    /// # Errors
    /// The value cannot be read, is not UTF-8, or its file is empty.
    pub fn get(&self, name: &str) -> Result<Option<String>, String> {
        self.find(name).map(|found| found.value).transpose()
    }

    /// The files that secrets are read from.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let secrets = SETTINGS.iter().filter(|setting| setting.secret);
        let mut files: Vec<PathBuf> = secrets
            .filter_map(|setting| self.find(setting.name)?.file)
            .collect();
        files.dedup();
        files
    }

    /// Environment variables that look like a misspelt setting, each as a sentence.
    pub fn misspelt(&self) -> Vec<String> {
        let sentence = |name: &String| {
            let meant = names::meant(name)?;
            let warning = format!("the environment variable {name} is no setting; {meant} is");
            Some(warning)
        };
        let mut found: Vec<String> = self.variables.keys().filter_map(sentence).collect();
        found.sort_unstable();
        found
    }

    /// Finds the value of a setting. A secret `X` may also be in the file that `X_FILE` names, or in the systemd credential `X`.
    pub fn find(&self, name: &str) -> Option<GivenValue> {
        let setting = setting(name);
        debug_assert!(setting.is_some(), "{name} is not in the table of settings");
        let setting = setting?;
        setting.names().find_map(|name| {
            let file = || self.secret_file(name).or_else(|| self.credential(name));
            let secret = || setting.secret.then(file).flatten();
            self.variable(name).or_else(secret)
        })
    }

    fn variable(&self, name: &str) -> Option<GivenValue> {
        let text = self.set(name)?.to_str();
        Some(GivenValue {
            subject: name.to_owned(),
            place: self.place(name),
            file: self.file_with(name).map(|file| file.path.clone()),
            value: text
                .map(str::to_owned)
                .ok_or_else(|| format!("{name} must be UTF-8")),
        })
    }

    fn secret_file(&self, name: &str) -> Option<GivenValue> {
        let variable = format!("{name}_FILE");
        let path = PathBuf::from(self.set(&variable)?);
        let place = self.place(&variable);
        Some(GivenValue {
            subject: format!("the file that {variable} names"),
            place: format!("the file {} ({place})", path.display()),
            value: read_secret(&path)
                .map_err(|problem| format!("{variable} names a file that {problem}")),
            file: Some(path),
        })
    }

    fn credential(&self, name: &str) -> Option<GivenValue> {
        let path = self.credentials.as_ref()?.join(name);
        // If the directory cannot be searched, reading the file gives the reason.
        if !path.try_exists().unwrap_or(true) {
            return None;
        }
        let subject = format!("the systemd credential {name}");
        Some(GivenValue {
            place: subject.clone(),
            subject,
            value: read_secret(&path)
                .map_err(|problem| format!("{name} is a systemd credential that {problem}")),
            file: Some(path),
        })
    }

    fn place(&self, variable: &str) -> String {
        match self.file_with(variable) {
            Some(file) => format!("{variable} in {}", file.path.display()),
            None => format!("the environment's {variable}"),
        }
    }

    /// The file with settings, unless the environment has this variable.
    fn file_with(&self, variable: &str) -> Option<&EnvFile> {
        let file = self.file.as_ref();
        file.filter(|_| !self.variables.contains_key(variable))
    }

    fn set(&self, variable: &str) -> Option<&OsStr> {
        let value = match self.file_with(variable) {
            Some(file) => file.get(variable).map(OsStr::new),
            None => self.variables.get(variable).map(OsString::as_os_str),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// Reads a file that holds a secret. The error is the end of a sentence about the file.
fn read_secret(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    // Editors and `echo` end a file with a newline that is no part of the secret.
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("is empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_aliases() {
        let source = Source::of_pairs(&[("JWT_SECRET", "old"), ("DATA_DIR", "")]);
        assert_eq!(
            source.get("BETTER_AUTH_SECRET").unwrap().as_deref(),
            Some("old")
        );
        assert_eq!(source.get("DATA_DIR").unwrap(), None);
        let source = Source::of_pairs(&[("JWT_SECRET", "old"), ("BETTER_AUTH_SECRET", "new")]);
        assert_eq!(
            source.get("BETTER_AUTH_SECRET").unwrap().as_deref(),
            Some("new")
        );
    }

    #[test]
    fn a_secret_may_be_in_a_file_or_a_credential() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("BETTER_AUTH_SECRET");
        fs::write(&file, "from a file\n").unwrap();
        let source = Source::of_pairs(&[("BETTER_AUTH_SECRET_FILE", file.to_str().unwrap())]);
        assert_eq!(
            source.get("BETTER_AUTH_SECRET").unwrap().as_deref(),
            Some("from a file")
        );
        let source = Source {
            credentials: Some(directory.path().to_owned()),
            ..Source::default()
        };
        assert_eq!(
            source.get("BETTER_AUTH_SECRET").unwrap().as_deref(),
            Some("from a file")
        );
        assert_eq!(source.get("DATABASE_URL").unwrap(), None);
        let source = Source::of_pairs(&[("DATABASE_URL_FILE", "/nowhere/at/all")]);
        let problem = source.get("DATABASE_URL").unwrap_err();
        assert!(problem.starts_with("DATABASE_URL_FILE "), "{problem}");
    }

    #[test]
    fn a_named_file_that_cannot_be_used_is_an_error() {
        use std::os::unix::ffi::OsStringExt;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("JWT_SECRET");
        fs::write(&file, "\n").unwrap();
        let refused = |source: &Source, name| source.get(name).unwrap_err();

        let source = Source::of_pairs(&[("JWT_SECRET_FILE", file.to_str().unwrap())]);
        assert_eq!(
            refused(&source, "BETTER_AUTH_SECRET"),
            "JWT_SECRET_FILE names a file that is empty"
        );
        let source = Source {
            credentials: Some(directory.path().to_owned()),
            ..Source::default()
        };
        assert_eq!(
            refused(&source, "BETTER_AUTH_SECRET"),
            "JWT_SECRET is a systemd credential that is empty"
        );
        fs::write(&file, b"\xff").unwrap();
        assert!(
            refused(&source, "BETTER_AUTH_SECRET")
                .starts_with("JWT_SECRET is a systemd credential that cannot be read")
        );
        let source = Source {
            variables: HashMap::from([("WORKERS".to_owned(), OsString::from_vec(vec![0xff]))]),
            ..Source::default()
        };
        assert_eq!(refused(&source, "WORKERS"), "WORKERS must be UTF-8");
    }

    #[test]
    fn only_secrets_are_read_from_files() {
        let source = Source::of_pairs(&[("WORKERS_FILE", "/nowhere")]);
        assert_eq!(source.get("WORKERS").unwrap(), None);
    }
}
