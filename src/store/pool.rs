//! Connections with their prepared statements, and whether the database can be reached.
//!
//! A connection that PostgreSQL has ended looks open until it is read. After a restart of PostgreSQL all connections are like
//! that. So when one turns out dead, all connections that were made before are suspect, and are replaced before they are used
//! again. There is no ping before use, because it would cost a round trip on every request.
//!
//! After a failed attempt to connect, the next one follows a second later. Until one succeeds, a request that finds no open
//! connection fails at once. While PostgreSQL does not answer, a request does not wait for a connection in use either, because
//! such a connection is lost.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};
use postgres::{Row, RowIter, Statement, Transaction};
use r2d2::{ManageConnection, NopErrorHandler, PooledConnection};

use super::connector::{self, Deadline, PostgresConnection, Target};
use super::{Schema, StoreSettings};
use crate::config::DatabaseSettings;
use crate::metrics::{self, PoolState};
use crate::sync::lock;

/// Time between two attempts to connect while the database cannot be reached.
const RETRY: Duration = Duration::from_secs(1);
/// Time between two log lines about the same outage.
const REMINDER: Duration = Duration::from_secs(60);
/// A connection that was idle for longer is read before it is used. That costs about 1 ms and no round trip.
const FRESH: Duration = Duration::from_secs(1);
/// Time between two checks, during the wait for a connection, whether the database can still be reached.
const LOOK: Duration = Duration::from_millis(10);

/// A connection of the pool, with the statements prepared on it.
pub struct PooledClient {
    connection: PostgresConnection,
    schema: Schema,
    statements: HashMap<Cow<'static, str>, Statement>,
    generation: u64,
    made: Instant,
    used: Instant,
}

impl PooledClient {
    /// The prepared form of a statement, prepared on first use. `{schema}` in its text becomes the schema's name.
    ///
    /// # Errors
    /// PostgreSQL's, about the statement.
    pub fn prepared(&mut self, sql: &'static str) -> Result<Statement, postgres::Error> {
        match self.statements.get(sql) {
            Some(statement) => Ok(statement.clone()),
            None => self.prepare_and_keep(Cow::Borrowed(sql)),
        }
    }

    /// As [`PooledClient::prepared`], for a statement that is put together from parts. A connection keeps it, so there must not be many:
    /// there are 72 lists (all, open, done; in either direction; with a cursor and without; 6 common limits), 12 pages of
    /// changes, 136 writes to one task (each set of sent fields, completion and deletions, with a precondition and without), and 20 groups.
    ///
    /// # Errors
    /// PostgreSQL's, about the statement.
    pub fn prepared_built(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        match self.statements.get(sql) {
            Some(statement) => Ok(statement.clone()),
            None => self.prepare_and_keep(Cow::Owned(sql.to_owned())),
        }
    }

    fn prepare_and_keep(&mut self, sql: Cow<'static, str>) -> Result<Statement, postgres::Error> {
        let text = self.with_schema(&sql);
        let statement = self.connection.client.prepare(&text)?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    /// Runs a query in one round trip without preparing it. PostgreSQL plans it for its values, every time, as
    /// `plan_cache_mode = force_custom_plan` does for statements that are prepared.
    ///
    /// # Errors
    /// PostgreSQL's, about the query.
    pub fn query_planned<'v>(
        &mut self,
        sql: &str,
        values: impl Iterator<Item = (&'v (dyn ToSql + Sync), Type)>,
    ) -> Result<RowIter<'_>, postgres::Error> {
        let text = self.with_schema(sql);
        self.connection.client.query_typed_raw(&text, values)
    }

    /// The text of a statement with the schema's name.
    pub fn with_schema(&self, sql: &str) -> String {
        sql.replace("{schema}", &self.schema.quoted())
    }

    /// Begins a transaction of several statements. Each may take up to `patience`, however long the others
    /// waited for a lock. Statements must be prepared before.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn steps(&mut self, patience: Duration) -> Result<Steps<'_>, postgres::Error> {
        let deadline = self.connection.deadline.clone();
        deadline.set(Instant::now() + patience);
        Ok(Steps {
            transaction: self.connection.client.transaction()?,
            deadline,
            patience,
        })
    }

    /// Sets the moment by which the server must have answered.
    pub fn set_deadline(&self, at: Instant) {
        self.connection.deadline.set(at);
    }

    /// The deadline itself, to be moved while the connection is in use.
    pub fn deadline(&self) -> Deadline {
        self.connection.deadline.clone()
    }

    /// The time since it was opened.
    pub fn age(&self) -> Duration {
        self.made.elapsed()
    }

    /// Removes the deadline.
    pub fn clear_deadline(&mut self) {
        self.connection.deadline.clear();
        self.used = Instant::now();
    }
}

impl Deref for PooledClient {
    type Target = postgres::Client;

    fn deref(&self) -> &postgres::Client {
        &self.connection.client
    }
}

impl DerefMut for PooledClient {
    fn deref_mut(&mut self) -> &mut postgres::Client {
        &mut self.connection.client
    }
}

/// A transaction of several statements. Dropping it without a commit rolls it back.
pub struct Steps<'c> {
    transaction: Transaction<'c>,
    deadline: Deadline,
    patience: Duration,
}

impl Steps<'_> {
    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// PostgreSQL's, about the statement.
    pub fn query(
        &mut self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        self.deadline.set(Instant::now() + self.patience);
        self.transaction.query(statement, parameters)
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// PostgreSQL's. If no answer came, the transaction may have been committed.
    pub fn commit(self) -> Result<(), postgres::Error> {
        self.deadline.set(Instant::now() + self.patience);
        self.transaction.commit()
    }
}

/// Open connections, shared by the workers.
pub struct Pool {
    pool: r2d2::Pool<Manager>,
    link: Arc<DatabaseLink>,
}

impl Pool {
    /// A pool that fills itself in the background.
    pub fn open(settings: &StoreSettings) -> Pool {
        let link = Arc::<DatabaseLink>::default();
        let manager = Manager {
            target: settings.target.clone(),
            database: settings.database.clone(),
            link: Arc::clone(&link),
        };
        let pool = r2d2::Pool::builder()
            .max_size(settings.database.pool_size)
            // The check is local: see `Manager::is_valid`.
            .test_on_check_out(true)
            // The pool tries again after at most half of this.
            .connection_timeout(RETRY)
            // A connection is not replaced because of its age: that would wake a database that is suspended when idle.
            .idle_timeout(None)
            .max_lifetime(None)
            // A handler would log each failure of each thread of the pool. `DatabaseLink` logs an outage once.
            .error_handler(Box::new(NopErrorHandler))
            .build_unchecked(manager);
        Pool { pool, link }
    }

    /// A connection. Waits up to `timeout` for one, but not during an outage.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn get(&self, timeout: Duration) -> Result<PooledConnection<Manager>, String> {
        let asked = Instant::now();
        let until = asked + timeout;
        loop {
            if let Some(client) = self.pool.try_get() {
                return Ok(client);
            }
            if let Some(cause) = self.link.outage(self.pool.state().connections) {
                return Err(cause);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!(
                    "no database connection became free within {} ms",
                    timeout.as_millis()
                ));
            }
            if let Ok(client) = self.pool.get_timeout(left.min(LOOK)) {
                metrics::pool_waited(asked.elapsed());
                return Ok(client);
            }
        }
    }

    /// How many connections there are.
    pub fn state(&self) -> PoolState {
        let state = self.pool.state();
        PoolState {
            size: self.pool.max_size(),
            open: state.connections,
            idle: state.idle_connections,
        }
    }

    /// Marks all connections of this one's generation to be replaced before they are used again.
    pub fn suspect_all_like(&self, client: &PooledClient) {
        // If several callers do this at the same time, only the first increments the number. Connections made after that are not suspect.
        let _ = self.link.generation.compare_exchange(
            client.generation,
            client.generation + 1,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Notes that PostgreSQL did not answer in time a statement that was sent on this connection at `sent`.
    pub fn note_silence(&self, client: &PooledClient, sent: Instant, cause: &str) {
        self.suspect_all_like(client);
        self.link.note_silence(sent, cause);
    }
}

/// Makes connections for the pool, and checks them.
pub struct Manager {
    target: Target,
    database: DatabaseSettings,
    link: Arc<DatabaseLink>,
}

impl ManageConnection for Manager {
    type Connection = PooledClient;
    type Error = io::Error;

    fn connect(&self) -> io::Result<PooledClient> {
        let generation = self.link.generation.load(Ordering::Relaxed);
        let connection = self.link.attempt(|| {
            connector::connect(&self.target, &self.database).map_err(|error| FailedAttempt {
                answered: error.code().is_some(),
                cause: error.to_string(),
            })
        })?;
        Ok(PooledClient {
            connection,
            schema: self.database.schema.clone(),
            statements: HashMap::new(),
            generation,
            made: Instant::now(),
            used: Instant::now(),
        })
    }

    /// Checks a connection without a round trip.
    fn is_valid(&self, client: &mut PooledClient) -> io::Result<()> {
        if self.link.suspects(client) {
            return Err(io::Error::other(
                "a connection of the same generation was lost",
            ));
        }
        // Reads what has arrived. It may be the end of the stream, or PostgreSQL's message that it ends the connection, after which
        // `is_closed` is still false.
        let ended = client.used.elapsed() > FRESH
            && client
                .notifications()
                .timeout_iter(Duration::ZERO)
                .next()
                .is_err();
        if ended || client.is_closed() || client.connection.deadline.has_ended() {
            return Err(io::Error::other("PostgreSQL has closed it"));
        }
        Ok(())
    }

    fn has_broken(&self, client: &mut PooledClient) -> bool {
        client.is_closed() || self.link.suspects(client)
    }
}

/// Whether the database can be reached. Shared by the pool's threads and the workers.
#[derive(Default)]
struct DatabaseLink {
    /// Incremented when a connection turns out dead. Connections of an older generation are suspect.
    generation: AtomicU64,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    outage: Option<Outage>,
    /// When the last connection was made.
    connected: Option<Instant>,
}

struct Outage {
    began: Instant,
    cause: String,
    /// PostgreSQL answers, but accepts no more connections. Open connections can be used.
    answered: bool,
    /// No attempt is made before this time.
    next_attempt: Instant,
    /// Whether an attempt is under way.
    trying: bool,
    /// When the log last mentioned it.
    logged: Instant,
}

/// Why an attempt to connect failed.
struct FailedAttempt {
    cause: String,
    /// Whether PostgreSQL refused the connection.
    answered: bool,
}

impl DatabaseLink {
    fn suspects(&self, client: &PooledClient) -> bool {
        client.generation != self.generation.load(Ordering::Relaxed)
    }

    /// The cause of an outage during which waiting for a connection is useless. `open` connections are open, all in use.
    fn outage(&self, open: u32) -> Option<String> {
        self.lock()
            .outage
            .as_ref()
            .filter(|outage| open == 0 || !outage.answered)
            .map(|outage| outage.cause.clone())
    }

    /// Begins an outage, because a statement sent at `sent` was not answered, unless a connection was made after that time.
    fn note_silence(&self, sent: Instant, cause: &str) {
        let mut state = self.lock();
        if state.outage.is_none() && state.connected.is_none_or(|connected| connected <= sent) {
            log::warn!("the database has stopped answering: {cause}; connecting again");
            state.outage = Some(Outage::new(cause.to_owned(), false, Instant::now()));
        }
    }

    /// Tries to connect, but during an outage only once a second and on one thread at a time.
    fn attempt<T>(&self, connect: impl FnOnce() -> Result<T, FailedAttempt>) -> io::Result<T> {
        let probing = match self.lock().outage.as_mut() {
            Some(outage) if outage.trying || Instant::now() < outage.next_attempt => {
                return Err(io::Error::other(outage.cause.clone()));
            }
            Some(outage) => {
                outage.trying = true;
                true
            }
            None => false,
        };
        // After a panic the pool would count this connection for ever and not try again.
        let result = catch_unwind(AssertUnwindSafe(connect));
        let now = Instant::now();
        let mut state = self.lock();
        let FailedAttempt { cause, answered } = match result {
            Ok(Ok(made)) => {
                state.connected = Some(now);
                if let Some(outage) = state.outage.take() {
                    let seconds = outage.began.elapsed().as_secs_f64();
                    log::info!("the database can be reached again after {seconds:.1} s");
                }
                return Ok(made);
            }
            Ok(Err(failure)) => failure,
            Err(_) => FailedAttempt {
                cause: "connecting panicked".to_owned(),
                answered: false,
            },
        };
        match &mut state.outage {
            None => {
                log::warn!("the database cannot be reached: {cause}; trying again every second");
                state.outage = Some(Outage::new(cause.clone(), answered, now + RETRY));
            }
            Some(outage) => {
                if outage.logged.elapsed() >= REMINDER {
                    log::warn!("the database still cannot be reached: {cause}");
                    outage.logged = now;
                }
                outage.cause.clone_from(&cause);
                outage.answered = answered;
                outage.next_attempt = now + RETRY;
                outage.trying &= !probing;
            }
        }
        Err(io::Error::other(cause))
    }

    fn lock(&self) -> MutexGuard<'_, LinkState> {
        lock(&self.state)
    }
}

impl Outage {
    fn new(cause: String, answered: bool, next_attempt: Instant) -> Outage {
        Outage {
            began: Instant::now(),
            cause,
            answered,
            next_attempt,
            trying: false,
            logged: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(answered: bool) -> Result<(), FailedAttempt> {
        Err(FailedAttempt {
            cause: "refused".to_owned(),
            answered,
        })
    }

    #[test]
    fn an_outage_is_probed_once_a_second() {
        let link = DatabaseLink::default();
        assert!(link.outage(0).is_none());
        assert!(link.attempt(|| refuse(false)).is_err());
        assert_eq!(link.outage(1).as_deref(), Some("refused"));
        assert!(link.attempt(|| Ok(())).is_err(), "too early to try again");
        std::thread::sleep(RETRY);
        assert!(link.attempt(|| Ok(())).is_ok());
        assert!(link.outage(0).is_none());
    }

    #[test]
    fn open_connections_are_used_while_the_server_refuses_new_ones() {
        let link = DatabaseLink::default();
        assert!(link.attempt(|| refuse(true)).is_err());
        assert!(link.outage(1).is_none() && link.outage(0).is_some());
    }

    #[test]
    fn a_silence_is_an_outage_until_the_next_connection() {
        let link = DatabaseLink::default();
        let sent = Instant::now();
        link.note_silence(sent, "silent");
        assert!(link.outage(1).is_some());
        assert!(link.attempt(|| Ok(())).is_ok(), "it is tried at once");
        assert!(link.outage(1).is_none());
        link.note_silence(sent, "silent");
        assert!(
            link.outage(1).is_none(),
            "a connection was made after that statement"
        );
    }

    #[test]
    fn an_attempt_that_panics_has_failed() {
        let link = DatabaseLink::default();
        let panics = || -> Result<(), FailedAttempt> { panic!("in connect") };
        assert!(link.attempt(panics).is_err());
        std::thread::sleep(RETRY);
        assert!(link.attempt(panics).is_err());
        std::thread::sleep(RETRY);
        assert!(link.attempt(|| Ok(())).is_ok(), "none is under way");
    }
}
