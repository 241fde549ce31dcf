//! Events for the main thread of the server.

use crate::local_postgres::LocalPostgres;
use crate::store::opening::Opened;

/// An event for the main thread of the server.
pub enum ServiceEvent {
    /// SIGTERM, SIGINT or the end of the terminal, by the signal's name.
    Stop(&'static str),
    /// SIGHUP without a terminal.
    Reload,
    /// The private PostgreSQL has started.
    PrivateStarted(LocalPostgres),
    /// The store is open, or cannot be opened.
    Opened(Result<Opened, String>),
    /// The server cannot continue.
    Failed(String),
}
