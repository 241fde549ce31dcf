//! What a stranger may take of us: sizes, times, memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::client::TrustedProxies;
use super::head::HeadLimits;

/// Bodies and answers up to this size are not counted towards the memory of all of them together, so that whoever fills it
/// with large ones does not shut out small ones. What these may take is bounded by the number of connections.
pub const SMALL: usize = 16 * 1024;

/// The bounds. Memory is a function of these and nothing else.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once of one address that is neither loopback nor a trusted proxy.
    pub connections_per_address: usize,
    /// Of a request's head.
    pub head: HeadLimits,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of all bodies in flight together.
    pub bodies: usize,
    /// Bytes of all answers not yet sent together.
    pub answers: usize,
    /// From a head's first byte to its last.
    pub head_time: Duration,
    /// From a head's end to the end of its body.
    pub body_time: Duration,
    /// From the end of an answer to the next request.
    pub keep_alive: Duration,
    /// How long an answer may make no way.
    pub send_time: Duration,
    /// How long a request may wait for a worker.
    pub queue_time: Duration,
    /// Whose word on a request's origin is believed.
    pub trusted_proxies: TrustedProxies,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1_000,
            connections_per_address: 100,
            head: HeadLimits {
                bytes: 16 * 1024,
                fields: 64,
                target: 4 * 1024,
            },
            body: 1024 * 1024,
            bodies: 64 * 1024 * 1024,
            answers: 64 * 1024 * 1024,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            send_time: Duration::from_secs(30),
            queue_time: Duration::from_secs(2),
            trusted_proxies: TrustedProxies::default(),
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
