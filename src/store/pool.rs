//! Connections with their prepared statements, and the state of the link to the database.
//!
//! A connection that PostgreSQL has ended looks open until it is read, and after a restart all of them are like that. So when one
//! turns out dead, every connection made before that moment is replaced before it is used again. There is no ping before use,
//! because it would cost a round trip on every request.
//!
//! If a connection cannot be made, the next attempt is made a second later. Until one succeeds, a request that finds the pool
//! empty fails at once. If PostgreSQL falls silent, no request waits for a connection in use, because it will not be returned.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};
use postgres::{RowIter, Statement};
use r2d2::{HandleError, ManageConnection, PooledConnection};

use super::connector::{self, Connection, Target};
use super::{Schema, StoreSettings};
use crate::config::DatabaseSettings;
use crate::metrics::{self, PoolState};
use crate::sync::lock;

/// Interval between two attempts to connect while the database cannot be reached.
const RETRY: Duration = Duration::from_secs(1);
/// Interval between log lines about an outage.
const REMINDER: Duration = Duration::from_secs(60);
/// A connection that was idle for longer is checked before it is used. That costs no round trip, but about 1 ms.
const FRESH: Duration = Duration::from_secs(1);
/// Interval at which a caller that waits for a connection checks whether the database has become unavailable.
const LOOK: Duration = Duration::from_millis(10);

/// A connection of the pool, with the statements prepared on it.
pub struct Client {
    connection: Connection,
    schema: Schema,
    statements: HashMap<Cow<'static, str>, Statement>,
    generation: u64,
    made: Instant,
    used: Instant,
}

impl Client {
    /// The prepared form of a statement, prepared on first use. `{schema}` in its text becomes the schema's name.
    ///
    /// # Errors
    /// What PostgreSQL says of the statement.
    pub fn prepared(&mut self, sql: &'static str) -> Result<Statement, postgres::Error> {
        match self.statements.get(sql) {
            Some(statement) => Ok(statement.clone()),
            None => self.prepare_and_keep(Cow::Borrowed(sql)),
        }
    }

    /// As [`Client::prepared`], for a statement that is composed of parts. A connection keeps it, so their number must be small:
    /// there are 72 lists (all, open, done; in either direction; with a cursor and without; 6 common limits) and 130 writes to
    /// one task (each set of sent fields, completion and deletion, with a precondition and without).
    ///
    /// # Errors
    /// What PostgreSQL says of the statement.
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
    /// What PostgreSQL says of it.
    pub fn query_planned<'v>(
        &mut self,
        sql: &str,
        values: impl Iterator<Item = (&'v (dyn ToSql + Sync), Type)>,
    ) -> Result<RowIter<'_>, postgres::Error> {
        let text = self.with_schema(sql);
        self.connection.client.query_typed_raw(&text, values)
    }

    fn with_schema(&self, sql: &str) -> String {
        sql.replace("{schema}", &self.schema.quoted())
    }

    /// Sets the deadline for the answer of the server.
    pub fn set_deadline(&self, at: Instant) {
        self.connection.deadline.set(at);
    }

    /// How long ago it was opened.
    pub fn age(&self) -> Duration {
        self.made.elapsed()
    }

    /// Removes the deadline.
    pub fn clear_deadline(&mut self) {
        self.connection.deadline.clear();
        self.used = Instant::now();
    }
}

impl Deref for Client {
    type Target = postgres::Client;

    fn deref(&self) -> &postgres::Client {
        &self.connection.client
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut postgres::Client {
        &mut self.connection.client
    }
}

/// Open connections, shared by the workers.
pub struct Pool {
    pool: r2d2::Pool<Manager>,
    link: Arc<Link>,
}

impl Pool {
    /// A pool that fills itself in the background.
    pub fn open(settings: &StoreSettings) -> Pool {
        let link = Arc::new(Link::default());
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
            // Old connections are not replaced, because that would wake a database that sleeps when idle.
            .idle_timeout(None)
            .max_lifetime(None)
            .error_handler(Box::new(Quiet))
            .build_unchecked(manager);
        Pool { pool, link }
    }

    /// Returns a connection. Waits up to `timeout`, or not at all if none can be expected.
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

    /// Marks this connection and all others of its age, so that they are replaced before they are used again.
    pub fn suspect_all_like(&self, client: &Client) {
        // Only the first of several concurrent callers counts, so that newer connections are not replaced too.
        let _ = self.link.generation.compare_exchange(
            client.generation,
            client.generation + 1,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Records that PostgreSQL did not answer in time to a statement sent on this connection at `sent`.
    pub fn note_silence(&self, client: &Client, sent: Instant, cause: &str) {
        self.suspect_all_like(client);
        self.link.note_silence(sent, cause);
    }
}

/// Makes connections for the pool and checks whether they are usable.
pub struct Manager {
    target: Target,
    database: DatabaseSettings,
    link: Arc<Link>,
}

impl ManageConnection for Manager {
    type Connection = Client;
    type Error = LinkError;

    fn connect(&self) -> Result<Client, LinkError> {
        let generation = self.link.generation.load(Ordering::Relaxed);
        let connection = self.link.attempt(|| {
            connector::connect(&self.target, &self.database).map_err(|error| Refusal {
                answered: error.code().is_some(),
                cause: error.to_string(),
            })
        })?;
        Ok(Client {
            connection,
            schema: self.database.schema.clone(),
            statements: HashMap::new(),
            generation,
            made: Instant::now(),
            used: Instant::now(),
        })
    }

    /// Whether a connection seems usable. Sends nothing to the server.
    fn is_valid(&self, client: &mut Client) -> Result<(), LinkError> {
        if self.link.suspects(client) {
            return Err(LinkError(
                "another connection of its age was lost".to_owned(),
            ));
        }
        // Reads what has arrived, which may be PostgreSQL's last message or the end of the stream. After the last message the
        // client counts as open until it is used again.
        let ended = client.used.elapsed() > FRESH
            && client
                .notifications()
                .timeout_iter(Duration::ZERO)
                .next()
                .is_err();
        if ended || client.is_closed() || client.connection.deadline.has_ended() {
            Err(LinkError("PostgreSQL has closed it".to_owned()))
        } else {
            Ok(())
        }
    }

    fn has_broken(&self, client: &mut Client) -> bool {
        client.is_closed() || self.link.suspects(client)
    }
}

/// Why no connection is available: a sentence for the log.
#[derive(Debug)]
pub struct LinkError(String);

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LinkError {}

/// Ignores the errors of the pool's threads, because [`Link`] has logged them already.
#[derive(Debug)]
struct Quiet;

impl HandleError<LinkError> for Quiet {
    fn handle_error(&self, _: LinkError) {}
}

/// The state of the link to the database, shared by the pool's threads and the workers.
#[derive(Default)]
struct Link {
    /// Increases when a connection turns out dead. Connections of an older generation are replaced.
    generation: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outage: Option<Outage>,
    /// When the last connection was made.
    connected: Option<Instant>,
}

struct Outage {
    began: Instant,
    cause: String,
    /// PostgreSQL answers but accepts no more connections. Open connections may still work.
    answered: bool,
    /// The earliest time of the next attempt.
    next_attempt: Instant,
    /// Whether an attempt is running.
    trying: bool,
    mentioned: Instant,
}

/// Why an attempt to connect failed.
struct Refusal {
    cause: String,
    /// Whether PostgreSQL itself refused.
    answered: bool,
}

impl Link {
    fn suspects(&self, client: &Client) -> bool {
        client.generation != self.generation.load(Ordering::Relaxed)
    }

    /// Why waiting for a connection is useless, if it is. `open` connections are open, all in use.
    fn outage(&self, open: u32) -> Option<String> {
        self.lock()
            .outage
            .as_ref()
            .filter(|outage| open == 0 || !outage.answered)
            .map(|outage| outage.cause.clone())
    }

    /// Starts an outage, because a statement sent at `sent` was not answered, unless a connection was made since.
    fn note_silence(&self, sent: Instant, cause: &str) {
        let mut state = self.lock();
        if state.outage.is_none() && state.connected.is_none_or(|connected| connected <= sent) {
            log::warn!("the database has fallen silent: {cause}; trying to connect anew");
            state.outage = Some(Outage::new(cause.to_owned(), false, Instant::now()));
        }
    }

    /// Tries to connect. During an outage, only once a second and on one thread at a time.
    fn attempt<T>(&self, connect: impl FnOnce() -> Result<T, Refusal>) -> Result<T, LinkError> {
        let probing = match self.lock().outage.as_mut() {
            Some(outage) if outage.trying || Instant::now() < outage.next_attempt => {
                return Err(LinkError(outage.cause.clone()));
            }
            Some(outage) => {
                outage.trying = true;
                true
            }
            None => false,
        };
        // After a panic the pool would count this connection forever and not try again.
        let result = catch_unwind(AssertUnwindSafe(connect)).unwrap_or_else(|_| {
            Err(Refusal {
                cause: "connecting panicked".to_owned(),
                answered: false,
            })
        });
        let now = Instant::now();
        let mut state = self.lock();
        let refusal = match result {
            Ok(made) => {
                state.connected = Some(now);
                if let Some(outage) = state.outage.take() {
                    log::info!(
                        "the database is back after {:.1} s",
                        outage.began.elapsed().as_secs_f64()
                    );
                }
                return Ok(made);
            }
            Err(refusal) => refusal,
        };
        let Refusal { cause, answered } = refusal;
        match &mut state.outage {
            None => {
                log::warn!("the database cannot be reached: {cause}; trying again every second");
                state.outage = Some(Outage::new(cause.clone(), answered, now + RETRY));
            }
            Some(outage) => {
                if outage.mentioned.elapsed() >= REMINDER {
                    log::warn!("the database still cannot be reached: {cause}");
                    outage.mentioned = now;
                }
                outage.cause.clone_from(&cause);
                outage.answered = answered;
                outage.next_attempt = now + RETRY;
                outage.trying &= !probing;
            }
        }
        Err(LinkError(cause))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
            mentioned: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(answered: bool) -> Result<(), Refusal> {
        Err(Refusal {
            cause: "refused".to_owned(),
            answered,
        })
    }

    #[test]
    fn an_outage_is_probed_once_a_second() {
        let link = Link::default();
        assert!(link.outage(0).is_none());
        assert!(link.attempt(|| refuse(false)).is_err());
        assert_eq!(link.outage(1).as_deref(), Some("refused"));
        assert!(link.attempt(|| Ok(())).is_err(), "too early to try again");
        std::thread::sleep(RETRY);
        assert!(link.attempt(|| Ok(())).is_ok());
        assert!(link.outage(0).is_none());
    }

    #[test]
    fn a_server_that_refuses_new_connections_may_serve_the_open_ones() {
        let link = Link::default();
        assert!(link.attempt(|| refuse(true)).is_err());
        assert!(link.outage(1).is_none() && link.outage(0).is_some());
    }

    #[test]
    fn a_silence_is_an_outage_until_the_next_connection() {
        let link = Link::default();
        let sent = Instant::now();
        link.note_silence(sent, "silent");
        assert!(link.outage(1).is_some());
        assert!(link.attempt(|| Ok(())).is_ok(), "it is tried at once");
        assert!(link.outage(1).is_none());
        link.note_silence(sent, "silent");
        assert!(link.outage(1).is_none(), "that is older news");
    }

    #[test]
    fn an_attempt_that_panics_counts_as_failed() {
        let link = Link::default();
        let panics = || -> Result<(), Refusal> { panic!("in connect") };
        assert!(link.attempt(panics).is_err());
        std::thread::sleep(RETRY);
        assert!(link.attempt(panics).is_err());
        std::thread::sleep(RETRY);
        assert!(link.attempt(|| Ok(())).is_ok(), "none is under way");
    }
}
