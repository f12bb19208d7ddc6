//! Runs a command: mounts as data, the sandbox, and the layer that is left.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use cache::claim::Claim;
use cache::digest::DiffId;
use cache::log::Ending;
use frontend::graph::{ExecOp, NetworkMode, SecurityMode, VertexId};

use super::error::StepError;
use super::mount;
use super::steps::Steps;
use crate::cancel::CancelFlag;
use crate::progress::event::{Event, Stream, VertexRef};
use crate::sandbox::SYSTEM_FILES;
use crate::sandbox::spec::{
    DEFAULT_HOSTNAME, Exit, ExitStatus, Limits, Network, Process, Resources, Rootfs, SandboxSpec,
    Security, Ulimit,
};

/// Variables that a proxy is told by, in the order they are set.
const PROXY_VARIABLES: [&str; 5] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
];

/// How BuildKit says that the kernel killed a command for want of memory.
const OUT_OF_MEMORY: &str = "cannot allocate memory";

/// Runs the command of `vertex` on its root and makes the layer it leaves.
pub(super) fn run(
    steps: &Arc<Steps>,
    vertex: VertexId,
    op: &ExecOp,
    claim: Option<&Claim>,
    cancel: &CancelFlag,
) -> Result<DiffId, StepError> {
    if op.platform.rank(&steps.settings.machine).is_none() {
        let what = format!("running commands of another platform ({})", op.platform);
        return Err(StepError::Unsupported { what });
    }
    let inputs = steps.inputs_of(vertex)?;
    let root = op
        .root
        .and_then(|index| inputs.get(index.0))
        .map_or(&[][..], |done| &done.layers);
    let mut lowers = steps.layers.overlay(root)?;
    let stack = steps.layers.stack(root)?;
    steps
        .layers
        .add_mount_points(&mut lowers, &stack, &SYSTEM_FILES)?;
    let tree = steps.layers.new_tree_on(&stack)?;
    let unstarted = |error| unstarted(op, error);
    let mut held = mount::hold(steps, vertex, op, &inputs, cancel).map_err(unstarted)?;
    let spec = SandboxSpec {
        rootfs: Rootfs {
            dir: lowers.dir.clone(),
            lowers: lowers.lowers.clone(),
            upper: tree.upper().to_owned(),
            work: tree.make_work()?.to_owned(),
        },
        mounts: std::mem::take(&mut held.mounts),
        process: Process {
            args: op.args.clone(),
            env: environment(op, std::mem::take(&mut held.env)),
            cwd: PathBuf::from(&op.cwd),
            user: op.user.clone(),
        },
        hostname: op
            .hostname
            .clone()
            .unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned()),
        extra_hosts: op.extra_hosts.clone(),
        resolv_conf: steps.settings.resolv_conf.clone(),
        network: match op.network {
            NetworkMode::Default | NetworkMode::Host => Network::Host,
            NetworkMode::None => Network::None,
        },
        security: match op.security {
            SecurityMode::Sandbox => Security::Sandbox,
            SecurityMode::Insecure => Security::Insecure,
        },
        limits: limits(op, &steps.settings.resources),
    };
    let locks: Vec<BorrowedFd<'_>> = claim
        .iter()
        .map(|claim| claim.as_fd())
        .chain(held.locks())
        .collect();
    let exit = run_in_sandbox(steps, vertex, &spec, &locks, cancel).map_err(unstarted)?;
    check(op, &exit, &spec.limits.resources, cancel)?;
    drop(held);
    steps.with_early_blob(vertex, |sink| steps.layers.freeze(tree, &stack, sink))
}

/// The error of a command that was not even started, unless it was given up.
pub(super) fn unstarted(op: &ExecOp, error: StepError) -> StepError {
    match error {
        StepError::Canceled => StepError::Canceled,
        // The disk is full, say, which is no matter of the command.
        StepError::Store(error) => StepError::Store(error),
        other => StepError::Start {
            command: quoted(op),
            source: Box::new(other),
        },
    }
}

fn quoted(op: &ExecOp) -> String {
    frontend::gofmt::quote(&op.args.join(" "))
}

fn run_in_sandbox(
    steps: &Arc<Steps>,
    vertex: VertexId,
    spec: &SandboxSpec,
    locks: &[BorrowedFd<'_>],
    cancel: &CancelFlag,
) -> Result<Exit, StepError> {
    let reference = steps.reference(vertex);
    let mut log = steps.log.step(&steps.vertex(vertex).name, &reference.0)?;
    let output = |stream, bytes: &[u8]| {
        log.write(bytes)?;
        emit_output(&*steps.events, &reference, stream, bytes);
        Ok(())
    };
    let exit = steps.sandbox.run(spec, locks, output, cancel);
    let ended = log.end(match &exit {
        Ok(exit) => ending(exit),
        Err(error) => Ending::Failed(crate::text::chain(error)),
    });
    let exit = exit?;
    ended?;
    Ok(exit)
}

fn ending(exit: &Exit) -> Ending {
    match exit.status {
        ExitStatus::Code(0) => Ending::Done,
        _ if exit.is_oom_killed => Ending::Failed(OUT_OF_MEMORY.to_owned()),
        ExitStatus::Code(code) => Ending::Failed(format!("exit code: {code}")),
        // A shell reports a signal like this, and so does runc.
        ExitStatus::Signal(signal) => Ending::Failed(format!("exit code: {}", 128 + signal)),
    }
}

fn emit_output(
    events: &dyn crate::progress::sink::EventSink,
    vertex: &VertexRef,
    stream: Stream,
    bytes: &[u8],
) {
    events.emit(Event::Output {
        vertex: vertex.clone(),
        stream,
        bytes: bytes.to_vec(),
    });
}

fn check(
    op: &ExecOp,
    exit: &Exit,
    resources: &Resources,
    cancel: &CancelFlag,
) -> Result<(), StepError> {
    let Ending::Failed(how) = ending(exit) else {
        return Ok(());
    };
    if cancel.is_set() {
        return Err(StepError::Canceled);
    }
    Err(StepError::Command {
        command: quoted(op),
        how,
        hint: hint(exit, resources),
    })
}

/// What to do about an end by the kernel's hand.
fn hint(exit: &Exit, resources: &Resources) -> Option<String> {
    let is_killed = matches!(
        exit.status,
        ExitStatus::Code(137) | ExitStatus::Signal(libc::SIGKILL)
    );
    match (exit.is_oom_killed, resources.memory) {
        (true, Some(bytes)) => Some(format!(
            "the command went over its memory limit of {}; raise it with --resource=memory=SIZE",
            crate::text::binary_size(bytes)
        )),
        (true, None) => Some("the cgroup it runs in has no more memory".to_owned()),
        (false, _) if is_killed => Some(
            "the command was killed by SIGKILL, which is what the kernel does when the machine runs out of memory"
                .to_owned(),
        ),
        (false, _) => None,
    }
}

/// The environment of the command: its own, then proxies in both cases, then secrets. The later wins.
fn environment(op: &ExecOp, secrets: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut env = op.env.clone();
    for (name, value) in proxies(op).chain(secrets) {
        env.retain(|(other, _)| *other != name);
        env.push((name, value));
    }
    env
}

/// The proxy variables of the build, in both cases; those without a value are as good as not given.
fn proxies(op: &ExecOp) -> impl Iterator<Item = (String, String)> {
    let given = PROXY_VARIABLES.iter().filter_map(|name| {
        let value = op.proxy_env.get(*name)?;
        (!value.is_empty()).then_some((name, value))
    });
    given.flat_map(|(name, value)| {
        [name.to_uppercase(), (*name).to_owned()].map(|name| (name, value.clone()))
    })
}

fn limits(op: &ExecOp, resources: &Resources) -> Limits {
    let ulimits = op.ulimits.iter().map(|limit| Ulimit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    });
    Limits {
        shm_size: op.shm_size,
        ulimits: ulimits.collect(),
        cgroup_parent: op.cgroup_parent.clone(),
        resources: resources.clone(),
    }
}
