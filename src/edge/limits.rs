//! Resource limits per connection and memory shared by all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::head::HeadLimits;
use crate::config::EdgeLimits;

/// Bodies and answers up to this size are not counted towards the memory of all of them together, so that whoever fills it
/// with large ones does not shut out small ones. What these may take is bounded by the number of connections.
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

/// Memory that is shared out.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    most: usize,
}

/// A share of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(most: usize) -> Arc<Budget> {
        Arc::new(Budget {
            used: AtomicUsize::new(0),
            most,
        })
    }

    /// A share for something of this size; `None` when there is not enough left. What is [`SMALL`] costs nothing.
    pub fn share(self: &Arc<Budget>, bytes: usize) -> Option<Share> {
        let mut share = Share {
            budget: Arc::clone(self),
            bytes: 0,
        };
        share.grow_to(bytes).then_some(share)
    }
}

impl Share {
    /// Makes the share do for this size; false, and nothing changed, when there is not enough left.
    pub fn grow_to(&mut self, size: usize) -> bool {
        if size <= SMALL || size <= self.bytes {
            return true;
        }
        let more = size - self.bytes;
        let fits = |used: usize| {
            used.checked_add(more)
                .filter(|used| *used <= self.budget.most)
        };
        let taken = self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok();
        if taken {
            self.bytes = size;
        }
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_back() {
        let budget = Budget::new(100_000);
        let mut large = budget.share(60_000).unwrap();
        assert!(budget.share(60_000).is_none());
        assert!(budget.share(SMALL).is_some(), "what is small always fits");
        assert!(large.grow_to(90_000) && !large.grow_to(110_000));
        drop(large);
        assert!(budget.share(100_000).is_some());
    }
}
