//! Memory for answers that are not sent yet. If it is short, the slowest readers are dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::limits::{MemoryBudget, MemoryShare};
use super::outlet::Outlet;
use crate::domain::fair_budget::Holder;
use crate::http::error::Error;
use crate::http::request::RequestId;
use crate::http::response::Framing;
use crate::sync::lock;

/// An answer younger than this is dropped only after all older ones of its holder: its speed is not known yet.
const SETTLED: Duration = Duration::from_secs(1);

/// The answers that are not sent yet.
pub struct Answers {
    budget: Arc<MemoryBudget>,
    slow: Mutex<Vec<Arc<SlowAnswer>>>,
}

/// An answer that its client did not take at once.
struct SlowAnswer {
    outlet: Arc<Outlet>,
    holder: Option<Holder>,
    began: Instant,
    sent: AtomicUsize,
    /// `None` once the answer was dropped.
    share: Mutex<Option<MemoryShare>>,
}

/// An answer that is being sent; counted until this is dropped.
pub struct Sending {
    answers: Arc<Answers>,
    slow: Arc<SlowAnswer>,
}

impl Answers {
    /// Answers of at most so many bytes in all.
    pub fn new(most: usize) -> Arc<Answers> {
        Arc::new(Answers {
            budget: MemoryBudget::new(most),
            slow: Mutex::default(),
        })
    }

    /// The answer with its share of the memory, or a 503 in its place if its holder may not have that much memory. Before that, the
    /// slowest readers of a larger holder are dropped.
    pub fn admit(
        &self,
        answer: Vec<u8>,
        holder: Option<Holder>,
        request_id: &RequestId,
        framing: &Framing,
    ) -> (Vec<u8>, Option<MemoryShare>) {
        loop {
            let share = self.budget.share(holder, answer.len());
            if share.is_some() {
                return (answer, share);
            }
            let larger = self.budget.larger_holder(holder, answer.len());
            if !larger.is_some_and(|larger| self.drop_slowest(larger)) {
                break;
            }
        }
        let cause = "answers that are not read yet fill the memory for this client's answers";
        log::warn!(request_id = request_id.as_str(); "an answer is replaced by a 503: {cause}");
        let refusal = Error::Unavailable(cause.to_owned());
        let refusal = refusal.into_response(request_id, false, framing.problem);
        // It is small, and small answers are not counted.
        (refusal.encode(framing, request_id.as_str()), None)
    }

    /// Counts an answer that a client reads slowly. From here on it may be dropped.
    pub fn watch(
        self: &Arc<Answers>,
        outlet: &Arc<Outlet>,
        holder: Option<Holder>,
        share: Option<MemoryShare>,
    ) -> Sending {
        let slow = Arc::new(SlowAnswer {
            outlet: Arc::clone(outlet),
            holder,
            began: Instant::now(),
            sent: AtomicUsize::new(0),
            share: Mutex::new(share),
        });
        lock(&self.slow).push(Arc::clone(&slow));
        Sending {
            answers: Arc::clone(self),
            slow,
        }
    }

    /// Closes the connection of the holder's slowest reader and frees the memory of its answer. False if there is none.
    fn drop_slowest(&self, holder: Holder) -> bool {
        let now = Instant::now();
        let mut slow = lock(&self.slow);
        let slowest = (0..)
            .zip(slow.iter())
            .filter(|(_, answer)| answer.holder == Some(holder))
            .min_by_key(|(_, answer)| answer.rank(now));
        let Some((at, _)) = slowest else {
            return false;
        };
        let answer = slow.swap_remove(at);
        drop(slow);
        log::warn!(client:% = answer.outlet.peer; "a slow reader is dropped: memory for answers is short");
        answer.outlet.socket.end();
        lock(&answer.share).take();
        true
    }
}

impl SlowAnswer {
    /// The answer with the lowest rank is dropped first: slow ones by bytes a second, then new ones.
    fn rank(&self, now: Instant) -> (bool, u128) {
        let age = now.saturating_duration_since(self.began);
        let sent = self.sent.load(Ordering::Relaxed) as u128;
        (age < SETTLED, sent * 1_000 / age.as_millis().max(1))
    }
}

impl Sending {
    /// Notes how many bytes the client has taken.
    pub fn note_sent(&self, bytes: usize) {
        self.slow.sent.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        lock(&self.answers.slow).retain(|other| !Arc::ptr_eq(other, &self.slow));
        lock(&self.slow.share).take();
    }
}
