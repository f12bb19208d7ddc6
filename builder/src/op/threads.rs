//! Threads for work that waits for disks, servers and other processes.
//!
//! Such work has a thread of its own for as long as it lasts, and part of it waits for other such work: a key for the layer
//! that another key is fetching, a claim for the step that has it. What all of them wait for in the end, the transfers,
//! needs a thread as well. So each kind has so many threads and no more: a thousand keys that wait for one layer must not
//! keep the layer from being fetched. Kinds do not share theirs, as one may wait for another: claims for commands, commands
//! and files for layers that keys are fetching.
//!
//! Where the system gives fewer threads than that, work waits until a thread is free. So that what it waits for has one
//! then, claims, all other work, and transfers (the runtime's) have pools of their own, each with a thread that it keeps.

use std::io;
use std::mem::ManuallyDrop;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::StepError;
use crate::cancel::CancelFlag;
use crate::machine::{STACK_BYTES, THREADS_LAST};

/// Keys at once: enough that a few which wait for a layer do not keep those from going on that could, and few enough that
/// commands can be started where a hundred processes are allowed.
const KEYS_AT_ONCE: usize = 32;

/// Claims at once. They only wait, each for another build.
const CLAIMS_AT_ONCE: usize = 64;

/// Steps at once that are no commands. Each uses all cores by itself.
const FILES_AT_ONCE: usize = 16;

/// How much of which work a build does at once.
#[derive(Debug)]
pub struct Threads {
    keys: Semaphore,
    claims: Semaphore,
    commands: Semaphore,
    files: Semaphore,
    /// For claims.
    waiting: Pool,
    /// For all others.
    working: Pool,
}

/// Threads that end with the process, which does one build.
#[derive(Debug)]
struct Pool {
    /// Only its threads are used. Never dropped: that detaches them as they end, or waits for what is under way. To detach a
    /// thread that ends can end the process (glibc bug 19951).
    runtime: ManuallyDrop<Runtime>,
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
    ///
    /// # Errors
    ///
    /// The system gives nothing to wait with.
    pub fn new(jobs: usize) -> io::Result<Self> {
        Ok(Self {
            keys: Semaphore::new(KEYS_AT_ONCE),
            claims: Semaphore::new(CLAIMS_AT_ONCE),
            commands: Semaphore::new(jobs),
            files: Semaphore::new(FILES_AT_ONCE),
            waiting: Pool::new(CLAIMS_AT_ONCE)?,
            working: Pool::new(jobs.saturating_add(KEYS_AT_ONCE + FILES_AT_ONCE))?,
        })
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
        let pool = match kind {
            Kind::Claim => &self.waiting,
            Kind::Key | Kind::Command | Kind::Files => &self.working,
        };
        let transfers = Handle::current();
        let working = pool.runtime.spawn_blocking(move || {
            let _inside = transfers.enter();
            work()
        });
        match working.await {
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

impl Pool {
    fn new(most: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(most)
            .thread_keep_alive(THREADS_LAST)
            .thread_stack_size(STACK_BYTES)
            .build()?;
        // The one that it keeps.
        drop(runtime.spawn_blocking(|| ()));
        Ok(Self {
            runtime: ManuallyDrop::new(runtime),
        })
    }
}
