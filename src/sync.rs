//! Locks that stay usable after a panic.
//!
//! A panic while a lock is held poisons it. Every critical section of this program leaves its data consistent wherever it panics, so
//! the next thread may go on with it.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Locks a mutex, poisoned or not.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// What a lock or a wait on a condition variable returns, poisoned or not.
pub fn unpoisoned<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}
