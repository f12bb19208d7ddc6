//! The builder's side: starts `sandbox-init` and runs steps through it.
//!
//! # Concurrency
//!
//! [`SandboxHost::run`] blocks its thread until the step is over; any number of threads may be in it. A slow `output` slows its
//! own step only.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{CWD, OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};

use super::channel::{self, MAX_FDS, REQUEST_FDS, Report};
use super::error::{SandboxError, SetupError};
use super::init::INIT_MARKER;
use super::plan;
use super::rung::Rung;
use super::sources;
use super::spec::{Exit, SandboxSpec, Stream};
use super::sys;

/// How much of a step's output is read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// How much of it fits in a pipe: what a fast command writes within [`GATHER`].
const PIPE_BYTES: usize = 1 << 20;

/// A stream of which so much is read at once is not looked at again before [`GATHER`] is over. A command that writes a lot writes
/// 4 KiB at a time; to be woken for each of them costs more than to keep it. Less than that is taken as it comes, so that what
/// a script writes to both streams stays in its order.
const BULK_BYTES: usize = 4 << 10;

/// Long enough for hundreds of KB, too short to be seen.
const GATHER: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000,
};

/// How to start `sandbox-init`.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// A program that calls [`run_if_init`](super::run_if_init) first.
    pub program: PathBuf,
    /// The rung its steps run at.
    pub rung: Rung,
}

impl HostOptions {
    /// This program itself.
    pub fn new(rung: Rung) -> Self {
        Self {
            program: "/proc/self/exe".into(),
            rung,
        }
    }
}

/// Runs steps. Dropping it kills those that still run.
#[derive(Debug)]
pub struct SandboxHost {
    control: Option<OwnedFd>,
    init: Mutex<Child>,
}

/// Cancels steps; clones cancel the same ones.
#[derive(Clone, Debug)]
pub struct Cancel {
    event: Arc<OwnedFd>,
}

impl Cancel {
    /// One that has not been used.
    ///
    /// # Errors
    /// The process has too many descriptors.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event: Arc::new(event),
        })
    }

    /// Kills every step that runs or will run with it.
    pub fn cancel(&self) {
        // It fails only where it has been cancelled 2^64 times.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

impl SandboxHost {
    /// Starts `sandbox-init`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(options: &HostOptions) -> Result<Self, SandboxError> {
        let failed = |source| SandboxError::Start {
            program: options.program.clone(),
            source,
        };
        let (control, theirs) = channel::pair().map_err(failed)?;
        let program = read_only(&options.program).map_err(failed)?;
        let init = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0(&options.program)
            .args([OsString::from(INIT_MARKER), options.rung.name().into()])
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            control: Some(control),
            init: Mutex::new(init),
        })
    }

    /// Runs a command to its end. `hold` stays open (and locked) until its last process is gone, whatever happens to this
    /// process; the command itself never gets it.
    ///
    /// # Errors
    /// The step could not be prepared, or was cancelled. A command that fails is an [`Exit`].
    pub fn run(
        &self,
        spec: &SandboxSpec,
        hold: &[BorrowedFd<'_>],
        cancel: &Cancel,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Exit, SandboxError> {
        let mut running = self.send(spec, hold)?;
        let mut is_cancelled = false;
        let result = loop {
            let woken = running.wait(cancel, is_cancelled)?;
            let lengths = [Stream::Stdout, Stream::Stderr].map(|stream| {
                let is_ready = woken.output(stream);
                (
                    stream,
                    if is_ready {
                        running.read(stream, output)
                    } else {
                        0
                    },
                )
            });
            running.gathers = gathers(lengths);
            if woken.is_cancelled && !is_cancelled {
                is_cancelled = true;
                running.kill();
            }
            if woken.has_report
                && let Some(result) = running.receive(is_cancelled)?
            {
                break result;
            }
        };
        // Nothing of the step runs any more, but something else may hold its pipes open: what is in them is all there will be.
        running.drain(output);
        if is_cancelled {
            return Err(SandboxError::Cancelled);
        }
        Ok(result?)
    }

    fn send(&self, spec: &SandboxSpec, hold: &[BorrowedFd<'_>]) -> Result<Running, SandboxError> {
        let lost = |source| SandboxError::Channel {
            attempt: "starting a step",
            source,
        };
        if hold.len() + REQUEST_FDS > MAX_FDS {
            return Err(SandboxError::Setup(SetupError::Unsupported {
                what: format!("a step with more than {} locks", MAX_FDS - REQUEST_FDS),
            }));
        }
        let request = channel::memory_file(spec).map_err(lost)?;
        let (ours, theirs) = channel::pair().map_err(lost)?;
        let (stdout, stdout_writer) = output_pipe().map_err(lost)?;
        let (stderr, stderr_writer) = output_pipe().map_err(lost)?;
        let mut fds = vec![
            request.as_fd(),
            theirs.as_fd(),
            stdout_writer.as_fd(),
            stderr_writer.as_fd(),
        ];
        fds.extend_from_slice(hold);
        let control = self
            .control
            .as_ref()
            .ok_or_else(|| lost(io::ErrorKind::NotConnected.into()))?;
        channel::send(control.as_fd(), b"run", &fds).map_err(lost)?;
        Ok(Running {
            channel: ours,
            stdout: Some(stdout),
            stderr: Some(stderr),
            pidfd: None,
            buffer: vec![0; BUFFER_BYTES],
            gathers: None,
        })
    }
}

impl Drop for SandboxHost {
    fn drop(&mut self) {
        // Its end of the control socket is what tells it to stop.
        self.control = None;
        if let Ok(mut init) = self.init.lock() {
            drop(init.wait());
        }
    }
}

/// The program seen through a read-only mount of its own.
///
/// An image can make a step execute `/proc/self/exe`, which is this program until exec is through, and then reach the file itself
/// through `/proc`; root in the step may write to it (CVE-2019-5736). That it is busy does not protect it on every kernel.
fn read_only(program: &Path) -> io::Result<OwnedFd> {
    let clone = sources::clone_path(CWD, program)?;
    sys::mount_setattr(clone.as_fd(), plan::READ_ONLY, false)?;
    Ok(clone)
}

/// Which stream is left alone for a moment, given how much was read of each: one that alone gives a lot, though not more than
/// could be read at once.
fn gathers(lengths: [(Stream, usize); 2]) -> Option<Stream> {
    match lengths {
        [(stream, length), (_, 0)] | [(_, 0), (stream, length)] => (BULK_BYTES..BUFFER_BYTES)
            .contains(&length)
            .then_some(stream),
        [_, _] => None,
    }
}

/// The reading end doesn't block.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    // A user may have used up what the kernel grants for larger pipes; a usual one does, too.
    let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
    Ok((reader, writer))
}

/// A step seen from here.
struct Running {
    channel: OwnedFd,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
    buffer: Vec<u8>,
    /// The stream that is read next when [`GATHER`] is over, or something else happens.
    gathers: Option<Stream>,
}

#[derive(Default)]
struct Woken {
    has_report: bool,
    is_cancelled: bool,
    streams: [bool; 2],
}

impl Woken {
    fn output(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.streams[0],
            Stream::Stderr => self.streams[1],
        }
    }
}

impl Running {
    fn wait(&self, cancel: &Cancel, is_cancelled: bool) -> Result<Woken, SandboxError> {
        let mut fds = vec![PollFd::new(&self.channel, PollFlags::IN)];
        if !is_cancelled {
            fds.push(PollFd::new(&*cancel.event, PollFlags::IN));
        }
        let (stdout, stderr) = (self.polled(Stream::Stdout), self.polled(Stream::Stderr));
        for stream in [stdout, stderr].into_iter().flatten() {
            fds.push(PollFd::new(stream, PollFlags::IN));
        }
        let timeout = self.gathers.map(|_| &GATHER);
        rustix::io::retry_on_intr(|| poll(&mut fds, timeout)).map_err(|errno| {
            SandboxError::Channel {
                attempt: "waiting for a step",
                source: errno.into(),
            }
        })?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || ready.next().unwrap_or(false);
        Ok(Woken {
            has_report: next(),
            is_cancelled: !is_cancelled && next(),
            streams: [
                self.gathers == Some(Stream::Stdout) || stdout.is_some() && next(),
                self.gathers == Some(Stream::Stderr) || stderr.is_some() && next(),
            ],
        })
    }

    /// The stream, if it is to be waited for.
    fn polled(&self, stream: Stream) -> Option<&OwnedFd> {
        let pipe = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        pipe.as_ref().filter(|_| self.gathers != Some(stream))
    }

    /// Reads once: how much.
    fn read(&mut self, stream: Stream, output: &mut dyn FnMut(Stream, &[u8])) -> usize {
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(fd) = pipe else {
            return 0;
        };
        match rustix::io::retry_on_intr(|| rustix::io::read(&*fd, &mut self.buffer)) {
            Ok(length) if length > 0 => {
                output(stream, &self.buffer[..length]);
                length
            }
            Err(rustix::io::Errno::AGAIN) => 0,
            Ok(_) | Err(_) => {
                *pipe = None;
                0
            }
        }
    }

    fn drain(&mut self, output: &mut dyn FnMut(Stream, &[u8])) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.read(stream, output) > 0 {}
        }
    }

    /// Takes one report; the last one is the result.
    fn receive(
        &mut self,
        is_cancelled: bool,
    ) -> Result<Option<Result<Exit, SetupError>>, SandboxError> {
        let lost = |source| SandboxError::Channel {
            attempt: "running a step",
            source,
        };
        let received = channel::receive(self.channel.as_fd()).map_err(lost)?;
        let Some((message, fds)) = received else {
            self.kill();
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        };
        let report = serde_json::from_slice(&message).map_err(|error| lost(error.into()))?;
        match report {
            Report::Started => {
                self.pidfd = fds.into_iter().next();
                if is_cancelled {
                    self.kill();
                }
                Ok(None)
            }
            Report::Finished(result) => Ok(Some(result)),
        }
    }

    fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It may have ended already.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stream_that_gives_a_lot_is_gathered() {
        let of = |stdout, stderr| gathers([(Stream::Stdout, stdout), (Stream::Stderr, stderr)]);
        assert_eq!(of(BULK_BYTES, 0), Some(Stream::Stdout));
        assert_eq!(of(0, BUFFER_BYTES - 1), Some(Stream::Stderr));
        // A line; what comes together with others; what waits already.
        for (stdout, stderr) in [(0, 0), (80, 0), (BULK_BYTES, 1), (BUFFER_BYTES, 0)] {
            assert_eq!(of(stdout, stderr), None);
        }
    }
}
