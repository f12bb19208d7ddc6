//! A step's process from clone to exec: the ordered list.
//!
//! Runs in the process that becomes the command, pid 1 of its namespace. Until the filter and the capabilities are in
//! place nothing of the image has run. A failure is written to the report pipe, with the action's name and path.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid, fchown, fstat, openat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{
    Resource, Rlimit, Signal, chdir, fchdir, getrlimit, pivot_root,
    set_parent_process_death_signal, setrlimit, setsid, umask,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::cgroup::StepCgroup;
use super::channel::{Ready, write_all};
use super::error::{Action, Attempt, Errno, SetupError};
use super::mounts;
use super::plan::Plan;
use super::program;
use super::rooted::{Afterwards, Make, Rooted};
use super::seccomp::Filter;
use super::spec::{Network, Process, SandboxSpec, Ulimit};
use super::sys::{self, Namespace};
use super::user::{self, Identity};

/// What the process was given.
#[derive(Debug)]
pub(super) struct Inherited<'a> {
    pub(super) spec: &'a SandboxSpec,
    pub(super) plan: &'a Plan,
    pub(super) filter: Option<&'a Filter>,
    pub(super) cgroup: &'a StepCgroup,
    pub(super) report: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Becomes the command.
pub(super) fn run(inherited: &Inherited<'_>) -> ! {
    let ready = match prepare(inherited) {
        Ok(ready) => ready,
        Err(error) => {
            let failed = serde_json::to_vec(&Ready::Failed(error)).unwrap_or_default();
            // Should the pipe be gone, nobody is left to be told.
            drop(write_all(&inherited.report, &failed));
            sys::exit_now(1)
        }
    };
    let (message, code) = execute(&inherited.spec.process, &ready);
    drop(write_all(rustix::stdio::stderr(), message.as_bytes()));
    sys::exit_now(code)
}

/// Everything before the command's own name is looked up. Returns who it runs as.
fn prepare(inherited: &Inherited<'_>) -> Result<Identity, SetupError> {
    let (spec, plan) = (inherited.spec, inherited.plan);
    enter_session()?;
    enter_cgroups(inherited.cgroup)?;
    leave_host_mounts()?;
    set_hostname(&spec.hostname)?;
    set_up_network(spec.network)?;
    let root = mounts::assemble(plan)?;
    change_root(&root)?;
    let identity = find_identity(&spec.process.user)?;
    set_up_stdio(inherited, &identity)?;
    let root = enter_work_dir(root, &spec.process.cwd, &identity)?;
    set_limits(&spec.limits.ulimits)?;
    report_ready(inherited, root)?;
    give_up_capabilities(plan.capabilities)?;
    install_filter(inherited.filter)?;
    switch_user(&identity, plan.capabilities)?;
    prepare_exec()?;
    Ok(identity)
}

fn enter_session() -> Result<(), SetupError> {
    setsid().attempt(Action::Session, "session")?;
    // Without keys in the kernel there is no keyring to separate from.
    drop(sys::join_session_keyring());
    umask(Mode::empty());
    // What the builder's own value is must not reach the step; raising it again may be forbidden.
    drop(std::fs::write("/proc/self/oom_score_adj", "0"));
    Ok(())
}

fn enter_cgroups(cgroup: &StepCgroup) -> Result<(), SetupError> {
    cgroup.join()?;
    sys::unshare(Namespace::Cgroup).attempt(Action::Namespace, "cgroup")
}

fn leave_host_mounts() -> Result<(), SetupError> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).attempt(Action::Privatise, "/")
}

fn set_hostname(name: &str) -> Result<(), SetupError> {
    rustix::system::sethostname(name.as_bytes()).attempt(Action::Hostname, name)
}

fn set_up_network(network: Network) -> Result<(), SetupError> {
    match network {
        Network::Host => Ok(()),
        Network::None => {
            let any = socket_with(
                AddressFamily::INET,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                None,
            )
            .attempt(Action::Loopback, "lo")?;
            sys::loopback_up(any.as_fd()).attempt(Action::Loopback, "lo")
        }
    }
}

fn change_root(root: &Rooted) -> Result<(), SetupError> {
    fchdir(root.root()).attempt(Action::Pivot, "/")?;
    // The old root is stacked below the new one, in the same place, and then let go.
    pivot_root(".", ".").attempt(Action::Pivot, "/")?;
    unmount(".", UnmountFlags::DETACH).attempt(Action::Pivot, "/")?;
    chdir("/").attempt(Action::Pivot, "/")
}

fn find_identity(user: &str) -> Result<Identity, SetupError> {
    let passwd = read_file(Path::new("/etc/passwd"))?;
    let group = read_file(Path::new("/etc/group"))?;
    Ok(user::resolve(user, &passwd, &group)?)
}

/// A regular file of the image; empty if there is none. Anything else could block or never end.
fn read_file(path: &Path) -> Result<Vec<u8>, SetupError> {
    const LARGEST: u64 = 16 << 20;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match openat(CWD, path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(Vec::new()),
        other => other.attempt(Action::Read, path)?,
    };
    let stat = fstat(&fd).attempt(Action::Read, path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno(libc::EINVAL)).attempt(Action::Read, path);
    }
    let mut content = Vec::new();
    File::from(fd)
        .take(LARGEST)
        .read_to_end(&mut content)
        .attempt(Action::Read, path)?;
    Ok(content)
}

/// Standard input is a pipe without writer: it reads as ended, and is no device. Output may be opened again by the user it
/// runs as (`/dev/stdout`).
fn set_up_stdio(inherited: &Inherited<'_>, identity: &Identity) -> Result<(), SetupError> {
    let (stdin, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .attempt(Action::Stdio, "standard input")?;
    drop(writer);
    for fd in [&stdin, &inherited.stdout, &inherited.stderr] {
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        fchown(fd, Some(uid), Some(gid)).attempt(Action::Stdio, "pipe")?;
    }
    rustix::stdio::dup2_stdin(&stdin).attempt(Action::Stdio, "standard input")?;
    rustix::stdio::dup2_stdout(&inherited.stdout).attempt(Action::Stdio, "standard output")?;
    rustix::stdio::dup2_stderr(&inherited.stderr).attempt(Action::Stdio, "standard error")
}

fn enter_work_dir(mut root: Rooted, dir: &Path, identity: &Identity) -> Result<Rooted, SetupError> {
    let afterwards = Afterwards::Keep(identity.uid, identity.gid);
    let found = root
        .ensure(dir, Make::Directory, afterwards)
        .attempt(Action::WorkDir, dir)?;
    fchdir(&found.fd).attempt(Action::WorkDir, dir)?;
    Ok(root)
}

fn set_limits(ulimits: &[Ulimit]) -> Result<(), SetupError> {
    for ulimit in ulimits {
        let resource = resource(&ulimit.name).ok_or_else(|| SetupError::Ulimit {
            name: ulimit.name.clone(),
        })?;
        let limit = Rlimit {
            current: u64::try_from(ulimit.soft).ok(),
            maximum: u64::try_from(ulimit.hard).ok(),
        };
        match setrlimit(resource, limit) {
            Err(rustix::io::Errno::PERM) => {
                let shown =
                    |value: Option<u64>| value.map_or("unlimited".to_owned(), |n| n.to_string());
                return Err(SetupError::UlimitRefused {
                    name: ulimit.name.clone(),
                    wanted: shown(limit.maximum),
                    allowed: shown(getrlimit(resource).maximum),
                });
            }
            other => other.attempt(Action::Limit, &ulimit.name)?,
        }
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

fn report_ready(inherited: &Inherited<'_>, root: Rooted) -> Result<(), SetupError> {
    let stubs = root.into_stubs().attempt(Action::Open, "/")?;
    let ready = serde_json::to_vec(&Ready::Stubs(stubs)).unwrap_or_default();
    write_all(&inherited.report, &ready).attempt(Action::Stdio, "report")
}

/// Shrinks the bounding set, which is what a root process has after exec.
fn give_up_capabilities(kept: Option<u64>) -> Result<(), SetupError> {
    let Some(kept) = kept else {
        return Ok(());
    };
    for bit in (0..u64::BITS).map(|shift| 1_u64 << shift) {
        let capability = CapabilitySet::from_bits_retain(bit);
        // The kernel answers with an error from the first one it doesn't know.
        let Ok(is_held) = capability_is_in_bounding_set(capability) else {
            break;
        };
        if is_held && kept & bit == 0 {
            remove_capability_from_bounding_set(capability)
                .attempt(Action::Capabilities, "bounding set")?;
        }
    }
    Ok(())
}

/// Before the user changes: it needs CAP_SYS_ADMIN, as no_new_privs stays off.
fn install_filter(filter: Option<&Filter>) -> Result<(), SetupError> {
    match filter {
        Some(filter) => {
            sys::install_filter(&filter.instructions).attempt(Action::Seccomp, "system calls")
        }
        None => Ok(()),
    }
}

fn switch_user(identity: &Identity, kept: Option<u64>) -> Result<(), SetupError> {
    let name = identity.uid.to_string();
    let groups: Vec<_> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups).attempt(Action::SwitchUser, &name)?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_res_gid(Some(gid), Some(gid), Some(gid)).attempt(Action::SwitchUser, &name)?;
    set_thread_res_uid(Some(uid), Some(uid), Some(uid)).attempt(Action::SwitchUser, &name)?;
    // Another user has lost them already.
    if let (Some(kept), 0) = (kept, identity.uid) {
        // In a container that lacks one of them, a step does without it as well.
        let held = capabilities(None).attempt(Action::Capabilities, "process")?;
        let kept = CapabilitySet::from_bits_retain(kept) & held.permitted;
        let sets = CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).attempt(Action::Capabilities, "process")?;
    }
    Ok(())
}

/// The last things, which nothing may come after.
fn prepare_exec() -> Result<(), SetupError> {
    // After the user changed, which clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).attempt(Action::Session, "process")?;
    umask(Mode::from_raw_mode(0o022));
    sys::cloexec_from(3).attempt(Action::Stdio, "descriptors")
}

/// Replaces this process; if that fails, what to print and the exit code, both as with runc.
fn execute(process: &Process, identity: &Identity) -> (String, i32) {
    let name = process.args.first().map_or("", String::as_str);
    let path = match program::find(name, &process.env, program::mode) {
        Ok(path) => path,
        Err(error) => return (format!("{error}\n"), 1),
    };
    let has_home = process.env.iter().any(|(key, _)| key == "HOME");
    let home = (!has_home).then(|| format!("HOME={}", identity.home));
    let env = process
        .env
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let strings = |strings: &mut dyn Iterator<Item = String>| {
        strings.map(CString::new).collect::<Result<Vec<_>, _>>()
    };
    let args = strings(&mut process.args.iter().cloned());
    let env = strings(&mut env.chain(home));
    let program = CString::new(path.as_os_str().as_encoded_bytes());
    let errno = match (program, args, env) {
        (Ok(program), Ok(args), Ok(env)) => Errno::from(sys::execve(&program, &args, &env)),
        _ => Errno(libc::EINVAL),
    };
    (format!("exec {}: {errno}\n", path.display()), 255)
}
