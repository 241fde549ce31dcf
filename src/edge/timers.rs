//! All deadlines of the event loop in one heap.
//!
//! An entry is never changed. A deadline that moves later keeps its entry: when that comes due, the owner compares it with the
//! deadline it has by then and sets a new entry. So a request on a keep-alive connection costs no operation here. Entries of
//! connections that have ended stay until they come due, or until they are too many.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Nothing is set for an earlier time than this from now, so that one round of the loop handles each timer once.
pub const TIMER_STEP: Duration = Duration::from_millis(1);
/// Entries beyond four for each owner that are kept.
const SPARE: usize = 1024;

/// Entries, each of a time and the token of its owner.
#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(Instant, u64)>>);

impl Timers {
    /// Adds an entry.
    pub fn set(&mut self, at: Instant, token: u64) {
        self.0.push(Reverse((at, token)));
    }

    /// The time of the earliest entry.
    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the earliest entry if it is due.
    pub fn take_due(&mut self, now: Instant) -> Option<(Instant, u64)> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop().map(|Reverse(entry)| entry)
    }

    /// Forgets entries that are not wanted any more, once there are many more than owners.
    pub fn compact(&mut self, owners: usize, wanted: impl Fn(Instant, u64) -> bool) {
        if self.0.len() > 4 * owners + SPARE {
            self.0.retain(|Reverse((at, token))| wanted(*at, *token));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_due_in_the_order_of_their_times() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        for (seconds, token) in [(3, 1), (1, 2), (2, 1)] {
            timers.set(at(seconds), token);
        }
        assert_eq!(timers.take_due(now), None);
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.take_due(at(2)), Some((at(1), 2)));
        assert_eq!(timers.take_due(at(2)), Some((at(2), 1)));
        assert_eq!(timers.take_due(at(2)), None);
    }

    #[test]
    fn connections_that_come_and_go_leave_few_entries() {
        let now = Instant::now();
        let mut timers = Timers::default();
        for token in 0..1_000_000 {
            timers.set(now, token);
            timers.compact(1, |_, owner| owner == token);
        }
        assert!(timers.0.len() < 2 * SPARE, "{}", timers.0.len());
    }
}
