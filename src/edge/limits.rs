//! Resource limits: sizes, times, memory.

use std::sync::{Arc, Mutex, MutexGuard};

use super::head::HeadLimits;
use crate::config::EdgeLimits;
use crate::domain::fair_budget::{FairBudget, Holder};
use crate::sync::lock;

/// Bodies and answers up to this size are not counted, so that large ones never keep out small ones. The number of
/// connections limits the memory of the small ones.
pub const SMALL: usize = 16 * 1024;

impl EdgeLimits {
    /// The limits of a request's head.
    pub fn head(&self) -> HeadLimits {
        HeadLimits {
            bytes: self.head_bytes,
            fields: self.head_fields,
            target: self.target_bytes,
        }
    }
}

/// Memory for bodies or answers, shared fairly among their holders.
#[derive(Debug)]
pub struct MemoryBudget(Mutex<FairBudget>);

/// A share of a [`MemoryBudget`], given back when it is dropped.
#[derive(Debug)]
pub struct MemoryShare {
    budget: Arc<MemoryBudget>,
    holder: Option<Holder>,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of this many bytes.
    pub fn new(most: usize) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget(Mutex::new(FairBudget::new(most))))
    }

    /// A share of this size; `None` if the holder may not have it. Sizes up to [`SMALL`] are not counted.
    pub fn share(
        self: &Arc<MemoryBudget>,
        holder: Option<Holder>,
        bytes: usize,
    ) -> Option<MemoryShare> {
        let mut share = MemoryShare {
            budget: Arc::clone(self),
            holder,
            bytes: 0,
        };
        share.grow_to(bytes).then_some(share)
    }

    /// The largest holder, if the budget has no room for this size and that holder has more than `holder` would have.
    pub fn larger_holder(&self, holder: Option<Holder>, bytes: usize) -> Option<Holder> {
        let budget = self.lock();
        if budget.fits(bytes) {
            return None;
        }
        budget.largest_above(budget.held(holder) + bytes)
    }

    fn lock(&self) -> MutexGuard<'_, FairBudget> {
        lock(&self.0)
    }
}

impl MemoryShare {
    /// Makes the share large enough for this size. Returns false and changes nothing when the holder may not have it.
    pub fn grow_to(&mut self, size: usize) -> bool {
        if size <= SMALL || size <= self.bytes {
            return true;
        }
        let more = size - self.bytes;
        let mut budget = self.budget.lock();
        let allowed = budget.allows_growth(self.holder, self.bytes, more);
        if allowed {
            budget.take(self.holder, more);
            self.bytes = size;
        }
        allowed
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.lock().give_back(self.holder, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_back() {
        let budget = MemoryBudget::new(100_000);
        let mut large = budget.share(None, 60_000).unwrap();
        assert!(budget.share(None, 60_000).is_none());
        assert!(
            budget.share(None, SMALL).is_some(),
            "small sizes always fit"
        );
        assert!(large.grow_to(90_000) && !large.grow_to(110_000));
        drop(large);
        assert!(budget.share(None, 100_000).is_some());
    }

    #[test]
    fn only_a_larger_holder_is_found() {
        let budget = MemoryBudget::new(100_000);
        let [one, other] = ["one", "other"].map(|name| Some(Holder::of(&name)));
        let _share = budget.share(one, 90_000).unwrap();
        assert_eq!(budget.larger_holder(other, 20_000), one);
        assert_eq!(budget.larger_holder(other, 90_000), None);
        assert_eq!(budget.larger_holder(one, 20_000), None);
    }
}
