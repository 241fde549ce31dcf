//! Which tokens are refused although they have not expired. Asking costs no query: what is revoked is held in memory.
//!
//! A request that finds it older than [`FRESH`] reads it again, so that an idle server lets the database sleep. Requests that find
//! it older than [`STALE`] wait for that reading, so that a revocation holds on all instances within two seconds. They wait
//! until it has lasted for [`PATIENCE`]: while PostgreSQL does not answer, what is known is trusted for [`TRUSTED`], and then no token is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, RwLock, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::caller::{Caller, Credential};
use crate::domain::session::{Revocation, Revoked, TokenId};
use crate::domain::user::UserId;
use crate::store::{self, RevocationChanges};
use crate::sync::{lock, unpoisoned};

/// Until then nobody reads again.
const FRESH: Duration = Duration::from_secs(1);
/// From then on nothing is decided without having read.
const STALE: Duration = Duration::from_millis(1_500);
/// How long a reading may last before requests go on without it.
const PATIENCE: Duration = Duration::from_millis(500);
/// Interval between two looks at a reading by another request.
const LOOK: Duration = Duration::from_millis(5);
/// From then on nobody is trusted.
const TRUSTED: Duration = Duration::from_secs(30);
/// Between two readings that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Reads what has changed since a reading.
type Read<'r> = &'r dyn Fn(i64) -> Result<RevocationChanges, store::Error>;

/// What is revoked.
#[derive(Default)]
pub struct Revocations {
    known: RwLock<Known>,
    reading: Mutex<Reading>,
    /// When the reading that is under way began.
    began: Mutex<Option<Instant>>,
}

/// Until when, in seconds since 1970; `None` is for good.
type Until = Option<i64>;

#[derive(Default)]
struct Known {
    sessions: HashMap<uuid::Uuid, Until>,
    users: HashMap<UserId, Until>,
    tokens: HashMap<TokenId, Until>,
    issued_before: HashMap<UserId, i64>,
    // When this was the whole truth; `None` where nothing has been read yet.
    at: Option<Instant>,
}

#[derive(Default)]
struct Reading {
    next: i64,
    failed: Option<Instant>,
}

impl Revocations {
    /// Whether this caller's token is still good.
    ///
    /// # Errors
    /// The database could not be asked for longer than anybody is trusted.
    pub fn allow(&self, caller: &Caller, read: Read) -> Result<bool, store::Error> {
        self.keep_fresh(read)?;
        let known = unpoisoned(self.known.read());
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let refused = |until: Option<&Until>| {
            until.is_some_and(|until| until.is_none_or(|until| now < until))
        };
        let this_one = match &caller.credential {
            Credential::Session(id) => known.sessions.get(id),
            Credential::Token(token) => known.tokens.get(&token.id),
            Credential::ApiToken(_) => None,
        };
        let too_old = caller.issued_at.is_some_and(|issued_at| {
            known
                .issued_before
                .get(&caller.user)
                .is_some_and(|second| issued_at < *second)
        });
        Ok(!refused(this_one) && !too_old && !refused(known.users.get(&caller.user)))
    }

    /// Takes note of what has just been revoked here, so that it holds at once.
    pub fn note(&self, revocations: &[Revocation]) {
        self.write(|known| known.apply(revocations));
    }

    /// Reads what is revoked, also right after a reading that failed: the database has just been opened.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub fn warm_up(&self, read: Read) -> Result<(), store::Error> {
        lock(&self.reading).failed = None;
        self.keep_fresh(read)
    }

    /// Reads what is revoked, where that has not just been done.
    ///
    /// # Errors
    /// As [`Revocations::allow`].
    pub fn keep_fresh(&self, read: Read) -> Result<(), store::Error> {
        let age = self.age();
        if age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let patience = match age {
            Some(age) if age < STALE => Duration::ZERO,
            _ => PATIENCE,
        };
        let Some(mut reading) = self.lock_within(patience) else {
            return self.trust(|| {
                store::Error::Unavailable("revocations are being read for too long".to_owned())
            });
        };
        // Another may have read while we waited, or may have tried to.
        if self.age().is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let failed = if reading.failed.is_some_and(|when| when.elapsed() < RETRY) {
            store::Error::Unavailable("revocations could not be read a moment ago".to_owned())
        } else {
            let began = Instant::now();
            *lock(&self.began) = Some(began);
            // Transactions are numbered anew where the database is another one now, restored from a backup, say: then what was read
            // says nothing of where to go on.
            let changes = read(reading.next).and_then(|changes| {
                if changes.next < reading.next {
                    read(0)
                } else {
                    Ok(changes)
                }
            });
            *lock(&self.began) = None;
            match changes {
                Ok(changes) => {
                    if reading.failed.take().is_some() {
                        log::info!("revocations can be read again");
                    }
                    reading.next = changes.next;
                    self.write(|known| {
                        known.apply(&changes.revocations);
                        known.forget_what_is_over();
                        known.at = Some(began);
                    });
                    return Ok(());
                }
                Err(error) => {
                    if reading.failed.replace(Instant::now()).is_none() {
                        log::warn!(
                            "revocations cannot be read: {error}; tokens are trusted for {} s after the last reading",
                            TRUSTED.as_secs()
                        );
                    }
                    error
                }
            }
        };
        self.trust(|| failed)
    }

    /// Accepts what is known if it is not too old for that.
    fn trust(&self, failed: impl FnOnce() -> store::Error) -> Result<(), store::Error> {
        if self.age().is_some_and(|age| age < TRUSTED) {
            Ok(())
        } else {
            Err(failed())
        }
    }

    fn age(&self) -> Option<Duration> {
        unpoisoned(self.known.read()).at.map(|at| at.elapsed())
    }

    fn write(&self, change: impl FnOnce(&mut Known)) {
        let mut known = unpoisoned(self.known.write());
        change(&mut known);
    }

    /// The right to read, unless another request has been reading for longer than this. So only the first requests wait while
    /// PostgreSQL does not answer.
    fn lock_within(&self, patience: Duration) -> Option<MutexGuard<'_, Reading>> {
        loop {
            match self.reading.try_lock() {
                Ok(reading) => return Some(reading),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            let began = *lock(&self.began);
            if began.map_or(Duration::ZERO, |began| began.elapsed()) >= patience {
                return None;
            }
            thread::sleep(LOOK);
        }
    }
}

impl Known {
    fn apply(&mut self, revocations: &[Revocation]) {
        for Revocation { whose, until } in revocations {
            let until = until.map(OffsetDateTime::unix_timestamp);
            match whose {
                Revoked::Session(id) => drop(self.sessions.insert(*id, until)),
                Revoked::User(id) => drop(self.users.insert(id.clone(), until)),
                Revoked::Token(id) => drop(self.tokens.insert(*id, until)),
                Revoked::IssuedBefore(user, second) => {
                    // What was noted here may be newer than what was read.
                    let known = self.issued_before.entry(user.clone()).or_insert(*second);
                    *known = (*second).max(*known);
                }
            }
        }
    }

    fn forget_what_is_over(&mut self) {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let lasts = |until: &Until| until.is_none_or(|until| now < until);
        self.sessions.retain(|_, until| lasts(until));
        self.users.retain(|_, until| lasts(until));
        self.tokens.retain(|_, until| lasts(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use uuid::Uuid;

    fn caller(session: Uuid) -> Caller {
        Caller {
            user: UserId::parse("u").unwrap(),
            email: None,
            issued_at: None,
            credential: Credential::Session(session),
        }
    }

    fn changes(next: i64, session: Option<Uuid>) -> RevocationChanges {
        let revocation = |id| Revocation {
            whose: Revoked::Session(id),
            until: None,
        };
        RevocationChanges {
            revocations: session.map(revocation).into_iter().collect(),
            next,
        }
    }

    #[test]
    fn a_database_that_counts_anew_is_read_from_the_start() {
        let (revocations, session) = (Revocations::default(), Uuid::new_v4());
        let asked = RefCell::new(Vec::new());
        let read = |since: i64| {
            asked.borrow_mut().push(since);
            Ok(match (asked.borrow().len(), since) {
                (1, 0) => changes(5_000, None),
                // Restored from a backup: what was revoked since has a lower number.
                (_, 5_000) => changes(700, None),
                (_, 0) => changes(700, Some(session)),
                _ => changes(701, None),
            })
        };
        assert!(revocations.allow(&caller(session), &read).unwrap());
        assert!(
            revocations.allow(&caller(session), &read).unwrap(),
            "it has just been read"
        );
        std::thread::sleep(FRESH);
        assert!(!revocations.allow(&caller(session), &read).unwrap());
        std::thread::sleep(FRESH);
        assert!(!revocations.allow(&caller(session), &read).unwrap());
        assert_eq!(*asked.borrow(), [0, 5_000, 0, 700]);
    }

    #[test]
    fn what_was_never_read_is_not_trusted() {
        let revocations = Revocations::default();
        let read = |_| Err(store::Error::Unavailable("gone".to_owned()));
        assert!(revocations.allow(&caller(Uuid::new_v4()), &read).is_err());
    }
}
