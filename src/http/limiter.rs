//! Rate limits: at most a number of events of a key in any window of a given length.
//!
//! # Counting
//!
//! The window slides: there are never more events than the limit in any window, wherever it begins, and the whole limit may be used
//! at once. Fixed windows and leaky buckets (GCRA) let nearly twice as many through.
//!
//! A window is cut into 60 slots, and the events of each slot are counted. A slot counts until all of it is outside the window. So
//! the limit may refuse an event up to one slot too long, and never accepts one too many.
//!
//! # Memory
//!
//! A key is stored as a hash of 64 bits under a secret of this process, so that all keys take the same memory and no client can
//! choose keys that collide. Two keys that collide by chance (one pair in 10^10 among 65,536 keys) share a limit.
//!
//! At most `keys` keys and [`CROWDS`] crowds are stored, each in about 600 bytes if it was busy in every slot: 40 MB for
//! [`KEYS`] busy keys, 10 MB for keys with a few events each.
//!
//! A key whose events still count is never removed, however many others come: a flood of addresses must not reset the count of the
//! account that is being attacked. Keys without counted events make room. If there are none, new keys are counted together in
//! crowds, each with the limit of one key. So a flood of keys delays new keys only.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::request::Network;
use crate::domain::account::Email;
use crate::domain::user::UserId;
use crate::sync::lock;

/// The usual number of keys of a limiter.
pub const KEYS: usize = 65_536;
/// The number of crowds into which new keys fall when there is no room for them.
pub const CROWDS: u64 = 1_024;
const SLOTS: u32 = 60;
/// In seconds, a slot's number of 32 bits lasts for 136 years.
const SHORTEST_SLOT: Duration = Duration::from_secs(1);

/// A key by which events are counted.
pub trait LimitKey: Hash {
    /// The value that chooses the key's crowd if there is no room for the key. A client with many keys must not be able to choose it.
    fn crowd(&self) -> impl Hash + '_ {
        self
    }
}

impl LimitKey for Email {}
impl LimitKey for UserId {}

impl<K: Hash> LimitKey for (K, Network) {
    fn crowd(&self) -> impl Hash + '_ {
        self.1.site()
    }
}

impl LimitKey for Network {
    /// The IPv6 networks of one client are mostly of one site.
    fn crowd(&self) -> impl Hash + '_ {
        self.site()
    }
}

/// Counts events by key, and refuses those over the limit.
pub struct Limiter {
    most: u32,
    slot: Duration,
    /// For how many slots a slot counts, itself included.
    span: u32,
    start: Instant,
    secret: RandomState,
    keys: usize,
    table: Mutex<Table>,
}

/// The permit for an event. [`Limiter::give_back`] takes it back, if the event does not count after all.
#[derive(Debug)]
pub struct Allowance {
    /// The limit of a window.
    pub limit: u32,
    /// How many more events are accepted now.
    pub remaining: u32,
    /// After how long the oldest event stops counting.
    pub reset: Duration,
    slot: u32,
}

/// The refusal of an event.
#[derive(Debug)]
pub struct Wait {
    /// The limit of a window.
    pub limit: u32,
    /// After how long an event is accepted again; more than zero.
    pub retry_after: Duration,
}

#[derive(Default)]
struct Table {
    /// By the hash of the key, or by the number of the crowd.
    counts: HashMap<u64, Counts>,
    /// The slot in which keys without counted events were last removed.
    swept: Option<u32>,
}

/// The number of events in each slot that still counts, the oldest first.
#[derive(Clone, Default)]
struct Counts(VecDeque<(u32, u32)>);

impl Limiter {
    /// Accepts `most` events in any `window` of seconds or longer, and stores at most `keys` keys.
    pub fn new(most: u32, window: Duration, keys: usize) -> Limiter {
        // Rounded up, so that a window has no more slots than this.
        let slot = (window.saturating_add(Duration::from_nanos(u64::from(SLOTS) - 1)) / SLOTS)
            .max(SHORTEST_SLOT);
        let slots = window.as_nanos().div_ceil(slot.as_nanos());
        Limiter {
            most,
            slot,
            // One more, because an event at the end of its slot must count for the whole window.
            span: u32::try_from(slots).unwrap_or(SLOTS).saturating_add(1),
            start: Instant::now(),
            secret: RandomState::new(),
            keys,
            table: Mutex::default(),
        }
    }

    /// Counts an event.
    ///
    /// # Errors
    /// The limit is reached. A refused event does not count.
    pub fn take(&self, key: &(impl LimitKey + ?Sized), now: Instant) -> Result<Allowance, Wait> {
        self.with_counts(key, now, |counts, slot| {
            self.check_counts(counts, now)?;
            let slot = counts.add(slot);
            Ok(Allowance {
                limit: self.most,
                remaining: self.most - counts.total(),
                reset: self.until_room(counts, now),
                slot,
            })
        })
    }

    /// Checks whether an event would be accepted, and counts nothing.
    ///
    /// # Errors
    /// The limit is reached.
    pub fn check(&self, key: &(impl LimitKey + ?Sized), now: Instant) -> Result<(), Wait> {
        self.with_counts(key, now, |counts, _| self.check_counts(counts, now))
    }

    /// Takes back an event that does not count after all.
    pub fn give_back(&self, key: &(impl LimitKey + ?Sized), allowance: Allowance) {
        self.with_counts(key, Instant::now(), |counts, _| {
            counts.remove(allowance.slot)
        });
    }

    /// Calls `work` with the counts of a key and the present slot.
    fn with_counts<R>(
        &self,
        key: &(impl LimitKey + ?Sized),
        now: Instant,
        work: impl FnOnce(&mut Counts, u32) -> R,
    ) -> R {
        let slots = now.saturating_duration_since(self.start).as_nanos() / self.slot.as_nanos();
        let slot = u32::try_from(slots).unwrap_or(u32::MAX);
        let own = self.secret.hash_one(key);
        let crowd = self.secret.hash_one(key.crowd()) % CROWDS;
        let mut table = lock(&self.table);
        let table = &mut *table;
        let mut place = own;
        if !table.counts.contains_key(&own) {
            if table.counts.len() >= self.keys && table.swept.replace(slot) != Some(slot) {
                // At most once a slot, because it looks at all keys.
                table.counts.retain(|_, counts| {
                    counts.forget(slot, self.span);
                    !counts.0.is_empty()
                });
            }
            // Its events may have been counted with its crowd until now, and still count.
            if table.counts.len() >= self.keys {
                place = crowd;
            } else if let Some(counts) = table.counts.get(&crowd).cloned() {
                table.counts.insert(own, counts);
            }
        }
        let counts = table.counts.entry(place).or_default();
        counts.forget(slot, self.span);
        let result = work(counts, slot);
        if counts.0.is_empty() {
            table.counts.remove(&place);
        }
        result
    }

    fn check_counts(&self, counts: &Counts, now: Instant) -> Result<(), Wait> {
        if counts.total() < self.most {
            return Ok(());
        }
        Err(Wait {
            limit: self.most,
            retry_after: self.until_room(counts, now),
        })
    }

    /// How long the oldest slot still counts.
    fn until_room(&self, counts: &Counts, now: Instant) -> Duration {
        let oldest = counts.0.front().map_or(0, |(slot, _)| *slot);
        let end = self.slot.saturating_mul(oldest.saturating_add(self.span));
        end.saturating_sub(now.saturating_duration_since(self.start))
            .max(Duration::from_millis(1))
    }
}

impl Counts {
    fn total(&self) -> u32 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Removes the slots that are outside the window.
    fn forget(&mut self, now: u32, span: u32) {
        self.0.retain(|(slot, _)| slot.saturating_add(span) > now);
    }

    /// Adds one event and returns its slot: a thread with an earlier time may come later.
    fn add(&mut self, now: u32) -> u32 {
        if let Some((slot, count)) = self.0.back_mut().filter(|(slot, _)| *slot >= now) {
            *count += 1;
            return *slot;
        }
        self.0.push_back((now, 1));
        now
    }

    /// Removes one event of a slot, if that slot still counts.
    fn remove(&mut self, slot: u32) {
        for (_, count) in self.0.iter_mut().filter(|(taken, _)| *taken == slot) {
            *count -= 1;
        }
        self.0.retain(|(_, count)| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl LimitKey for str {}

    const HOUR: Duration = Duration::from_secs(3600);

    fn remembered(limiter: &Limiter) -> usize {
        lock(&limiter.table).counts.len()
    }

    fn network(number: u32) -> Network {
        Network::V4(number.into())
    }

    #[test]
    fn the_whole_limit_may_be_used_at_once() {
        let limiter = Limiter::new(1000, HOUR, KEYS);
        let now = limiter.start + Duration::from_secs(90);
        for left in (0..1000).rev() {
            let allowance = limiter.take("a", now).unwrap();
            assert_eq!((allowance.limit, allowance.remaining), (1000, left));
        }
        let wait = limiter.take("a", now).unwrap_err();
        // The rest of the minute they came in, and an hour.
        assert_eq!(wait.retry_after, HOUR + Duration::from_secs(30));
        assert_eq!(limiter.take("b", now).unwrap().remaining, 999);

        let then = now + wait.retry_after;
        let moment = Duration::from_millis(1);
        assert_eq!(
            limiter.take("a", then - moment).unwrap_err().retry_after,
            moment
        );
        assert_eq!(limiter.take("a", then).unwrap().remaining, 999);
    }

    #[test]
    fn events_that_did_not_count_are_given_back() {
        let limiter = Limiter::new(2, HOUR, KEYS);
        let now = limiter.start;
        let first = limiter.take("a", now).unwrap();
        let second = limiter.take("a", now + HOUR / 2).unwrap();
        assert!(limiter.take("a", now + HOUR / 2).is_err());
        limiter.give_back("a", first);
        let third = limiter.take("a", now + HOUR / 2).unwrap();
        limiter.give_back("a", second);
        limiter.give_back("a", third);
        assert_eq!(remembered(&limiter), 0);
    }

    #[test]
    fn an_event_given_back_late_does_not_uncount_another() {
        let limiter = Limiter::new(1, HOUR, KEYS);
        let old = limiter.take("a", limiter.start).unwrap();
        let later = limiter.start + 2 * HOUR;
        limiter.take("a", later).unwrap();
        limiter.give_back("a", old);
        assert!(limiter.take("a", later).is_err());
    }

    #[test]
    fn a_million_addresses_neither_exceed_the_memory_nor_remove_a_counted_key() {
        let keys = 4_096;
        let limiter = Limiter::new(10, Duration::from_secs(900), keys);
        let now = limiter.start;
        for _ in 0..10 {
            limiter.take("guessed-at@example.com", now).unwrap();
        }
        let mut refused = 0;
        for number in 0..1_000_000 {
            refused += u32::from(limiter.take(&network(number), now).is_err());
        }
        let most = keys + CROWDS as usize;
        assert!(remembered(&limiter) <= most, "{}", remembered(&limiter));
        // Those without a place of their own had the limit of a crowd.
        assert!(refused as usize >= 1_000_000 - most * 10);
        assert!(limiter.take("guessed-at@example.com", now).is_err());

        // After their window they make room.
        let later = now + Duration::from_secs(1000);
        for number in 0..1_000 {
            let allowance = limiter.take(&network(5_000_000 + number), later).unwrap();
            assert_eq!(allowance.remaining, 9);
        }
        assert!(remembered(&limiter) <= most);
    }

    #[test]
    fn a_site_with_many_networks_delays_only_itself() {
        let limiter = Limiter::new(10, HOUR, 64);
        let network = |site: u64, number: u64| Network::V6(site << 16 | number);
        for number in 0..65_536 {
            let _ = limiter.take(&network(0x2001_0db8_0001, number), limiter.start);
        }
        let others = (0..100)
            .filter(|site| {
                limiter
                    .take(&network(0x2001_0db8_1000 + site, 0), limiter.start)
                    .is_ok()
            })
            .count();
        // One in a thousand falls into the same crowd.
        assert!(others >= 95, "{others}");
    }

    #[test]
    fn the_busiest_key_takes_at_most_600_bytes() {
        let limiter = Limiter::new(u32::MAX, HOUR, KEYS);
        for second in 0..20_000 {
            limiter
                .take("a", limiter.start + Duration::from_secs(second))
                .unwrap();
        }
        let table = lock(&limiter.table);
        let counts = table.counts.values().next().unwrap();
        assert!(counts.0.capacity() * size_of::<(u32, u32)>() <= 512);
        assert!(size_of::<(u64, Counts)>() <= 48);
    }

    #[test]
    fn threads_share_one_limit() {
        let limiter = Limiter::new(1_000, HOUR, KEYS);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..500)
                            .filter(|_| limiter.take("a", Instant::now()).is_ok())
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 1_000);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u8),
        /// The one taken so many before.
        GiveBack(usize),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            12 => (0_u8..6).prop_map(Step::Take),
            2 => (0_usize..4).prop_map(Step::GiveBack),
            3 => (0_u64..3_000).prop_map(Step::Pass),
            1 => (0_u64..100_000).prop_map(Step::Pass),
        ];
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a log of every event: never more than the limit in any window, whether there is room for every key or for
        /// none; and if there is room, no event is refused that would be accepted a slot later.
        #[test]
        fn never_more_than_the_limit_in_any_window(
            steps in steps(),
            most in 1_u32..6,
            seconds in 1_u64..90,
            roomy: bool,
        ) {
            let window = Duration::from_secs(seconds);
            let limiter = Limiter::new(most, window, if roomy { KEYS } else { 0 });
            let longest = limiter.slot * limiter.span;
            prop_assert!(longest <= window + limiter.slot + Duration::from_micros(1));
            let mut now = limiter.start;
            let mut log: Vec<(u8, Instant)> = Vec::new();
            let mut allowances = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
                    Step::GiveBack(before) => {
                        if allowances.len() > before {
                            let place = allowances.len() - 1 - before;
                            let (key, moment, allowance) = allowances.remove(place);
                            limiter.give_back(&network(u32::from(key)), allowance);
                            let place = log.iter().position(|entry| *entry == (key, moment)).unwrap();
                            log.remove(place);
                        }
                    }
                    Step::Take(key) => {
                        let within = |stretch: Duration| {
                            log.iter().filter(|(of, moment)| *of == key && now - *moment <= stretch).count() as u32
                        };
                        match limiter.take(&network(u32::from(key)), now) {
                            Ok(allowance) => {
                                prop_assert!(within(window) < most);
                                log.push((key, now));
                                allowances.push((key, now, allowance));
                            }
                            Err(wait) => {
                                prop_assert!(!roomy || within(longest) >= most);
                                prop_assert!(wait.retry_after <= longest);
                            }
                        }
                    }
                }
            }
        }

        /// As above, with keys that move between crowd and place while they count.
        #[test]
        fn never_more_when_keys_move_between_crowd_and_place(steps in steps(), most in 1_u32..6) {
            let window = Duration::from_secs(30);
            let mut limiter = Limiter::new(most, window, 0);
            let mut now = limiter.start;
            let mut log: Vec<(u8, Instant)> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
                    Step::GiveBack(room) => limiter.keys = room,
                    Step::Take(key) => {
                        if limiter.take(&network(u32::from(key)), now).is_ok() {
                            let within = log.iter().filter(|(of, moment)| *of == key && now - *moment <= window).count();
                            prop_assert!((within as u32) < most);
                            log.push((key, now));
                        }
                    }
                }
            }
        }
    }
}
