//! Every setting: name, typed default, parser, documentation, secret or not. Imports only `domain`.
//!
//! - [`settings`]: the rows, from which everything else follows
//! - [`setting`]: the parts of a row
//! - `parsers`: the kinds of values
//! - [`reader`]: reads the rows from their source
//! - [`source`]: the environment, files named by `X_FILE`, systemd credentials
//! - [`env_file`]: files with settings
//! - [`names`]: finds the setting that a misspelt name means
//! - [`documents`]: help on settings
//!
//! An error is a sentence that names the variable and never the value. It stops the start.

pub mod documents;
pub mod env_file;
pub mod names;
mod parsers;
pub mod reader;
pub mod setting;
pub mod settings;
pub mod source;

use std::{fmt, thread};

use reader::SettingsReader;
use source::Source;

pub use settings::{
    AccountSettings, Config, DatabaseSettings, EdgeLimits, GuessingLimits, RequestSettings,
    TokenSettings,
};

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
    /// A developer's machine: a missing database and secret are created, and errors name their cause.
    Development,
    /// Production: database and secret must be given, and errors do not name their cause.
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
    pub fn load(source: &Source, checks: &ModuleChecks) -> Result<Config, String> {
        let mut config = Config::read(SettingsReader::new(source, checks))?;
        config.edge.trusted_proxies.header = config.edge.proxy_header;
        config.check(&SettingsReader::new(source, checks), checks)?;
        Ok(config)
    }

    /// Checks settings that depend on each other.
    fn check(&self, reader: &SettingsReader<'_>, checks: &ModuleChecks) -> Result<(), String> {
        let (listening, tokens) = (&self.listening, &self.tokens);
        reader.database_is_local()?;
        if let Some(url) = &self.database.url_unpooled {
            (checks.database_is_local)(url.expose())
                .map_err(|problem| reader.refuse("DATABASE_URL_UNPOOLED", &problem))?;
        }
        if let Some(url) = &tokens.key_set_url {
            (checks.key_set_url)(url)
                .map_err(|problem| reader.refuse("AUTH_JWKS_URL", &problem))?;
        }
        let (cert, key) = (&listening.tls_cert_file, &listening.tls_key_file);
        let in_production = self.process.environment == Environment::Production;
        let missing = "must be set when ENVIRONMENT is production";
        let both = "cannot be set together with AUTH_JWKS_FILE";
        let (name, problem) = if tokens.key_set_url.is_some() && tokens.key_set_file.is_some() {
            ("AUTH_JWKS_URL", both)
        } else if cert.is_some() && key.is_none() {
            ("TLS_KEY_FILE", "must be set when TLS_CERT_FILE is")
        } else if cert.is_none() && key.is_some() {
            ("TLS_CERT_FILE", "must be set when TLS_KEY_FILE is")
        } else if self.database.changes < self.database.trash {
            ("CHANGES_DAYS", "must be at least TRASH_DAYS")
        } else if in_production && self.database.url.is_none() {
            ("DATABASE_URL", missing)
        } else if in_production && tokens.secret.is_none() {
            ("BETTER_AUTH_SECRET", missing)
        } else {
            return Ok(());
        };
        Err(reader.refuse(name, problem))
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

    fn load(pairs: &[(&str, &str)]) -> Result<Config, String> {
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
        load(pairs).err().unwrap_or_default()
    }

    #[test]
    fn every_setting_has_a_default() {
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
    fn a_public_address_needs_an_explicit_environment() {
        assert!(refused(&[("LISTEN", "0.0.0.0:80")]).starts_with("ENVIRONMENT must be set"));
        assert!(load(&[("LISTEN", "0.0.0.0:80"), ("ENVIRONMENT", "development")]).is_ok());
        assert!(refused(&[("ENVIRONMENT", "staging")]).starts_with("ENVIRONMENT must be"));
    }

    #[test]
    fn production_needs_a_database_and_a_secret() {
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
            "a database on another machine"
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
            line.starts_with("the file that JWT_SECRET_FILE names must have"),
            "{line}"
        );
    }

    #[test]
    fn host_and_port_make_up_listen() {
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
        assert!(refused(&[("TRASH_DAYS", "91")]).starts_with("CHANGES_DAYS must be at least"));
        assert!(load(&[("TRASH_DAYS", "91"), ("CHANGES_DAYS", "91")]).is_ok());
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
