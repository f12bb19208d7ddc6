//! The only reader of time.

use std::time::{Duration, Instant, SystemTime};

/// A clock; tests fix it.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    epoch: Duration,
}

impl Clock {
    /// The system's clock. Times it gives never run backwards: they are the monotonic time since this call added to the
    /// wall time of this call.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    pub fn system() -> Self {
        let epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            start: Instant::now(),
            epoch,
        }
    }

    /// Time since the Unix epoch.
    pub fn now(&self) -> Duration {
        self.epoch + self.start.elapsed()
    }
}
