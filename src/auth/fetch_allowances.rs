//! How often each client may cause a fetch of the key set.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::fair_budget::Holder;

/// Fetches that a client may cause in a burst.
const BURST: u32 = 5;
/// Clients that are remembered. Further ones share one allowance.
const CLIENTS_MAX: usize = 4_096;

/// Allows each client [`BURST`] fetches, and one more after each refill.
#[derive(Default)]
pub struct FetchAllowances {
    /// The time at which a client has all of its fetches again. A client that is not in the map has them now.
    full_at: HashMap<Option<Holder>, Instant>,
}

impl FetchAllowances {
    /// Takes one fetch of this client, if it has one; it gets one more after each `refill`. `None` is a trusted proxy that names no
    /// client.
    pub fn take(&mut self, client: Option<Holder>, refill: Duration, now: Instant) -> bool {
        let has_place = self.full_at.contains_key(&client) || self.has_room(now);
        let key = client.filter(|_| has_place);
        let full_at = self.full_at.entry(key).or_insert(now);
        let next = (*full_at).max(now) + refill;
        let allowed = next <= now + refill * BURST;
        if allowed {
            *full_at = next;
        }
        allowed
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.full_at.len() >= CLIENTS_MAX {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.full_at.len() < CLIENTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn client(number: usize) -> Option<Holder> {
        Some(Holder::of(&number))
    }

    #[test]
    fn five_at_once_and_then_one_a_minute() {
        let mut allowances = FetchAllowances::default();
        let start = Instant::now();
        let mut taken = |number, seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..10)
                .filter(|_| allowances.take(client(number), MINUTE, now))
                .count()
        };
        assert_eq!(taken(1, 0), 5);
        assert_eq!(taken(1, 59), 0);
        assert_eq!(taken(2, 59), 5, "another client has its own");
        assert_eq!(taken(1, 60), 1);
        assert_eq!(taken(1, 180), 2);
        assert_eq!(taken(1, 3600), 5);
    }

    #[test]
    fn clients_without_room_share_one_allowance_until_others_are_full_again() {
        let mut allowances = FetchAllowances::default();
        let now = Instant::now();
        for number in 0..CLIENTS_MAX {
            assert!(allowances.take(client(number), MINUTE, now));
        }
        let more = CLIENTS_MAX..CLIENTS_MAX + 100;
        let taken = more.filter(|number| allowances.take(client(*number), MINUTE, now));
        assert_eq!(taken.count(), 5);
        assert_eq!(allowances.full_at.len(), CLIENTS_MAX + 1);
        assert!(allowances.take(client(0), MINUTE, now));
        assert!(allowances.take(client(CLIENTS_MAX), MINUTE, now + 6 * MINUTE));
        assert_eq!(allowances.full_at.len(), 1);
    }
}
