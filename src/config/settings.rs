//! Every setting, one row each. Values, checks, `todo-api config`, `.env.example` and `docs/settings.md` follow from these rows.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use super::parsers::{
    by, file_mode, host, list, number, one_of, optional, path, seconds, secret, socket_address,
    switch, text, times,
};
use super::reader::{Origin, Reader};
use super::setting::{Setting, computed, settings, unset, value};
use super::{ConfigError, Environment, Secret, cores};
use crate::domain::address::{Listen, parse_list};
use crate::domain::networks::{ProxyHeader, TrustedProxies, networks};
use crate::domain::origins::Origins;
use crate::domain::schema::Schema;

settings! {
    /// Addresses
    listening: ListeningSettings {
        /// The host to listen on when `LISTEN` is not set.
        host: String = "HOST", value("127.0.0.1"), host;
        /// The port to listen on when `LISTEN` is not set.
        port: u16 = "PORT", value("8000"), number(0..=65_535);
        /// The addresses to listen on: `addr:port`, `[v6]:port` or `unix:path`, comma-separated. With `direct:` before one,
        /// tiny_http itself listens there, without the protection of the edge.
        addresses: Vec<Listen> = "LISTEN", computed("`HOST`:`PORT`", default_address), by(parse_list);
        /// The file mode of Unix sockets.
        socket_mode: u32 = "SOCKET_MODE", value("0660"), file_mode;
        /// A file with the PEM certificate chain. With it, TCP addresses speak TLS. It is read again when it changes, and on
        /// SIGHUP (which stops a server that runs in a terminal).
        tls_cert_file: Option<PathBuf> = "TLS_CERT_FILE", unset("none"), optional(path);
        /// A file with the PEM key of the certificate.
        tls_key_file: Option<PathBuf> = "TLS_KEY_FILE", unset("none"), optional(path);
    }

    /// The process
    process: ProcessSettings {
        /// `development` or `production`. Production needs `DATABASE_URL` and `BETTER_AUTH_SECRET`.
        environment: Environment = "ENVIRONMENT",
            computed("development on loopback, else it must be set", default_environment),
            one_of(&[("development", Environment::Development), ("production", Environment::Production)]);
        /// The directory of the private PostgreSQL and of the secret, which are made when none are given.
        data_dir: PathBuf = "DATA_DIR", value("./data"), path;
        /// Threads that answer requests of one user at once; others have one more for every eight, at least one. As many again for
        /// each `direct:` address.
        workers: usize = "WORKERS",
            computed("database on this machine: twice the cores, at least 4; else 10", default_workers),
            number(1..=1_000);
        /// Seconds between two checks that the server still answers; after three failures it exits. 0: never, except for the
        /// watchdog of systemd.
        self_check: Duration = "SELF_CHECK_SECONDS", value("10"), times(1.0, 0.0..=3_600.0);
        /// Seconds to wait for the database at start.
        startup_timeout: Duration = "STARTUP_TIMEOUT", value("60"), seconds;
        /// Seconds for requests in flight to finish after SIGTERM.
        shutdown_timeout: Duration = "SHUTDOWN_TIMEOUT", value("10"), seconds;
        /// `error`, `warn`, `info`, `debug` or `trace`. The environment variable `RUST_LOG` sets it per module. It is read again
        /// on SIGHUP when it is in a file.
        log_level: LevelFilter = "LOG_LEVEL", value("info"), one_of(LOG_LEVELS);
        /// `text`, or `json` for one object per line. In the journal of systemd, each line has its priority.
        log_as_json: bool = "LOG_FORMAT", value("text"), one_of(&[("text", false), ("json", true)]);
    }

    /// Database
    database: DatabaseSettings {
        /// The address of PostgreSQL, as libpq writes it: `postgresql://user:password@host/database?sslmode=verify-full`.
        url: Option<Secret> = "DATABASE_URL",
            unset("a private PostgreSQL in `DATA_DIR`").secret().or(&["NEON_DB_URL"]), optional(secret(0));
        /// A direct address of the same database for migrations, when `DATABASE_URL` is that of a pooler.
        url_unpooled: Option<Secret> = "DATABASE_URL_UNPOOLED", unset("`DATABASE_URL`").secret(), optional(secret(0));
        /// The schema that holds the tables. It is made when it is missing.
        schema: Schema = "DB_SCHEMA", value("todo"), by(Schema::parse);
        /// Connections kept open to PostgreSQL.
        pool_size: u32 = "DB_POOL_SIZE", computed("`WORKERS` + 2", default_pool_size), number(1..=1_002);
        /// Seconds a request waits for a connection before it is answered 503.
        pool_timeout: Duration = "DB_POOL_TIMEOUT", value("1"), seconds;
        /// Seconds for one attempt to connect.
        connect_timeout: Duration = "DB_CONNECT_TIMEOUT", value("2"), seconds;
        /// Seconds until a statement is cancelled and its request answered 503.
        statement_timeout: Duration = "DB_STATEMENT_TIMEOUT", value("3"), seconds;
        /// Seconds a statement waits for a lock.
        lock_timeout: Duration = "DB_LOCK_TIMEOUT", value("2"), seconds;
        /// Whether the server applies migrations when it starts. `off`: `todo-api migrate` applies them.
        migrate: bool = "MIGRATE", value("on"), switch;
    }

    /// Tokens
    tokens: TokenSettings {
        /// The key of HS256 bearer tokens, at least 32 bytes; shared with the front end that signs them.
        secret: Option<Secret> = "BETTER_AUTH_SECRET",
            unset("made and kept in `DATA_DIR`").secret().or(&["JWT_SECRET"]), optional(secret(32));
        /// The previous key, still accepted during a rotation.
        previous_secret: Option<Secret> = "BETTER_AUTH_SECRET_PREVIOUS", unset("none").secret(), optional(secret(32));
        /// Hours that tokens made here are valid. May be a fraction.
        lifetime: Duration = "JWT_EXPIRATION_HOURS", value("24"), times(3_600.0, 0.01..=8_784.0);
        /// A file with the public keys (JSON Web Key Set) of another issuer of tokens: EdDSA, ES256, RS256. It is read again on
        /// SIGHUP (which stops a server that runs in a terminal).
        key_set_file: Option<PathBuf> = "AUTH_JWKS_FILE", unset("none"), optional(path);
        /// The address of such a key set, in place of a file: `https`, or `http` on this machine. It is fetched again for an
        /// unknown key, at most once a minute, and when it is ten minutes old.
        key_set_url: Option<String> = "AUTH_JWKS_URL", unset("none"), optional(text);
        /// The issuers (`iss`) that tokens of a key set may have, comma-separated.
        issuers: Vec<String> = "JWT_ISSUER", unset("any"), list;
        /// The audiences (`aud`) of which tokens of a key set must have one, comma-separated.
        audiences: Vec<String> = "JWT_AUDIENCE", unset("any"), list;
    }

    /// Accounts
    accounts: AccountSettings {
        /// `open` or `closed`: whether clients may create accounts and change email addresses. `todo-api user` always may.
        registration_is_open: bool = "REGISTRATION",
            computed("open in development, closed in production", |reader| by_environment(reader, "open", "closed")),
            one_of(&[("open", true), ("closed", false)]);
        /// Days a refresh token is valid. A session that is not refreshed ends then. May be a fraction.
        refresh_lifetime: Duration = "REFRESH_TOKEN_DAYS", value("30"), times(86_400.0, 0.001..=3_660.0);
    }

    /// Limits on logins
    guessing: GuessingLimits {
        /// Failed logins of one account from one address (IPv6: /64) in 15 minutes; more are answered 429. From all addresses
        /// without a session of the account in the last 30 days together, ten times as many. 0: no limit.
        failures_per_account: u32 = "LOGIN_FAILURES_PER_ACCOUNT", value("10"), number(0..=1_000_000);
        /// Failed logins from one address (IPv6: /64) in 15 minutes; more are answered 429. 0: no limit.
        failures_per_address: u32 = "LOGIN_FAILURES_PER_IP", value("30"), number(0..=1_000_000);
        /// Attempts from one address (IPv6: /64) in an hour to register or to change an email address; more are answered 429.
        /// 0: no limit.
        registrations_per_address: u32 = "REGISTRATIONS_PER_IP", value("20"), number(0..=1_000_000);
        /// Refreshes from one address (IPv6: /64) in a minute; more are answered 429. 0: no limit.
        refreshes_per_address: u32 = "REFRESHES_PER_IP", value("60"), number(0..=1_000_000);
    }

    /// Requests
    requests: RequestSettings {
        /// Requests of one user in any hour; more are answered 429. 0: no limit.
        per_user: u32 = "RATE_LIMIT_PER_HOUR", value("1000"), number(0..=1_000_000_000);
        /// Requests without a valid token from one address (IPv6: /64) in any hour; more are answered 429. 0: no limit.
        per_address: u32 = "RATE_LIMIT_ANON_PER_HOUR", value("1000"), number(0..=1_000_000_000);
        /// The origins whose pages may call the API from a browser (CORS), as browsers write them, comma-separated, such as
        /// `https://app.example.com`; `*` for all, but without credentials; or `none`.
        origins: Origins = "ALLOWED_ORIGINS",
            computed("`http://localhost:3000` in development, none in production", |reader| {
                by_environment(reader, "http://localhost:3000", "none")
            }).or(&["CORS_ORIGINS"]), by(Origins::parse);
        /// Seconds for which browsers that came over TLS use nothing else (`Strict-Transport-Security`). 0 makes them forget it.
        hsts: Duration = "HSTS_SECONDS", value("31536000"), times(1.0, 0.0..=315_360_000.0);
        /// Who may read `/metrics` without a token: addresses and networks, comma-separated, or `none`. Requests through a proxy
        /// always need the token.
        metrics_networks: Vec<IpNet> = "METRICS_ALLOW", value("127.0.0.0/8,::1"), by(networks);
        /// A bearer token, at least 16 bytes, with which `/metrics` may be read from anywhere.
        metrics_token: Option<Secret> = "METRICS_TOKEN", unset("none").secret(), optional(secret(16));
    }

    /// Resource limits per connection and request
    edge: EdgeLimits {
        /// Bytes of a request's body; more are answered 413.
        body: usize = "MAX_BODY_BYTES", value("1048576"), number(1_024..=64 * 1_048_576);
        /// Bytes of a request line and its header fields together; more are answered 431.
        head_bytes: usize = "MAX_HEAD_BYTES", value("16384"), number(1_024..=1_048_576);
        /// Header fields of a request; more are answered 431.
        head_fields: usize = "MAX_HEADERS", value("64"), number(8..=1_000);
        /// Bytes of a request's target; more are answered 414.
        target_bytes: usize = "MAX_PATH_BYTES", value("4096"), number(64..=1_048_576);
        /// Connections at the same time, at most what the limit of descriptors allows. Those idle for a second are closed for new
        /// ones; then new ones are answered 503.
        connections: usize = "MAX_CONNECTIONS", value("10000"), number(1..=100_000);
        /// Connections at the same time from one address (IPv6: /64) that is neither loopback nor a trusted proxy.
        connections_per_address: usize = "MAX_CONNECTIONS_PER_IP", value("200"), number(1..=100_000);
        /// Bytes of all request bodies in memory together; more are answered 503.
        bodies: usize = "MAX_BODIES_BYTES", value("67108864"), number(1_024..=usize::MAX);
        /// Bytes of all answers not yet sent together; more are answered 503.
        answers: usize = "MAX_ANSWERS_BYTES", value("67108864"), number(1_024..=usize::MAX);
        /// Seconds for a request's head, from its first byte, and for a TLS handshake.
        head_time: Duration = "HEAD_TIMEOUT", value("10"), seconds;
        /// Seconds for a request's body. A body that stalls has 5, and one more for every 256 bytes that have come.
        body_time: Duration = "BODY_TIMEOUT", value("30"), seconds;
        /// Seconds a connection may be idle between requests.
        keep_alive: Duration = "KEEP_ALIVE_TIMEOUT", value("75"), seconds;
        /// Seconds without progress after which the connection of an answer is closed.
        send_time: Duration = "SEND_TIMEOUT", value("30"), seconds;
        /// Seconds a request waits for a worker before it is answered 503.
        queue_time: Duration = "QUEUE_TIMEOUT", value("2"), seconds;
        /// The proxies that are believed when they name the client: addresses and networks, comma-separated, or `none`. Unix
        /// sockets are trusted unless it is `none`.
        trusted_proxies: TrustedProxies = "TRUSTED_PROXIES", value("127.0.0.0/8,::1"), by(TrustedProxies::parse);
        /// The only header in which trusted proxies name the client: `x-forwarded-for` (with `X-Forwarded-Proto`) or `forwarded`.
        /// The proxy must set it.
        proxy_header: ProxyHeader = "PROXY_HEADER", value("x-forwarded-for"), by(ProxyHeader::parse);
    }
}

const LOG_LEVELS: &[(&str, LevelFilter)] = &[
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// The setting of that name.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn default_address(reader: &Reader<'_>) -> Result<String, ConfigError> {
    Ok(socket_address(&reader.text("HOST")?, &reader.text("PORT")?))
}

fn default_environment(reader: &Reader<'_>) -> Result<String, ConfigError> {
    let addresses =
        parse_list(&reader.text("LISTEN")?).map_err(|problem| reader.refuse("LISTEN", problem))?;
    // Where a socket that was handed over listens is not known here.
    if !reader.is_activated() && addresses.iter().all(|listen| listen.address.is_local()) {
        return Ok("development".to_owned());
    }
    Err(reader.refuse(
        "ENVIRONMENT",
        "must be set to production (or development) when listening on more than loopback",
    ))
}

/// Measured with PostgreSQL on the same two cores: 4, 6, 8 and 10 workers took 49, 53, 61 and 64 µs of CPU to read a task. Writes
/// wait for the disk and gain from more workers. With a remote database, throughput is workers divided by latency.
fn default_workers(reader: &Reader<'_>) -> Result<String, ConfigError> {
    let workers = if reader.database_is_local()? {
        4.max(2 * cores())
    } else {
        10
    };
    Ok(workers.to_string())
}

fn default_pool_size(reader: &Reader<'_>) -> Result<String, ConfigError> {
    let workers: usize = reader.text("WORKERS")?.parse().unwrap_or_default();
    Ok((workers + 2).to_string())
}

fn by_environment(
    reader: &Reader<'_>,
    development: &str,
    production: &str,
) -> Result<String, ConfigError> {
    let in_production = reader.text("ENVIRONMENT")? == "production";
    Ok(if in_production {
        production
    } else {
        development
    }
    .to_owned())
}
