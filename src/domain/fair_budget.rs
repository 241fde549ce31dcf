//! Fair shares of a global budget.
//!
//! A budget has a number of units: bytes, places in a queue, workers. A holder may take any number while at most half of the
//! budget is used. Above that a holder has at most one eighth of it, but always one piece. So the largest holder leaves half of
//! the budget to the others.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

/// Divisor of a holder's share once half of the budget is used.
const SHARE: usize = 8;

/// A user or, before authentication, a client network. `Holder` stores a hash under a random key of this process, so that a
/// client cannot choose the hash of another holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder(u64);

impl Holder {
    /// The holder for a user or a network.
    pub fn of(key: &impl Hash) -> Holder {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Holder(KEYS.hash_one(key))
    }
}

/// The units of each holder. It does not lock or wait.
///
/// `None` stands for requests whose client is not known: the server itself, or a trusted proxy that names no client. They
/// use the budget like others and have no share of their own.
#[derive(Debug)]
pub struct FairBudget {
    most: usize,
    used: usize,
    held: HashMap<Option<Holder>, usize>,
}

impl FairBudget {
    /// A budget with this many units.
    pub fn new(most: usize) -> FairBudget {
        FairBudget {
            most,
            used: 0,
            held: HashMap::new(),
        }
    }

    /// Units that this holder has.
    pub fn held(&self, holder: Option<Holder>) -> usize {
        self.held.get(&holder).copied().unwrap_or(0)
    }

    /// Whether that many units are free, whatever the holder's share is.
    pub fn fits(&self, units: usize) -> bool {
        units <= self.most.saturating_sub(self.used)
    }

    /// Whether the holder may take that many more units for a new piece.
    pub fn allows(&self, holder: Option<Holder>, units: usize) -> bool {
        self.allows_growth(holder, 0, units)
    }

    /// Whether the holder may take that many more units for a piece that has `piece` units already.
    pub fn allows_growth(&self, holder: Option<Holder>, piece: usize, units: usize) -> bool {
        let held = self.held(holder);
        self.fits(units)
            && (holder.is_none()
                || held == piece
                || self.used + units <= self.most / 2
                || held + units <= self.most / SHARE)
    }

    /// Gives the units to the holder, without a check.
    pub fn take(&mut self, holder: Option<Holder>, units: usize) {
        self.used += units;
        *self.held.entry(holder).or_default() += units;
    }

    /// Takes the units back.
    pub fn give_back(&mut self, holder: Option<Holder>, units: usize) {
        self.used = self.used.saturating_sub(units);
        if let Some(held) = self.held.get_mut(&holder) {
            *held = held.saturating_sub(units);
            if *held == 0 {
                self.held.remove(&holder);
            }
        }
    }

    /// The holder with the most units, if one has more than `units`.
    pub fn largest_above(&self, units: usize) -> Option<Holder> {
        self.held
            .iter()
            .filter(|(_, held)| **held > units)
            .filter_map(|(holder, held)| Some(((*holder)?, held)))
            .max_by_key(|(_, held)| **held)
            .map(|(holder, _)| holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> Option<Holder> {
        Some(Holder::of(&name))
    }

    /// How many pieces of this size the holder gets.
    fn grab(budget: &mut FairBudget, name: &str, units: usize) -> usize {
        let mut pieces = 0;
        while budget.allows(holder(name), units) {
            budget.take(holder(name), units);
            pieces += 1;
        }
        pieces
    }

    #[test]
    fn one_holder_gets_half_and_the_next_an_eighth_each() {
        let mut budget = FairBudget::new(64);
        assert_eq!(grab(&mut budget, "a", 1), 32);
        for name in ["b", "c", "d", "e"] {
            assert_eq!(grab(&mut budget, name, 1), 8, "{name}");
        }
        assert_eq!(grab(&mut budget, "f", 1), 0, "all of it is used");
    }

    #[test]
    fn every_holder_may_have_one_piece_however_large() {
        let mut budget = FairBudget::new(10);
        assert_eq!(grab(&mut budget, "a", 9), 1);
        assert_eq!(grab(&mut budget, "b", 2), 0);
        let mut few = FairBudget::new(4);
        assert_eq!(grab(&mut few, "a", 1), 2);
        assert_eq!(grab(&mut few, "b", 1), 1);
        assert_eq!(grab(&mut few, "c", 1), 1);
    }

    #[test]
    fn returned_units_can_be_taken_again() {
        let mut budget = FairBudget::new(16);
        grab(&mut budget, "a", 1);
        budget.give_back(holder("a"), 8);
        assert_eq!(budget.held(holder("a")), 0);
        assert_eq!(grab(&mut budget, "b", 4), 2);
    }

    #[test]
    fn unknown_holders_have_no_share_of_their_own() {
        let mut budget = FairBudget::new(16);
        while budget.allows(None, 1) {
            budget.take(None, 1);
        }
        assert_eq!(budget.held(None), 16);
        assert_eq!(budget.largest_above(0), None);
    }

    #[test]
    fn the_largest_holder_is_found() {
        let mut budget = FairBudget::new(16);
        budget.take(holder("a"), 3);
        budget.take(holder("b"), 5);
        assert_eq!(budget.largest_above(4), holder("b"));
        assert_eq!(budget.largest_above(5), None);
    }
}
