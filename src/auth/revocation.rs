//! Tokens that are refused before they expire. All revocations are in memory, so that most requests need no query.
//!
//! A request reads new revocations if the last reading is older than [`FRESH`]; a server without requests does not read. If it is older
//! than [`STALE`], other requests wait until the new reading has ended or has lasted for [`PATIENCE`]. So a revocation holds on all
//! instances within two seconds. While PostgreSQL does not answer, the known revocations are used for [`TRUSTED`]; after that all
//! tokens are refused.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, RwLock, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::caller::{Caller, Credential};
use crate::domain::session::{Revocation, Revoked};
use crate::domain::user::UserId;
use crate::store::{self, RevocationChanges};
use crate::sync::{lock, unpoisoned};

/// Up to this age of the last reading, requests do not read.
const FRESH: Duration = Duration::from_secs(1);
/// From this age on, requests wait for a reading.
const STALE: Duration = Duration::from_millis(1_500);
/// How long a reading may last before requests continue without it.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time between two checks whether another request's reading has ended.
const LOOK: Duration = Duration::from_millis(5);
/// From this age on, no token is accepted.
const TRUSTED: Duration = Duration::from_secs(30);
/// Time between two readings that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Reads the revocations since a reading.
type ReadRevocations<'r> = &'r dyn Fn(i64) -> Result<RevocationChanges, store::Error>;

/// All revocations.
#[derive(Default)]
pub struct Revocations {
    known: RwLock<KnownRevocations>,
    reading: Mutex<LastReading>,
    /// When the present reading began.
    began: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct KnownRevocations {
    /// Sessions, users and tokens, each until a second since 1970 or, with `None`, for ever.
    refused: HashMap<Revoked, Option<i64>>,
    issued_before: HashMap<UserId, i64>,
    /// When the last reading began.
    at: Option<Instant>,
}

#[derive(Default)]
struct LastReading {
    next: i64,
    feed: String,
    failed: Option<Instant>,
}

impl Revocations {
    /// Whether this caller's token is accepted.
    ///
    /// # Errors
    /// The last reading is older than [`TRUSTED`], and the database does not answer.
    pub fn allow(&self, caller: &Caller, read: ReadRevocations) -> Result<bool, store::Error> {
        self.keep_fresh(read)?;
        let known = unpoisoned(self.known.read());
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let is_refused = |revoked: Revoked| {
            let until = known.refused.get(&revoked);
            until.is_some_and(|until| until.is_none_or(|until| now < until))
        };
        let token = match &caller.credential {
            Credential::Session(id) => Some(Revoked::Session(*id)),
            Credential::Token(token) => Some(Revoked::Token(token.id)),
            Credential::ApiToken(_) => None,
        };
        let earliest = known.issued_before.get(&caller.user).copied();
        let times = caller.issued_at.zip(earliest);
        let is_too_old = times.is_some_and(|(issued_at, earliest)| issued_at < earliest);
        let user = Revoked::User(caller.user.clone());
        Ok(!token.is_some_and(is_refused) && !is_too_old && !is_refused(user))
    }

    /// Adds revocations that were just stored, so that they hold at once.
    pub fn note(&self, revocations: &[Revocation]) {
        unpoisoned(self.known.write()).apply(revocations);
    }

    /// Reads the revocations, even right after a failed reading, because the database has just been opened.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn warm_up(&self, read: ReadRevocations) -> Result<(), store::Error> {
        lock(&self.reading).failed = None;
        self.keep_fresh(read)
    }

    /// Reads new revocations if the last reading is too old.
    ///
    /// # Errors
    /// As [`Revocations::allow`].
    pub fn keep_fresh(&self, read: ReadRevocations) -> Result<(), store::Error> {
        let age = self.age();
        if age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let patience = match age {
            Some(age) if age < STALE => Duration::ZERO,
            _ => PATIENCE,
        };
        let outcome = match self.lock_within(patience) {
            // Another request may have read, or tried to, during the wait.
            Some(_) if self.age().is_some_and(|age| age < FRESH) => Ok(()),
            Some(mut reading) => self.read(&mut reading, read),
            None => Err(store::Error::Unavailable(
                "reading the revocations takes too long".to_owned(),
            )),
        };
        match self.age() {
            Some(age) if age < TRUSTED => Ok(()),
            _ => outcome,
        }
    }

    fn read(&self, reading: &mut LastReading, read: ReadRevocations) -> Result<(), store::Error> {
        if reading.failed.is_some_and(|when| when.elapsed() < RETRY) {
            let cause = "revocations could not be read a moment ago".to_owned();
            return Err(store::Error::Unavailable(cause));
        }
        let began = Instant::now();
        *lock(&self.began) = Some(began);
        let mut changes = read(reading.next);
        // After a restore from a backup or a failover, the number to read from may mean another transaction. So everything is read.
        let is_other = |changes: &RevocationChanges| {
            changes.next < reading.next || (reading.next > 0 && changes.feed != reading.feed)
        };
        if changes.as_ref().is_ok_and(is_other) {
            changes = read(0);
        }
        *lock(&self.began) = None;
        let changes = changes.inspect_err(|error| {
            if reading.failed.replace(Instant::now()).is_none() {
                log::warn!(
                    "revocations cannot be read: {error}; tokens are accepted for {} s after the last reading",
                    TRUSTED.as_secs()
                );
            }
        })?;
        if reading.failed.take().is_some() {
            log::info!("revocations can be read again");
        }
        reading.next = changes.next;
        reading.feed.clone_from(&changes.feed);
        let mut known = unpoisoned(self.known.write());
        known.apply(&changes.revocations);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        known
            .refused
            .retain(|_, until| until.is_none_or(|until| now < until));
        known.at = Some(began);
        Ok(())
    }

    fn age(&self) -> Option<Duration> {
        unpoisoned(self.known.read()).at.map(|at| at.elapsed())
    }

    /// The right to read, unless another request has been reading for longer than `patience`. So only the first requests wait while
    /// PostgreSQL does not answer.
    fn lock_within(&self, patience: Duration) -> Option<MutexGuard<'_, LastReading>> {
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

impl KnownRevocations {
    fn apply(&mut self, revocations: &[Revocation]) {
        for Revocation { whose, until } in revocations {
            if let Revoked::IssuedBefore(user, second) = whose {
                // A revocation of this instance may be newer than the one that was read.
                let known = self.issued_before.entry(user.clone()).or_insert(*second);
                *known = (*second).max(*known);
            } else {
                let until = until.map(OffsetDateTime::unix_timestamp);
                self.refused.insert(whose.clone(), until);
            }
        }
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
            feed: String::new(),
        }
    }

    #[test]
    fn a_database_that_counts_from_a_lower_number_is_read_from_the_start() {
        let (revocations, session) = (Revocations::default(), Uuid::new_v4());
        let asked = RefCell::new(Vec::new());
        let read = |since: i64| {
            asked.borrow_mut().push(since);
            Ok(match (asked.borrow().len(), since) {
                (1, 0) => changes(5_000, None),
                // Restored from a backup: revocations since then have lower numbers.
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
    fn another_history_of_the_database_is_read_from_the_start() {
        let (revocations, session) = (Revocations::default(), Uuid::new_v4());
        let asked = RefCell::new(Vec::new());
        let read = |since: i64| {
            asked.borrow_mut().push(since);
            let feed = if asked.borrow().len() == 1 { "1" } else { "2" }.to_owned();
            let session = (asked.borrow().len() > 1 && since == 0).then_some(session);
            Ok(RevocationChanges {
                feed,
                // The new primary was behind, and has counted further since.
                ..changes(5_001, session)
            })
        };
        assert!(revocations.allow(&caller(session), &read).unwrap());
        std::thread::sleep(FRESH);
        assert!(!revocations.allow(&caller(session), &read).unwrap());
        std::thread::sleep(FRESH);
        assert!(!revocations.allow(&caller(session), &read).unwrap());
        assert_eq!(*asked.borrow(), [0, 5_001, 0, 5_001]);
    }

    #[test]
    fn no_token_is_accepted_before_the_first_reading() {
        let revocations = Revocations::default();
        let read = |_| Err(store::Error::Unavailable("gone".to_owned()));
        assert!(revocations.allow(&caller(Uuid::new_v4()), &read).is_err());
    }
}
