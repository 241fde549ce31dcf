//! The keys of others as they are known now, and when they are looked at again.
//!
//! A key set from a file is read at start and on SIGHUP. One from an address is fetched by a thread of its own, so that no request
//! ever waits for a stranger's server longer than [`Timing::wait`]: at start, again and again until it is there; for a token
//! whose key is unknown, at most once in [`Timing::period`] whoever asks; and, so that a key that was withdrawn stops counting, when
//! a token comes and the set is older than [`Timing::max_age`]. A server that nobody uses asks nobody. What was fetched last is
//! kept while fetching fails.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;

use super::key_set::{Candidates, KeySet};
use super::key_source::{agent, fetch, read_file};

use crate::sync::{lock, unpoisoned};

pub use super::key_source::{KeySetUrl, Location};

/// Until a fetch is tried again while there are no keys yet, as when both servers start together: at first, doubling, and at
/// most. No stranger has a say in it.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// How patient the fetching is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between fetches for keys that are unknown, at least.
    pub period: Duration,
    /// The age at which a set is fetched again.
    pub max_age: Duration,
    /// How long the one request waits that a fetch is made for.
    pub wait: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            period: Duration::from_secs(60),
            max_age: Duration::from_secs(600),
            wait: Duration::from_secs(2),
        }
    }
}

/// The keys of others, as they are known now.
pub struct Keys {
    shared: Arc<Shared>,
    // Set where the keys are in a file.
    file: Option<PathBuf>,
}

/// Why there is no telling whose key a token names; for the log.
pub type NotKnown = &'static str;

impl Keys {
    /// Reads a key set from a file, or starts to fetch one.
    ///
    /// # Errors
    /// The file cannot be read or holds no key that can be used; or a thread cannot be started. The text is one sentence.
    pub fn load(location: &Location, timing: Timing) -> Result<Keys, String> {
        let shared = Arc::new(Shared {
            timing,
            set: RwLock::new(None),
            state: Mutex::new(KeySetState::default()),
            changed: Condvar::new(),
        });
        match location {
            Location::File(path) => {
                shared.replace(read_file(path)?, &path.display().to_string());
                Ok(Keys {
                    shared,
                    file: Some(path.clone()),
                })
            }
            Location::Url(url) => {
                let (fetcher, url) = (Arc::clone(&shared), url.clone());
                thread::Builder::new()
                    .name("key-set".to_owned())
                    .spawn(move || fetcher.keep_fetched(&url))
                    .map_err(|error| format!("cannot start a thread: {error}"))?;
                Ok(Keys { shared, file: None })
            }
        }
    }

    /// Reads the file again, or has the address asked again. What was known stays where that fails, and the log says so.
    pub fn reload(&self) {
        let Some(path) = &self.file else {
            self.shared.lock().wanted = true;
            self.shared.changed.notify_all();
            return;
        };
        match read_file(path) {
            Ok(set) => self.shared.replace(set, &path.display().to_string()),
            Err(problem) => log::error!("{problem}; the keys read before stay in use"),
        }
    }

    /// The set in which the key of a token is to be looked for. Where the key is unknown and it may be asked for, this waits for
    /// the answer, as one request alone does.
    ///
    /// # Errors
    /// There is no telling yet: no set was fetched so far, or one that may have the key is on its way, or could not be had.
    pub fn for_token(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Arc<KeySet>, NotKnown> {
        let known = self
            .shared
            .set()
            .ok_or("the key set has not been fetched yet")?;
        if self.file.is_some() {
            return Ok(known.keys);
        }
        if !matches!(known.keys.candidates(algorithm, id), Candidates::Unknown) {
            if known.since.elapsed() > self.shared.timing.max_age {
                self.shared.ask();
            }
            return Ok(known.keys);
        }
        self.shared.look_again(known.keys)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
    }
}

/// What requests and the fetching thread share.
struct Shared {
    timing: Timing,
    set: RwLock<Option<Known>>,
    state: Mutex<KeySetState>,
    changed: Condvar,
}

#[derive(Clone)]
struct Known {
    keys: Arc<KeySet>,
    since: Instant,
}

#[derive(Default)]
struct KeySetState {
    /// Whether the thread is to fetch.
    wanted: bool,
    /// When the last fetch began.
    began: Option<Instant>,
    /// Whether one is under way.
    under_way: bool,
    /// How many have ended.
    ended: u64,
    /// Whether the last one failed.
    failed: bool,
    /// Whether a request waits for one.
    awaited: bool,
    stopping: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, KeySetState> {
        lock(&self.state)
    }

    fn set(&self) -> Option<Known> {
        unpoisoned(self.set.read()).clone()
    }

    fn replace(&self, keys: KeySet, place: &str) {
        log::info!("keys for tokens of others: {} from {place}", keys.len());
        for reason in keys.left_out() {
            log::warn!("a key from {place} is left out: {reason}");
        }
        if keys.is_empty() {
            log::warn!("no tokens of others are accepted: {place} has no key that can be used");
        }
        self.keep(Arc::new(keys));
    }

    fn keep(&self, keys: Arc<KeySet>) {
        let known = Known {
            keys,
            since: Instant::now(),
        };
        *unpoisoned(self.set.write()) = Some(known);
    }

    /// Has the set fetched, if that is due, and waits for nothing.
    fn ask(&self) {
        let mut state = self.lock();
        if !state.wanted && state.is_due(self.timing.period) {
            state.wanted = true;
            self.changed.notify_all();
        }
    }

    /// What is known after a look at whether the address has more keys by now, where one may be taken.
    fn look_again(&self, known: Arc<KeySet>) -> Result<Arc<KeySet>, NotKnown> {
        let mut state = self.lock();
        if !state.wanted && !state.under_way && !state.is_due(self.timing.period) {
            if state.failed {
                return Err("the key of a token is unknown, and the key set could not be fetched");
            }
            drop(state);
            // Maybe it has come since it was looked at.
            return Ok(self.set().map_or(known, |fetched| fetched.keys));
        }
        // A client whose key is brand new must not be told that its token is bad: it would throw the token away. So the others are
        // asked to come again in a moment, and cost no worker meanwhile.
        if state.awaited {
            return Err("the key of a token is unknown, and the key set is being fetched");
        }
        if !state.under_way && !state.wanted {
            state.wanted = true;
            self.changed.notify_all();
        }
        state.awaited = true;
        let before = state.ended;
        let (mut state, _) = unpoisoned(self.changed.wait_timeout_while(
            state,
            self.timing.wait,
            |state| state.ended == before && !state.stopping,
        ));
        state.awaited = false;
        if state.ended == before || state.failed {
            return Err("the key of a token is unknown, and the key set cannot be fetched");
        }
        drop(state);
        Ok(self.set().map_or(known, |fetched| fetched.keys))
    }

    /// Fetches the set whenever it is to be, until the owner is gone.
    fn keep_fetched(&self, url: &KeySetUrl) {
        let agent = agent(url);
        let mut retry = RETRY.0.min(self.timing.period);
        let mut last: Option<Vec<u8>> = None;
        let mut told = None;
        loop {
            {
                let mut state = self.lock();
                state.wanted = false;
                state.began = Some(Instant::now());
                state.under_way = true;
            }
            let fetched = fetch(&agent, url).and_then(|document| {
                // What has not changed is not told again.
                match self.set() {
                    Some(known) if last.as_ref() == Some(&document) => self.keep(known.keys),
                    _ => self.replace(KeySet::parse(&document)?, url.host()),
                }
                last = Some(document);
                Ok(())
            });
            let failed = fetched.is_err();
            // One line for a trouble that lasts, not one a try.
            let trouble = fetched.err();
            if let Some(problem) = trouble.as_ref().filter(|_| trouble != told) {
                log::warn!("the key set at {} cannot be fetched: {problem}", url.host());
            }
            told = trouble;
            let mut state = self.lock();
            state.under_way = false;
            state.ended += 1;
            state.failed = failed;
            self.changed.notify_all();
            let idle = |state: &mut KeySetState| !state.wanted && !state.stopping;
            if last.is_some() {
                state = unpoisoned(self.changed.wait_while(state, idle));
            } else {
                (state, _) = unpoisoned(self.changed.wait_timeout_while(state, retry, idle));
                retry = (retry * 2).min(RETRY.1);
            }
            if state.stopping {
                return;
            }
        }
    }
}

impl KeySetState {
    fn is_due(&self, period: Duration) -> bool {
        self.began.is_none_or(|began| began.elapsed() >= period)
    }
}
