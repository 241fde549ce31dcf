//! Everything between a database address and an open [`postgres::Client`] on which every wait has a deadline.
//!
//! - `url` reads the address,
//! - `tls` speaks TLS as the address asks,
//! - `deadline` ends waits,
//! - this file tries host after host and starts the session.
//!
//! [`postgres::Client::cancel_token`] is of no use on these clients: it would connect without our connector. A
//! statement that was given up on is ended by the server's own `statement_timeout`.

mod deadline;
mod tls;
mod url;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use postgres::config::{SslMode, SslNegotiation};
use postgres::error::SqlState;
use rustls::pki_types::ServerName;

pub use deadline::Deadline;
use tls::{Connector, Encryption};
pub use url::Target;
use url::{Host, HostKind};

/// How long a connection that is being dropped may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// What every session starts with. Limits are rounded up to a whole millisecond; zero is no limit, as in PostgreSQL.
#[derive(Clone, Debug)]
pub struct Session {
    /// After this long the server ends a statement with SQLSTATE 57014.
    pub statement_timeout: Duration,
    /// After this long the server ends a wait for a lock with SQLSTATE 55P03.
    pub lock_timeout: Duration,
    /// After this long without a statement inside a transaction the server ends the session.
    pub idle_in_transaction_timeout: Duration,
    /// For each host in the address: looking it up, connecting, TLS, authentication and the settings together. What
    /// the address says itself (`connect_timeout`, in seconds) goes before it.
    pub connect_timeout: Duration,
    /// What `pg_stat_activity` shows, unless the address says otherwise.
    pub application_name: String,
}

/// An open connection.
///
/// Dropping it never waits for more than a second, whatever the other side does.
pub struct Connection {
    /// To be used as any other, but for its cancel token (see the module).
    pub client: postgres::Client,
    /// Cleared; to be set before a statement and cleared after it. Leave it set until a transaction that was left open
    /// has been dropped, because that waits for its ROLLBACK.
    pub deadline: Deadline,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Dropping a client waits for answers that are still to come, and for room in the socket for its goodbye.
        self.deadline.set(Instant::now() + GOODBYE);
    }
}

/// Why no connection could be had: one line for the log, which names the host and never the password.
#[derive(Debug)]
pub struct ConnectError {
    message: String,
    cause: Option<postgres::Error>,
}

impl ConnectError {
    /// What the server said, when it was the server that refused.
    pub fn code(&self) -> Option<&SqlState> {
        self.cause.as_ref().and_then(postgres::Error::code)
    }

    fn new(host: &Host, reason: &str, cause: Option<postgres::Error>) -> ConnectError {
        // The reason may be what a stranger on the network said, and must not break the log's lines.
        let reason: String = reason
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        ConnectError {
            message: format!("{host}: {reason}"),
            cause,
        }
    }

    fn before(mut self, later: ConnectError) -> ConnectError {
        self.message.push_str("; ");
        self.message.push_str(&later.message);
        ConnectError {
            message: self.message,
            cause: later.cause,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// The message already holds what the causes say, so there is no source to be printed after it.
impl Error for ConnectError {}

/// Opens a connection, trying the hosts of the address in turn.
///
/// Errors: when none of them could be connected to in time. As in libpq, a host that refuses the user or the password
/// (SQLSTATE class 28) is the last that is tried.
pub fn connect(target: &Target, session: &Session) -> Result<Connection, ConnectError> {
    let limit = target.connect_timeout.unwrap_or(session.connect_timeout);
    let mut failure: Option<ConnectError> = None;
    for host in target.hosts_in_turn() {
        let error = match connect_to_host(target, session, host, limit) {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let last = error
            .code()
            .is_some_and(|code| code.code().starts_with("28"));
        failure = Some(match failure {
            Some(earlier) => earlier.before(error),
            None => error,
        });
        if last {
            break;
        }
    }
    // `Target::parse` refuses an address without a host.
    Err(failure.unwrap_or_else(|| ConnectError {
        message: "the address names no host".to_owned(),
        cause: None,
    }))
}

/// Where one attempt goes.
enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

fn connect_to_host(
    target: &Target,
    session: &Session,
    host: &Host,
    limit: Duration,
) -> Result<Connection, ConnectError> {
    let by = Instant::now() + limit;
    let endpoints = match &host.kind {
        HostKind::Unix(directory) => {
            vec![Endpoint::Unix(
                directory.join(format!(".s.PGSQL.{}", host.port)),
            )]
        }
        HostKind::Tcp {
            address: Some(address),
            ..
        } => {
            vec![Endpoint::Tcp(SocketAddr::new(*address, host.port))]
        }
        HostKind::Tcp {
            name,
            address: None,
        } => look_up(name, host.port, by)
            .map_err(|e| ConnectError::new(host, &format!("cannot be looked up: {e}"), None))?
            .into_iter()
            .map(Endpoint::Tcp)
            .collect(),
    };
    let mut left = endpoints.len();
    let mut failure = None;
    for endpoint in endpoints {
        // One address that swallows packets must not use up the time of those after it; once connected, the rest of
        // the time is for that server.
        let remaining = by.saturating_duration_since(Instant::now());
        let share = remaining / u32::try_from(left).unwrap_or(u32::MAX).max(1);
        left = left.saturating_sub(1);
        if remaining.is_zero() && failure.is_some() {
            break;
        }
        match start_session(
            target,
            session,
            host,
            &endpoint,
            by,
            share.max(Duration::from_millis(1)),
        ) {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                let answered = error.as_ref().is_some_and(|e| e.as_db_error().is_some());
                let reason = match &error {
                    Some(error) => explain(error),
                    None => "the client could not be started (no descriptors left?)".to_owned(),
                };
                failure = Some(ConnectError::new(host, &reason, error));
                // The same server would say the same again on its other addresses.
                if answered {
                    break;
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::new(host, "has no address", None)))
}

/// Looks a name up, waiting no longer than the deadline.
///
/// The system's resolver has no deadline of its own, so it is asked by a thread, which is left to finish when it is
/// late. (It ends with the resolver's own limits: 5 s for each server and attempt, as resolv.conf(5) has it.)
fn look_up(name: &str, port: u16, by: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let question = (name.to_owned(), port);
    thread::Builder::new()
        .name("look-up".to_owned())
        .spawn(move || {
            let answer = question
                .to_socket_addrs()
                .map(|addresses| addresses.collect::<Vec<_>>());
            // Nobody listens any more when it is late.
            let _ = sender.send(answer);
        })?;
    receiver
        .recv_timeout(by.saturating_duration_since(Instant::now()))
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

/// Connects to one address, giving way where libpq does and a pooler makes it necessary.
///
/// Errors: `None` when not even an attempt could be made.
fn start_session(
    target: &Target,
    session: &Session,
    host: &Host,
    endpoint: &Endpoint,
    by: Instant,
    connect_timeout: Duration,
) -> Result<Connection, Option<postgres::Error>> {
    let mut encryption = target.encryption;
    let mut bare = target.refuses_settings.load(Ordering::Relaxed);
    loop {
        let options = if bare {
            target.options.clone()
        } else {
            Some(startup_options(target, session))
        };
        let mut connection = match open(
            target,
            session,
            host,
            endpoint,
            by,
            connect_timeout,
            encryption,
            options,
        ) {
            Ok(connection) => connection,
            // PgBouncer and Neon's pooler: 08P01, unsupported startup parameter. RDS Proxy: 0A000. Other servers
            // that do not know one of the settings: 42704.
            Err(Some(error))
                if !bare
                    && [
                        &SqlState::PROTOCOL_VIOLATION,
                        &SqlState::FEATURE_NOT_SUPPORTED,
                        &SqlState::UNDEFINED_OBJECT,
                    ]
                    .into_iter()
                    .any(|code| error.code() == Some(code)) =>
            {
                bare = true;
                continue;
            }
            Err(Some(error))
                if encryption == Encryption::Preferred && may_do_without_tls(target, &error) =>
            {
                encryption = Encryption::Off;
                continue;
            }
            Err(error) => return Err(error),
        };
        if bare {
            target.refuses_settings.store(true, Ordering::Relaxed);
            match connection
                .client
                .batch_execute(&settings_statement(session))
            {
                Ok(()) => {}
                Err(error) if error.as_db_error().is_some() && !connection.client.is_closed() => {
                    log::warn!(
                        "{host} does not take the session's time limits: {}",
                        explain(&error)
                    );
                }
                Err(error) => return Err(Some(error)),
            }
        }
        connection.deadline.clear();
        return Ok(connection);
    }
}

/// libpq's `prefer` goes on in plain when the server breaks the handshake off, or has no entry in pg_hba.conf for
/// encrypted connections (28000). Where `sslrootcert` asks for a check, giving up on TLS would make that check void.
fn may_do_without_tls(target: &Target, error: &postgres::Error) -> bool {
    target.checks_nothing
        && (tls_error(error).is_some()
            || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
}

#[expect(
    clippy::too_many_arguments,
    reason = "it is one call, cut out of the loop around it"
)]
fn open(
    target: &Target,
    session: &Session,
    host: &Host,
    endpoint: &Endpoint,
    by: Instant,
    connect_timeout: Duration,
    encryption: Encryption,
    options: Option<String>,
) -> Result<Connection, Option<postgres::Error>> {
    let deadline = Deadline::new();
    deadline.set(by);
    let mut connector = Connector {
        encryption,
        direct: target.direct,
        tls: target.tls.clone(),
        unix_socket: None,
        deadline: deadline.clone(),
    };
    let mut config = target.config.clone();
    // Required and direct, always: this is what makes `tokio-postgres` hand the bare socket over (see `tls`).
    config
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct)
        .connect_timeout(connect_timeout);
    config.application_name(
        target
            .application_name
            .as_ref()
            .unwrap_or(&session.application_name),
    );
    if let Some(options) = options {
        config.options(&options);
    }
    let mut listener = None;
    match endpoint {
        Endpoint::Tcp(address) => {
            config
                .host(&name_for_tls(host, address.ip()))
                .hostaddr(address.ip())
                .port(address.port());
        }
        Endpoint::Unix(path) => {
            connector.encryption = Encryption::Off;
            match stand_in() {
                Ok(stand_in) => {
                    config
                        .host("localhost")
                        .hostaddr(IpAddr::V4(Ipv4Addr::LOCALHOST));
                    config.port(stand_in.local_addr().map(|a| a.port()).unwrap_or_default());
                    connector.unix_socket = Some(path.clone());
                    listener = Some(stand_in);
                }
                Err(error) => {
                    log::warn!("no deadlines on {host}, because loopback cannot be had: {error}");
                    config
                        .host_path(path.parent().unwrap_or(path))
                        .port(host.port)
                        .ssl_mode(SslMode::Disable);
                }
            }
        }
    }
    // `postgres` panics when it has no descriptor left for its event loop. Let through, that would cost r2d2 one
    // connection for good, because it would wait for this one for ever.
    let client = catch_unwind(AssertUnwindSafe(|| config.connect(connector)))
        .map_err(|_| None)?
        .map_err(Some)?;
    drop(listener);
    Ok(Connection { client, deadline })
}

/// The name for SNI and for the check of the certificate; the address where the name cannot be one.
fn name_for_tls(host: &Host, address: IpAddr) -> String {
    match &host.kind {
        HostKind::Tcp { name, .. } if ServerName::try_from(name.as_str()).is_ok() => name.clone(),
        _ => address.to_string(),
    }
}

/// A listener on loopback for `tokio-postgres` to connect to when the server is on a Unix socket.
///
/// `tokio-postgres` hands Unix sockets to no TLS connector, so that no deadline could be put on them; and a server on
/// this machine can fall silent too, with the disk under it or with its container. So it is given a TCP connection
/// that nobody ever speaks on, and our connector opens the Unix socket in its place. That costs 0.1 ms per connection.
///
/// Errors: where a sandbox allows no TCP, which is tried here, because there packets may simply vanish.
fn stand_in() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_millis(250))?;
    Ok(listener)
}

/// The limits as the server takes them; those of the address come last, and so win.
fn startup_options(target: &Target, session: &Session) -> String {
    let mut options = String::new();
    for (name, value) in settings(session) {
        options.push_str(&format!("-c {name}={value} "));
    }
    options.push_str(target.options.as_deref().unwrap_or_default());
    options.trim_end().to_owned()
}

fn settings_statement(session: &Session) -> String {
    settings(session)
        .map(|(name, value)| format!("SET {name} = '{value}';"))
        .concat()
}

/// Client encoding is not among them: `tokio-postgres` always asks for UTF8.
fn settings(session: &Session) -> [(&'static str, String); 4] {
    [
        ("statement_timeout", milliseconds(session.statement_timeout)),
        ("lock_timeout", milliseconds(session.lock_timeout)),
        (
            "idle_in_transaction_session_timeout",
            milliseconds(session.idle_in_transaction_timeout),
        ),
        ("TimeZone", "UTC".to_owned()),
    ]
}

/// PostgreSQL keeps such limits in 32 bits.
fn milliseconds(limit: Duration) -> String {
    let whole = limit.as_nanos().div_ceil(1_000_000);
    i32::try_from(whole).unwrap_or(i32::MAX).to_string()
}

/// An error with all its causes, in one sentence.
fn explain(error: &postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    if let Some(tls) = tls_error(error) {
        return format!("TLS: {tls}{}", advice(tls));
    }
    let mut parts = Vec::new();
    // Everything our connector says arrives as a failed handshake; it speaks for itself.
    if error.to_string() != "error performing TLS handshake" {
        parts.push(error.to_string());
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        parts.push(error.to_string());
        cause = error.source();
    }
    parts.join(": ")
}

fn tls_error(error: &postgres::Error) -> Option<&rustls::Error> {
    error
        .source()?
        .downcast_ref::<io::Error>()?
        .get_ref()?
        .downcast_ref()
}

fn advice(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer) => {
            " (neither sslrootcert nor, where that is not given, the built-in list has its authority)"
        }
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => " (names count only as subjectAltName, not as the subject's common name)",
        rustls::Error::InvalidCertificate(Certificate::Other(_)) => {
            " (a certificate to be verified must be of X.509 version 3, with a subjectAltName)"
        }
        _ => "",
    }
}
