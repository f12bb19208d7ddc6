//! Runs commands through one sandbox host a build, started with the first command, or with the trial before it.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;

use super::error::StepError;
use crate::cancel::CancelFlag;
use crate::lock::locked;
use crate::progress::event::Stream;
use crate::sandbox::rung::{self, RungError};
use crate::sandbox::{
    Cancel, Exit, HostOptions, Rung, SandboxError, SandboxHost, SandboxSpec, spec,
};

/// Runs commands at one rung.
pub struct Runner {
    rung: Rung,
    handle: Handle,
    host: Mutex<Host>,
}

/// What is known of the host.
#[derive(Default)]
enum Host {
    #[default]
    NotStarted,
    Running(Arc<SandboxHost>),
    /// A step on trial has failed: no other is run.
    Unusable,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

impl Runner {
    /// Starts nothing yet.
    pub fn new(rung: Rung, handle: Handle) -> Self {
        Self {
            rung,
            handle,
            host: Mutex::default(),
        }
    }

    /// Runs a step that does nothing, in a directory of the store; commands that come meanwhile wait for its end.
    ///
    /// # Errors
    ///
    /// Steps cannot be run. Commands end as if they were cancelled, then: the reason is told here.
    pub(crate) fn probe(&self, dir: &Path) -> Result<(), RungError> {
        let mut host = locked(&self.host);
        let probed = self
            .started(&mut host)
            .map_err(|source| RungError::Probe { source })
            .and_then(|started| rung::probe(&started, dir));
        if probed.is_err() {
            *host = Host::Unusable;
        }
        probed
    }

    /// Where tasks beside a command run.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a command; `locks` are held until its last process is gone. If its output cannot be taken, it is killed.
    pub(super) fn run(
        &self,
        spec: &SandboxSpec,
        locks: &[BorrowedFd<'_>],
        mut output: impl FnMut(Stream, &[u8]) -> Result<(), StepError>,
        cancel: &CancelFlag,
    ) -> Result<Exit, StepError> {
        let failed = |source| StepError::Io {
            attempt: "make an event for cancelling in",
            path: "/proc/self/fd".into(),
            source,
        };
        let host = self.host()?;
        let event = Cancel::new().map_err(failed)?;
        let flag = cancel.clone();
        let forwarded = event.clone();
        let mut refused = None;
        let forward = self.handle.spawn(async move {
            flag.wait().await;
            forwarded.cancel();
        });
        let result = host.run(spec, locks, &event, &mut |stream, bytes| {
            let stream = match stream {
                spec::Stream::Stdout => Stream::Stdout,
                spec::Stream::Stderr => Stream::Stderr,
            };
            if refused.is_none()
                && let Err(error) = output(stream, bytes)
            {
                refused = Some(error);
                event.cancel();
            }
        });
        forward.abort();
        if let Some(error) = refused {
            return Err(error);
        }
        match result {
            Err(SandboxError::Cancelled) => Err(StepError::Canceled),
            other => Ok(other?),
        }
    }

    /// Ends the host, if it was started.
    pub fn stop(&self) {
        drop(std::mem::take(&mut *locked(&self.host)));
    }

    fn host(&self) -> Result<Arc<SandboxHost>, StepError> {
        let mut host = locked(&self.host);
        match *host {
            Host::Unusable => Err(StepError::Canceled),
            Host::NotStarted | Host::Running(_) => Ok(self.started(&mut host)?),
        }
    }

    fn started(&self, host: &mut Host) -> Result<Arc<SandboxHost>, SandboxError> {
        if let Host::Running(host) = host {
            return Ok(Arc::clone(host));
        }
        let started = Arc::new(SandboxHost::start(&HostOptions::new(self.rung))?);
        *host = Host::Running(Arc::clone(&started));
        Ok(started)
    }
}
