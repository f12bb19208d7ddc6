//! The system calls that no safe wrapper offers. Each function is one call wide and decides nothing.
#![expect(
    unsafe_code,
    reason = "clone3, execve, seccomp, bpf, keyctl, mount_setattr and interface flags have no safe wrapper in rustix"
)]

use std::ffi::CString;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// Which process this is after [`fork_into`].
pub(super) enum Fork {
    Child,
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// Forks into new namespaces (`CLONE_*` in `namespaces`) and, on the v2 hierarchy, into a cgroup.
///
/// Only for a process with a single thread: the child runs ordinary code, which in a threaded process could meet a lock held by a
/// thread that does not exist there.
pub(super) fn fork_into(namespaces: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: u64::from(namespaces.cast_unsigned() | libc::CLONE_PIDFD.cast_unsigned()),
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: `args` is a clone_args of the size given and lives across the call; its pidfd member points to a live int, its
    // stack is 0 without CLONE_VM, so the child gets a copy of this stack and memory, as with fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match check(pid)? {
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: on success with CLONE_PIDFD the kernel put a new descriptor into `pidfd`, which nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .ok_or(io::ErrorKind::InvalidData)?;
            Ok(Fork::Parent { pid, pidfd })
        }
    }
}

/// The kernel's `struct clone_args` up to `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Replaces this process. Returns only the error.
pub(super) fn execve(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect::<Vec<_>>()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: the path is NUL-terminated; both arrays end with a null pointer and hold pointers into NUL-terminated
    // strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process without running exit handlers, which belong to the process this one was forked from.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any int, does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from `first` on close-on-exec.
pub(super) fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range takes three integers; with the CLOEXEC flag it closes nothing now, so no owner is deceived.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    check(result).map(drop)
}

/// Sets a signal's disposition to the default. Refused for SIGKILL and SIGSTOP, which is of no interest.
///
/// Past the C library, which keeps two signals to itself and ignores them in every process that it spawns.
pub(super) fn default_signal(signal: i32) {
    // The kernel's struct sigaction: handler (0 is SIG_DFL), flags, restorer, mask.
    let action = [0_u64; 4];
    // SAFETY: the action is as large as the kernel's struct with a mask of 8 bytes, is only read, and names no code of ours; the
    // old action is not asked for; an invalid number is answered with an error.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null::<u64>(),
            8,
        )
    };
}

/// A namespace the calling process can move itself into.
#[derive(Clone, Copy, Debug)]
pub(super) enum Namespace {
    Cgroup,
    Mount,
    User,
}

/// Moves this process into a new namespace.
pub(super) fn unshare(namespace: Namespace) -> io::Result<()> {
    let flag = match namespace {
        Namespace::Cgroup => libc::CLONE_NEWCGROUP,
        Namespace::Mount => libc::CLONE_NEWNS,
        Namespace::User => libc::CLONE_NEWUSER,
    };
    // SAFETY: unshare takes one integer; none of these namespaces concerns memory or the table of descriptors.
    let result = unsafe { libc::unshare(flag) };
    check(result.into()).map(drop)
}

/// Joins a new, empty session keyring.
pub(super) fn join_session_keyring() -> io::Result<()> {
    // SAFETY: with a null name the call makes an anonymous keyring and reads no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    check(result).map(drop)
}

/// Installs a system call filter without setting no_new_privs; needs CAP_SYS_ADMIN.
pub(super) fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len())
            .ok()
            .ok_or(io::ErrorKind::InvalidInput)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program's length is that of the live slice it points to; the kernel copies it and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    check(result).map(drop)
}

/// Loads a BPF program of type CGROUP_DEVICE, given as encoded instructions.
pub(super) fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    const LICENSE: &std::ffi::CStr = c"Apache-2.0";
    /// `union bpf_attr` of BPF_PROG_LOAD up to `kern_version`.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        kernel: [u32; 2],
    }
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_PROG_LOAD: libc::c_long = 5;
    let attributes = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len())
            .ok()
            .ok_or(io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
        log: [0; 2],
        kernel: [0; 2],
    };
    // SAFETY: the attributes have the size given; their pointers lead to `count` live instructions and a NUL-terminated string;
    // no log buffer is given, so the kernel writes nothing.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    let fd = RawFd::try_from(check(fd)?)
        .ok()
        .ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: on success the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a loaded program to a cgroup of the v2 hierarchy.
pub(super) fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_long = 8;
    const BPF_CGROUP_DEVICE: i32 = 6;
    const BPF_F_ALLOW_MULTI: i32 = 2;
    let attributes = [
        cgroup.as_raw_fd(),
        program.as_raw_fd(),
        BPF_CGROUP_DEVICE,
        BPF_F_ALLOW_MULTI,
    ];
    // SAFETY: BPF_PROG_ATTACH reads four ints: target, program, attach type and flags, all given; it writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    check(result).map(drop)
}

/// Sets attributes (`MOUNT_ATTR_*`) of the mount a descriptor is the root of, and of all below it if `is_recursive`.
pub(super) fn mount_setattr(
    mount: BorrowedFd<'_>,
    attributes: u64,
    is_recursive: bool,
) -> io::Result<()> {
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let request = [attributes, 0, 0, 0];
    let flags = libc::AT_EMPTY_PATH | if is_recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string, the request is a mount_attr of the size given and is only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            request.as_ptr(),
            size_of_val(&request),
        )
    };
    check(result).map(drop)
}

/// Brings the interface `lo` up, given any socket of this network namespace.
pub(super) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    /// `struct ifreq` as SIOCSIFFLAGS reads it.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        flags: libc::c_short,
        rest: [u8; 22],
    }
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default(),
        rest: [0; 22],
    };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the request is as large as struct ifreq (40 bytes), its name is NUL-padded, and it lives across the call.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw mut request,
        )
    };
    check(result.into()).map(drop)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
