//! From a spec and what this machine can do to a list of things to do. Pure.
//!
//! What a step sees is BuildKit's: mounts, masked paths, devices, capabilities (see the tables below). Where the kernel refuses
//! something in a user namespace, the plan says what stands in for it.

use std::path::{Component, PathBuf};

use super::cgroup::{DeviceLimit, View};
use super::error::SetupError;
use super::hosts::{SYSTEM_FILES, hosts_file};
use super::rung::Rung;
use super::spec::{Access, Content, MountSource, Network, SandboxSpec, Security, SpecMount};

/// What this machine offers.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) rung: Rung,
    pub(super) device_limit: DeviceLimit,
    pub(super) view: View,
}

/// What will be done for one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// `CLONE_*` flags.
    pub(super) namespaces: i32,
    pub(super) root: Overlay,
    pub(super) root_attributes: u64,
    /// In the order they are done.
    pub(super) mounts: Vec<MountStep>,
    /// Mounts that become read-only when all are in place.
    pub(super) sealed: Vec<PathBuf>,
    /// Paths to hide.
    pub(super) masked: Vec<&'static str>,
    /// Paths to make read-only.
    pub(super) protected: &'static [&'static str],
    /// Capabilities as bits; `None` leaves all.
    pub(super) capabilities: Option<u64>,
    /// Whether the system call filter is installed.
    pub(super) is_filtered: bool,
}

/// An overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Overlay {
    pub(super) dir: PathBuf,
    pub(super) lowers: Vec<PathBuf>,
    /// Upper and work directory.
    pub(super) upper: Option<(PathBuf, PathBuf)>,
    /// Whether overlay's own attributes are `user.overlay.*`.
    pub(super) uses_user_xattr: bool,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountStep {
    pub(super) target: PathBuf,
    pub(super) place: Place,
    pub(super) kind: MountKind,
    /// `MOUNT_ATTR_*`
    pub(super) attributes: u64,
}

/// What the target may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A real directory below the root; one that has to be made stays.
    System,
    /// Anything, symlinks resolved in the root; taken back afterwards if made.
    Anywhere,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MountKind {
    /// A kernel file system.
    Kernel {
        name: &'static str,
        options: Vec<(String, Option<String>)>,
        refused: Refused,
    },
    /// A tmpfs with device nodes.
    Devices(Nodes),
    /// A tmpfs with the hierarchies of these v1 controllers, each mounted in a directory of its name; what the kernel
    /// refuses is left out.
    Controllers {
        names: Vec<String>,
        /// `MOUNT_ATTR_*` of the hierarchies.
        attributes: u64,
    },
    /// A tmpfs whose mode may depend on what it covers.
    Tmpfs {
        size: Option<u64>,
        mode: Option<u32>,
    },
    /// A path of the host.
    Bind { path: PathBuf, subpath: PathBuf },
    /// Layers.
    Layers { overlay: Overlay, subpath: PathBuf },
    /// A file in memory.
    File {
        data: Content,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// What happens if the kernel refuses a mount (EPERM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The step fails.
    Fail,
    /// The host's is bound, with all below it.
    BindHost,
    /// The step does without.
    Skip,
}

/// How device nodes come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nodes {
    /// Made.
    Made,
    /// Bound from the host: where nodes cannot be made or a `nodev` tmpfs would disable them.
    Bound,
    /// Made, all that the host has.
    AllOfHost,
}

pub(super) const READ_ONLY: u64 = 1;
pub(super) const NO_SUID: u64 = 2;
pub(super) const NO_DEV: u64 = 4;
pub(super) const NO_EXEC: u64 = 8;
const NOTHING: u64 = NO_SUID | NO_DEV | NO_EXEC;

/// CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP:
/// the field's default set, shown as `00000000a80425fb` in `/proc/self/status`.
pub(super) const CAPABILITIES: u64 = 0xa804_25fb;

/// Names of [`CAPABILITIES`] that the filter's profile asks for.
pub(super) const CAPABILITY_NAMES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const PROTECTED: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// `/dev/shm` without `--shm-size`.
const SHM_BYTES: u64 = 64 << 20;

/// Makes the plan.
pub(super) fn plan(spec: &SandboxSpec, facts: &Facts) -> Result<Plan, SetupError> {
    let is_insecure = spec.security == Security::Insecure;
    // Without another limit on devices, none may be opened on anything the step can write.
    let confine = match (facts.device_limit, is_insecure) {
        (DeviceLimit::NoDev, false) => NO_DEV,
        (DeviceLimit::NoDev, true) | (DeviceLimit::Program | DeviceLimit::Controller, _) => 0,
    };
    let uses_user_xattr = facts.rung == Rung::UserNamespace;
    let mut mounts = system_mounts(spec, facts);
    for mount in &spec.mounts {
        mounts.push(user_mount(mount, uses_user_xattr, confine)?);
    }
    // Outer before inner, whatever the order they were written in; equals keep theirs.
    mounts.sort_by_key(|mount| mount.target.components().count());
    let sealed = match (&facts.view, is_insecure) {
        (View::Legacy(_), false) => vec!["/sys/fs/cgroup".into()],
        (View::Legacy(_), true) | (View::Hidden | View::Unified, _) => Vec::new(),
    };
    Ok(Plan {
        namespaces: namespaces(spec.network),
        root: Overlay {
            dir: spec.rootfs.dir.clone(),
            lowers: spec.rootfs.lowers.clone(),
            upper: Some((spec.rootfs.upper.clone(), spec.rootfs.work.clone())),
            uses_user_xattr,
        },
        root_attributes: confine,
        mounts,
        sealed,
        masked: masked(spec.security, facts),
        protected: if is_insecure { &[] } else { PROTECTED },
        capabilities: (!is_insecure).then_some(CAPABILITIES),
        is_filtered: !is_insecure,
    })
}

fn masked(security: Security, facts: &Facts) -> Vec<&'static str> {
    if security == Security::Insecure {
        return Vec::new();
    }
    let mut masked = MASKED.to_vec();
    // The host's `/sys` may stand in, and with it the names of all its services and containers.
    if facts.view == View::Hidden {
        masked.push("/sys/fs/cgroup");
    }
    masked
}

fn namespaces(network: Network) -> i32 {
    let always = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    match network {
        Network::Host => always,
        Network::None => always | libc::CLONE_NEWNET,
    }
}

fn system_mounts(spec: &SandboxSpec, facts: &Facts) -> Vec<MountStep> {
    let is_insecure = spec.security == Security::Insecure;
    let read_only = if is_insecure { 0 } else { READ_ONLY };
    let nodes = match (facts.rung, facts.device_limit, spec.security) {
        (Rung::UserNamespace, _, _) | (Rung::Root, DeviceLimit::NoDev, Security::Sandbox) => {
            Nodes::Bound
        }
        (Rung::Root, _, Security::Insecure) => Nodes::AllOfHost,
        (Rung::Root, DeviceLimit::Program | DeviceLimit::Controller, Security::Sandbox) => {
            Nodes::Made
        }
    };
    let dev_attributes = match nodes {
        Nodes::Made | Nodes::AllOfHost => NO_SUID,
        Nodes::Bound => NO_SUID | NO_DEV,
    };
    let shm_size = spec.limits.shm_size.unwrap_or(SHM_BYTES);
    let mut mounts = vec![
        kernel("/proc", Place::System, "proc", Refused::Fail, NOTHING),
        MountStep {
            target: "/dev".into(),
            place: Place::System,
            kind: MountKind::Devices(nodes),
            attributes: dev_attributes,
        },
        kernel(
            "/sys",
            Place::System,
            "sysfs",
            Refused::BindHost,
            NOTHING | read_only,
        ),
        MountStep {
            kind: MountKind::Kernel {
                name: "devpts",
                options: vec![
                    ("newinstance".into(), None),
                    ("ptmxmode".into(), Some("0666".into())),
                    ("mode".into(), Some("0620".into())),
                    ("gid".into(), Some("5".into())),
                ],
                refused: Refused::Fail,
            },
            ..kernel(
                "/dev/pts",
                Place::Anywhere,
                "",
                Refused::Fail,
                NO_SUID | NO_EXEC,
            )
        },
        MountStep {
            kind: MountKind::Tmpfs {
                size: Some(shm_size),
                mode: Some(0o1777),
            },
            ..kernel("/dev/shm", Place::Anywhere, "", Refused::Fail, NOTHING)
        },
        kernel(
            "/dev/mqueue",
            Place::Anywhere,
            "mqueue",
            Refused::Skip,
            NOTHING,
        ),
    ];
    mounts.extend(cgroup_mounts(&facts.view, read_only));
    let hosts = hosts_file(&spec.hostname, &spec.extra_hosts);
    let contents = [hosts, spec.resolv_conf.clone()];
    let files = SYSTEM_FILES.into_iter().zip(contents);
    mounts.extend(files.map(|(target, data)| system_file(target, data)));
    mounts
}

fn cgroup_mounts(view: &View, read_only: u64) -> Vec<MountStep> {
    let target = "/sys/fs/cgroup";
    match view {
        View::Hidden => Vec::new(),
        View::Unified => vec![kernel(
            target,
            Place::Anywhere,
            "cgroup2",
            Refused::Skip,
            NOTHING | read_only,
        )],
        View::Legacy(controllers) => vec![MountStep {
            kind: MountKind::Controllers {
                names: controllers.clone(),
                attributes: NOTHING | read_only,
            },
            ..kernel(target, Place::Anywhere, "", Refused::Skip, NOTHING)
        }],
    }
}

fn kernel(
    target: &str,
    place: Place,
    name: &'static str,
    refused: Refused,
    attributes: u64,
) -> MountStep {
    MountStep {
        target: target.into(),
        place,
        kind: MountKind::Kernel {
            name,
            options: Vec::new(),
            refused,
        },
        attributes,
    }
}

fn system_file(target: &str, data: Vec<u8>) -> MountStep {
    MountStep {
        target: target.into(),
        place: Place::Anywhere,
        kind: MountKind::File {
            data: Content(data),
            mode: 0o644,
            uid: 0,
            gid: 0,
        },
        attributes: READ_ONLY | NOTHING,
    }
}

fn user_mount(
    mount: &SpecMount,
    uses_user_xattr: bool,
    confine: u64,
) -> Result<MountStep, SetupError> {
    let is_forbidden = !mount.target.is_absolute()
        || mount.target.parent().is_none()
        || mount.target.starts_with("/proc")
        || mount
            .target
            .components()
            .any(|part| part == Component::ParentDir);
    if is_forbidden {
        return Err(SetupError::ForbiddenTarget {
            target: mount.target.clone(),
        });
    }
    let (kind, attributes) = match &mount.source {
        MountSource::Bind {
            path,
            subpath,
            access,
        } => (
            MountKind::Bind {
                path: path.clone(),
                subpath: subpath.clone(),
            },
            writing(*access, confine),
        ),
        MountSource::Overlay {
            dir,
            lowers,
            scratch,
            subpath,
        } => {
            let access = match scratch {
                Some(_) => Access::ReadWrite,
                None => Access::ReadOnly,
            };
            let scratch = scratch.as_ref();
            let overlay = Overlay {
                dir: dir.clone(),
                lowers: lowers.clone(),
                upper: scratch.map(|scratch| (scratch.upper.clone(), scratch.work.clone())),
                uses_user_xattr,
            };
            let subpath = subpath.clone();
            (
                MountKind::Layers { overlay, subpath },
                writing(access, confine),
            )
        }
        MountSource::Tmpfs { size, mode } => (
            MountKind::Tmpfs {
                size: *size,
                mode: *mode,
            },
            NO_SUID | NO_DEV,
        ),
        MountSource::File {
            data,
            mode,
            uid,
            gid,
        } => {
            let no_exec = if mode & 0o111 == 0 { NO_EXEC } else { 0 };
            let kind = MountKind::File {
                data: data.clone(),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            };
            (kind, READ_ONLY | NO_SUID | NO_DEV | no_exec)
        }
    };
    Ok(MountStep {
        target: mount.target.clone(),
        place: Place::Anywhere,
        kind,
        attributes,
    })
}

fn writing(access: Access, confine: u64) -> u64 {
    match access {
        Access::ReadOnly => READ_ONLY | confine,
        Access::ReadWrite => confine,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
