//! Threads for work that waits for disks, servers and other processes.
//!
//! Such work has a thread of its own for as long as it lasts, and part of it waits for other such work: a key for the layer
//! that another key is fetching, a claim for the step that has it. What all of them wait for in the end, the transfers,
//! needs a thread as well. So each kind has so many threads and no more: a thousand keys that wait for one layer must not
//! keep the layer from being fetched. Kinds do not share theirs, as one may wait for another: claims for commands, commands
//! and files for layers that keys are fetching.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::StepError;
use crate::cancel::CancelFlag;

/// Keys, claims, and steps that are no commands, at once: enough that a few which wait do not keep those from going on that
/// could, and few enough for a machine that allows few threads.
const MOST_AT_ONCE: usize = 64;

/// As many threads as the kinds above and the transfers can ask for at once, however many commands may run.
pub(crate) const MOST_THREADS: usize = 1 << 16;

/// How much of which work a build does at once.
#[derive(Debug)]
pub(super) struct Threads {
    keys: Semaphore,
    claims: Semaphore,
    commands: Semaphore,
    files: Semaphore,
}

/// What a thread is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Computing a key.
    Key,
    /// Waiting for the right to run a step.
    Claim,
    /// Running a command.
    Command,
    /// Running any other step.
    Files,
}

impl Threads {
    /// Takes how many commands may run at once.
    pub(super) fn new(jobs: usize) -> Self {
        let semaphore = || Semaphore::new(MOST_AT_ONCE);
        Self {
            keys: semaphore(),
            claims: semaphore(),
            commands: Semaphore::new(jobs),
            files: semaphore(),
        }
    }

    /// Does work of a kind on a thread of its own, when there is one for it.
    ///
    /// # Errors
    ///
    /// That of the work; [`StepError::Canceled`] if it was not begun because it is no longer wanted.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        kind: Kind,
        cancel: &CancelFlag,
        work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
    ) -> Result<T, StepError> {
        let _turn = self.turn(kind, cancel).await?;
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StepError::Canceled),
            },
        }
    }

    async fn turn(
        &self,
        kind: Kind,
        cancel: &CancelFlag,
    ) -> Result<SemaphorePermit<'_>, StepError> {
        let semaphore = match kind {
            Kind::Key => &self.keys,
            Kind::Claim => &self.claims,
            Kind::Command => &self.commands,
            Kind::Files => &self.files,
        };
        tokio::select! {
            // Nobody closes it.
            turn = semaphore.acquire() => turn.map_err(|_closed| StepError::Canceled),
            () = cancel.wait() => Err(StepError::Canceled),
        }
    }
}
