//! Connections that carry their prepared statements, and what is known of the link to the database.
//!
//! A connection that PostgreSQL has ended looks open until it is read, and after a restart all of them are like that. So when
//! one turns out dead, every connection made before that moment is suspect and replaced before it is used again. There is no
//! ping before use: it would cost a round trip on every request.
//!
//! When a connection cannot be made, the next attempt is a second away, and until one succeeds whoever finds the pool
//! empty is told so at once.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::Statement;
use postgres::fallible_iterator::FallibleIterator;
use r2d2::{HandleError, ManageConnection, PooledConnection};

use super::connector::{self, Connection, Session, Target};
use super::{Schema, Settings};

/// Between two attempts to connect while the database cannot be reached.
const RETRY: Duration = Duration::from_secs(1);
/// How often an outage is mentioned in the log.
const REMINDER: Duration = Duration::from_secs(60);
/// A connection idle for longer is looked at before it is used; that costs no round trip, but about 1 ms.
const FRESH: Duration = Duration::from_secs(1);
/// How often a caller that waits for a connection looks whether the database has gone away meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// A connection of the pool, with the statements prepared on it.
pub struct Client {
    connection: Connection,
    schema: Schema,
    statements: HashMap<&'static str, Statement>,
    generation: u64,
    used: Instant,
}

impl Client {
    /// The prepared form of a statement, prepared on first use. `{schema}` in its text becomes the schema's name.
    ///
    /// # Errors
    /// What PostgreSQL says of the statement.
    pub fn prepared(&mut self, sql: &'static str) -> Result<Statement, postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self
            .connection
            .client
            .prepare(&sql.replace("{schema}", self.schema.as_str()))?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    /// Sets the moment by which the server must have answered.
    pub fn set_deadline(&self, at: Instant) {
        self.connection.deadline.set(at);
    }

    /// Takes the deadline away again.
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
    pub fn open(settings: &Settings) -> Pool {
        let link = Arc::new(Link::default());
        let manager = Manager {
            target: settings.target.clone(),
            session: settings.session.clone(),
            schema: settings.schema.clone(),
            link: Arc::clone(&link),
        };
        let pool = r2d2::Pool::builder()
            .max_size(settings.pool_size)
            // The check is local: see `Manager::is_valid`.
            .test_on_check_out(true)
            // The pool tries again after at most half of this.
            .connection_timeout(RETRY)
            // Nothing is renewed for its age: it would wake a database that sleeps when idle.
            .idle_timeout(None)
            .max_lifetime(None)
            .error_handler(Box::new(Quiet))
            .build_unchecked(manager);
        Pool { pool, link }
    }

    /// A connection, waiting up to `timeout` for one; not at all when there is none and none can be made.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn get(&self, timeout: Duration) -> Result<PooledConnection<Manager>, String> {
        if let Some(client) = self.pool.try_get() {
            return Ok(client);
        }
        let until = Instant::now() + timeout;
        loop {
            if self.pool.state().connections == 0
                && let Some(cause) = self.link.outage()
            {
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
                return Ok(client);
            }
        }
    }

    /// Has every connection that is open now replaced before it is used again.
    pub fn suspect_all(&self) {
        self.link.generation.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes connections for the pool and says which are still good.
pub struct Manager {
    target: Target,
    session: Session,
    schema: Schema,
    link: Arc<Link>,
}

impl ManageConnection for Manager {
    type Connection = Client;
    type Error = LinkError;

    fn connect(&self) -> Result<Client, LinkError> {
        let generation = self.link.generation.load(Ordering::Relaxed);
        let connection = self.link.attempt(|| {
            connector::connect(&self.target, &self.session).map_err(|error| error.to_string())
        })?;
        Ok(Client {
            connection,
            schema: self.schema.clone(),
            statements: HashMap::new(),
            generation,
            used: Instant::now(),
        })
    }

    /// Whether nothing speaks against a connection. Asks the server nothing.
    fn is_valid(&self, client: &mut Client) -> Result<(), LinkError> {
        if client.generation != self.link.generation.load(Ordering::Relaxed) {
            return Err(LinkError(
                "another connection of its age was lost".to_owned(),
            ));
        }
        if client.used.elapsed() > FRESH {
            // Reads what has arrived meanwhile, which may be the end of the connection.
            let _ = client.notifications().timeout_iter(Duration::ZERO).next();
        }
        if client.is_closed() {
            Err(LinkError("PostgreSQL has closed it".to_owned()))
        } else {
            Ok(())
        }
    }

    fn has_broken(&self, client: &mut Client) -> bool {
        client.is_closed()
    }
}

/// Why there is no connection: a sentence for the log.
#[derive(Debug)]
pub struct LinkError(String);

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LinkError {}

/// The pool reports every failure of every thread of its own; [`Link`] has said it once already.
#[derive(Debug)]
struct Quiet;

impl HandleError<LinkError> for Quiet {
    fn handle_error(&self, _: LinkError) {}
}

/// What is known of the link to the database, shared by the pool's threads and the workers.
#[derive(Default)]
struct Link {
    /// Goes up when a connection turns out dead; connections of an older generation are suspect.
    generation: AtomicU64,
    outage: Mutex<Option<Outage>>,
}

struct Outage {
    began: Instant,
    cause: String,
    /// When the last attempt ended; `None` while one is under way.
    tried: Option<Instant>,
    mentioned: Instant,
}

impl Link {
    /// Why connections cannot be made at present, if they cannot.
    fn outage(&self) -> Option<String> {
        self.lock().as_ref().map(|outage| outage.cause.clone())
    }

    /// Tries to connect, but during an outage only once a second and on one thread at a time.
    fn attempt<T>(&self, connect: impl FnOnce() -> Result<T, String>) -> Result<T, LinkError> {
        if let Some(outage) = self.lock().as_mut() {
            match outage.tried {
                Some(tried) if tried.elapsed() >= RETRY => outage.tried = None,
                _ => return Err(LinkError(outage.cause.clone())),
            }
        }
        let result = connect();
        let now = Instant::now();
        let mut state = self.lock();
        match (result, state.as_mut()) {
            (Ok(made), None) => Ok(made),
            (Ok(made), Some(outage)) => {
                log::info!(
                    "the database is back after {:.1} s",
                    outage.began.elapsed().as_secs_f64()
                );
                *state = None;
                Ok(made)
            }
            (Err(cause), None) => {
                log::warn!("the database cannot be reached: {cause}; trying again every second");
                *state = Some(Outage {
                    began: now,
                    cause: cause.clone(),
                    tried: Some(now),
                    mentioned: now,
                });
                Err(LinkError(cause))
            }
            (Err(cause), Some(outage)) => {
                if outage.mentioned.elapsed() >= REMINDER {
                    log::warn!("the database still cannot be reached: {cause}");
                    outage.mentioned = now;
                }
                outage.tried = Some(now);
                outage.cause.clone_from(&cause);
                Err(LinkError(cause))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Outage>> {
        // Nothing that is done under this lock can leave it half done.
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_probed_once_a_second() {
        let link = Link::default();
        let refuse = || Err::<(), _>("refused".to_owned());
        assert!(link.outage().is_none());
        assert!(link.attempt(refuse).is_err());
        assert_eq!(link.outage().as_deref(), Some("refused"));
        assert!(link.attempt(|| Ok(())).is_err(), "too early to try again");
        std::thread::sleep(RETRY);
        assert!(link.attempt(|| Ok(())).is_ok());
        assert!(link.outage().is_none());
    }
}
