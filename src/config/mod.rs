//! Every setting: name, typed default, parser, documentation, secret or not. Imports only `domain`.
//!
//! - [`settings`]: the rows, from which everything else follows
//! - [`setting`]: what a row is
//! - [`parsers`]: the kinds of values
//! - [`reader`]: reads the rows from their source
//! - [`source`]: where a value comes from: the environment, a file named by `X_FILE`, a systemd credential
//! - [`env_file`]: files with settings in them
//! - [`names`]: which setting a misspelt name means
//! - [`documents`]: `.env.example`, `docs/settings.md` and help, written from the rows
//!
//! A bad value stops the start with one line that names the variable and never the value.

pub mod documents;
pub mod env_file;
pub mod names;
mod parsers;
pub mod reader;
pub mod setting;
pub mod settings;
pub mod source;

use std::{fmt, thread};

use reader::Reader;
use source::Source;

pub use settings::{Config, EdgeLimits, GuessingLimits};

/// A setting that stops the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable.
    pub variable: String,
    /// What is wrong, as the end of a sentence that starts with the variable's name.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(variable: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            variable: variable.to_owned(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.variable, self.problem)
    }
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: String) -> Secret {
        Secret(value)
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// On a developer's machine: what is missing is made, and errors name their cause.
    Development,
    /// In use: database and secret must be given, and errors do not name their cause.
    Production,
}

/// Checks of values by the modules that own their types, which this module does not import.
pub struct ModuleChecks {
    /// Whether the database at this address runs on this machine.
    pub database_is_local: fn(&str) -> Result<bool, String>,
    /// Checks the address of a key set.
    pub key_set_url: fn(&str) -> Result<(), String>,
}

impl Config {
    /// Reads and checks every setting.
    ///
    /// # Errors
    /// The first setting that is wrong, by the name under which it was given.
    pub fn load(source: &Source, checks: &ModuleChecks) -> Result<Config, ConfigError> {
        let mut config = Config::read(Reader::new(source, checks))?;
        config.edge.trusted_proxies.header = config.edge.proxy_header;
        let reader = Reader::new(source, checks);
        config.check(&reader, checks)?;
        Ok(config)
    }

    /// Checks settings that depend on each other.
    fn check(&self, reader: &Reader<'_>, checks: &ModuleChecks) -> Result<(), ConfigError> {
        let refuse = |name, problem: &str| Err(reader.refuse(name, problem));
        reader.database_is_local()?;
        if let Some(url) = &self.database.url_unpooled {
            (checks.database_is_local)(url.expose())
                .map_err(|problem| reader.refuse("DATABASE_URL_UNPOOLED", problem))?;
        }
        if let Some(url) = &self.tokens.key_set_url {
            if self.tokens.key_set_file.is_some() {
                return refuse(
                    "AUTH_JWKS_URL",
                    "cannot be set together with AUTH_JWKS_FILE",
                );
            }
            (checks.key_set_url)(url).map_err(|problem| reader.refuse("AUTH_JWKS_URL", problem))?;
        }
        match (&self.listening.tls_cert_file, &self.listening.tls_key_file) {
            (Some(_), None) => return refuse("TLS_KEY_FILE", "must be set when TLS_CERT_FILE is"),
            (None, Some(_)) => return refuse("TLS_CERT_FILE", "must be set when TLS_KEY_FILE is"),
            _ => {}
        }
        let missing = "must be set when ENVIRONMENT is production";
        match self.process.environment {
            Environment::Development => Ok(()),
            _ if self.database.url.is_none() => refuse("DATABASE_URL", missing),
            _ if self.tokens.secret.is_none() => refuse("BETTER_AUTH_SECRET", missing),
            Environment::Production => Ok(()),
        }
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::address::parse_list;
    use std::time::Duration;

    fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::load(
            &Source::of_pairs(pairs),
            &ModuleChecks {
                database_is_local: |url| match url.strip_prefix("postgresql://") {
                    Some(rest) => Ok(rest.contains("localhost")),
                    None => Err("must be an address".to_owned()),
                },
                key_set_url: |url| match url.starts_with("https://") {
                    true => Ok(()),
                    false => Err("must start with https://".to_owned()),
                },
            },
        )
    }

    fn refused(pairs: &[(&str, &str)]) -> String {
        load(pairs)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn nothing_need_be_set() {
        let config = load(&[]).unwrap();
        assert_eq!(config.process.environment, Environment::Development);
        assert_eq!(
            config.listening.addresses,
            parse_list("127.0.0.1:8000").unwrap()
        );
        assert!(config.database.url.is_none() && config.tokens.secret.is_none());
        assert!(config.process.workers >= 4);
        assert_eq!(
            config.database.pool_size as usize,
            config.process.workers + 2
        );
        assert_eq!(config.tokens.lifetime, Duration::from_secs(24 * 3600));
    }

    #[test]
    fn a_public_address_needs_the_environment_said() {
        assert!(refused(&[("LISTEN", "0.0.0.0:80")]).starts_with("ENVIRONMENT must be set"));
        assert!(load(&[("LISTEN", "0.0.0.0:80"), ("ENVIRONMENT", "development")]).is_ok());
        assert!(refused(&[("ENVIRONMENT", "staging")]).starts_with("ENVIRONMENT must be"));
    }

    #[test]
    fn production_makes_nothing_up() {
        let secret = "s".repeat(32);
        let url = "postgresql://todo@db.example/todo";
        assert!(
            refused(&[("ENVIRONMENT", "production"), ("JWT_SECRET", &secret)])
                .starts_with("DATABASE_URL must be set")
        );
        assert!(
            refused(&[("ENVIRONMENT", "production"), ("NEON_DB_URL", url)])
                .starts_with("BETTER_AUTH_SECRET must be set")
        );
        let config = load(&[
            ("ENVIRONMENT", "production"),
            ("NEON_DB_URL", url),
            ("JWT_SECRET", &secret),
        ])
        .unwrap();
        assert_eq!(
            (config.process.workers, config.database.pool_size),
            (10, 12),
            "a database some way off"
        );
    }

    #[test]
    fn a_bad_value_is_named_and_not_repeated() {
        for (variable, value) in [
            ("BETTER_AUTH_SECRET", "hunter2-hunter2-hunter2-hunter2"),
            ("BETTER_AUTH_SECRET_PREVIOUS", "hunter2"),
            ("DATABASE_URL", "mysql://root:hunter2@localhost/x"),
            ("DB_SCHEMA", "hunter2; drop"),
            ("WORKERS", "hunter2"),
            ("PORT", "hunter2"),
            ("PORT", "+8123"),
            ("LISTEN", "hunter2"),
            ("JWT_EXPIRATION_HOURS", "-1"),
            ("STARTUP_TIMEOUT", "NaN"),
            ("MIGRATE", "hunter2"),
            ("MAX_CONNECTIONS", "0"),
            ("TRUSTED_PROXIES", "hunter2"),
            ("PROXY_HEADER", "hunter2"),
            ("ALLOWED_ORIGINS", "https://hunter2.example/"),
            ("HSTS_SECONDS", "-1"),
            ("RATE_LIMIT_PER_HOUR", "-1"),
            ("RATE_LIMIT_ANON_PER_HOUR", "hunter2"),
            ("SOCKET_MODE", "hunter2"),
            ("LOG_LEVEL", "hunter2"),
            ("HEAD_TIMEOUT", "0"),
            ("REGISTRATION", "hunter2"),
            ("REFRESH_TOKEN_DAYS", "0"),
            ("LOGIN_FAILURES_PER_IP", "-1"),
        ] {
            let line = refused(&[(variable, value)]);
            assert!(
                line.starts_with(&format!("{variable} ")),
                "{variable}: {line}"
            );
            assert!(!line.contains("hunter2") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_bad_value_is_named_as_it_was_given() {
        let blank = " ".repeat(40);
        for (variable, value) in [
            ("JWT_SECRET", "hunter2"),
            ("BETTER_AUTH_SECRET", &blank),
            ("NEON_DB_URL", "mysql://root:hunter2@localhost/x"),
            ("CORS_ORIGINS", "hunter2"),
        ] {
            let line = refused(&[(variable, value)]);
            assert!(line.starts_with(&format!("{variable} ")), "{line}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "hunter2").unwrap();
        let line = refused(&[("JWT_SECRET_FILE", file.path().to_str().unwrap())]);
        assert!(
            line.starts_with("what JWT_SECRET_FILE names must have"),
            "{line}"
        );
    }

    #[test]
    fn host_and_port_do_for_listen() {
        let config = load(&[("HOST", "::1"), ("PORT", "9000")]).unwrap();
        assert_eq!(
            config.listening.addresses,
            parse_list("[::1]:9000").unwrap()
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(
            format!("{:?}", Secret::new("hunter2".to_owned())),
            "(hidden)"
        );
    }

    #[test]
    fn several_issuers_may_be_named() {
        let issuers = "https://a.example, https://b.example";
        let config = load(&[("JWT_ISSUER", issuers)]).unwrap();
        assert_eq!(
            config.tokens.issuers,
            ["https://a.example", "https://b.example"]
        );
        for odd in [",", "a,", " ", "a,,b"] {
            let line = refused(&[("JWT_AUDIENCE", odd)]);
            assert!(line.starts_with("JWT_AUDIENCE must"), "{line}");
        }
    }

    #[test]
    fn settings_that_exclude_or_need_each_other_are_checked() {
        let keys = [
            ("AUTH_JWKS_FILE", "a"),
            ("AUTH_JWKS_URL", "https://a.example"),
        ];
        assert!(refused(&keys).starts_with("AUTH_JWKS_URL cannot"));
        assert!(refused(&[("AUTH_JWKS_URL", "ftp://a")]).starts_with("AUTH_JWKS_URL must start"));
        assert!(refused(&[("TLS_CERT_FILE", "a")]).starts_with("TLS_KEY_FILE must be set"));
        assert!(refused(&[("TLS_KEY_FILE", "a")]).starts_with("TLS_CERT_FILE must be set"));
        let line = refused(&[("DATABASE_URL_UNPOOLED", "mysql://hunter2")]);
        assert!(line.starts_with("DATABASE_URL_UNPOOLED must"), "{line}");
    }

    #[test]
    fn a_default_that_depends_on_the_environment_is_computed() {
        let development = load(&[]).unwrap();
        assert!(development.accounts.registration_is_open);
        let production = load(&[
            ("ENVIRONMENT", "production"),
            ("DATABASE_URL", "postgresql://localhost/todo"),
            ("BETTER_AUTH_SECRET", &"s".repeat(32)),
        ])
        .unwrap();
        assert!(!production.accounts.registration_is_open);
    }

    #[test]
    fn every_setting_has_a_name_of_its_own_and_documentation() {
        let mut names: Vec<&str> = settings::SETTINGS
            .iter()
            .flat_map(setting::Setting::names)
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        for setting in settings::SETTINGS {
            let sentence = setting.about.trim().ends_with(['.', '`']);
            assert!(sentence && !setting.group.is_empty(), "{}", setting.name);
        }
        assert_eq!(
            load(&[]).unwrap().origin.effective.len(),
            settings::SETTINGS.len()
        );
    }
}
