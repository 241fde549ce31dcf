//! Where a setting's value comes from.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::env_file::EnvFile;
use super::settings::{SETTINGS, setting};
use super::{ConfigError, names};

/// The environment the program was started in.
pub struct Source {
    variables: HashMap<String, OsString>,
    /// A file with settings, for what the environment does not name.
    file: Option<EnvFile>,
    credentials: Option<PathBuf>,
}

/// The place where a setting's value is.
enum Place {
    /// The environment variable of this name.
    Variable(&'static str),
    /// A file that is named by the environment variable `X_FILE`.
    File(String, PathBuf),
    /// A credential of systemd.
    Credential(&'static str, PathBuf),
}

impl Source {
    /// The environment of this process.
    pub fn of_process() -> Source {
        let variables: HashMap<String, OsString> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        // systemd puts the credentials of a unit here: see systemd.exec(5), LoadCredential.
        let credentials = variables.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Source {
            variables,
            file: None,
            credentials,
        }
    }

    /// The same, with what this file says where the environment says nothing: not even that a variable is empty.
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

    /// An environment of these names and values alone.
    pub fn of_pairs(pairs: &[(&str, &str)]) -> Source {
        let variables = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        Source {
            variables,
            file: None,
            credentials: None,
        }
    }

    /// Whether systemd has handed sockets over to this process (sd_listen_fds(3)).
    pub fn activated(&self) -> bool {
        let is = |name: &str, value: &str| self.variables.get(name).is_some_and(|set| set == value);
        self.variables.contains_key("LISTEN_FDS")
            && !is("LISTEN_FDS", "0")
            && is("LISTEN_PID", &std::process::id().to_string())
    }

    /// The value of a setting under its name or another it goes by. An empty variable counts as none.
    ///
    /// A secret `X` may also be in the file that `X_FILE` names, or in the systemd credential `X`.
    ///
    /// # Errors
    /// When what holds the value cannot be read, is not UTF-8, or is an empty file.
    pub fn get(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        match self.place(name) {
            None => Ok(None),
            Some(Place::Variable(variable)) => {
                let value = self.set(variable).and_then(OsStr::to_str);
                value
                    .map(|value| Some(value.to_owned()))
                    .ok_or_else(|| ConfigError::new(variable, "must be UTF-8"))
            }
            Some(Place::File(variable, path)) => read_secret(&path).map(Some).map_err(|problem| {
                ConfigError::new(&variable, format!("names a file that {problem}"))
            }),
            Some(Place::Credential(name, path)) => {
                read_secret(&path).map(Some).map_err(|problem| {
                    ConfigError::new(name, format!("is a systemd credential that {problem}"))
                })
            }
        }
    }

    /// Where the value of a setting comes from, as its user named it; the setting's name where it comes from nowhere.
    pub fn origin(&self, name: &str) -> String {
        match setting(name).and_then(|setting| self.place(setting.name)) {
            None => name.to_owned(),
            Some(Place::Variable(variable)) => variable.to_owned(),
            Some(Place::File(variable, _)) => format!("what {variable} names"),
            Some(Place::Credential(name, _)) => format!("the systemd credential {name}"),
        }
    }

    /// The files that secrets are read from.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = SETTINGS
            .iter()
            .filter(|setting| setting.secret)
            .filter_map(|setting| match self.place(setting.name)? {
                Place::Variable(variable) => self
                    .file
                    .as_ref()
                    .filter(|_| !self.variables.contains_key(variable))
                    .map(|file| file.path.clone()),
                Place::File(_, path) | Place::Credential(_, path) => Some(path),
            })
            .collect();
        files.dedup();
        files
    }

    /// Environment variables that look like a misspelt setting, each as a sentence.
    pub fn misspelt(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .variables
            .keys()
            .filter_map(|name| {
                let meant = names::meant(name)?;
                Some(format!(
                    "the environment variable {name} is no setting; {meant} is"
                ))
            })
            .collect();
        found.sort();
        found
    }

    /// Where the value of a setting comes from, for a list of all of them; `None` where it comes from nowhere.
    pub fn place_in_words(&self, name: &str) -> Option<String> {
        let named = |variable: &str| match &self.file {
            Some(file) if !self.variables.contains_key(variable) => {
                format!("{variable} in {}", file.path.display())
            }
            _ => format!("the environment's {variable}"),
        };
        self.place(name).map(|place| match place {
            Place::Variable(variable) => named(variable),
            Place::File(variable, path) => {
                format!("the file {} ({})", path.display(), named(&variable))
            }
            Place::Credential(name, _) => format!("the systemd credential {name}"),
        })
    }

    fn set(&self, variable: &str) -> Option<&OsStr> {
        self.variables
            .get(variable)
            .map(OsString::as_os_str)
            .or_else(|| self.file.as_ref()?.get(variable).map(OsStr::new))
            .filter(|value| !value.is_empty())
    }

    fn place(&self, name: &str) -> Option<Place> {
        let setting = setting(name);
        debug_assert!(setting.is_some(), "{name} is not in the table of settings");
        let setting = setting?;
        setting.names().find_map(|name| {
            if self.set(name).is_some() {
                return Some(Place::Variable(name));
            }
            if !setting.secret {
                return None;
            }
            let file = format!("{name}_FILE");
            if let Some(path) = self.set(&file) {
                let path = PathBuf::from(path);
                return Some(Place::File(file, path));
            }
            let path = self.credentials.as_ref()?.join(name);
            // One that cannot be looked at is there, and reading it says why not.
            path.try_exists()
                .unwrap_or(true)
                .then_some(Place::Credential(name, path))
        })
    }
}

/// Reads a file that holds a secret, or the end of a sentence about the file.
fn read_secret(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    // Editors and `echo` end a file with a newline that is no part of the secret.
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_goes_by_any_of_its_names() {
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
    fn a_secret_may_lie_in_a_file_or_a_credential() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("BETTER_AUTH_SECRET");
        fs::write(&file, "from a file\n").unwrap();
        let source = Source::of_pairs(&[("BETTER_AUTH_SECRET_FILE", file.to_str().unwrap())]);
        assert_eq!(
            source.get("BETTER_AUTH_SECRET").unwrap().as_deref(),
            Some("from a file")
        );
        let source = Source {
            variables: HashMap::new(),
            file: None,
            credentials: Some(directory.path().to_owned()),
        };
        assert_eq!(
            source.get("BETTER_AUTH_SECRET").unwrap().as_deref(),
            Some("from a file")
        );
        assert_eq!(source.get("DATABASE_URL").unwrap(), None);
        let source = Source::of_pairs(&[("DATABASE_URL_FILE", "/nowhere/at/all")]);
        assert_eq!(
            source.get("DATABASE_URL").unwrap_err().variable,
            "DATABASE_URL_FILE"
        );
    }

    #[test]
    fn what_is_named_and_cannot_be_used_is_not_taken_for_none() {
        use std::os::unix::ffi::OsStringExt;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("JWT_SECRET");
        fs::write(&file, "\n").unwrap();
        let refused = |source: &Source, name| source.get(name).unwrap_err().to_string();

        let source = Source::of_pairs(&[("JWT_SECRET_FILE", file.to_str().unwrap())]);
        assert_eq!(
            refused(&source, "BETTER_AUTH_SECRET"),
            "JWT_SECRET_FILE names a file that is empty"
        );
        let source = Source {
            variables: HashMap::new(),
            file: None,
            credentials: Some(directory.path().to_owned()),
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
            file: None,
            credentials: None,
        };
        assert_eq!(refused(&source, "WORKERS"), "WORKERS must be UTF-8");
    }

    #[test]
    fn what_is_no_secret_is_not_read_from_files() {
        let source = Source::of_pairs(&[("WORKERS_FILE", "/nowhere")]);
        assert_eq!(source.get("WORKERS").unwrap(), None);
    }
}
