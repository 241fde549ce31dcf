//! Threads for the rest of requests that would hold up a worker: those that hash a password, and writes that may wait for a lock.
//!
//! A job does all that is left of its request, up to the answer. The queue has a deadline, and each holder has a fair share of its
//! places and of the threads: jobs of holders with few jobs in the queue go first.
//!
//! The threads have normal priority. With a lower one (nice), reads became slower where processors were short: a thread that
//! hashes holds the process's memory map while it gets its 19 MiB, and all others wait for it (scripts/bench-logins: 385 ms
//! against 15 ms).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::auth::password::{self, AT_ONCE, PATIENCE};
use crate::domain::fair_budget::{FairBudget, Holder};
use crate::domain::fair_queue::{FairQueue, Queued};
use crate::metrics;
use crate::sync::{lock, unpoisoned};

/// Passwords in the queue, at most. One holder may have half of the places: more than an address has connections (200), so its requests
/// wait up to [`PATIENCE`]. If they were refused at once, clients that try again without a pause would take the processors.
const HASHINGS_MAX: usize = 1_024;
/// The same for writes. The first write of a user is one of them, so many may come together.
const LONE_WRITES_MAX: usize = 2_048;
/// Threads beside those that hash at a time. They mostly wait for the database.
const WAITING_FOR_DATABASE: usize = 4;
/// Threads for writes that were left out of their group. They may wait for locks.
const LONE_WRITES: usize = 4;

/// A crew without jobs for this long gives its memory back.
const QUIET: Duration = Duration::from_secs(2);

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
    state: Mutex<QueueState>,
    changed: Condvar,
    waited: fn(Duration),
    quiet: fn(),
}

struct QueueState {
    jobs: FairQueue<QueuedJob>,
    /// When a job was last taken.
    taken: Instant,
    /// The threads that work.
    busy: FairBudget,
    closed: bool,
}

impl Crew {
    /// Starts the threads for requests that hash a password.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn hashing() -> std::io::Result<Crew> {
        let threads = *AT_ONCE + WAITING_FOR_DATABASE;
        Crew::start(
            "hashing",
            threads,
            HASHINGS_MAX,
            metrics::hashing_waited,
            password::give_memory_back,
        )
    }

    /// Starts the threads for writes that were left out of their group.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn lone_writes() -> std::io::Result<Crew> {
        Crew::start("lone-write", LONE_WRITES, LONE_WRITES_MAX, |_| (), || ())
    }

    /// `waited` is called with the time that each job was in the queue, `quiet` when there was no job for [`QUIET`].
    fn start(
        name: &str,
        threads: usize,
        places: usize,
        waited: fn(Duration),
        quiet: fn(),
    ) -> std::io::Result<Crew> {
        let crew = Crew {
            queue: Arc::new(Queue {
                state: Mutex::new(QueueState {
                    jobs: FairQueue::new(places),
                    taken: Instant::now(),
                    busy: FairBudget::new(threads),
                    closed: false,
                }),
                changed: Condvar::new(),
                waited,
                quiet,
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

    /// Puts a job into the queue. It is always called: on this thread if the queue is full, else on another.
    pub fn submit(&self, holder: Option<Holder>, job: impl FnOnce(Turn) + Send + 'static) {
        let added = lock(&self.queue.state).jobs.add(holder, Box::new(job));
        match added {
            Ok(()) => self.queue.changed.notify_one(),
            Err(job) => job(Turn::TooLate),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        lock(&self.queue.state).closed = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn work(&self) {
        while let Some(Queued {
            since,
            item,
            holder,
        }) = self.next()
        {
            let waited = since.elapsed();
            (self.waited)(waited);
            let turn = if waited <= PATIENCE {
                Turn::InTime
            } else {
                Turn::TooLate
            };
            // Unwinding drops the job's responder, which answers the request.
            if catch_unwind(AssertUnwindSafe(|| item(turn))).is_err() {
                log::error!("a job panicked");
            }
            lock(&self.state).busy.give_back(holder, 1);
        }
        // The last one lets those end that wait.
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Queued<QueuedJob>> {
        let mut state = lock(&self.state);
        let mut timed_out = false;
        loop {
            let QueueState {
                jobs,
                taken,
                busy,
                closed,
            } = &mut *state;
            if let Some(next) = jobs.next(|job| busy.allows(job.holder, 1)) {
                busy.take(next.holder, 1);
                *taken = Instant::now();
                return Some(next);
            }
            if *closed && jobs.is_empty() {
                return None;
            }
            if timed_out {
                state = unpoisoned(self.changed.wait(state));
            } else {
                let (woken, wait) = unpoisoned(self.changed.wait_timeout(state, QUIET));
                state = woken;
                timed_out = wait.timed_out();
                if timed_out && state.taken.elapsed() >= QUIET {
                    (self.quiet)();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// A crew whose only thread works until the sender is dropped. Until then jobs stay in the queue.
    fn occupied_crew() -> (Crew, mpsc::Sender<()>) {
        let crew = Crew::start("test", 1, HASHINGS_MAX, |_| (), || ()).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let (begun, first) = mpsc::channel();
        crew.submit(None, move |_| {
            begun.send(()).unwrap();
            let _ = gate.recv();
        });
        first.recv().unwrap();
        (crew, release)
    }

    #[test]
    fn a_panic_ends_one_job_alone() {
        let hashing = Crew::start("test", 1, HASHINGS_MAX, |_| (), || ()).unwrap();
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
        let (hashing, release) = occupied_crew();
        for _ in 0..HASHINGS_MAX {
            hashing.submit(None, drop);
        }
        let (refused, turns) = mpsc::channel();
        hashing.submit(None, move |turn| refused.send(turn).unwrap());
        assert_eq!(turns.recv(), Ok(Turn::TooLate));
        drop(release);
    }

    #[test]
    fn a_job_that_waited_longer_than_the_limit_is_too_late() {
        let hashing = Crew::start("test", 1, HASHINGS_MAX, |_| (), || ()).unwrap();
        let (begun, first) = mpsc::channel();
        hashing.submit(None, move |_| {
            begun.send(()).unwrap();
            thread::sleep(PATIENCE + Duration::from_millis(100));
        });
        first.recv().unwrap();
        let (late, turns) = mpsc::channel();
        hashing.submit(None, move |turn| late.send(turn).unwrap());
        assert_eq!(turns.recv(), Ok(Turn::TooLate));
    }

    #[test]
    fn the_job_of_another_holder_goes_before_those_of_a_busy_one() {
        let (hashing, release) = occupied_crew();
        let (done, order) = mpsc::channel();
        let submit = |name: &'static str| {
            let done = done.clone();
            hashing.submit(Some(Holder::of(&name)), move |turn| {
                done.send((name, turn)).unwrap()
            });
        };
        (0..HASHINGS_MAX).for_each(|_| submit("busy"));
        submit("other");
        drop(release);
        drop(done);
        let order: Vec<_> = order.iter().take(HASHINGS_MAX + 1).collect();
        let refused = order
            .iter()
            .filter(|(_, turn)| *turn == Turn::TooLate)
            .count();
        assert_eq!(refused, HASHINGS_MAX / 2, "half of the queue is for others");
        let at = order
            .iter()
            .filter(|(_, turn)| *turn == Turn::InTime)
            .position(|(name, _)| *name == "other");
        assert!(at <= Some(1), "{at:?}");
    }
}
