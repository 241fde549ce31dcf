//! Threads for requests that hash a password, so that workers stay free.
//!
//! A job does all that is left of its request, from the comparison of the password to the answer. [`password`](super::password)
//! lets half as many threads as there are cores hash at once; further threads are for jobs that wait for the database. The queue
//! has a deadline, and each holder has a fair share of its places: jobs of holders with few jobs in the queue go first.
//!
//! The threads have normal priority. With a lower one (nice), reads became slower where processors were short: a thread that
//! hashes holds the process's memory map while it gets its 19 MiB, and all others wait for it (scripts/bench-logins: 385 ms
//! against 15 ms).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::password::AT_ONCE;
use crate::domain::fair_budget::{FairBudget, Holder};
use crate::metrics;
use crate::sync::{lock, unpoisoned};

/// How long a job may wait in the queue.
const PATIENCE: Duration = Duration::from_secs(2);
/// Jobs in the queue, at most: more than can be done within [`PATIENCE`].
const QUEUE_MAX: usize = 256;
/// Threads beside those that hash at a time. They mostly wait for the database.
const WAITING_FOR_DATABASE: usize = 4;

/// Whether a job waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The job must run.
    InTime,
    /// The queue was full, or the job waited too long. The job must only answer that.
    TooLate,
}

type QueuedJob = Box<dyn FnOnce(Turn) + Send>;

/// The threads and their queue. The threads end when it is dropped and the queue is empty.
pub struct Crew {
    queue: Arc<Queue>,
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    /// Sorted by round.
    jobs: VecDeque<Place>,
    /// The places of each holder.
    places: FairBudget,
    /// The round of the job that was taken last. Each holder has one job in each round.
    round: usize,
    closed: bool,
}

struct Place {
    since: Instant,
    holder: Option<Holder>,
    round: usize,
    job: QueuedJob,
}

impl Crew {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start() -> std::io::Result<Crew> {
        Crew::of(*AT_ONCE + WAITING_FOR_DATABASE)
    }

    fn of(threads: usize) -> std::io::Result<Crew> {
        let crew = Crew {
            queue: Arc::new(Queue {
                waiting: Mutex::new(Waiting {
                    jobs: VecDeque::new(),
                    places: FairBudget::new(QUEUE_MAX),
                    round: 0,
                    closed: false,
                }),
                changed: Condvar::new(),
            }),
        };
        for number in 0..threads {
            let queue = Arc::clone(&crew.queue);
            thread::Builder::new()
                .name(format!("hashing-{number}"))
                .spawn(move || queue.work())?;
        }
        Ok(crew)
    }

    /// Puts a job into the queue. It is always called: on this thread if the queue is full, else on another.
    pub fn submit(&self, holder: Option<Holder>, job: impl FnOnce(Turn) + Send + 'static) {
        let mut waiting = lock(&self.queue.waiting);
        if !waiting.places.allows(holder, 1) {
            drop(waiting);
            return job(Turn::TooLate);
        }
        waiting.add(holder, Box::new(job));
        self.queue.changed.notify_one();
    }
}

impl Waiting {
    fn add(&mut self, holder: Option<Holder>, job: QueuedJob) {
        let round = self.round + self.places.held(holder);
        let at = self.jobs.partition_point(|place| place.round <= round);
        self.places.take(holder, 1);
        let place = Place {
            since: Instant::now(),
            holder,
            round,
            job,
        };
        self.jobs.insert(at, place);
    }

    fn next(&mut self) -> Option<Place> {
        let place = self.jobs.pop_front()?;
        self.places.give_back(place.holder, 1);
        self.round = place.round;
        Some(place)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        lock(&self.queue.waiting).closed = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn work(&self) {
        while let Some(Place { since, job, .. }) = self.next() {
            let waited = since.elapsed();
            metrics::hashing_waited(waited);
            let turn = if waited <= PATIENCE {
                Turn::InTime
            } else {
                Turn::TooLate
            };
            // Unwinding drops the job's responder, which answers the request.
            if catch_unwind(AssertUnwindSafe(|| job(turn))).is_err() {
                log::error!("a job panicked");
            }
        }
    }

    fn next(&self) -> Option<Place> {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(next) = waiting.next() {
                return Some(next);
            }
            if waiting.closed {
                return None;
            }
            waiting = unpoisoned(self.changed.wait(waiting));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_panic_ends_one_job_alone() {
        let hashing = Crew::of(1).unwrap();
        let (done, jobs) = mpsc::channel();
        for number in 0..4 {
            let done = done.clone();
            hashing.submit(None, move |turn| {
                assert!(number != 1, "on purpose");
                done.send((number, turn)).unwrap();
            });
        }
        drop((done, hashing));
        let mut done: Vec<_> = jobs.iter().collect();
        done.sort_by_key(|(number, _)| *number);
        assert_eq!(
            done,
            [(0, Turn::InTime), (2, Turn::InTime), (3, Turn::InTime)]
        );
    }

    #[test]
    fn a_job_that_does_not_fit_is_refused_at_once() {
        let hashing = Crew::of(1).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let (begun, first) = mpsc::channel();
        hashing.submit(None, move |_| {
            begun.send(()).unwrap();
            let _ = gate.recv();
        });
        // While the only thread is busy, jobs stay in the queue.
        first.recv().unwrap();
        for _ in 0..QUEUE_MAX {
            hashing.submit(None, drop);
        }
        let (refused, turns) = mpsc::channel();
        hashing.submit(None, move |turn| refused.send(turn).unwrap());
        assert_eq!(turns.recv(), Ok(Turn::TooLate));
        drop(release);
    }

    #[test]
    fn the_job_of_another_holder_goes_before_those_of_a_busy_one() {
        let hashing = Crew::of(1).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let (begun, first) = mpsc::channel();
        hashing.submit(None, move |_| {
            begun.send(()).unwrap();
            let _ = gate.recv();
        });
        first.recv().unwrap();
        let (done, order) = mpsc::channel();
        let submit = |name: &'static str| {
            let done = done.clone();
            hashing.submit(Some(Holder::of(&name)), move |turn| {
                done.send((name, turn)).unwrap()
            });
        };
        (0..QUEUE_MAX).for_each(|_| submit("busy"));
        submit("other");
        drop(release);
        drop(done);
        let order: Vec<_> = order.iter().take(QUEUE_MAX + 1).collect();
        let refused = order
            .iter()
            .filter(|(_, turn)| *turn == Turn::TooLate)
            .count();
        assert_eq!(refused, QUEUE_MAX / 2, "half of the queue is for others");
        let at = order
            .iter()
            .filter(|(_, turn)| *turn == Turn::InTime)
            .position(|(name, _)| *name == "other");
        assert!(at <= Some(1), "{at:?}");
    }
}
