//! How often somebody may do something: at most so many times in any stretch of time of one length.
//!
//! # What is counted
//!
//! A sliding window. Never more than the limit is let through in any window, wherever it begins; whoever has not used theirs may
//! use it all at once. Counting in windows that lie end to end, and leaky buckets (GCRA), let nearly twice as many through.
//!
//! Not every moment is kept but how many there were in each sixtieth of the window (of a minute, where the window is an hour).
//! A sixtieth counts until all of it lies outside the window: so the limit errs on the side of refusing, by a sixtieth of the
//! window at most, and never on the other.
//!
//! # What it remembers
//!
//! A key is remembered as a hash of 64 bits under a secret of this process, so that no key costs more than another and nobody
//! can choose keys that meet. Two keys that meet by chance (one pair in 10^10 among 65,536 keys) would share a limit.
//!
//! At most `keys` keys are remembered, each in 16 to 512 bytes for its counts and about 110 for its place: 40 MB for
//! [`KEYS`] keys that were all busy in every sixtieth, 10 MB for as many that came a few times each.
//!
//! A key that still counts is never forgotten, however many others come: otherwise a million addresses would wipe out what is
//! known of the one account that is being guessed at. Those whose window has passed make room; where none has, newcomers are
//! counted together in [`CROWDS`] crowds, each with the limit of one. So a flood of keys costs newcomers, not the limit.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::request::Network;
use crate::domain::account::Email;
use crate::domain::user::UserId;
use crate::sync::lock;

/// How many keys a limiter is meant to remember.
pub const KEYS: usize = 65_536;
/// Into how many crowds newcomers fall where there is no room for them.
pub const CROWDS: usize = 1_024;
/// Parts with a lock of their own, so that workers seldom meet.
const SHARDS: usize = 64;
/// Into how many slots a window is cut.
const SLOTS: u32 = 60;
/// The shortest slot. In seconds, a slot's number of 32 bits lasts for 136 years.
const SHORTEST_SLOT: Duration = Duration::from_secs(1);

/// What is counted by.
pub trait Key: Hash {
    /// With whom it is counted where there is no room for it: what somebody who has many keys cannot choose freely.
    fn crowd(&self) -> impl Hash + '_ {
        self
    }
}

impl Key for Email {}
impl Key for UserId {}

impl<K: Hash> Key for (K, Network) {
    fn crowd(&self) -> impl Hash + '_ {
        self.1.site()
    }
}

impl Key for Network {
    /// Whoever has a great many networks of IPv6 has them side by side.
    fn crowd(&self) -> impl Hash + '_ {
        self.site()
    }
}

/// Counts by key, and says no.
pub struct Limiter {
    most: u32,
    slot: Duration,
    /// How many slots a slot counts for, itself among them.
    span: u32,
    start: Instant,
    secret: RandomState,
    shards: Vec<Mutex<Shard>>,
    keys_per_shard: usize,
    crowds: Vec<Mutex<Counts>>,
}

/// That there was room.
///
/// It is handed back to [`Limiter::give_back`], once, where it turns out not to count.
#[derive(Debug)]
pub struct Allowance {
    /// How many there may be in a window.
    pub limit: u32,
    /// How many more there may be now.
    pub remaining: u32,
    /// After how long the oldest that counts no longer will.
    pub reset: Duration,
    slot: u32,
}

/// That there was none.
#[derive(Debug)]
pub struct Wait {
    /// How many there may be in a window.
    pub limit: u32,
    /// After how long there will be room again. More than nothing.
    pub retry_after: Duration,
}

#[derive(Default)]
struct Shard {
    counts: HashMap<u64, Counts, BuildHasherDefault<Hashed>>,
    /// The slot in which what has passed was last looked for.
    swept: Option<u32>,
}

/// How many there were in each slot that still counts, the oldest first.
#[derive(Clone, Default)]
struct Counts {
    slots: VecDeque<(u32, u32)>,
    total: u32,
}

/// The hash of what is a hash already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Limiter {
    /// Lets `most` through in any `window`, which is of seconds or longer, and remembers about `keys` keys at most.
    pub fn new(most: u32, window: Duration, keys: usize) -> Limiter {
        // Rounded up, so that no more than these slots make a window.
        let slot = (window.saturating_add(Duration::from_nanos(u64::from(SLOTS) - 1)) / SLOTS)
            .max(SHORTEST_SLOT);
        let slots = window.as_nanos().div_ceil(slot.as_nanos());
        Limiter {
            most,
            slot,
            // One more, because what came at the end of its slot must count for the whole window.
            span: u32::try_from(slots).unwrap_or(SLOTS).saturating_add(1),
            start: Instant::now(),
            secret: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            keys_per_shard: keys.div_ceil(SHARDS),
            crowds: (0..CROWDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// There is no room; says when there will be. What is refused does not count.
    pub fn take(&self, key: &(impl Key + ?Sized), now: Instant) -> Result<Allowance, Wait> {
        let slot = self.slot_at(now);
        let hash = self.secret.hash_one(key);
        let mut shard = lock(pick(&self.shards, hash));
        if let Some(counts) = shard.counts.get_mut(&hash) {
            return self.count(counts, slot, now);
        }
        let mut crowd = lock(pick(&self.crowds, self.secret.hash_one(key.crowd())));
        if shard.counts.len() >= self.keys_per_shard {
            shard.sweep(slot, self.span);
        }
        if shard.counts.len() >= self.keys_per_shard {
            return self.count(&mut crowd, slot, now);
        }
        // It may have been counted with its crowd until now, and must not begin anew.
        crowd.forget(slot, self.span);
        let mut counts = crowd.clone();
        drop(crowd);
        let outcome = self.count(&mut counts, slot, now);
        shard.counts.insert(hash, counts);
        outcome
    }

    /// Checks that there is room for this key, and counts nothing.
    ///
    /// # Errors
    /// There is none; says when there will be.
    pub fn check(&self, key: &(impl Key + ?Sized), now: Instant) -> Result<(), Wait> {
        let slot = self.slot_at(now);
        let hash = self.secret.hash_one(key);
        match lock(pick(&self.shards, hash)).counts.get_mut(&hash) {
            Some(counts) => self.check_counts(counts, slot, now),
            None => {
                let crowd = pick(&self.crowds, self.secret.hash_one(key.crowd()));
                self.check_counts(&mut lock(crowd), slot, now)
            }
        }
    }

    /// Gives back one that was taken for this key and does not count after all.
    pub fn give_back(&self, key: &(impl Key + ?Sized), allowance: Allowance) {
        let hash = self.secret.hash_one(key);
        let mut shard = lock(pick(&self.shards, hash));
        if let Some(counts) = shard.counts.get_mut(&hash) {
            counts.remove(allowance.slot);
            if counts.total == 0 {
                shard.counts.remove(&hash);
            }
        } else {
            lock(pick(&self.crowds, self.secret.hash_one(key.crowd()))).remove(allowance.slot);
        }
    }

    fn count(&self, counts: &mut Counts, slot: u32, now: Instant) -> Result<Allowance, Wait> {
        self.check_counts(counts, slot, now)?;
        let slot = counts.add(slot);
        Ok(Allowance {
            limit: self.most,
            remaining: self.most - counts.total,
            reset: self.until_room(counts, now),
            slot,
        })
    }

    fn check_counts(&self, counts: &mut Counts, slot: u32, now: Instant) -> Result<(), Wait> {
        counts.forget(slot, self.span);
        if counts.total < self.most {
            return Ok(());
        }
        Err(Wait {
            limit: self.most,
            retry_after: self.until_room(counts, now),
        })
    }

    /// How long until the oldest slot no longer counts.
    fn until_room(&self, counts: &Counts, now: Instant) -> Duration {
        let oldest = counts.slots.front().map_or(0, |(slot, _)| *slot);
        let passes = self.slot.saturating_mul(oldest.saturating_add(self.span));
        passes
            .saturating_sub(now.saturating_duration_since(self.start))
            .max(Duration::from_millis(1))
    }

    fn slot_at(&self, now: Instant) -> u32 {
        let slots = now.saturating_duration_since(self.start).as_nanos() / self.slot.as_nanos();
        u32::try_from(slots).unwrap_or(u32::MAX)
    }
}

impl Shard {
    /// Removes the keys whose window has passed. Looks at all of them, so once a slot at most, however many newcomers there are.
    fn sweep(&mut self, slot: u32, span: u32) {
        if self.swept != Some(slot) {
            self.swept = Some(slot);
            self.counts.retain(|_, counts| {
                counts.forget(slot, span);
                counts.total > 0
            });
        }
    }
}

impl Counts {
    fn forget(&mut self, now: u32, span: u32) {
        while let Some((slot, count)) = self.slots.front()
            && slot.saturating_add(span) <= now
        {
            self.total -= count;
            self.slots.pop_front();
        }
    }

    /// Adds one, and answers in which slot: a thread that looked at the clock earlier may come later.
    fn add(&mut self, now: u32) -> u32 {
        self.total += 1;
        match self.slots.back_mut() {
            Some((slot, count)) if *slot >= now => {
                *count += 1;
                *slot
            }
            _ => {
                self.slots.push_back((now, 1));
                now
            }
        }
    }

    /// Removes one from a slot, if that slot still counts.
    fn remove(&mut self, taken: u32) {
        let place = self.slots.iter().position(|(slot, _)| *slot == taken);
        if let Some(place) = place
            && let Some((_, count)) = self.slots.get_mut(place)
        {
            *count -= 1;
            self.total -= 1;
            if *count == 0 {
                self.slots.remove(place);
            }
        }
    }
}

/// The one of these that a hash falls to. There is always one; its upper half chooses, because the map chooses by the lower.
fn pick<T>(from: &[Mutex<T>], hash: u64) -> &Mutex<T> {
    &from[(hash >> 32) as usize % from.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Key for str {}

    const HOUR: Duration = Duration::from_secs(3600);

    fn remembered(limiter: &Limiter) -> usize {
        limiter
            .shards
            .iter()
            .map(|shard| lock(shard).counts.len())
            .sum()
    }

    fn network(number: u32) -> Network {
        Network::V4(number.into())
    }

    #[test]
    fn all_may_be_used_at_once_and_the_next_waits() {
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
    fn what_did_not_count_is_given_back() {
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
    fn what_is_given_back_late_takes_nothing_from_what_still_counts() {
        let limiter = Limiter::new(1, HOUR, KEYS);
        let old = limiter.take("a", limiter.start).unwrap();
        let later = limiter.start + 2 * HOUR;
        limiter.take("a", later).unwrap();
        limiter.give_back("a", old);
        assert!(limiter.take("a", later).is_err());
    }

    #[test]
    fn a_million_addresses_do_not_outgrow_it_nor_make_it_forget() {
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
        assert!(remembered(&limiter) <= keys, "{}", remembered(&limiter));
        // Those without a place of their own had the limit of a crowd.
        let most_let_through = keys + CROWDS * 10;
        assert!(refused as usize >= 1_000_000 - most_let_through);
        assert!(limiter.take("guessed-at@example.com", now).is_err());

        // Once their window has passed, they make room.
        let later = now + Duration::from_secs(1000);
        for number in 0..1_000 {
            let allowance = limiter.take(&network(5_000_000 + number), later).unwrap();
            assert_eq!(allowance.remaining, 9);
        }
        assert!(remembered(&limiter) <= keys);
    }

    #[test]
    fn a_site_with_many_networks_crowds_only_itself() {
        let limiter = Limiter::new(10, HOUR, SHARDS);
        let network = |site: u64, number: u64| Network::V6(site << 16 | number);
        for number in 0..65_536 {
            let _ = limiter.take(&network(0x2001_0db8_0001, number), limiter.start);
        }
        let strangers = (0..100)
            .filter(|site| {
                limiter
                    .take(&network(0x2001_0db8_1000 + site, 0), limiter.start)
                    .is_ok()
            })
            .count();
        // But for the one in a thousand that falls into the same crowd.
        assert!(strangers >= 95, "{strangers}");
    }

    #[test]
    fn the_busiest_key_costs_no_more_than_was_said() {
        let limiter = Limiter::new(u32::MAX, HOUR, KEYS);
        for second in 0..20_000 {
            limiter
                .take("a", limiter.start + Duration::from_secs(second))
                .unwrap();
        }
        let shard = lock(pick(&limiter.shards, limiter.secret.hash_one("a")));
        let counts = shard.counts.values().next().unwrap();
        assert!(counts.slots.capacity() * size_of::<(u32, u32)>() <= 512);
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

        /// Against a log of every moment: never more than the limit in any window, whether there is room for every key or
        /// for none; and where there is room, nothing is refused that would have fit a slot later.
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

        /// As above, with keys that lose and find their place while they count.
        #[test]
        fn nor_when_keys_move_between_crowd_and_place(steps in steps(), most in 1_u32..6) {
            let window = Duration::from_secs(30);
            let mut limiter = Limiter::new(most, window, 0);
            let mut now = limiter.start;
            let mut log: Vec<(u8, Instant)> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
                    Step::GiveBack(room) => limiter.keys_per_shard = room % 2,
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
