//! Taking a lock whoever held it last.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. That another thread panicked while it held the lock does not matter: its panic is passed on where the
/// thread is joined, and no value kept under a lock here is changed in more than one step.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
