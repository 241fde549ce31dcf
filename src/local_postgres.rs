//! A private PostgreSQL: a cluster in a directory of this program, for running without configuration and for tests.
//!
//! ```text
//! <directory>/todo-api.lock      held while a server uses the directory; holds its process id
//! <directory>/postgres/          the cluster, owned by the account it runs as, 0700
//! <directory>/postgres.socket/   its Unix socket, 0700; in the system's temporary directory if this path is too long
//! <directory>/postgres.log       the log of PostgreSQL and of its start
//! ```
//!
//! It listens on the Unix socket only, and asks for no password. The mode of the socket's directory lets in only the cluster's
//! account and root. If root starts the program, the cluster runs as an unprivileged account.
//!
//! The holder of the lock owns the cluster. It ends a PostgreSQL that a killed server has left running, and removes pid files,
//! sockets and half-made clusters of processes that have ended. Linux only: `/proc` says which processes run.
//!
//! An error is a sentence for the person who starts the program, and names the remedy. The last lines of PostgreSQL's own output
//! may follow, each on a line of its own.

use std::io;
use std::path::Path;

mod account;
mod cluster;
mod directory;
mod installation;
mod socket;
mod supervision;

use self::account::OsAccount;
use self::cluster::Cluster;
use self::directory::Lock;
pub use self::directory::make_private_directory;
use self::installation::PostgresInstallation;
use self::socket::SocketDirectory;
pub use self::supervision::Supervised;

/// Options of one run of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterOptions {
    /// Whether a committed write survives a crash of the machine. `false` turns `fsync`, `synchronous_commit` and
    /// `full_page_writes` off: faster, and for tests only, because a crash of the machine then loses the cluster.
    pub durable: bool,
    /// The maximum of open connections, 1 to 262,143. None are reserved for superusers.
    pub max_connections: u32,
}

/// A running private PostgreSQL. Dropping it stops it.
#[derive(Debug)]
pub struct LocalPostgres {
    cluster: Cluster,
    options: ClusterOptions,
    /// Held while PostgreSQL runs; `None` once it is stopped.
    lock: Option<Lock>,
}

impl LocalPostgres {
    /// Starts the cluster in `directory`. A missing directory or cluster is created, with the database `todo`, which takes seconds.
    /// Returns when PostgreSQL accepts connections.
    ///
    /// Every wait is limited: 3 minutes for creating a cluster, 2 for a start that recovers from a crash.
    ///
    /// # Errors
    /// PostgreSQL is missing, too old or of another version than the cluster; the directory is in use by another server,
    /// cannot be reached or written; a program failed. Nothing is left running.
    pub fn start(directory: &Path, options: ClusterOptions) -> Result<LocalPostgres, String> {
        let directory = directory::make_directory(directory)?;
        let lock = directory::take_lock(&directory)?;
        let files = directory.join("postgres");
        let account = OsAccount::choose(&files)?;
        account.reach(&directory)?;
        let made_by = directory::cluster_version(&files)?;
        let installation = PostgresInstallation::find(&account, &files, made_by)?;
        let socket = SocketDirectory::make(&directory, &account)?;
        let cluster = Cluster {
            directory,
            files,
            account,
            installation,
            socket,
        };
        // After an error below, this is dropped, which stops PostgreSQL.
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
        Ok(local)
    }

    /// Whether there is a cluster in `directory`. If the directory cannot be searched, the answer is yes.
    pub fn exists(directory: &Path) -> bool {
        directory.join("postgres").try_exists().unwrap_or(true)
    }

    /// Whether another process uses the cluster in `directory`. It must exist.
    ///
    /// # Errors
    /// The directory cannot be reached.
    pub fn is_running(directory: &Path) -> Result<bool, String> {
        directory::is_locked(&directory::make_directory(directory)?)
    }

    /// The address of the database in `directory`. The cluster need not run.
    ///
    /// # Errors
    /// The directory cannot be reached.
    pub fn url_in(directory: &Path) -> Result<String, String> {
        let directory = directory::make_directory(directory)?;
        let account = OsAccount::choose(&directory.join("postgres"))?;
        account.reach(&directory)?;
        let socket = SocketDirectory::make(&directory, &account)?;
        Ok(socket.url(cluster::NAME))
    }

    /// The address of the database, as the `postgres` crate and libpq read it:
    /// `postgresql://todo@/todo?host=<percent-encoded directory of the socket>`. It holds no secret.
    pub fn url(&self) -> String {
        self.cluster.socket.url(cluster::NAME)
    }

    /// Stops PostgreSQL: it closes open connections, rolls back open transactions, and writes a checkpoint. Takes at most a minute.
    /// Another call does nothing.
    ///
    /// # Errors
    /// PostgreSQL still runs. The call may be repeated.
    pub fn stop(&mut self) -> Result<(), String> {
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

/// The error of an operation on a file or a program.
fn failed_to(verb: &str, path: &Path, error: &io::Error) -> String {
    format!(
        "cannot {verb} {}: {error}; fix that, or set DATA_DIR to a directory that this user may write to",
        path.display()
    )
}
