//! A flag that says stop, for tasks and threads alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Tells work that it is no longer wanted. Clones share the flag; once set it stays set.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_set: AtomicBool,
    changed: Notify,
}

impl CancelFlag {
    /// Sets the flag.
    pub fn set(&self) {
        self.shared.is_set.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.shared.is_set.load(Ordering::Acquire)
    }

    /// The flag itself, for code that waits on it in its own way.
    pub fn as_atomic(&self) -> &AtomicBool {
        &self.shared.is_set
    }

    /// Waits until it is set.
    pub async fn wait(&self) {
        loop {
            // The waiter is registered before the flag is read, so that no change between the two is missed.
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_set() {
                return;
            }
            changed.await;
        }
    }
}
