//! Where a setting's value comes from.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use super::ConfigError;
use super::settings::{Setting, setting};

/// The environment the program was started in.
pub struct Source {
    variables: HashMap<String, String>,
    credentials: Option<PathBuf>,
}

impl Source {
    /// The environment of this process. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Source {
        let variables: HashMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        // systemd puts the credentials of a unit here: see systemd.exec(5), LoadCredential.
        let credentials = variables.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Source {
            variables,
            credentials,
        }
    }

    /// An environment of these names and values alone.
    pub fn of_pairs(pairs: &[(&str, &str)]) -> Source {
        let variables = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Source {
            variables,
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

    /// The value of a setting under its name or another it goes by. An empty value counts as none.
    ///
    /// A secret `X` may also be in the file that `X_FILE` names, or in the systemd credential `X`.
    ///
    /// # Errors
    /// When a file that was named cannot be read.
    pub fn get(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let (names, secret) = match setting(name) {
            Some(Setting {
                aliases, secret, ..
            }) => (std::iter::once(&name).chain(aliases.iter()), *secret),
            None => return Ok(None),
        };
        for name in names {
            if let Some(value) = self.variables.get(*name).filter(|value| !value.is_empty()) {
                return Ok(Some(value.clone()));
            }
            if secret && let Some(value) = self.read_file(name)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn read_file(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let named = format!("{name}_FILE");
        let path = match self.variables.get(&named).filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => match self
                .credentials
                .as_ref()
                .map(|directory| directory.join(name))
                .filter(|path| path.exists())
            {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        let text = fs::read_to_string(&path).map_err(|error| ConfigError {
            variable: named,
            problem: format!("names a file that cannot be read: {error}"),
        })?;
        // Editors and `echo` end a file with a newline that is no part of the secret.
        let text = text.trim_end_matches(['\r', '\n']);
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
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
    fn what_is_no_secret_is_not_read_from_files() {
        let source = Source::of_pairs(&[("WORKERS_FILE", "/nowhere")]);
        assert_eq!(source.get("WORKERS").unwrap(), None);
    }
}
