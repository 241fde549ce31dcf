//! Every setting: variable, default, check, secret or not.
//!
//! - [`accounts`]: those of accounts
//! - [`settings`]: the table of settings, from which `.env.example` and README are kept true
//! - [`tokens`]: the settings of tokens from elsewhere
//! - `values`: readers of the kinds of value that several settings have
//! - [`visitors`]: who may come how often, and from whose pages
//! - [`source`]: where a value comes from: the environment, a file named by `X_FILE`, a systemd credential
//! - [`env_file`]: files with settings in them
//!
//! A bad value stops the start with one line that names the variable and never the value.

pub mod accounts;
pub mod env_file;
pub mod settings;
pub mod source;
pub mod tokens;
mod values;
pub mod visitors;

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use accounts::Accounts;
use log::LevelFilter;
use source::Source;
use tokens::Tokens;
use values::{decimal, number, seconds, switch};
use visitors::Visitors;

use crate::edge::address::{self, Listen};
use crate::edge::client::{ProxyHeader, TrustedProxies};
use crate::edge::head::HeadLimits;
use crate::edge::limits::Limits;
use crate::logging::Format;
use crate::store::Schema;
use crate::store::connector::Target;

/// A setting that stops the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable.
    pub variable: String,
    /// What is wrong, as the end of a sentence that starts with the variable's name.
    pub problem: String,
}

impl ConfigError {
    fn new(variable: &str, problem: impl Into<String>) -> ConfigError {
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
    /// On a developer's machine: what is missing is made, and errors say why.
    Development,
    /// For others: nothing is made up, and errors say nothing of the inside.
    Production,
}

/// The settings of the server, checked.
#[derive(Clone)]
pub struct Config {
    /// The file that settings were also read from
    pub env_file: Option<PathBuf>,
    /// `ENVIRONMENT`
    pub environment: Environment,
    /// `LISTEN`, or `HOST` and `PORT`
    pub listen: Vec<Listen>,
    /// Whether systemd has handed sockets over, which come in place of `LISTEN`
    pub activated: bool,
    /// `SOCKET_MODE`
    pub socket_mode: u32,
    /// `DATA_DIR`
    pub data_dir: PathBuf,
    /// `DATABASE_URL`; `None`: a private PostgreSQL under `DATA_DIR`
    pub database: Option<Target>,
    /// `DATABASE_URL_UNPOOLED`
    pub database_unpooled: Option<Target>,
    /// `DB_SCHEMA`
    pub schema: Schema,
    /// `DB_POOL_SIZE`
    pub pool_size: u32,
    /// `DB_POOL_TIMEOUT`
    pub pool_timeout: Duration,
    /// `DB_CONNECT_TIMEOUT`
    pub connect_timeout: Duration,
    /// `DB_STATEMENT_TIMEOUT`
    pub statement_timeout: Duration,
    /// `DB_LOCK_TIMEOUT`
    pub lock_timeout: Duration,
    /// `MIGRATE`
    pub migrate: bool,
    /// `BETTER_AUTH_SECRET`; `None`: one is made under `DATA_DIR`
    pub secret: Option<Secret>,
    /// `BETTER_AUTH_SECRET_PREVIOUS`
    pub previous_secret: Option<Secret>,
    /// `JWT_EXPIRATION_HOURS`
    pub token_lifetime: Duration,
    /// `REGISTRATION` and what follows it
    pub accounts: Accounts,
    /// `AUTH_JWKS_…`, `JWT_ISSUER` and `JWT_AUDIENCE`
    pub tokens: Tokens,
    /// `WORKERS`
    pub workers: usize,
    /// `MAX_…`, `…_TIMEOUT` of connections and requests, `TRUSTED_PROXIES`, `PROXY_HEADER`
    pub limits: Limits,
    /// `RATE_LIMIT_…`, `ALLOWED_ORIGINS`, `HSTS_SECONDS`
    pub visitors: Visitors,
    /// `TLS_CERT_FILE` and `TLS_KEY_FILE`
    pub tls: Option<(PathBuf, PathBuf)>,
    /// `SELF_CHECK_SECONDS`; zero: never
    pub self_check: Duration,
    /// `STARTUP_TIMEOUT`
    pub startup_timeout: Duration,
    /// `SHUTDOWN_TIMEOUT`
    pub shutdown_timeout: Duration,
    /// `LOG_LEVEL`
    pub log_level: LevelFilter,
    /// `LOG_FORMAT`
    pub log_format: Format,
}

impl Config {
    /// Reads and checks every setting.
    ///
    /// # Errors
    /// The first setting that is wrong, by the name under which it was given.
    pub fn load(source: &Source) -> Result<Config, ConfigError> {
        Config::read(source).map_err(|error| ConfigError {
            variable: if settings::setting(&error.variable).is_some() {
                source.origin(&error.variable)
            } else {
                error.variable
            },
            problem: error.problem,
        })
    }

    fn read(source: &Source) -> Result<Config, ConfigError> {
        let listen = listen(source)?;
        let activated = source.activated();
        let environment = environment(source, &listen, activated)?;
        let database = target(source, "DATABASE_URL")?;
        let secret = secret(source, "BETTER_AUTH_SECRET")?;
        if environment == Environment::Production {
            let missing =
                |variable| ConfigError::new(variable, "must be set when ENVIRONMENT is production");
            database.as_ref().ok_or_else(|| missing("DATABASE_URL"))?;
            secret
                .as_ref()
                .ok_or_else(|| missing("BETTER_AUTH_SECRET"))?;
        }
        let database_is_here = database.as_ref().is_none_or(Target::is_on_this_machine);
        let workers = match number(source, "WORKERS", 1..=1_000)? {
            Some(workers) => workers,
            // Measured: with PostgreSQL on the same cores few workers are faster and their tail far shorter; with a
            // database some way off, throughput is workers divided by latency.
            None if database_is_here => 4.max(2 * cores()),
            None => 10,
        };
        let pool_size = number(source, "DB_POOL_SIZE", 1..=1_000)?.unwrap_or(workers + 2);
        let hours = decimal(source, "JWT_EXPIRATION_HOURS", 0.01..=8784.0)?.unwrap_or(24.0);
        Ok(Config {
            env_file: source.file().map(|file| file.path.clone()),
            environment,
            listen,
            activated,
            socket_mode: socket_mode(source)?,
            data_dir: PathBuf::from(
                source
                    .get("DATA_DIR")?
                    .unwrap_or_else(|| "./data".to_owned()),
            ),
            database,
            database_unpooled: target(source, "DATABASE_URL_UNPOOLED")?,
            schema: schema(source)?,
            pool_size: u32::try_from(pool_size).unwrap_or(u32::MAX),
            pool_timeout: seconds(source, "DB_POOL_TIMEOUT", Duration::from_secs(1))?,
            connect_timeout: seconds(source, "DB_CONNECT_TIMEOUT", Duration::from_secs(2))?,
            statement_timeout: seconds(source, "DB_STATEMENT_TIMEOUT", Duration::from_secs(3))?,
            lock_timeout: seconds(source, "DB_LOCK_TIMEOUT", Duration::from_secs(2))?,
            migrate: switch(source, "MIGRATE", true)?,
            secret,
            previous_secret: self::secret(source, "BETTER_AUTH_SECRET_PREVIOUS")?,
            token_lifetime: Duration::from_secs_f64(hours * 3600.0),
            accounts: Accounts::read(source, environment)?,
            tokens: Tokens::read(source)?,
            workers,
            limits: limits(source)?,
            visitors: Visitors::read(source, environment)?,
            tls: tls(source)?,
            self_check: Duration::from_secs_f64(
                decimal(source, "SELF_CHECK_SECONDS", 0.0..=3600.0)?.unwrap_or(10.0),
            ),
            startup_timeout: seconds(source, "STARTUP_TIMEOUT", Duration::from_secs(60))?,
            shutdown_timeout: seconds(source, "SHUTDOWN_TIMEOUT", Duration::from_secs(10))?,
            log_level: log_level(source)?,
            log_format: log_format(source)?,
        })
    }
}

fn listen(source: &Source) -> Result<Vec<Listen>, ConfigError> {
    if let Some(list) = source.get("LISTEN")? {
        return address::parse_list(&list).map_err(|problem| ConfigError::new("LISTEN", problem));
    }
    let host = source
        .get("HOST")?
        .unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = source.get("PORT")?.unwrap_or_else(|| "8000".to_owned());
    port.parse::<u16>()
        .ok()
        // Rust reads a sign as well.
        .filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| ConfigError::new("PORT", "must be a port number from 0 to 65535"))?;
    let address = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    address::parse_list(&address)
        .map_err(|_| ConfigError::new("HOST", "must be an IP address or localhost"))
}

fn environment(
    source: &Source,
    listen: &[Listen],
    activated: bool,
) -> Result<Environment, ConfigError> {
    match source.get("ENVIRONMENT")?.as_deref() {
        Some("development") => Ok(Environment::Development),
        Some("production") => Ok(Environment::Production),
        Some(_) => Err(ConfigError::new(
            "ENVIRONMENT",
            "must be development or production",
        )),
        // Where a socket that was handed over listens is not for us to guess.
        None if !activated && listen.iter().all(|listen| listen.address.is_local()) => {
            Ok(Environment::Development)
        }
        None => Err(ConfigError::new(
            "ENVIRONMENT",
            "must be set to production (or development) when listening on more than loopback",
        )),
    }
}

fn limits(source: &Source) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    let trusted_proxies = match source.get("TRUSTED_PROXIES")? {
        Some(list) => TrustedProxies::parse(&list)
            .map_err(|problem| ConfigError::new("TRUSTED_PROXIES", problem))?,
        None => default.trusted_proxies,
    };
    let trusted_proxies = match source.get("PROXY_HEADER")? {
        Some(name) => trusted_proxies.using(
            ProxyHeader::parse(&name)
                .map_err(|problem| ConfigError::new("PROXY_HEADER", problem))?,
        ),
        None => trusted_proxies,
    };
    let size = |variable, range, default| {
        Ok::<_, ConfigError>(number(source, variable, range)?.unwrap_or(default))
    };
    Ok(Limits {
        connections: size("MAX_CONNECTIONS", 1..=100_000, default.connections)?,
        connections_per_address: size(
            "MAX_CONNECTIONS_PER_IP",
            1..=100_000,
            default.connections_per_address,
        )?,
        head: HeadLimits {
            bytes: size("MAX_HEAD_BYTES", 1024..=1024 * 1024, default.head.bytes)?,
            fields: size("MAX_HEADERS", 8..=1_000, default.head.fields)?,
            target: size("MAX_PATH_BYTES", 64..=1024 * 1024, default.head.target)?,
        },
        body: size("MAX_BODY_BYTES", 1024..=64 * 1024 * 1024, default.body)?,
        bodies: size("MAX_BODIES_BYTES", 1024..=usize::MAX, default.bodies)?,
        answers: size("MAX_ANSWERS_BYTES", 1024..=usize::MAX, default.answers)?,
        head_time: seconds(source, "HEAD_TIMEOUT", default.head_time)?,
        body_time: seconds(source, "BODY_TIMEOUT", default.body_time)?,
        keep_alive: seconds(source, "KEEP_ALIVE_TIMEOUT", default.keep_alive)?,
        send_time: seconds(source, "SEND_TIMEOUT", default.send_time)?,
        queue_time: seconds(source, "QUEUE_TIMEOUT", default.queue_time)?,
        trusted_proxies,
    })
}

fn tls(source: &Source) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    match (source.get("TLS_CERT_FILE")?, source.get("TLS_KEY_FILE")?) {
        (Some(certificate), Some(key)) => {
            Ok(Some((PathBuf::from(certificate), PathBuf::from(key))))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::new(
            "TLS_KEY_FILE",
            "must be set when TLS_CERT_FILE is",
        )),
        (None, Some(_)) => Err(ConfigError::new(
            "TLS_CERT_FILE",
            "must be set when TLS_KEY_FILE is",
        )),
    }
}

fn log_level(source: &Source) -> Result<LevelFilter, ConfigError> {
    match source.get("LOG_LEVEL")? {
        None => Ok(LevelFilter::Info),
        Some(level) => level.parse().map_err(|_| {
            ConfigError::new("LOG_LEVEL", "must be error, warn, info, debug or trace")
        }),
    }
}

fn log_format(source: &Source) -> Result<Format, ConfigError> {
    match source.get("LOG_FORMAT")?.as_deref() {
        None | Some("text") => Ok(Format::Text),
        Some("json") => Ok(Format::Json),
        Some(_) => Err(ConfigError::new("LOG_FORMAT", "must be text or json")),
    }
}

fn socket_mode(source: &Source) -> Result<u32, ConfigError> {
    match source.get("SOCKET_MODE")? {
        None => Ok(0o660),
        Some(mode) => u32::from_str_radix(&mode, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| {
                ConfigError::new("SOCKET_MODE", "must be a file mode in octal, such as 0660")
            }),
    }
}

fn target(source: &Source, variable: &'static str) -> Result<Option<Target>, ConfigError> {
    source
        .get(variable)?
        .map(|url| Target::parse(&url).map_err(|problem| ConfigError::new(variable, problem)))
        .transpose()
}

fn secret(source: &Source, variable: &'static str) -> Result<Option<Secret>, ConfigError> {
    match source.get(variable)? {
        // Blanks at the ends are part of it, but are nothing that is hard to guess.
        Some(value) if value.trim().len() < 32 => Err(ConfigError::new(
            variable,
            "must have at least 32 bytes; `openssl rand -hex 32` makes a good one",
        )),
        value => Ok(value.map(Secret)),
    }
}

fn schema(source: &Source) -> Result<Schema, ConfigError> {
    let name = source
        .get("DB_SCHEMA")?
        .unwrap_or_else(|| "todo".to_owned());
    Schema::parse(&name).map_err(|problem| ConfigError::new("DB_SCHEMA", problem))
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::load(&Source::of_pairs(pairs))
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
        assert_eq!(config.environment, Environment::Development);
        assert_eq!(
            config.listen,
            address::parse_list("127.0.0.1:8000").unwrap()
        );
        assert!(config.database.is_none() && config.secret.is_none());
        assert!(config.workers >= 4);
        assert_eq!(config.pool_size as usize, config.workers + 2);
        assert_eq!(config.token_lifetime, Duration::from_secs(24 * 3600));
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
            (config.workers, config.pool_size),
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
        assert_eq!(config.listen, address::parse_list("[::1]:9000").unwrap());
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(
            format!("{:?}", Secret::new("hunter2".to_owned())),
            "(hidden)"
        );
    }
}
