//! Starts a session at one address.

use std::net::{Ipv4Addr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use postgres::config::{Config, SslMode, SslNegotiation};
use postgres::error::SqlState;
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;

use super::endpoint::{Endpoint, name_for_tls, stand_in};
use super::error::{explain, tls_error};
use super::target::{Host, Target};
use super::tls::{Connector, Encryption};
use super::{Deadline, PostgresConnection};
use crate::config::DatabaseSettings;

/// The name in `pg_stat_activity`, unless the address has another.
const APPLICATION_NAME: &str = "todo-api";

/// Errors about settings in the startup message: 08P01 of PgBouncer and Neon's pooler (unsupported startup parameter), 0A000 of RDS
/// Proxy, 42704 of servers that lack one of the settings.
const REFUSALS: [SqlState; 3] = [
    SqlState::PROTOCOL_VIOLATION,
    SqlState::FEATURE_NOT_SUPPORTED,
    SqlState::UNDEFINED_OBJECT,
];

/// An attempt to connect to one address.
pub(super) struct ConnectAttempt<'a> {
    pub(super) target: &'a Target,
    pub(super) settings: &'a DatabaseSettings,
    pub(super) host: &'a Host,
    pub(super) endpoint: &'a Endpoint,
    /// The deadline of the whole attempt.
    pub(super) by: Instant,
    /// For the TCP connection only.
    pub(super) connect_timeout: Duration,
}

impl ConnectAttempt<'_> {
    /// Connects. Tries again without TLS where libpq does, and without settings in the startup message if a pooler refuses them.
    ///
    /// # Errors
    /// `None` if the client could not be started.
    pub(super) fn start_session(&self) -> Result<PostgresConnection, Option<postgres::Error>> {
        let mut encryption = self.target.encryption;
        let mut bare = self.target.refuses_settings();
        let mut connection = loop {
            match self.open(encryption, bare) {
                Ok(connection) => break connection,
                Err(Some(error)) if !bare && refuses_settings(&error) => bare = true,
                Err(Some(error))
                    if encryption == Encryption::Preferred
                        && may_do_without_tls(self.target, &error) =>
                {
                    encryption = Encryption::Off;
                }
                Err(error) => return Err(error),
            }
        };
        if bare {
            self.target.set_settings_by_statement();
            let set = settings_statement(self.settings);
            if let Err(error) = connection.client.batch_execute(&set) {
                if error.as_db_error().is_none() || connection.client.is_closed() {
                    return Err(Some(error));
                }
                let (host, problem) = (self.host, explain(&error));
                log::warn!(
                    "{host} refuses the time limits, so statements have none on the server: {problem}"
                );
            }
        }
        connection.deadline.clear();
        Ok(connection)
    }

    fn open(
        &self,
        encryption: Encryption,
        bare: bool,
    ) -> Result<PostgresConnection, Option<postgres::Error>> {
        let target = self.target;
        let deadline = Deadline::new();
        deadline.set(self.by);
        let mut connector = Connector {
            encryption,
            direct: target.direct,
            tls: target.tls.clone(),
            name: String::new(),
            unix_socket: None,
            deadline: deadline.clone(),
        };
        let mut config = target.config.clone();
        // Always required and direct, so that `tokio-postgres` passes the socket to our connector (see `tls`).
        config
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct)
            .connect_timeout(self.connect_timeout);
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION_NAME);
        }
        if !bare {
            config.options(&startup_options(target, self.settings));
        }
        let listener = self.address(&mut config, &mut connector)?;
        // `postgres` panics if no descriptor is left for its event loop. After such a panic r2d2 would wait for this connection for
        // ever.
        let manager = PostgresConnectionManager::new(config, connector);
        let client = catch_unwind(AssertUnwindSafe(|| manager.connect()))
            .map_err(|_| None)?
            .map_err(Some)?;
        drop(listener);
        Ok(PostgresConnection { client, deadline })
    }

    /// Writes the endpoint into the configuration. For a Unix socket it returns a listener to keep open until the client is connected.
    fn address(
        &self,
        config: &mut Config,
        connector: &mut Connector,
    ) -> Result<Option<TcpListener>, Option<postgres::Error>> {
        let host = self.host;
        let path = match self.endpoint {
            Endpoint::Tcp(address) => {
                config
                    .host(&name_for_tls(host, address.ip()))
                    .hostaddr(address.ip())
                    .port(address.port());
                return Ok(None);
            }
            Endpoint::Unix(path) => path,
        };
        connector.encryption = Encryption::Off;
        match stand_in() {
            Ok(stand_in) => {
                let port = stand_in.local_addr().map(|address| address.port());
                config
                    .host("localhost")
                    .hostaddr(Ipv4Addr::LOCALHOST.into())
                    .port(port.unwrap_or_default());
                connector.unix_socket = Some(path.clone());
                Ok(Some(stand_in))
            }
            // ENFILE, EMFILE: they pass, and a connection without deadlines would stay.
            Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => Err(None),
            Err(error) => {
                log::warn!("no deadlines on {host}, because loopback cannot be used: {error}");
                config
                    .host_path(path.parent().unwrap_or(path))
                    .port(host.port)
                    .ssl_mode(SslMode::Disable);
                Ok(None)
            }
        }
    }
}

fn refuses_settings(error: &postgres::Error) -> bool {
    error.code().is_some_and(|code| REFUSALS.contains(code))
}

/// As libpq's `prefer`, connects without TLS after a failed handshake, or if pg_hba.conf has no entry for encrypted connections
/// (28000); but not if `sslrootcert` demands a check of the certificate.
fn may_do_without_tls(target: &Target, error: &postgres::Error) -> bool {
    target.checks_nothing
        && (tls_error(error).is_some()
            || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
}

/// The settings for the startup message. Those of the address come last and so take precedence.
fn startup_options(target: &Target, settings: &DatabaseSettings) -> String {
    let ours = session_settings(settings).map(|(name, value)| format!("-c {name}={value} "));
    let own = target.config.get_options().unwrap_or_default();
    (ours.concat() + own).trim_end().to_owned()
}

fn settings_statement(settings: &DatabaseSettings) -> String {
    session_settings(settings)
        .map(|(name, value)| format!("SET {name} = '{value}';"))
        .concat()
}

/// The settings of every session. Client encoding is not among them: `tokio-postgres` always asks for UTF8.
///
/// Every statement has an index to use. Without statistics, or for a user who owns most of a table, PostgreSQL would still read all
/// rows of all users. Parallel workers and compiled plans make one user's search faster and all other requests slower.
fn session_settings(settings: &DatabaseSettings) -> [(&'static str, String); 7] {
    let limit = milliseconds(settings.statement_timeout);
    [
        ("statement_timeout", limit.clone()),
        ("lock_timeout", milliseconds(settings.lock_timeout)),
        // No statement leaves a transaction open. If one does, this setting releases its locks.
        ("idle_in_transaction_session_timeout", limit),
        ("TimeZone", "UTC".to_owned()),
        ("enable_seqscan", "off".to_owned()),
        ("max_parallel_workers_per_gather", "0".to_owned()),
        ("jit", "off".to_owned()),
    ]
}

/// PostgreSQL stores such limits in 32 bits.
fn milliseconds(limit: Duration) -> String {
    let whole = limit.as_nanos().div_ceil(1_000_000);
    i32::try_from(whole).unwrap_or(i32::MAX).to_string()
}
