//! A queue with a fair share for each holder.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::fair_budget::{FairBudget, Holder};

/// Items that wait. Each holder has one item in each round, so those of holders with few items go before.
pub struct FairQueue<T> {
    /// With their rounds, by which they are sorted.
    items: VecDeque<(usize, Queued<T>)>,
    places: FairBudget,
    /// The round of the item that was taken last.
    round: usize,
    /// The next round of each holder.
    rounds: HashMap<Option<Holder>, usize>,
}

/// An item that waited.
pub struct Queued<T> {
    /// The item itself.
    pub item: T,
    /// Whose it is.
    pub holder: Option<Holder>,
    /// Since when it waited.
    pub since: Instant,
}

impl<T> FairQueue<T> {
    /// An empty queue with this many places, which holders share as a [`FairBudget`].
    pub fn new(places: usize) -> FairQueue<T> {
        FairQueue {
            items: VecDeque::new(),
            places: FairBudget::new(places),
            round: 0,
            rounds: HashMap::new(),
        }
    }

    /// The number of items that wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds an item.
    ///
    /// # Errors
    /// The item, if its holder may not have one more place.
    pub fn add(&mut self, holder: Option<Holder>, item: T) -> Result<(), T> {
        if !self.places.allows(holder, 1) {
            return Err(item);
        }
        // A holder that was served in this round is in the next one, or those who come again and again would keep the round from ending.
        let next = self.rounds.get(&holder).copied();
        let round = self.round.max(next.unwrap_or_default());
        self.rounds.insert(holder, round + 1);
        let at = self.items.partition_point(|(other, _)| *other <= round);
        self.places.take(holder, 1);
        let queued = Queued {
            item,
            holder,
            since: Instant::now(),
        };
        self.items.insert(at, (round, queued));
        Ok(())
    }

    /// Takes the first item that is `wanted`.
    pub fn next(&mut self, wanted: impl Fn(&Queued<T>) -> bool) -> Option<Queued<T>> {
        let at = (self.items.iter()).position(|(_, queued)| wanted(queued))?;
        let (round, queued) = self.items.remove(at)?;
        self.places.give_back(queued.holder, 1);
        self.round = self.round.max(round);
        if self.rounds.len() > 100 + 2 * self.items.len() {
            self.rounds.retain(|_, next| *next > self.round);
        }
        Some(queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> Option<Holder> {
        Some(Holder::of(&name))
    }

    fn next(queue: &mut FairQueue<usize>) -> Option<usize> {
        queue.next(|_| true).map(|queued| queued.item)
    }

    #[test]
    fn holders_who_come_again_when_they_were_served_do_not_keep_others_waiting() {
        let mut queue = FairQueue::new(100);
        for (name, item) in [("often", 1), ("twice", 2), ("twice", 3)] {
            queue.add(holder(name), item).unwrap();
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            let item = next(&mut queue).unwrap();
            order.push(item);
            if item == 1 {
                queue.add(holder("often"), 1).unwrap();
            }
        }
        assert!(order.contains(&2) && order.contains(&3), "{order:?}");
    }

    #[test]
    fn items_of_a_new_holder_go_before_most_of_a_busy_one() {
        let mut queue = FairQueue::new(100);
        for item in 0..40 {
            queue.add(holder("busy"), item).unwrap();
        }
        queue.add(holder("new"), 100).unwrap();
        let order: Vec<usize> = std::iter::from_fn(|| next(&mut queue)).collect();
        assert_eq!(order.iter().position(|item| *item == 100), Some(1));
        assert_eq!(order.len(), 41);
    }
}
