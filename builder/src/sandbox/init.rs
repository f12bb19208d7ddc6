//! `sandbox-init`: the single-threaded process that forks every step of a build.
//!
//! Its standard input is the control socket. It waits for requests, for steps to end and for channels to close, all in one
//! `poll`; nothing here blocks on a step.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, setsid, waitpid};

use super::cgroup::{Cgroups, StepCgroup};
use super::channel::{self, Ready, Report};
use super::child::{self, Inherited};
use super::enter;
use super::error::{Action, Attempt, SetupError};
use super::plan::{self, CAPABILITY_NAMES, Facts};
use super::rung::{Rung, RungError};
use super::seccomp::{self, Filter};
use super::spec::{Exit, ExitStatus, SandboxSpec};
use super::stubs::{self, Stubs};
use super::sys::{self, Fork};

/// First argument of the process that forks steps; the second names the rung.
pub(super) const INIT_MARKER: &str = "sandbox-init";

/// Does this process's work and tells its exit code, if it was started as one of the sandbox's own; else `None`, and the program
/// goes on.
///
/// Has to be the first thing a program does: neither process may have a second thread.
///
/// # Errors
/// A user namespace that was asked for could not be entered.
pub fn run_if_init() -> Result<Option<ExitCode>, RungError> {
    let mut args = std::env::args_os().skip(1);
    let Some(marker) = args.next() else {
        return Ok(None);
    };
    if marker == INIT_MARKER {
        let rung = args.next().and_then(|name| Rung::parse(name.to_str()?));
        let served = rung.map(serve);
        return Ok(Some(match served {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(_)) | None => ExitCode::FAILURE,
        }));
    }
    if marker == enter::ENTER_MARKER {
        return enter::enter(args.collect()).map(|code| match code {});
    }
    if marker == enter::MAP_MARKER {
        return Ok(Some(match enter::write_maps(args.collect()) {
            Ok(()) => ExitCode::SUCCESS,
            // The parent tells why.
            Err(_) => ExitCode::FAILURE,
        }));
    }
    Ok(None)
}

/// Serves until the control socket closes, then kills what still runs.
fn serve(rung: Rung) -> io::Result<()> {
    // Ctrl-C is for the builder, which then cancels in order.
    let _ = setsid();
    // What is ignored stays so across exec: neither the builder's nor this program's habits may reach a step.
    for signal in 1..=libc::SIGRTMAX() {
        sys::default_signal(signal);
    }
    let mut init = Init {
        cgroups: Cgroups::detect(rung),
        rung,
        filter: None,
        steps: Vec::new(),
    };
    while init.turn()? {}
    for step in &init.steps {
        step.kill();
    }
    for step in &init.steps {
        let _ = waitpid(Some(step.pid), WaitOptions::empty());
    }
    Ok(())
}

struct Init {
    rung: Rung,
    cgroups: Cgroups,
    /// Compiled for the first step that needs it.
    filter: Option<Filter>,
    steps: Vec<Step>,
}

/// A running step.
struct Step {
    pid: Pid,
    pidfd: OwnedFd,
    channel: OwnedFd,
    /// The report pipe until it closed, and what came through it.
    report: Option<OwnedFd>,
    said: Vec<u8>,
    upper: PathBuf,
    cgroup: StepCgroup,
    /// Open until the step's last process is gone: locks.
    _held: Vec<OwnedFd>,
}

impl Step {
    fn kill(&self) {
        // It may have ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// What woke a step up.
struct Woken {
    is_over: bool,
    is_abandoned: bool,
    has_said: bool,
}

impl Init {
    /// Waits for something and handles it. Whether to go on.
    fn turn(&mut self) -> io::Result<bool> {
        let (control, woken) = self.wait()?;
        for (index, woken) in woken.iter().enumerate().rev() {
            if woken.has_said {
                self.steps[index].listen();
            }
            if woken.is_abandoned {
                self.steps[index].kill();
            }
            if woken.is_over {
                let step = self.steps.swap_remove(index);
                finish(step);
            }
        }
        if !control {
            return Ok(true);
        }
        let Some((_, fds)) = channel::receive(rustix::stdio::stdin())? else {
            return Ok(false);
        };
        self.accept(fds);
        Ok(true)
    }

    fn wait(&self) -> io::Result<(bool, Vec<Woken>)> {
        let control = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(&control, PollFlags::IN)];
        for step in &self.steps {
            fds.push(PollFd::new(&step.pidfd, PollFlags::IN));
            fds.push(PollFd::new(&step.channel, PollFlags::empty()));
            if let Some(report) = &step.report {
                fds.push(PollFd::new(report, PollFlags::IN));
            }
        }
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let control = ready.next().unwrap_or(false);
        let woken = self.steps.iter().map(|step| Woken {
            is_over: ready.next().unwrap_or(false),
            is_abandoned: ready.next().unwrap_or(false),
            has_said: step.report.is_some() && ready.next().unwrap_or(false),
        });
        Ok((control, woken.collect()))
    }

    /// Starts a step, or tells its channel why not.
    fn accept(&mut self, fds: Vec<OwnedFd>) {
        let mut fds = VecDeque::from(fds);
        let (Some(spec), Some(channel)) = (fds.pop_front(), fds.pop_front()) else {
            // A message without channel has nobody to be answered to; the builder sends none.
            return;
        };
        let started = channel.try_clone().attempt(Action::Receive, "channel");
        let started = started.and_then(|channel| self.start(spec, channel, fds));
        if let Err(error) = started {
            // If it cannot be told, the builder is gone, which the control socket will say.
            drop(channel::report(
                channel.as_fd(),
                &Report::Finished(Err(error)),
                &[],
            ));
        }
    }

    fn start(
        &mut self,
        spec: OwnedFd,
        channel: OwnedFd,
        mut fds: VecDeque<OwnedFd>,
    ) -> Result<(), SetupError> {
        let spec: SandboxSpec =
            channel::read_memory_file(spec).attempt(Action::Receive, "request")?;
        let (Some(stdout), Some(stderr)) = (fds.pop_front(), fds.pop_front()) else {
            return Err(SetupError::Vanished);
        };
        let facts = Facts {
            rung: self.rung,
            device_limit: self.cgroups.device_limit(),
            view: self.cgroups.view().clone(),
        };
        let plan = plan::plan(&spec, &facts)?;
        if plan.is_filtered && self.filter.is_none() {
            self.filter = Some(compile_filter()?);
        }
        let cgroup = self.cgroups.step(&spec.limits, spec.security)?;
        let (report, writer) =
            pipe_with(PipeFlags::CLOEXEC).attempt(Action::Receive, "report pipe")?;
        let forked = sys::fork_into(plan.namespaces, cgroup.unified())
            .attempt(Action::Clone, "the step's process")?;
        let (pid, pidfd) = match forked {
            Fork::Parent { pid, pidfd } => (pid, pidfd),
            Fork::Child => {
                // Other steps' channels and locks are none of its business.
                for step in self.steps.drain(..) {
                    step.forget_in_child();
                }
                drop((fds, channel, report));
                child::run(&Inherited {
                    spec: &spec,
                    plan: &plan,
                    filter: self.filter.as_ref().filter(|_| plan.is_filtered),
                    cgroup: &cgroup,
                    report: writer,
                    stdout,
                    stderr,
                })
            }
        };
        // If the builder is gone the channel's end kills the step at the next turn.
        drop(channel::report(
            channel.as_fd(),
            &Report::Started,
            &[pidfd.as_fd()],
        ));
        self.steps.push(Step {
            pid,
            pidfd,
            channel,
            report: Some(report),
            said: Vec::new(),
            upper: spec.rootfs.dir.join(&spec.rootfs.upper),
            cgroup,
            _held: fds.into(),
        });
        Ok(())
    }
}

impl Step {
    /// Reads what the step says before exec.
    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        let Some(report) = &self.report else {
            return;
        };
        match rustix::io::retry_on_intr(|| rustix::io::read(report, &mut buffer)) {
            Ok(0) | Err(_) => self.report = None,
            Ok(length) => self.said.extend_from_slice(&buffer[..length]),
        }
    }

    /// Closes its descriptors; its cgroup is not the child's to remove.
    fn forget_in_child(self) {
        std::mem::forget(self.cgroup);
    }

    fn listen_to_the_end(&mut self) {
        while self.report.is_some() {
            self.listen();
        }
    }
}

/// Collects a step that is over: all its processes went with its pid 1, and its mounts with them.
fn finish(mut step: Step) {
    step.listen_to_the_end();
    let result = outcome(&step);
    drop(channel::report(
        step.channel.as_fd(),
        &Report::Finished(result),
        &[],
    ));
}

fn outcome(step: &Step) -> Result<Exit, SetupError> {
    let waited =
        waitpid(Some(step.pid), WaitOptions::empty()).attempt(Action::Receive, "exit status")?;
    let is_oom_killed = step.cgroup.is_oom_killed();
    let stubs = match said(&step.said) {
        // The limit is too low for so much as starting; what was made goes with the step's tree.
        Err(SetupError::Vanished) if is_oom_killed => Stubs::default(),
        said => said?,
    };
    let status = waited
        .map(|(_, status)| status)
        .ok_or(SetupError::Vanished)?;
    let status = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => return Err(SetupError::Vanished),
    };
    Ok(Exit {
        status,
        is_oom_killed,
        kept_stubs: take_back(step, &stubs)?,
    })
}

/// What a step said before exec. What fails after the mounts are in place is said after them.
fn said(said: &[u8]) -> Result<Stubs, SetupError> {
    let mut stubs = None;
    for ready in serde_json::Deserializer::from_slice(said).into_iter() {
        match ready {
            Ok(Ready::Stubs(found)) => stubs = Some(found),
            Ok(Ready::Failed(error)) => return Err(error),
            Err(_) => return Err(SetupError::Vanished),
        }
    }
    stubs.ok_or(SetupError::Vanished)
}

fn take_back(step: &Step, stubs: &Stubs) -> Result<Vec<PathBuf>, SetupError> {
    stubs::take_back(&step.upper, stubs).attempt(Action::CleanUp, &step.upper)
}

/// About half a millisecond, once per build.
fn compile_filter() -> Result<Filter, SetupError> {
    seccomp::compile(std::env::consts::ARCH, CAPABILITY_NAMES).map_err(|error| {
        SetupError::Unsupported {
            what: error.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::error::Errno;

    #[test]
    fn what_fails_last_is_the_error() {
        let stubs = serde_json::to_vec(&Ready::Stubs(Stubs::default())).unwrap();
        let error = SetupError::Action {
            action: Action::Capabilities,
            path: "process".into(),
            errno: Errno(1),
        };
        let failed = serde_json::to_vec(&Ready::Failed(error.clone())).unwrap();
        assert_eq!(said(&stubs), Ok(Stubs::default()));
        assert_eq!(said(&failed), Err(error.clone()));
        assert_eq!(said(&[stubs.clone(), failed].concat()), Err(error));
        assert_eq!(said(b""), Err(SetupError::Vanished));
        assert_eq!(said(&stubs[..stubs.len() - 1]), Err(SetupError::Vanished));
    }
}
