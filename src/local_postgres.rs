//! A private PostgreSQL: a cluster under a directory of ours, for running with no configuration and for tests.
//!
//! ```text
//! <directory>/todo-api.lock      held while a server uses the directory; holds its process id
//! <directory>/postgres/          the cluster, owned by the account it runs as, 0700
//! <directory>/postgres.socket/   its Unix socket, 0700; below the system's temporary directory where this path is too long
//! <directory>/postgres.log       what it and its start have to say
//! ```
//!
//! It listens on the Unix socket alone. Whoever may enter the socket's directory is let in without a password, which
//! is the cluster's own account and root. Started by root, everything of the cluster runs as an unprivileged account.
//!
//! The holder of the lock owns the cluster: a PostgreSQL that a killed server left running is ended, and pid files, sockets and
//! half-made clusters of processes that are gone are removed. Linux only: `/proc` says which processes are alive.

use std::path::Path;

mod account;
mod cluster;
mod directory;
mod error;
mod installation;
mod socket;
mod supervision;

use self::account::Account;
use self::cluster::Cluster;
use self::directory::Lock;
pub use self::error::Error;
use self::installation::Installation;
use self::socket::SocketDirectory;
pub use self::supervision::Supervised;

/// Options of a cluster. They hold for one run of it, not for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether a committed write survives a crash of the machine. `false` turns `fsync`, `synchronous_commit` and
    /// `full_page_writes` off: faster, and for tests only, because a crash of the machine then loses the cluster.
    pub durable: bool,
    /// How many connections may be open at once, 1 to 262,143; none are held back for superusers.
    pub max_connections: u32,
}

impl Default for Options {
    /// Durable, 100 connections.
    fn default() -> Self {
        Options {
            durable: true,
            max_connections: 100,
        }
    }
}

/// A running private PostgreSQL. Dropping it stops it.
#[derive(Debug)]
pub struct LocalPostgres {
    cluster: Cluster,
    options: Options,
    /// Held while PostgreSQL is ours; `None` once it is stopped.
    lock: Option<Lock>,
}

impl LocalPostgres {
    /// Starts the cluster in `directory`, which is made if it is missing, and so is the cluster (this takes seconds).
    /// Returns when it takes connections and the database `todo` is there.
    ///
    /// Every wait is bounded: 3 minutes for making a cluster, 2 for a start that has to recover from a crash.
    ///
    /// # Errors
    /// PostgreSQL is missing, too old or of another version than the cluster; the directory is in use by another server,
    /// cannot be reached or written; a program failed. Nothing is left running then.
    pub fn start(directory: &Path, options: Options) -> Result<LocalPostgres, Error> {
        let directory = directory::make_directory(directory)?;
        let lock = directory::take_lock(&directory)?;
        let files = directory.join("postgres");
        let account = Account::choose(&files)?;
        account.reach(&directory)?;
        let made_by = directory::cluster_version(&files)?;
        let installation = Installation::find(&account, &files, made_by)?;
        let socket = SocketDirectory::make(&directory, &account)?;
        let cluster = Cluster {
            directory,
            files,
            account,
            installation,
            socket,
        };
        // From here on an early return drops this, which stops whatever runs.
        let local = LocalPostgres {
            cluster,
            options,
            lock: Some(lock),
        };
        local.cluster.remove_half_made();
        if made_by.is_none() {
            local.cluster.make(options)?;
        }
        local.cluster.start(options)?;
        local.cluster.make_database()?;
        Ok(local)
    }

    /// Whether there is a cluster in `directory`. A directory that may not be looked into counts as one.
    pub fn exists(directory: &Path) -> bool {
        directory.join("postgres").try_exists().unwrap_or(true)
    }

    /// Whether another process uses the cluster in `directory`, which exists.
    ///
    /// # Errors
    /// The directory cannot be reached.
    pub fn is_running(directory: &Path) -> Result<bool, Error> {
        directory::is_locked(&directory::make_directory(directory)?)
    }

    /// The address of the database of the cluster in `directory`, whether it runs or not.
    ///
    /// # Errors
    /// The directory cannot be reached.
    pub fn url_in(directory: &Path) -> Result<String, Error> {
        let directory = directory::make_directory(directory)?;
        let account = Account::choose(&directory.join("postgres"))?;
        account.reach(&directory)?;
        let socket = SocketDirectory::make(&directory, &account)?;
        Ok(socket.url(cluster::NAME))
    }

    /// The address of the database, as the `postgres` crate and libpq read it:
    /// `postgresql://todo@/todo?host=<percent-encoded directory of the socket>`. It holds no secret.
    pub fn url(&self) -> String {
        self.cluster.socket.url(cluster::NAME)
    }

    /// Stops PostgreSQL: open connections are closed, transactions that have not committed are rolled back, and a
    /// checkpoint is written. Takes at most a minute. Does nothing when it is stopped already.
    ///
    /// # Errors
    /// PostgreSQL would not go away; it may be tried again.
    pub fn stop(&mut self) -> Result<(), Error> {
        if self.lock.is_none() {
            return Ok(());
        }
        self.cluster.halt(cluster::STOP_LIMIT)?;
        self.cluster.socket.remove_if_temporary();
        self.lock = None;
        Ok(())
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::warn!("{error}");
        }
    }
}
