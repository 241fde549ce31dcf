//! The table of settings. What reads them is [`super::Config`]; what tells of them (`.env.example`, README) is tested against
//! this table.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// Other variables it is read from, after its own.
    pub aliases: &'static [&'static str],
    /// The default, as people read it.
    pub default: &'static str,
    /// Whether it must never be shown, and may lie in a file.
    pub secret: bool,
    /// What it is, in one sentence.
    pub help: &'static str,
}

const fn plain(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting {
        name,
        aliases: &[],
        default,
        secret: false,
        help,
    }
}

const fn secret(
    name: &'static str,
    aliases: &'static [&'static str],
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        aliases,
        default,
        secret: true,
        help,
    }
}

/// Every setting of the program.
pub const SETTINGS: &[Setting] = &[
    plain(
        "ENVIRONMENT",
        "development on loopback, else it must be said",
        "`development` or `production`; production needs `DATABASE_URL` and `BETTER_AUTH_SECRET`",
    ),
    plain(
        "LISTEN",
        "127.0.0.1:8000",
        "Where to listen: `addr:port`, `[v6]:port`, `unix:path`, comma-separated; `direct:` before one has tiny_http itself listen there, without the edge's protection",
    ),
    plain(
        "HOST",
        "127.0.0.1",
        "Used with `PORT` when `LISTEN` is not set",
    ),
    plain("PORT", "8000", "Used with `HOST` when `LISTEN` is not set"),
    plain(
        "DATA_DIR",
        "./data",
        "Where the private PostgreSQL and the secret lie that are made when none are given",
    ),
    secret(
        "DATABASE_URL",
        &["NEON_DB_URL"],
        "a private PostgreSQL in `DATA_DIR`",
        "PostgreSQL, as libpq writes it: `postgresql://user:password@host/database?sslmode=verify-full`",
    ),
    secret(
        "DATABASE_URL_UNPOOLED",
        &[],
        "`DATABASE_URL`",
        "A direct way to the same database for migrations, where `DATABASE_URL` leads through a pooler",
    ),
    plain(
        "DB_SCHEMA",
        "todo",
        "The schema our tables live in; made when it is missing",
    ),
    plain(
        "DB_POOL_SIZE",
        "`WORKERS` + 2",
        "Connections kept open to PostgreSQL",
    ),
    plain(
        "DB_POOL_TIMEOUT",
        "1",
        "Seconds a request waits for a connection before it is answered 503",
    ),
    plain(
        "DB_CONNECT_TIMEOUT",
        "2",
        "Seconds until an attempt to connect is given up",
    ),
    plain(
        "DB_STATEMENT_TIMEOUT",
        "3",
        "Seconds until a statement is cut and its request answered 503",
    ),
    plain(
        "DB_LOCK_TIMEOUT",
        "2",
        "Seconds a statement waits for a lock",
    ),
    plain(
        "MIGRATE",
        "on",
        "Whether the server applies migrations when it starts; `off`: `todo-api migrate` does",
    ),
    secret(
        "BETTER_AUTH_SECRET",
        &["JWT_SECRET"],
        "made and kept in `DATA_DIR`",
        "The key of HS256 bearer tokens, at least 32 bytes; shared with the front end that signs them",
    ),
    secret(
        "BETTER_AUTH_SECRET_PREVIOUS",
        &[],
        "none",
        "The key before it, still accepted during a rotation",
    ),
    plain(
        "JWT_EXPIRATION_HOURS",
        "24",
        "Hours that tokens made here are good for; may be a fraction",
    ),
    plain(
        "REGISTRATION",
        "open in development, closed in production",
        "`open` or `closed`: whether clients may create accounts and change email addresses; `todo-api user` always may",
    ),
    plain(
        "REFRESH_TOKEN_DAYS",
        "30",
        "Days a refresh token is good for; a session that is not refreshed ends then. May be a fraction",
    ),
    plain(
        "LOGIN_FAILURES_PER_ACCOUNT",
        "10",
        "Failed logins of one account from one address (IPv6: /64) in 15 minutes before it is answered 429, and ten times as many from all addresses that the account had no session from in 30 days; 0: no limit",
    ),
    plain(
        "LOGIN_FAILURES_PER_IP",
        "30",
        "Failed logins from one address (IPv6: /64) in 15 minutes before it is answered 429; 0: no limit",
    ),
    plain(
        "REGISTRATIONS_PER_IP",
        "20",
        "Tries of one address (IPv6: /64) in an hour to register, or to change an email address, before it is answered 429; 0: no limit",
    ),
    plain(
        "REFRESHES_PER_IP",
        "60",
        "Refreshes from one address (IPv6: /64) in a minute before it is answered 429; 0: no limit",
    ),
    plain(
        "AUTH_JWKS_FILE",
        "none",
        "A file with the public keys (JSON Web Key Set) of whoever else signs tokens: EdDSA, ES256, RS256. Read again on SIGHUP (which stops a server that runs in a terminal)",
    ),
    plain(
        "AUTH_JWKS_URL",
        "none",
        "The address of such a key set in place of a file: `https`, or `http` on this machine; fetched again for an unknown key, at most once a minute, and when it is ten minutes old",
    ),
    plain(
        "JWT_ISSUER",
        "any",
        "What tokens from elsewhere must name as their issuer (`iss`); several with commas between them",
    ),
    plain(
        "JWT_AUDIENCE",
        "any",
        "What tokens from elsewhere must name among their audiences (`aud`); several with commas between them",
    ),
    plain(
        "WORKERS",
        "database on this machine: twice the cores, at least 4; else 10",
        "Threads that answer requests of one user at once; others have one more for every eight, at least one. As many again for each `direct:` address",
    ),
    plain(
        "MAX_BODY_BYTES",
        "1048576",
        "Most bytes of a request's body; more is answered 413",
    ),
    plain(
        "MAX_HEAD_BYTES",
        "16384",
        "Most bytes of a request line and header fields together; more is answered 431",
    ),
    plain(
        "MAX_HEADERS",
        "64",
        "Most header fields of a request; more is answered 431",
    ),
    plain(
        "MAX_PATH_BYTES",
        "4096",
        "Most bytes of a request's target; more is answered 414",
    ),
    plain(
        "MAX_CONNECTIONS",
        "1000",
        "Connections at once; those idle for a second make room for new ones, then new ones are answered 503",
    ),
    plain(
        "MAX_CONNECTIONS_PER_IP",
        "100",
        "Connections at once of one address (IPv6: /64) that is neither loopback nor a trusted proxy",
    ),
    plain(
        "MAX_BODIES_BYTES",
        "67108864",
        "Memory for all bodies in flight together; over it is answered 503",
    ),
    plain(
        "MAX_ANSWERS_BYTES",
        "67108864",
        "Memory for all answers not yet sent together; over it is answered 503",
    ),
    plain(
        "HEAD_TIMEOUT",
        "10",
        "Seconds for a request's head, from its first byte, or for a TLS handshake",
    ),
    plain(
        "BODY_TIMEOUT",
        "30",
        "Seconds for a request's body; one that stalls has 5, and one more for every 256 bytes that have come",
    ),
    plain(
        "KEEP_ALIVE_TIMEOUT",
        "75",
        "Seconds a connection may be idle between requests",
    ),
    plain(
        "SEND_TIMEOUT",
        "30",
        "Seconds an answer may make no way before its connection is dropped",
    ),
    plain(
        "QUEUE_TIMEOUT",
        "2",
        "Seconds a request waits for a worker before it is answered 503",
    ),
    plain(
        "TRUSTED_PROXIES",
        "loopback and Unix sockets",
        "The proxies that are believed when they name the client: addresses and networks, comma-separated, or `none`",
    ),
    plain(
        "PROXY_HEADER",
        "x-forwarded-for",
        "The only header in which trusted proxies name the client: `x-forwarded-for` (with `X-Forwarded-Proto`) or `forwarded`; the proxy must set it",
    ),
    plain(
        "RATE_LIMIT_PER_HOUR",
        "1000",
        "Requests of one user in any hour; more is answered 429. 0: no limit",
    ),
    plain(
        "RATE_LIMIT_ANON_PER_HOUR",
        "1000",
        "Requests of one address (IPv6: /64) in any hour that carry no good token; more is answered 429. 0: no limit",
    ),
    Setting {
        aliases: &["CORS_ORIGINS"],
        ..plain(
            "ALLOWED_ORIGINS",
            "`http://localhost:3000` in development, none in production",
            "Whose pages may call the API from a browser (CORS): origins as browsers write them, comma-separated, such as `https://app.example.com`; `*` for all, but without credentials; or `none`",
        )
    },
    plain(
        "HSTS_SECONDS",
        "31536000",
        "How long browsers that came over TLS are to come over TLS alone (`Strict-Transport-Security`); 0 makes them forget it",
    ),
    plain(
        "METRICS_ALLOW",
        "127.0.0.0/8,::1",
        "Who may see `/metrics` without a token: addresses and networks, comma-separated, or `none`. Whoever comes through a proxy may not",
    ),
    secret(
        "METRICS_TOKEN",
        &[],
        "none",
        "A bearer token, at least 16 bytes, with which `/metrics` may be seen from anywhere",
    ),
    plain("SOCKET_MODE", "0660", "File mode of Unix sockets"),
    plain(
        "TLS_CERT_FILE",
        "none",
        "PEM certificate chain; with it, TCP addresses speak TLS. Read again when it changes, and on SIGHUP (which stops a server that runs in a terminal)",
    ),
    plain("TLS_KEY_FILE", "none", "PEM key of the certificate"),
    plain(
        "SELF_CHECK_SECONDS",
        "10",
        "How often the server checks that it still answers; after three silences it exits. 0: never, but for systemd's watchdog, which is fed by it",
    ),
    plain(
        "STARTUP_TIMEOUT",
        "60",
        "Seconds to wait for the database at start",
    ),
    plain(
        "SHUTDOWN_TIMEOUT",
        "10",
        "Seconds for requests in flight to finish after SIGTERM",
    ),
    plain(
        "LOG_LEVEL",
        "info",
        "`error`, `warn`, `info`, `debug` or `trace`; `RUST_LOG` is understood too, per module. Read again on SIGHUP where it stands in a file",
    ),
    plain(
        "LOG_FORMAT",
        "text",
        "`text`, or `json`: an object a line. Where the journal of systemd receives it, each line has its priority",
    ),
];

/// The setting of that name.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Whether a setting is read from an environment variable of this name: one of its own names, or that of a file for a secret.
pub fn is_read_from(variable: &str) -> bool {
    let goes_by =
        |setting: &Setting, name: &str| setting.name == name || setting.aliases.contains(&name);
    let file = variable.strip_suffix("_FILE");
    SETTINGS.iter().any(|setting| {
        goes_by(setting, variable)
            || file.is_some_and(|name| setting.secret && goes_by(setting, name))
    })
}
