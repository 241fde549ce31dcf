//! Locks that stay usable after a panic, and calls with a deadline.
//!
//! A panic while a lock is held poisons it. Every critical section of this program leaves its data consistent wherever it panics, so
//! the next thread may go on with it.

use std::io;
use std::sync::mpsc::channel;
use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

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
    let (sender, receiver) = channel();
    thread::Builder::new()
        .name(name.to_owned())
        // After the limit there is no receiver.
        .spawn(move || drop(sender.send(call())))?;
    Ok(receiver.recv_timeout(limit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

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
