//! Locks that stay usable after a panic, and waits with a deadline.
//!
//! A panic while a lock is held poisons it. Every critical section of this program leaves its data consistent wherever it panics, so
//! the next thread may go on with it.

use std::io;
use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Locks a mutex, poisoned or not.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// What a lock or a wait on a condition variable returns, poisoned or not.
pub fn unpoisoned<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// Calls a function that may block for ever, on a thread of its own. `None` if it has not returned within `limit`, or has panicked.
///
/// # Errors
/// The thread cannot be started.
pub fn call_within<T: Send + 'static>(
    limit: Duration,
    name: &str,
    call: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(call)?;
    Ok(join_within(limit, thread))
}

/// Waits for the end of a thread. `None` if it has not ended within `limit`, or has panicked.
pub fn join_within<T>(limit: Duration, thread: JoinHandle<T>) -> Option<T> {
    let ended = holds_within(limit, || thread.is_finished());
    ended.then(|| thread.join().ok()).flatten()
}

/// Waits until a condition holds. Returns whether it does within `limit`. Between two looks is a quarter of the time waited so far, 20 ms
/// at most.
pub fn holds_within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !holds() {
        let waited = began.elapsed();
        if waited >= limit {
            return false;
        }
        let pause = (waited / 4).clamp(Duration::from_micros(200), Duration::from_millis(20));
        thread::sleep(pause.min(limit - waited));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_call_that_does_not_return_ends_with_its_limit() {
        let (end, ended) = channel::<()>();
        let call = move || ended.recv().is_err();
        let limit = Duration::from_millis(50);
        assert_eq!(call_within(limit, "blocked", call).unwrap(), None);
        drop(end);
        let limit = Duration::from_secs(10);
        assert_eq!(call_within(limit, "quick", || 1).unwrap(), Some(1));
        let panicked = call_within(limit, "panicking", || panic!("on purpose"));
        assert_eq!(panicked.unwrap(), None::<()>);
    }
}
