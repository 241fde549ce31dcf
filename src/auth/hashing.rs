//! Threads for what no worker should do: hashing passwords, and what is left to do in the database once one is hashed.
//!
//! Hashing takes half the cores, at least one, and nothing else is done on these threads: a login must not wait because the database
//! is slow with another's. Both queues have a deadline, and each holder has a fair share of their places: jobs of holders that
//! have few jobs in the queue go first.
//!
//! They run at the priority of all others. Stepping back (nice) made reads slower, not faster, where processors were short: a thread
//! that hashes holds the process's memory map while it gets its 19 MiB, and kept everybody waiting there (scripts/bench-logins: 385 ms
//! against 15 ms).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::domain::fair_budget::{FairBudget, Holder};
use crate::metrics;
use crate::sync::{lock, unpoisoned};

/// How long a job may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// Jobs that may wait at once: more than can have their turn in that time.
const QUEUE_MAX: usize = 256;
/// Threads for what follows hashing. They mostly wait for the database.
const FINISHING: usize = 4;

/// Whether a job's turn came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It did: do it.
    InTime,
    /// There were too many before it: say so.
    TooLate,
}

type Job = Box<dyn FnOnce(Turn) + Send>;

/// Threads that take jobs, each holder's in the order they come. They end with it.
pub struct Crew {
    queue: Arc<Queue>,
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    /// In the order of their rounds.
    jobs: VecDeque<Place>,
    /// The places that holders have.
    places: FairBudget,
    /// The round of the job taken last. Each holder has one job in each round.
    round: usize,
    closed: bool,
}

struct Place {
    since: Instant,
    holder: Option<Holder>,
    round: usize,
    job: Job,
}

impl Crew {
    /// The threads that hash.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn for_hashing() -> std::io::Result<Crew> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Crew::start("hashing", 1.max(cores / 2))
    }

    /// The threads that do what is left to do then.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn for_finishing() -> std::io::Result<Crew> {
        Crew::start("finishing", FINISHING)
    }

    fn start(name: &'static str, threads: usize) -> std::io::Result<Crew> {
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
                .name(format!("{name}-{number}"))
                .spawn(move || queue.work())?;
        }
        Ok(crew)
    }

    /// Has a job done when its turn comes; it is called in any case, and mostly on another thread.
    pub fn submit(&self, holder: Option<Holder>, job: impl FnOnce(Turn) + Send + 'static) {
        let mut waiting = self.queue.lock();
        if !waiting.places.allows(holder, 1) {
            drop(waiting);
            return job(Turn::TooLate);
        }
        waiting.add(holder, Box::new(job));
        self.queue.changed.notify_one();
    }
}

impl Waiting {
    fn add(&mut self, holder: Option<Holder>, job: Job) {
        let round = self.round + self.places.held(holder);
        let at = self.jobs.partition_point(|place| place.round <= round);
        self.places.take(holder, 1);
        self.jobs.insert(
            at,
            Place {
                since: Instant::now(),
                holder,
                round,
                job,
            },
        );
    }

    fn next(&mut self) -> Option<(Instant, Job)> {
        let place = self.jobs.pop_front()?;
        self.places.give_back(place.holder, 1);
        self.round = place.round;
        Some((place.since, place.job))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    fn work(&self) {
        while let Some((since, job)) = self.next() {
            let turn = if since.elapsed() <= PATIENCE {
                Turn::InTime
            } else {
                Turn::TooLate
            };
            metrics::hashing_waited(since.elapsed());
            // Unwinding drops what the job holds, and that answers its request.
            if catch_unwind(AssertUnwindSafe(|| job(turn))).is_err() {
                log::error!("a job panicked on its way to an answer");
            }
        }
    }

    fn next(&self) -> Option<(Instant, Job)> {
        let mut waiting = self.lock();
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
        let hashing = Crew::start("test", 1).unwrap();
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
    fn what_the_queue_does_not_hold_is_told_at_once() {
        let hashing = Crew::start("test", 1).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let (begun, first) = mpsc::channel();
        hashing.submit(None, move |_| {
            begun.send(()).unwrap();
            let _ = gate.recv();
        });
        // Once the one thread is at work, what comes stays in the queue.
        first.recv().unwrap();
        for _ in 0..QUEUE_MAX {
            hashing.submit(None, drop);
        }
        let (told, turns) = mpsc::channel();
        hashing.submit(None, move |turn| told.send(turn).unwrap());
        assert_eq!(turns.recv(), Ok(Turn::TooLate));
        drop(release);
    }

    #[test]
    fn the_job_of_another_holder_goes_before_those_of_a_busy_one() {
        let hashing = Crew::start("test", 1).unwrap();
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
