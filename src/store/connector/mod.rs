//! Everything between a database address and an open [`postgres::Client`] on which every wait has a deadline.
//!
//! - `url` reads an address, `target` is the result,
//! - `endpoint` finds out where to connect, `tls` encrypts as the address asks, `deadline` ends waits,
//! - `attempt` starts a session at one address, `error` says what went wrong,
//! - this file tries address after address.
//!
//! [`postgres::Client::cancel_token`] is of no use on these clients: it would connect without our connector. A
//! statement that was given up on is ended by the server's own `statement_timeout`.

mod attempt;
mod deadline;
mod endpoint;
mod error;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod url;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attempt::Attempt;
pub use deadline::Deadline;
use endpoint::{Endpoint, look_up};
pub use error::ConnectError;
use error::explain;
pub use target::Target;
use target::{Host, HostKind};
use tls::Check;

use crate::config::DatabaseSettings;

/// How long a connection that is being dropped may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// No limit of an hour or more was meant, and `Instant` cannot hold all of them.
const LONGEST_CONNECT: Duration = Duration::from_secs(3600);

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

/// Opens a connection, trying the hosts of the address in turn.
///
/// The `connect_timeout` is for each host: name look-up, connection, TLS, authentication and the session's settings together. One in
/// the address, in seconds, takes precedence.
///
/// Errors: when none of them could be connected to in time. As in libpq, a host that refuses the user or the password
/// (SQLSTATE class 28) is the last that is tried.
pub fn connect(target: &Target, settings: &DatabaseSettings) -> Result<Connection, ConnectError> {
    let limit = target.config.get_connect_timeout().copied();
    let limit = limit.unwrap_or(settings.connect_timeout);
    let mut failure = ConnectError::default();
    for host in target.hosts_in_turn() {
        match connect_to_host(target, settings, host, limit) {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = failure.before(error),
        }
        if failure
            .code()
            .is_some_and(|code| code.code().starts_with("28"))
        {
            break;
        }
    }
    Err(failure)
}

/// A TLS client that encrypts and trusts any certificate.
///
/// # Errors
/// The library's sentence; not known to happen.
pub fn tls_without_verification() -> Result<Arc<rustls::ClientConfig>, String> {
    tls::client_config(Check::Nothing, None, false, false)
}

/// Where a host may be reached.
fn endpoints(host: &Host, by: Instant) -> Result<Vec<Endpoint>, ConnectError> {
    let endpoint = |address| Endpoint::Tcp(SocketAddr::new(address, host.port));
    let (name, address) = match &host.kind {
        HostKind::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{}", host.port));
            return Ok(vec![Endpoint::Unix(path)]);
        }
        HostKind::Tcp { name, address } => (name, address),
    };
    if let Some(address) = address {
        return Ok(vec![endpoint(*address)]);
    }
    let found = look_up(name, host.port, by)
        .map_err(|e| ConnectError::new(host, &format!("cannot be looked up: {e}"), None))?;
    Ok(found.into_iter().map(Endpoint::Tcp).collect())
}

fn connect_to_host(
    target: &Target,
    settings: &DatabaseSettings,
    host: &Host,
    limit: Duration,
) -> Result<Connection, ConnectError> {
    let by = Instant::now() + limit.min(LONGEST_CONNECT);
    let endpoints = endpoints(host, by)?;
    let mut failure = None;
    for (tried, endpoint) in endpoints.iter().enumerate() {
        let remaining = by.saturating_duration_since(Instant::now());
        if remaining.is_zero() && failure.is_some() {
            break;
        }
        // One address that swallows packets must not use up the time of those after it; once connected, the rest of
        // the time is for that server.
        let share = remaining / u32::try_from(endpoints.len() - tried).unwrap_or(u32::MAX);
        let attempt = Attempt {
            target,
            settings,
            host,
            endpoint,
            by,
            connect_timeout: share.max(Duration::from_millis(1)),
        };
        let error = match attempt.start_session() {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let answered = error.as_ref().is_some_and(|e| e.as_db_error().is_some());
        let no_client = || "the client could not be started (no descriptors left?)".to_owned();
        let reason = error.as_ref().map_or_else(no_client, explain);
        failure = Some(ConnectError::new(host, &reason, error));
        // The same server would refuse on its other addresses, too.
        if answered {
            break;
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::new(host, "has no address", None)))
}
