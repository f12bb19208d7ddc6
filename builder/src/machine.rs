//! The engine on this machine, as the command line drives it.

use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cache::digest::hex;
use cache::durable::{self, BootId};
use cache::root::{RootOptions, StatePaths, StateRoot};
use cache::snapshot::format::TreeFormat;
use frontend::source::SourceFile;
use tokio::signal::unix::{SignalKind, signal};

use crate::cancel::CancelFlag;
use crate::cli::answer::Answer;
use crate::cli::push::PushRequest;
use crate::cli::request::{BuildRequest, Inquiry, Isolation};
use crate::cli::{self, DebugView, LogRequest, PlannedStep, StoreCommand, StoreRequest};
use crate::clock::Clock;
use crate::doctor::report::Report;
use crate::engine::{Engine, Surroundings};
use crate::export::spec::StdoutKind;
use crate::outcome::{Failure, FailureKind, Outcome};
use crate::progress::sink::EventSink;
use crate::sandbox::rung::{self, Choice, Inside, Rung};

/// Threads that wait for registries and other processes; work is done on others.
const WAITING_THREADS: usize = 2;

/// Threads are not given back before any build ends: perhaps no other is to be had then.
pub(crate) const THREADS_LAST: Duration = Duration::from_secs(86_400);

/// Walks of directories go down a frame for each level, and a path of 4 095 bytes has 2 048 of them. Only what is used of
/// a stack takes memory.
pub(crate) const STACK_BYTES: usize = 32 << 20;

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl cli::Engine for Machine {
    fn prepare(&self, isolation: Isolation, state_root: &Path) -> Result<(), Failure> {
        let Choice::Enter(entry) = choice(isolation)? else {
            return Ok(());
        };
        // Checked outside, where owners are told by the ids that the user knows.
        StateRoot::open(state_root, &RootOptions::default())
            .map_err(|error| environment(crate::text::chain(&error)))?;
        // Inside the user is 0, whose state directory is another.
        let variables = vec![("BUILD_ROOT".into(), state_root.into())];
        let inside = Inside::new(std::env::args_os().collect(), variables);
        Err(told(&entry.enter(&inside)))
    }

    fn build(
        &self,
        request: &BuildRequest,
        events: Arc<dyn EventSink>,
    ) -> Result<Outcome, Failure> {
        let rung = ready_rung(request.execution.isolation)?;
        let outcome = run(&engine(rung, events), Engine::build, request);
        settle_later(&request.state_root);
        outcome
    }

    fn push(&self, request: &PushRequest, events: Arc<dyn EventSink>) -> Result<String, Failure> {
        // Layers that were never sent are compressed from their trees, which belong to the rung.
        run(
            &engine(ready_rung(Isolation::Auto)?, events),
            Engine::push,
            request,
        )
    }

    fn inquire(
        &self,
        request: &BuildRequest,
        inquiry: Inquiry,
        events: Arc<dyn EventSink>,
    ) -> Result<Answer, Failure> {
        // Nothing is run: it does not matter how.
        run(
            &engine(Rung::Root, events),
            async |engine, request| engine.inquire(request, inquiry).await,
            request,
        )
    }

    fn explain(
        &self,
        request: &BuildRequest,
        events: Arc<dyn EventSink>,
    ) -> Result<Vec<PlannedStep>, Failure> {
        let rung = ready_rung(request.execution.isolation)?;
        run(&engine(rung, events), Engine::explain, request)
    }

    fn store(&self, request: &StoreRequest) -> Result<String, Failure> {
        let format = match &request.command {
            // Only whoever verifies trees must be able to read them.
            StoreCommand::Upkeep(_) => tree_format(ready_rung(Isolation::Auto)?),
            StoreCommand::Images { .. }
            | StoreCommand::Tag { .. }
            | StoreCommand::Inspect { .. }
            | StoreCommand::Remove { .. } => TreeFormat::Native,
        };
        let upkeep = crate::engine::upkeep::Upkeep {
            boot: boot_id(),
            clock: Clock::system(),
            format,
        };
        crate::engine::store::perform(request, &upkeep)
    }

    fn logs(&self, request: &LogRequest, output: &mut dyn Write) -> Result<(), Failure> {
        crate::engine::logs::show(request, output)
    }

    fn doctor(&self, state_root: &Path) -> Report {
        crate::doctor::examine(state_root)
    }

    fn debug(&self, view: DebugView, source: &SourceFile) -> Result<String, Failure> {
        crate::engine::debug::show(view, source)
    }
}

fn engine(rung: Rung, events: Arc<dyn EventSink>) -> Engine {
    Engine {
        events,
        clock: Clock::system(),
        interrupt: CancelFlag::default(),
        stdout: stdout_kind(),
        surroundings: surroundings(rung),
    }
}

/// Does work of the engine; signals interrupt it.
fn run<R, T>(
    engine: &Engine,
    work: impl AsyncFnOnce(&Engine, &R) -> Result<T, Failure>,
    request: &R,
) -> Result<T, Failure> {
    // Never dropped: that detaches its threads as they end, or waits for what is under way, of which nothing is wanted any more.
    // They end with the process. (To detach a thread that ends can end the process: glibc bug 19951.)
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WAITING_THREADS)
        .thread_keep_alive(THREADS_LAST)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map(ManuallyDrop::new)
        .map_err(|error| environment(format!("cannot start threads: {error}")))?;
    // Where no more are to be had later, transfers have this one to take turns on.
    drop(runtime.spawn_blocking(|| ()));
    runtime.block_on(async {
        watch_signals(&engine.interrupt)?;
        work(engine, request).await
    })
}

/// Starts a process of its own that waits for the disk, if this build made something: the user does not.
fn settle_later(state_root: &Path) {
    if !durable::is_due(&StatePaths::new(state_root)) {
        return;
    }
    let started = Command::new("/proc/self/exe")
        .arg("settle")
        .env("BUILD_ROOT", state_root)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    // Then the next build does, or the next boot verifies.
    if let Err(error) = started {
        tracing::debug!(%error, "cannot start the process that waits for the disk");
    }
}

fn environment(message: String) -> Failure {
    Failure::new(FailureKind::Environment, message)
}

/// How steps are isolated, or what has to be entered first.
fn choice(isolation: Isolation) -> Result<Choice, Failure> {
    let forced = match isolation {
        Isolation::Auto => None,
        Isolation::Root => Some(Rung::Root),
        Isolation::UserNamespace => Some(Rung::UserNamespace),
    };
    rung::detect(forced).map_err(|error| told(&error))
}

/// The rung of a process that has been prepared.
fn ready_rung(isolation: Isolation) -> Result<Rung, Failure> {
    match choice(isolation)? {
        Choice::Ready(rung) => Ok(rung),
        Choice::Enter(_) => {
            let message = "work on trees was begun outside of their user namespace";
            Err(Failure::new(FailureKind::Internal, message))
        }
    }
}

fn told(error: &rung::RungError) -> Failure {
    environment(crate::text::chain(error))
}

/// The first signal cancels, the second ends the process at once; the sandbox ends its steps when it sees that.
fn watch_signals(interrupt: &CancelFlag) -> Result<(), Failure> {
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let mut signals = signal(kind)
            .map_err(|error| environment(format!("cannot listen for signals: {error}")))?;
        let interrupt = interrupt.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if interrupt.is_set() {
                    kill_self();
                }
                interrupt.set();
            }
        });
    }
    Ok(())
}

fn kill_self() {
    let own = rustix::process::getpid();
    if let Err(error) = rustix::process::kill_process(own, rustix::process::Signal::KILL) {
        tracing::debug!(%error, "cannot end this process; the build still ends by the first signal");
    }
}

fn stdout_kind() -> StdoutKind {
    use std::io::IsTerminal as _;
    if std::io::stdout().is_terminal() {
        StdoutKind::Terminal
    } else {
        StdoutKind::Stream
    }
}

fn surroundings(rung: Rung) -> Surroundings {
    Surroundings {
        architecture: std::env::consts::ARCH.to_owned(),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        resolv_conf: resolv_conf(),
        boot: boot_id(),
        rung,
    }
}

/// The running boot; nothing where the kernel does not tell.
fn boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    BootId(text.unwrap_or_default().trim().to_owned())
}

/// The host's `/etc/resolv.conf`; where that only names systemd's stub, the file behind it (features.md 6.3).
fn resolv_conf() -> Vec<u8> {
    const HOST: &str = "/etc/resolv.conf";
    const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
    let read = |path: &str| std::fs::read(Path::new(path)).unwrap_or_default();
    let own = read(HOST);
    let text = String::from_utf8_lossy(&own).into_owned();
    let mut servers = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim);
    let is_stub = servers.next() == Some("127.0.0.53") && servers.next().is_none();
    let behind = if is_stub { read(RESOLVED) } else { Vec::new() };
    if behind.is_empty() { own } else { behind }
}

/// Names a user namespace's trees: they differ with the exact id map.
pub(crate) fn tree_format(rung: Rung) -> TreeFormat {
    match rung {
        Rung::Root => TreeFormat::Native,
        Rung::UserNamespace => {
            let read = |path: &str| std::fs::read(path).unwrap_or_default();
            let maps = [read("/proc/self/uid_map"), read("/proc/self/gid_map")].concat();
            TreeFormat::IdMap(format!("u{}", &hex(blake3::hash(&maps).as_bytes())[..16]))
        }
    }
}
