//! Every setting, one row each. Values, checks, `todo-api config`, help, `.env.example` and `docs/settings.md` follow from these rows.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use super::parsers::{
    by, file_mode, host, list, number, one_of, optional, path, seconds, secret, socket_address,
    switch, text, times,
};
use super::reader::{SettingsOrigin, SettingsReader};
use super::setting::Default::{Computed, Unset, Value};
use super::setting::{Setting, settings};
use super::{Environment, Secret, cores};
use crate::domain::address::{Listen, parse_list};
use crate::domain::networks::{ProxyHeader, TrustedProxies, networks};
use crate::domain::origins::Origins;
use crate::domain::schema::Schema;

settings! {
    /// Addresses
    listening: ListeningSettings {
        /// The host to listen on when `LISTEN` is not set.
        host: String = "HOST", Value("127.0.0.1"), host;
        /// The port to listen on when `LISTEN` is not set.
        port: u16 = "PORT", Value("8000"), number(0..=65_535);
        /// The addresses to listen on: `addr:port`, `[v6]:port` or `unix:path`, comma-separated. With `direct:` before one,
        /// tiny_http itself listens there, without the protection of the edge.
        addresses: Vec<Listen> = "LISTEN", Computed("`HOST`:`PORT`", default_address), by(parse_list);
        /// The file mode of Unix sockets.
        socket_mode: u32 = "SOCKET_MODE", Value("0660"), file_mode;
        /// A file with the PEM certificate chain. With it, TCP addresses speak TLS. It is read again when it changes, and on
        /// SIGHUP (which stops a server that runs in a terminal).
        tls_cert_file: Option<PathBuf> = "TLS_CERT_FILE", Unset("none"), optional(path);
        /// A file with the PEM key of the certificate.
        tls_key_file: Option<PathBuf> = "TLS_KEY_FILE", Unset("none"), optional(path);
    }

    /// The process
    process: ProcessSettings {
        /// `development` or `production`. Production needs `DATABASE_URL` and `BETTER_AUTH_SECRET`.
        environment: Environment = "ENVIRONMENT",
            Computed("development on loopback, else it must be set", default_environment),
            one_of(&[("development", Environment::Development), ("production", Environment::Production)]);
        /// The directory of the private PostgreSQL and of the secret, which are created if none are configured.
        data_dir: PathBuf = "DATA_DIR", Value("./data"), path;
        /// Threads that may answer requests of one user at the same time. One more for every eight, and at least one, is reserved for
        /// other users. Each `direct:` address has as many of its own.
        workers: usize = "WORKERS",
            Computed("database on this machine: three times the cores, at least 6; else 10", default_workers),
            number(1..=1_000);
        /// Seconds between two self-checks; after three failures the server exits. 0: no self-checks, except for the watchdog of
        /// systemd.
        self_check: Duration = "SELF_CHECK_SECONDS", Value("10"), times(1.0, 0.0..=3_600.0);
        /// Seconds to wait for the database at start.
        startup_timeout: Duration = "STARTUP_TIMEOUT", Value("60"), seconds;
        /// Seconds for requests in flight to finish after SIGTERM.
        shutdown_timeout: Duration = "SHUTDOWN_TIMEOUT", Value("10"), seconds;
        /// `error`, `warn`, `info`, `debug` or `trace`. The environment variable `RUST_LOG` sets it per module. It is read again
        /// on SIGHUP when it is in a file.
        log_level: LevelFilter = "LOG_LEVEL", Value("info"), one_of(LOG_LEVELS);
        /// `text`, or `json` for one object per line. In the journal of systemd, each line has its priority.
        log_as_json: bool = "LOG_FORMAT", Value("text"), one_of(&[("text", false), ("json", true)]);
    }

    /// Database
    database: DatabaseSettings {
        /// The address of PostgreSQL, as libpq writes it: `postgresql://user:password@host/database?sslmode=verify-full`.
        url: Option<Secret> = "DATABASE_URL" or "NEON_DB_URL" [secret], Unset("a private PostgreSQL in `DATA_DIR`"), optional(secret(0));
        /// A direct address of the same database for migrations, when `DATABASE_URL` is that of a pooler.
        url_unpooled: Option<Secret> = "DATABASE_URL_UNPOOLED" [secret], Unset("`DATABASE_URL`"), optional(secret(0));
        /// The schema of the tables. It is created if it is missing.
        schema: Schema = "DB_SCHEMA", Value("todo"), by(Schema::parse);
        /// Connections kept open to PostgreSQL.
        pool_size: u32 = "DB_POOL_SIZE", Computed("`WORKERS` + 2", default_pool_size), number(1..=1_002);
        /// Seconds a request waits for a connection before it is answered 503.
        pool_timeout: Duration = "DB_POOL_TIMEOUT", Value("1"), seconds;
        /// Seconds for one attempt to connect.
        connect_timeout: Duration = "DB_CONNECT_TIMEOUT", Value("2"), seconds;
        /// Seconds until a statement is cancelled and its request answered 503.
        statement_timeout: Duration = "DB_STATEMENT_TIMEOUT", Value("3"), seconds;
        /// Seconds a statement waits for a lock.
        lock_timeout: Duration = "DB_LOCK_TIMEOUT", Value("2"), seconds;
        /// Whether the server applies migrations when it starts. `off`: `todo-api migrate` applies them.
        migrate: bool = "MIGRATE", Value("on"), switch;
        /// Days that a deleted task stays in the trash, from which it can be restored. May be a fraction. 0: there is no trash.
        trash: Duration = "TRASH_DAYS", Value("30"), times(86_400.0, 0.0..=3_660.0);
        /// Days that the ids of deleted tasks are kept for clients that ask for changes; a client that has not asked for longer must
        /// copy all tasks again. At least `TRASH_DAYS`.
        changes: Duration = "CHANGES_DAYS", Value("90"), times(86_400.0, 0.0..=3_660.0);
    }

    /// Tokens
    tokens: TokenSettings {
        /// The key of HS256 bearer tokens, at least 32 bytes; shared with the front end that signs them.
        secret: Option<Secret> = "BETTER_AUTH_SECRET" or "JWT_SECRET" [secret], Unset("created and kept in `DATA_DIR`"), optional(secret(32));
        /// The previous key, still accepted during a rotation.
        previous_secret: Option<Secret> = "BETTER_AUTH_SECRET_PREVIOUS" [secret], Unset("none"), optional(secret(32));
        /// Hours for which tokens of this server are valid. May be a fraction.
        lifetime: Duration = "JWT_EXPIRATION_HOURS", Value("24"), times(3_600.0, 0.01..=8_784.0);
        /// A file with the public keys (JSON Web Key Set) of another issuer of tokens: EdDSA, ES256, RS256. It is read again on
        /// SIGHUP (which stops a server that runs in a terminal).
        key_set_file: Option<PathBuf> = "AUTH_JWKS_FILE", Unset("none"), optional(path);
        /// The address of such a key set, instead of a file: `https`, or `http` on this machine. It is fetched again when it
        /// is ten minutes old, and for unknown keys: five times for one client, then once a minute.
        key_set_url: Option<String> = "AUTH_JWKS_URL", Unset("none"), optional(text);
        /// The issuers (`iss`) that tokens of a key set may have, comma-separated.
        issuers: Vec<String> = "JWT_ISSUER", Unset("any"), list;
        /// The audiences (`aud`) of which tokens of a key set must have one, comma-separated.
        audiences: Vec<String> = "JWT_AUDIENCE", Unset("any"), list;
    }

    /// Accounts
    accounts: AccountSettings {
        /// `open` or `closed`: whether clients may create accounts and change email addresses. `todo-api user` always may.
        registration_is_open: bool = "REGISTRATION",
            Computed("open in development, closed in production", |reader| by_environment(reader, "open", "closed")),
            one_of(&[("open", true), ("closed", false)]);
        /// Days a refresh token is valid. A session that is not refreshed ends then. May be a fraction.
        refresh_lifetime: Duration = "REFRESH_TOKEN_DAYS", Value("30"), times(86_400.0, 0.001..=3_660.0);
    }

    /// Limits on logins
    guessing: GuessingLimits {
        /// Failed logins of one account from one address (IPv6: /64) in 15 minutes; more are answered 429. All addresses
        /// without a session of the account in the last 30 days together may have ten times as many. 0: no limit.
        failures_per_account: u32 = "LOGIN_FAILURES_PER_ACCOUNT", Value("10"), number(0..=1_000_000);
        /// Failed logins from one address (IPv6: /64) in 15 minutes; more are answered 429. 0: no limit.
        failures_per_address: u32 = "LOGIN_FAILURES_PER_IP", Value("30"), number(0..=1_000_000);
        /// Attempts from one address (IPv6: /64) in an hour to register or to change an email address; more are answered 429.
        /// 0: no limit.
        registrations_per_address: u32 = "REGISTRATIONS_PER_IP", Value("20"), number(0..=1_000_000);
        /// Refreshes from one address (IPv6: /64) in a minute; more are answered 429. 0: no limit.
        refreshes_per_address: u32 = "REFRESHES_PER_IP", Value("60"), number(0..=1_000_000);
    }

    /// Requests
    requests: RequestSettings {
        /// Requests of one user in any hour; more are answered 429. 0: no limit.
        per_user: u32 = "RATE_LIMIT_PER_HOUR", Value("1000"), number(0..=1_000_000_000);
        /// Requests without a valid token from one address (IPv6: /64) in any hour; more are answered 429. 0: no limit.
        per_address: u32 = "RATE_LIMIT_ANON_PER_HOUR", Value("1000"), number(0..=1_000_000_000);
        /// The origins whose pages may call the API from a browser (CORS), as browsers write them, comma-separated, such as
        /// `https://app.example.com`; `*` for all, but without credentials; or `none`.
        origins: Origins = "ALLOWED_ORIGINS" or "CORS_ORIGINS",
            Computed("`http://localhost:3000` in development, none in production", |reader| {
                by_environment(reader, "http://localhost:3000", "none")
            }), by(Origins::parse);
        /// Seconds after a visit over TLS for which browsers use TLS only (`Strict-Transport-Security`). 0 ends that.
        hsts: Duration = "HSTS_SECONDS", Value("31536000"), times(1.0, 0.0..=315_360_000.0);
        /// Who may read `/metrics` without a token: addresses and networks, comma-separated, or `none`. Requests through a proxy
        /// always need the token.
        metrics_networks: Vec<IpNet> = "METRICS_ALLOW", Value("127.0.0.0/8,::1"), by(networks);
        /// A bearer token, at least 16 bytes, with which `/metrics` may be read from anywhere.
        metrics_token: Option<Secret> = "METRICS_TOKEN" [secret], Unset("none"), optional(secret(16));
    }

    /// Resource limits per connection and request
    edge: EdgeLimits {
        /// Bytes of a request's body; more are answered 413.
        body: usize = "MAX_BODY_BYTES", Value("1048576"), number(1_024..=64 * 1_048_576);
        /// Bytes of a request line and its header fields together; more are answered 431.
        head_bytes: usize = "MAX_HEAD_BYTES", Value("16384"), number(1_024..=1_048_576);
        /// Header fields of a request; more are answered 431.
        head_fields: usize = "MAX_HEADERS", Value("64"), number(8..=1_000);
        /// Bytes of a request's target; more are answered 414.
        target_bytes: usize = "MAX_PATH_BYTES", Value("4096"), number(64..=1_048_576);
        /// Connections at the same time, at most what the limit of descriptors allows. Those idle for a second are closed for new
        /// ones; then new ones are answered 503.
        connections: usize = "MAX_CONNECTIONS", Value("10000"), number(1..=100_000);
        /// Connections at the same time from one address (IPv6: /64) that is neither loopback nor a trusted proxy.
        connections_per_address: usize = "MAX_CONNECTIONS_PER_IP", Value("200"), number(1..=100_000);
        /// Bytes of all request bodies in memory together; more are answered 503.
        bodies: usize = "MAX_BODIES_BYTES", Value("67108864"), number(1_024..=usize::MAX);
        /// Bytes of all answers not yet sent together; more are answered 503.
        answers: usize = "MAX_ANSWERS_BYTES", Value("67108864"), number(1_024..=usize::MAX);
        /// Seconds for a request's head, from its first byte, and for a TLS handshake.
        head_time: Duration = "HEAD_TIMEOUT", Value("10"), seconds;
        /// Seconds for a request's body. A slow body has less time: 5 seconds, and one more for every 256 bytes received.
        body_time: Duration = "BODY_TIMEOUT", Value("30"), seconds;
        /// Seconds a connection may be idle between requests.
        keep_alive: Duration = "KEEP_ALIVE_TIMEOUT", Value("75"), seconds;
        /// Seconds without progress after which the connection of an answer is closed.
        send_time: Duration = "SEND_TIMEOUT", Value("30"), seconds;
        /// Seconds a request waits for a worker before it is answered 503.
        queue_time: Duration = "QUEUE_TIMEOUT", Value("2"), seconds;
        /// The proxies whose header names the client: addresses and networks, comma-separated, or `none`. Unix sockets are trusted
        /// unless it is `none`.
        trusted_proxies: TrustedProxies = "TRUSTED_PROXIES", Value("127.0.0.0/8,::1"), by(TrustedProxies::parse);
        /// The only header in which trusted proxies name the client: `x-forwarded-for` (with `X-Forwarded-Proto`) or `forwarded`.
        /// The proxy must set it.
        proxy_header: ProxyHeader = "PROXY_HEADER", Value("x-forwarded-for"), by(ProxyHeader::parse);
    }
}

const LOG_LEVELS: &[(&str, LevelFilter)] = &[
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// The setting with this name.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn default_address(reader: &SettingsReader<'_>) -> Result<String, String> {
    Ok(socket_address(&reader.text("HOST")?, &reader.text("PORT")?))
}

fn default_environment(reader: &SettingsReader<'_>) -> Result<String, String> {
    let addresses =
        parse_list(&reader.text("LISTEN")?).map_err(|problem| reader.refuse("LISTEN", problem))?;
    // The address of a socket that was handed over is not known here.
    if !reader.is_activated() && addresses.iter().all(|listen| listen.address.is_local()) {
        return Ok("development".to_owned());
    }
    let problem = "must be set to production (or development) when listening on more than loopback";
    Err(reader.refuse("ENVIRONMENT", problem))
}

/// Measured with PostgreSQL on the same two cores, 32 connections: 4, 6 and 8 workers listed 20 tasks 19,500, 20,400 and 20,700 times
/// a second, created 20,200, 22,900 and 22,400 tasks, and answered 24,600, 29,000 and 28,900 mixed requests. With a remote database,
/// throughput is workers divided by latency, but for requests that are grouped.
fn default_workers(reader: &SettingsReader<'_>) -> Result<String, String> {
    Ok(match reader.database_is_local()? {
        true => 6.max(3 * cores()).to_string(),
        false => "10".to_owned(),
    })
}

fn default_pool_size(reader: &SettingsReader<'_>) -> Result<String, String> {
    let workers: usize = reader.text("WORKERS")?.parse().unwrap_or_default();
    Ok((workers + 2).to_string())
}

fn by_environment(
    reader: &SettingsReader<'_>,
    development: &str,
    production: &str,
) -> Result<String, String> {
    Ok(match reader.text("ENVIRONMENT")?.as_str() {
        "production" => production.to_owned(),
        _ => development.to_owned(),
    })
}
