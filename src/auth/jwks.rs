//! The key set of another issuer, and when it is read again.
//!
//! A set in a file is read at start and on SIGHUP. A set at an address is fetched by a thread of its own:
//! - at start; after a failure it is fetched again after [`Timing::retry`];
//! - on SIGHUP;
//! - when a token comes and the set is older than [`Timing::max_age`], so that a withdrawn key is no longer accepted. A server
//!   without requests does not fetch;
//! - when a token names a key that is not in the set. [`FetchAllowances`] limits how often a client may cause this.
//!
//! The last set stays in use while fetches fail.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;

use super::error::AuthError;
use super::fetch_allowances::FetchAllowances;
use super::guard::Sender;
use super::key_set::{Candidates, KeySet};
use super::key_source::{agent, fetch, read_file};
use crate::sync::{lock, unpoisoned};

pub use super::key_source::{KeySetUrl, Location};

/// Longest wait of a request for a fetch while another request waits for [`Timing::wait`]. A slow key server must not stop all
/// workers. Most fetches take less than this.
const SHORT_WAIT: Duration = Duration::from_millis(250);

/// When a key set is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A client that has used up its fetches for unknown keys may cause one more after this time.
    pub refill: Duration,
    /// Between the starts of two fetches, at least.
    pub spacing: Duration,
    /// The age at which a set is fetched again.
    pub max_age: Duration,
    /// Longest wait of one request for a fetch.
    pub wait: Duration,
    /// Between a failed fetch and the next: at first, doubled after each failure, and at most.
    pub retry: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            refill: Duration::from_secs(60),
            spacing: Duration::from_secs(1),
            max_age: Duration::from_secs(600),
            wait: Duration::from_secs(2),
            retry: (Duration::from_secs(1), Duration::from_secs(15)),
        }
    }
}

/// A key set that is kept up to date.
pub struct Keys {
    shared: Arc<SharedKeys>,
    /// For a set in a file.
    file: Option<PathBuf>,
}

impl Keys {
    /// Reads a key set from a file, or starts to fetch one.
    ///
    /// # Errors
    /// The file cannot be read or holds no key that can be used; or a thread cannot be started. The text is one sentence.
    pub fn load(location: &Location, timing: Timing) -> Result<Keys, String> {
        let shared = Arc::new(SharedKeys {
            timing,
            set: RwLock::new(None),
            fetches: Mutex::new(Fetches {
                // The thread begins with a fetch.
                wanted: true,
                ..Fetches::default()
            }),
            changed: Condvar::new(),
        });
        let file = match location {
            Location::File(path) => {
                shared.replace(read_file(path)?, &path.display().to_string());
                Some(path.clone())
            }
            Location::Url(url) => {
                let (fetcher, url) = (Arc::clone(&shared), url.clone());
                let thread = thread::Builder::new().name("key-set".to_owned());
                let thread = thread.spawn(move || fetcher.run(&url));
                thread.map_err(|error| format!("cannot start a thread: {error}"))?;
                None
            }
        };
        Ok(Keys { shared, file })
    }

    /// Reads the file again, or starts a fetch. If that fails, the set in use stays, and the log has the reason.
    pub fn reload(&self) {
        let Some(path) = &self.file else {
            self.shared.lock().wanted = true;
            return self.shared.changed.notify_all();
        };
        match read_file(path) {
            Ok(set) => self.shared.replace(set, &path.display().to_string()),
            Err(problem) => log::error!("{problem}; the keys read before stay in use"),
        }
    }

    /// The set in use; `None` before the first fetch has succeeded. Starts a fetch if the set is too old.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        let known = self.shared.known()?;
        if self.file.is_none() && known.since.elapsed() > self.shared.timing.max_age {
            let mut fetches = self.shared.lock();
            if fetches.is_idle() {
                fetches.wanted = true;
                self.shared.changed.notify_all();
            }
        }
        Some(known.keys)
    }

    /// The set in which the key of a token is looked for. If the set in use does not have the key, this waits for a fetch.
    ///
    /// # Errors
    /// The set in use does not have the key, and no fetch that began after this call has succeeded.
    pub fn for_token(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
        sender: &Sender,
    ) -> Result<Arc<KeySet>, AuthError> {
        let has = |keys: &KeySet| !matches!(keys.candidates(algorithm, id), Candidates::Unknown);
        match self.current() {
            Some(keys) if self.file.is_some() || has(&keys) => Ok(keys),
            _ => self.shared.fetch_for(sender, &has),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
    }
}

/// What requests and the fetching thread share.
struct SharedKeys {
    timing: Timing,
    set: RwLock<Option<FetchedSet>>,
    fetches: Mutex<Fetches>,
    /// Notified when a fetch is wanted, when one has ended, and when the owner is dropped.
    changed: Condvar,
}

#[derive(Clone)]
struct FetchedSet {
    keys: Arc<KeySet>,
    since: Instant,
}

#[derive(Default)]
struct Fetches {
    /// Whether the thread must fetch.
    wanted: bool,
    begun: u64,
    ended: u64,
    /// Whether the last one failed. The thread then tries again by itself.
    failed: bool,
    /// Whether a request waits for [`Timing::wait`].
    awaited: bool,
    allowances: FetchAllowances,
    stopping: bool,
}

impl Fetches {
    fn is_idle(&self) -> bool {
        !self.wanted && !self.failed && self.begun == self.ended
    }
}

impl SharedKeys {
    fn lock(&self) -> MutexGuard<'_, Fetches> {
        lock(&self.fetches)
    }

    fn known(&self) -> Option<FetchedSet> {
        unpoisoned(self.set.read()).clone()
    }

    fn replace(&self, keys: KeySet, place: &str) {
        log::info!(
            "keys for tokens of other issuers: {} from {place}",
            keys.len()
        );
        for reason in &keys.left_out {
            log::warn!("a key from {place} is left out: {reason}");
        }
        if keys.is_empty() {
            log::warn!(
                "no tokens of other issuers are accepted: {place} has no key that can be used"
            );
        }
        self.keep(Arc::new(keys));
    }

    fn keep(&self, keys: Arc<KeySet>) {
        let since = Instant::now();
        *unpoisoned(self.set.write()) = Some(FetchedSet { keys, since });
    }

    /// Waits for a set that has the key, or for the first fetch that begins from now on: only that one proves that the issuer does
    /// not publish the key. Until then "the key is unknown" would be wrong, and the client would discard a valid token.
    fn fetch_for(
        &self,
        sender: &Sender,
        has: &dyn Fn(&KeySet) -> bool,
    ) -> Result<Arc<KeySet>, AuthError> {
        if !(sender.admit)() {
            return Err(AuthError::NotAdmitted);
        }
        let mut fetches = self.lock();
        let needed = fetches.begun + 1;
        let waits_longest = !fetches.awaited;
        fetches.awaited = true;
        let wait = match waits_longest {
            true => self.timing.wait,
            false => SHORT_WAIT.min(self.timing.wait),
        };
        let until = Instant::now() + wait;
        let outcome = loop {
            let is_answered = fetches.ended >= needed && !fetches.failed;
            if let Some(known) = self.known()
                && (is_answered || has(&known.keys))
            {
                break Ok(known.keys);
            }
            if fetches.failed {
                break Err("the key of a token is unknown, and the key set cannot be fetched");
            }
            if fetches.is_idle() {
                let (refill, now) = (self.timing.refill, Instant::now());
                if !fetches.allowances.take(sender.holder, refill, now) {
                    break Err(
                        "the key of a token is unknown, and its client has caused too many fetches of the key set",
                    );
                }
                fetches.wanted = true;
                self.changed.notify_all();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || fetches.stopping {
                break Err("the key of a token is unknown, and the key set is being fetched");
            }
            fetches = unpoisoned(self.changed.wait_timeout(fetches, left)).0;
        };
        fetches.awaited &= !waits_longest;
        outcome.map_err(AuthError::UnknownKey)
    }

    /// Fetches the set when it is wanted, until the owner is dropped.
    fn run(&self, url: &KeySetUrl) {
        let agent = agent(url);
        let mut document = None;
        let mut retry = self.timing.retry.0;
        let mut logged = None;
        loop {
            let began = Instant::now();
            let mut fetches = self.lock();
            fetches.wanted = false;
            fetches.begun += 1;
            drop(fetches);
            let problem = fetch(&agent, url)
                .and_then(|fetched| self.take(fetched, &mut document, url.host()))
                .err();
            // One line for a problem that lasts, not one for each try.
            if let Some(problem) = problem.as_ref().filter(|_| problem != logged) {
                log::warn!("the key set at {} cannot be fetched: {problem}", url.host());
            }
            let mut fetches = self.lock();
            fetches.ended = fetches.begun;
            fetches.failed = problem.is_some();
            self.changed.notify_all();
            let idle = |fetches: &mut Fetches| !fetches.wanted && !fetches.stopping;
            if problem.is_some() {
                fetches = unpoisoned(self.changed.wait_timeout_while(fetches, retry, idle)).0;
                retry = (retry * 2).min(self.timing.retry.1);
            } else {
                retry = self.timing.retry.0;
                fetches = unpoisoned(self.changed.wait_while(fetches, idle));
                let left = self.timing.spacing.saturating_sub(began.elapsed());
                let stays = |fetches: &mut Fetches| !fetches.stopping;
                fetches = unpoisoned(self.changed.wait_timeout_while(fetches, left, stays)).0;
            }
            logged = problem;
            if fetches.stopping {
                return;
            }
        }
    }

    /// Takes a fetched document into use. One that has not changed leaves the set as it is.
    fn take(
        &self,
        fetched: Vec<u8>,
        document: &mut Option<Vec<u8>>,
        host: &str,
    ) -> Result<(), String> {
        match self.known() {
            Some(known) if document.as_ref() == Some(&fetched) => self.keep(known.keys),
            _ => self.replace(KeySet::parse(&fetched)?, host),
        }
        *document = Some(fetched);
        Ok(())
    }
}
