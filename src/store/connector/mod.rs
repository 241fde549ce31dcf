//! Opens connections to a database address. Every wait on them has a deadline.
//!
//! - `url` reads an address into a `target`
//! - `endpoint` finds where to connect, `tls` encrypts as the address asks, `deadline` ends waits
//! - `attempt` starts a session at one address, `error` explains failures
//! - this file tries the addresses one after another
//!
//! [`postgres::Client::cancel_token`] must not be used on these clients, because it connects without our connector. PostgreSQL's
//! `statement_timeout` ends a statement whose deadline has passed.

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

use attempt::ConnectAttempt;
pub use deadline::Deadline;
use endpoint::{Endpoint, look_up};
pub use error::ConnectError;
use error::explain;
pub use target::Target;
use target::{Host, HostKind};
use tls::Check;

use crate::config::DatabaseSettings;

/// Longest time for ending a connection that is dropped.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Longer limits are shortened to this, because `Instant` cannot hold all of them.
const LONGEST_CONNECT: Duration = Duration::from_secs(3600);

/// An open connection. Dropping it waits at most a second, whatever the server does.
pub struct PostgresConnection {
    /// A client like any other, but for its cancel token (see the module).
    pub client: postgres::Client,
    /// Not set. The caller sets it before a statement and clears it after. It must stay set while a transaction is dropped, which
    /// waits for its ROLLBACK.
    pub deadline: Deadline,
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        // Dropping a client waits for outstanding answers, and for room in the socket for its last message.
        self.deadline.set(Instant::now() + END_LIMIT);
    }
}

/// Opens a connection to the first host of the address that can be reached.
///
/// The `connect_timeout` is for each host: name look-up, connection, TLS, authentication and the session's settings together. One in
/// the address, in seconds, takes precedence.
///
/// # Errors
/// No host could be connected to in time. As in libpq, no further host is tried after one that refuses the user or the password
/// (SQLSTATE class 28).
pub fn connect(
    target: &Target,
    settings: &DatabaseSettings,
) -> Result<PostgresConnection, ConnectError> {
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

/// The places where a host may be reached.
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
) -> Result<PostgresConnection, ConnectError> {
    let by = Instant::now() + limit.min(LONGEST_CONNECT);
    let endpoints = endpoints(host, by)?;
    let mut failure = None;
    for (tried, endpoint) in endpoints.iter().enumerate() {
        let remaining = by.saturating_duration_since(Instant::now());
        if remaining.is_zero() && failure.is_some() {
            break;
        }
        // An address that does not answer must not use the time of the following ones. A server that is connected to may use all
        // of it.
        let share = remaining / u32::try_from(endpoints.len() - tried).unwrap_or(u32::MAX);
        let attempt = ConnectAttempt {
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
