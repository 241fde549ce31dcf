//! Memory for answers that are not sent yet, and which slow reader is dropped when it is short.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::limits::{Budget, Share};
use super::outlet::Outlet;
use crate::domain::fair_budget::Holder;
use crate::http::error::Error;
use crate::http::request::RequestId;
use crate::http::response::Framing;
use crate::sync::lock;

/// An answer younger than this is dropped only after all older ones of its holder: its speed is not known yet.
const SETTLED: Duration = Duration::from_secs(1);

/// All answers that are not sent yet.
pub struct Answers {
    budget: Arc<Budget>,
    slow: Mutex<Vec<Arc<SlowAnswer>>>,
}

/// An answer that its client did not take at once.
struct SlowAnswer {
    outlet: Arc<Outlet>,
    holder: Option<Holder>,
    began: Instant,
    sent: AtomicUsize,
    /// `None` once the answer was dropped.
    share: Mutex<Option<Share>>,
}

/// An answer on its way, counted until this is dropped.
pub struct Sending {
    answers: Arc<Answers>,
    slow: Arc<SlowAnswer>,
}

impl Answers {
    /// Memory of so many bytes.
    pub fn new(most: usize) -> Arc<Answers> {
        Arc::new(Answers {
            budget: Budget::new(most),
            slow: Mutex::default(),
        })
    }

    /// The answer with its share of the memory, or a 503 in its place when its holder may not have that much. The slowest
    /// readers of a larger holder are dropped first.
    pub fn admit(
        &self,
        answer: Vec<u8>,
        holder: Option<Holder>,
        request_id: &RequestId,
        framing: &Framing,
    ) -> (Vec<u8>, Option<Share>) {
        loop {
            let share = self.budget.share(holder, answer.len());
            if share.is_some() {
                return (answer, share);
            }
            let dropped = self
                .budget
                .largest_in_the_way(holder, answer.len())
                .is_some_and(|largest| self.drop_slowest(largest));
            if !dropped {
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

    /// Counts an answer that a client takes slowly, and may drop it from here on.
    pub fn watch(
        self: &Arc<Answers>,
        outlet: &Arc<Outlet>,
        holder: Option<Holder>,
        share: Option<Share>,
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

    /// Closes the connection of the holder's slowest reader and takes its memory back. False when there is none.
    fn drop_slowest(&self, holder: Holder) -> bool {
        let now = Instant::now();
        let mut slow = lock(&self.slow);
        let slowest = slow
            .iter()
            .enumerate()
            .filter(|(_, answer)| answer.holder == Some(holder))
            .min_by_key(|(_, answer)| answer.rank(now))
            .map(|(at, _)| at);
        let Some(answer) = slowest.map(|at| slow.swap_remove(at)) else {
            return false;
        };
        drop(slow);
        log::warn!(client:% = answer.outlet.peer; "a slow reader is dropped: memory for answers is short");
        answer.outlet.socket.end();
        lock(&answer.share).take();
        true
    }
}

impl SlowAnswer {
    /// The lowest rank is dropped first: bytes a second, the young ones last.
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
