//! PostgreSQL: connections, the schema, and every SQL statement.
//!
//! - [`connector`]: from a database URL to an open connection on which every wait has a deadline
//! - [`pool`]: connections with their prepared statements, and the state of the link to the database
//! - [`opening`]: connects, checks the server, and brings the schema to the version this program needs
//! - `migrations`: lists and applies the migrations
//! - [`diagnosis`]: the checks of `todo-api doctor` in the database
//! - `rules`: finds rows that break a rule of this program
//! - `group`: joins statements on one task that wait at the same time
//! - [`maintenance`]: removes rows that are no longer needed
//! - [`takeover`]: reads the database of another back end, and writes its users
//! - `tasks`: the statements on tasks and their tags
//! - `accounts`, `sessions`, `revocations`, `api_tokens`: the statements on users and their tokens
//!
//! Statements contain `{schema}`, which is replaced with the quoted name of the schema when a statement is prepared. A statement
//! runs once, in one round trip. If the connection of a read turns out dead, the read is sent again on a new one. A write is sent
//! again only if PostgreSQL says that it ended the connection before the statement (SQLSTATE 57P01), or that it cannot run the
//! statement on this connection. Otherwise the error is `Unavailable`, because the write may have happened.

mod accounts;
mod api_tokens;
pub mod connector;
pub mod diagnosis;
mod feed;
mod group;
pub mod maintenance;
mod migrations;
pub mod opening;
pub mod pool;
mod revocations;
mod rules;
mod sessions;
pub mod takeover;
mod tasks;

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::Row;
use postgres::error::SqlState;
use postgres::types::ToSql;

use connector::Target;
use pool::{Pool, PooledClient};

use crate::config::DatabaseSettings;
use crate::metrics::{self, PoolState};

use tasks::TaskGroups;

pub use crate::domain::schema::Schema;
pub use accounts::{NewAccount, PasswordCredential, Registered, Updated, UserRow};
pub use api_tokens::{ApiTokenAdded, ApiTokenUse};
pub use group::{GroupResult, GroupedStatement};
pub use revocations::{Everywhere, Refused, RevocationChanges};
pub use sessions::{NewSession, OpenedSession, Refreshed, RefreshedSession};
pub use tasks::{
    BulkOutcome, IMPORTED_AT_ONCE, ListedTasks, Refusal, ShownTask, TaskChanges, TaskCreation,
    TaskOutcome, TaskPage, TaskRestoration,
};

/// A database and how it is used.
#[derive(Clone)]
pub struct StoreSettings {
    /// The target of requests.
    pub target: Target,
    /// The target of migrations, if it is another one. They need a direct connection, because a pooler keeps no session.
    pub direct_target: Option<Target>,
    /// The settings of the group `database`, whose addresses are not used.
    pub database: DatabaseSettings,
}

impl StoreSettings {
    /// The database at `url`, used as `database` says.
    ///
    /// # Errors
    /// An address is wrong.
    pub fn new(url: &str, database: &DatabaseSettings) -> Result<StoreSettings, String> {
        let target = Target::parse(url)?;
        let direct_target = match &database.url_unpooled {
            Some(url) => Some(Target::parse(url.expose())?),
            None => target.unpooled(),
        };
        Ok(StoreSettings {
            target,
            direct_target,
            database: database.clone(),
        })
    }
}

/// Why a statement failed. The texts are for the log: they may name hosts and constraints.
#[derive(Debug)]
pub enum Error {
    /// The database is unavailable, or did not answer in time. The request may be correct.
    Unavailable(String),
    /// The user was deleted a moment ago.
    UserGone,
    /// The database refused a statement because of a defect of this program.
    Internal(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unavailable(cause) | Error::Internal(cause) => f.write_str(cause),
            Error::UserGone => f.write_str("the user was deleted a moment ago"),
        }
    }
}

/// The state of the database for requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The database can be used.
    Ready,
    /// PostgreSQL cannot be reached.
    DatabaseNotReady,
    /// PostgreSQL answers, but the tables are not those that this program needs.
    SchemaNotReady,
}

/// Time after the server's own `statement_timeout` until a link counts as silent.
const SILENCE: Duration = Duration::from_millis(500);

/// A connection younger than this that turns out read-only is not replaced, because the next one would be read-only too.
const READ_ONLY_AGE: Duration = Duration::from_secs(1);

/// The tables, behind a pool of connections.
pub struct Store {
    settings: StoreSettings,
    // Set once the schema is known to be right.
    pool: OnceLock<Pool>,
    groups: TaskGroups,
    asked: AtomicBool,
}

/// Whether a statement may be sent again after its connection was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Read,
    Write,
    /// Never sent again, because rows were already sent to a client or written into a file.
    Once,
}

impl Store {
    /// A store that is not connected yet. Until [`Store::open`] succeeds, every operation fails as unavailable.
    pub fn new(settings: StoreSettings) -> Store {
        Store {
            settings,
            pool: OnceLock::new(),
            groups: TaskGroups::default(),
            asked: AtomicBool::new(false),
        }
    }

    /// Connects once, checks the server, brings the schema up to date, and opens the pool. Waits until `until` for another
    /// instance's migrations.
    ///
    /// # Errors
    /// See [`opening::OpenError`]; only some of them are worth another try.
    pub fn open(&self, until: Instant) -> Result<opening::Opened, opening::OpenError> {
        let opened = opening::open(&self.settings, until)?;
        self.pool.get_or_init(|| Pool::open(&self.settings));
        Ok(opened)
    }

    /// Checks that the database answers and has the tables that this program needs.
    pub fn readiness(&self) -> Readiness {
        let version = self.run(Effect::Read, |client| {
            let statement = client.prepared(migrations::CURRENT_VERSION)?;
            client
                .query_opt(&statement, &[])?
                .map(|row| row.try_get::<_, Option<i32>>(0))
                .transpose()
        });
        match version {
            Ok(Some(Some(version))) if version >= migrations::latest() => Readiness::Ready,
            Ok(_) | Err(Error::Internal(_) | Error::UserGone) => Readiness::SchemaNotReady,
            Err(Error::Unavailable(_)) => Readiness::DatabaseNotReady,
        }
    }

    /// Whether the database was used since the last call.
    pub fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }

    /// The most connections.
    pub fn pool_size(&self) -> usize {
        usize::try_from(self.settings.database.pool_size).unwrap_or(usize::MAX)
    }

    /// The number of open connections.
    pub fn pool_state(&self) -> PoolState {
        self.pool.get().map_or_else(PoolState::default, Pool::state)
    }

    /// Runs an operation on a connection of the pool, with a deadline, and again if that is safe. Counts failures.
    fn run<T>(
        &self,
        effect: Effect,
        operation: impl Fn(&mut PooledClient) -> Result<T, postgres::Error>,
    ) -> Result<T, Error> {
        self.attempt(effect, operation).inspect_err(|error| {
            metrics::database_failed(match error {
                Error::Unavailable(_) => "unavailable",
                Error::Internal(_) => "internal",
                Error::UserGone => "user_gone",
            });
        })
    }

    /// Runs a statement that has one row or none, and reads it.
    fn row<T>(
        &self,
        effect: Effect,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
        read: impl Fn(&Row) -> Result<T, postgres::Error>,
    ) -> Result<Option<T>, Error> {
        self.run(effect, |client| {
            let statement = client.prepared(sql)?;
            let row = client.query_opt(&statement, parameters)?;
            row.as_ref().map(&read).transpose()
        })
    }

    /// Runs a query, and reads all its rows.
    fn rows<T>(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
        read: impl Fn(&Row) -> Result<T, postgres::Error>,
    ) -> Result<Vec<T>, Error> {
        self.run(Effect::Read, |client| {
            let statement = client.prepared(sql)?;
            let rows = client.query(&statement, parameters)?;
            rows.iter().map(&read).collect()
        })
    }

    /// Runs a statement, and returns the number of rows that it changed or found.
    fn execute(
        &self,
        effect: Effect,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        self.run(effect, |client| {
            let statement = client.prepared(sql)?;
            client.execute(&statement, parameters)
        })
    }

    /// How long a statement may take before its connection counts as silent.
    fn patience(&self) -> Duration {
        self.settings.database.statement_timeout + SILENCE
    }

    fn attempt<T>(
        &self,
        effect: Effect,
        operation: impl Fn(&mut PooledClient) -> Result<T, postgres::Error>,
    ) -> Result<T, Error> {
        let pool = self
            .pool
            .get()
            .ok_or_else(|| Error::Unavailable("the database is not ready yet".to_owned()))?;
        self.asked.store(true, Ordering::Relaxed);
        let mut sent_before = false;
        loop {
            let mut client = pool
                .get(self.settings.database.pool_timeout)
                .map_err(Error::Unavailable)?;
            let sent = Instant::now();
            client.set_deadline(sent + self.patience());
            let result = operation(&mut client);
            client.clear_deadline();
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let lost = is_lost(&error, &client);
            let outdated = is_outdated(&error, &client);
            if is_silence(&error) {
                pool.note_silence(&client, sent, &describe(&error));
            } else if lost || outdated {
                pool.suspect_all_like(&client);
            }
            let is_safe = outdated || (lost && may_send_again(effect, &error));
            if !sent_before && effect != Effect::Once && is_safe {
                sent_before = true;
                continue;
            }
            return Err(classify(&error, lost));
        }
    }
}

/// Whether a statement failed because of this constraint.
fn violates(error: &postgres::Error, constraint: &str) -> bool {
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
        && error.as_db_error().and_then(|db| db.constraint()) == Some(constraint)
}

fn is_lost(error: &postgres::Error, client: &PooledClient) -> bool {
    client.is_closed()
        || error.is_closed()
        || io_kind(error).is_some()
        // Class 57, operator intervention: PostgreSQL ended the connection. Class 08: the connection itself failed.
        || error.code().is_some_and(|code| code.code().starts_with("57P") || code.code().starts_with("08"))
}

/// Whether PostgreSQL refused to run the statement for a reason that a new connection may not have.
fn is_outdated(error: &postgres::Error, client: &PooledClient) -> bool {
    let Some(db) = error.as_db_error() else {
        return false;
    };
    match *db.code() {
        // "cached plan must not change result type": a migration of a newer instance has changed a table. The text may be
        // translated, so the name of PostgreSQL's function is compared.
        SqlState::FEATURE_NOT_SUPPORTED => db.routine() == Some("RevalidateCachedQuery"),
        // The prepared statement no longer exists, because a pooler has deallocated it.
        SqlState::INVALID_SQL_STATEMENT_NAME => true,
        // After a failover behind a proxy an old connection leads to a replica. If a new connection leads there too, a write must
        // not replace all connections again.
        SqlState::READ_ONLY_SQL_TRANSACTION => client.age() >= READ_ONLY_AGE,
        _ => false,
    }
}

fn is_silence(error: &postgres::Error) -> bool {
    io_kind(error) == Some(std::io::ErrorKind::TimedOut)
}

fn io_kind(error: &postgres::Error) -> Option<std::io::ErrorKind> {
    std::error::Error::source(error)?
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind)
}

fn may_send_again(effect: Effect, error: &postgres::Error) -> bool {
    match effect {
        // After a silence no time is left for a second attempt.
        Effect::Read => !is_silence(error),
        Effect::Write | Effect::Once => error.code() == Some(&SqlState::ADMIN_SHUTDOWN),
    }
}

fn classify(error: &postgres::Error, lost: bool) -> Error {
    let text = describe(error);
    let passing = error.code().is_some_and(|code| {
        matches!(
            *code,
            SqlState::QUERY_CANCELED
                | SqlState::LOCK_NOT_AVAILABLE
                | SqlState::T_R_SERIALIZATION_FAILURE
                | SqlState::T_R_DEADLOCK_DETECTED
                // See `is_outdated`.
                | SqlState::READ_ONLY_SQL_TRANSACTION
        ) || code.code().starts_with("53") // insufficient resources
    });
    // For example a task whose user still existed when the statement began.
    let user_gone = error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
        && error
            .as_db_error()
            .and_then(|db| db.constraint())
            .is_some_and(|name| name.ends_with("_user_id_fkey"));
    if user_gone {
        Error::UserGone
    } else if lost || passing {
        Error::Unavailable(text)
    } else {
        Error::Internal(text)
    }
}

/// An error for the log: the server's message and code, without the detail, which may repeat a row's values.
fn describe(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let constraint = db
                .constraint()
                .map(|name| format!(", constraint {name}"))
                .unwrap_or_default();
            format!(
                "PostgreSQL says: {} (SQLSTATE {}{constraint})",
                db.message(),
                db.code().code()
            )
        }
        None => {
            let source = std::error::Error::source(error)
                .map(|source| format!(": {source}"))
                .unwrap_or_default();
            format!("{error}{source}")
        }
    }
}
