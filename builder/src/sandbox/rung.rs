//! How much privilege there is, and so how steps are isolated.
//!
//! | rung | needs | gives |
//! |---|---|---|
//! | root | CAP_SYS_ADMIN in the first user namespace | everything |
//! | userns | subordinate ids, newuidmap, newgidmap; or being root in a user namespace | no limits by cgroup, no opening of devices made |
//!
//! At the second rung the whole builder runs inside the user namespace: it starts itself again there ([`Choice::Enter`]).
//! That it works at all shows only a whole step: [`probe`].

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::process::{geteuid, getgid};

use super::enter;
use super::error::{Action, SandboxError, SetupError};
use super::host::{Cancel, SandboxHost};
use super::idmap;
use super::sources;
use super::spec::{Process, Rootfs, SandboxSpec};
use super::user::name_of;

/// A way of isolating steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// As root.
    Root,
    /// As root of a user namespace.
    UserNamespace,
}

impl Rung {
    /// Its name in `--isolation` and in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::UserNamespace => "userns",
        }
    }

    /// The rung of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Root, Self::UserNamespace]
            .into_iter()
            .find(|rung| rung.name() == name)
    }
}

/// What to do to run steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Steps can be run by this process.
    Ready(Rung),
    /// This process has to be replaced first by [`Entry::enter`].
    Enter(Entry),
}

/// All that is needed to enter a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(super) uid_map: Vec<idmap::Range>,
    pub(super) gid_map: Vec<idmap::Range>,
}

/// The ids below this one are those of distributions' own users and groups, which most packages have files of.
const FEWEST_IDS: u64 = 1000;

/// A rung lacks something. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RungError {
    /// Root without the capability to mount.
    #[error(
        "not supported yet: building as root without CAP_SYS_ADMIN; start the container with --privileged, or build as an \
         ordinary user with subordinate ids"
    )]
    WeakRoot,
    /// Forced, but not root.
    #[error("isolation `root` needs root; run as root or leave --isolation away")]
    NotRoot,
    /// No subordinate ids.
    #[error(
        "not supported yet: building without subordinate ids; give user `{user}` some: usermod --add-subuids 100000-165535 \
         --add-subgids 100000-165535 {user}"
    )]
    NoSubordinateIds {
        /// The user.
        user: String,
    },
    /// Too few ids for what images hold.
    #[error(
        "not supported yet: building with {count} user or group ids, where images need at least {FEWEST_IDS}; give the user more \
         subordinate ids (/etc/subuid, /etc/subgid), and the container a wider id map"
    )]
    FewIds {
        /// How many are mapped.
        count: u64,
    },
    /// Root of a user namespace that does not own its mounts.
    #[error(
        "not supported yet: building as root of a user namespace whose mounts belong to another; enter a mount namespace as well \
         (unshare --mount)"
    )]
    ForeignMounts,
    /// No newuidmap.
    #[error("not supported yet: building without `{program}`; install it: apt-get install uidmap")]
    NoMapper {
        /// The program.
        program: &'static str,
    },
    /// The kernel has them switched off.
    #[error(
        "not supported yet: building without user namespaces, which are off here; switch them on: sysctl -w {setting}"
    )]
    NamespacesOff {
        /// Name and value.
        setting: &'static str,
    },
    /// The kernel gives no more of them, here or where this is nested in.
    #[error(
        "not supported yet: building without a user namespace of its own, of which no more may be made; raise the limit here and, \
         in a container, on the host: sysctl -w user.max_user_namespaces=15000"
    )]
    NamespacesUsedUp,
    /// Something around this process forbids them.
    #[error(
        "not supported yet: building without a user namespace of its own, which is forbidden here; leave the chroot, or start the \
         container with --privileged or with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    )]
    NamespacesForbidden,
    /// Something failed on the way.
    #[error("cannot enter a user namespace: {attempt}")]
    Enter {
        /// What was tried.
        attempt: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store's directory cannot be written.
    #[error("cannot try a step in `{dir}`", dir = dir.display())]
    ProbeDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store's file system cannot be the upper one of an overlay.
    #[error(
        "not supported yet: a store at `{dir}`, whose file system cannot hold a step's changes (it may be an overlay itself); \
         mount a volume there or set BUILD_ROOT",
        dir = dir.display()
    )]
    Store {
        /// The directory.
        dir: PathBuf,
    },
    /// A step on trial failed.
    #[error("steps cannot be run here")]
    Probe {
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// The helper that maps ids failed.
    #[error("cannot map ids: {message}")]
    Helper {
        /// What it said.
        message: String,
    },
    /// newuidmap or newgidmap refused.
    #[error("`{program}` refused the ids of /etc/subuid and /etc/subgid: {message}")]
    Mapper {
        /// The program.
        program: &'static str,
        /// What it said.
        message: String,
    },
}

/// Chooses a rung, or checks the one that is forced.
///
/// # Errors
/// The rung lacks something.
pub fn detect(forced: Option<Rung>) -> Result<Choice, RungError> {
    let is_root = geteuid().is_root();
    let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    match (is_root, idmap::is_initial(&uid_map), forced) {
        (true, false, None | Some(Rung::UserNamespace)) => {
            let gid_map = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
            ensure_enough(idmap::mapped(&uid_map).min(idmap::mapped(&gid_map)))?;
            let choice = privileged(Choice::Ready(Rung::UserNamespace))?;
            match sources::clone_path(CWD, Path::new(enter::SELF)) {
                Err(rustix::io::Errno::PERM) => Err(RungError::ForeignMounts),
                Ok(_) | Err(_) => Ok(choice),
            }
        }
        (true, true, None | Some(Rung::Root)) => privileged(Choice::Ready(Rung::Root)),
        (false, _, Some(Rung::Root)) | (true, false, Some(Rung::Root)) => Err(RungError::NotRoot),
        (false, _, None | Some(Rung::UserNamespace)) | (true, true, Some(Rung::UserNamespace)) => {
            entry().map(Choice::Enter)
        }
    }
}

fn ensure_enough(count: u64) -> Result<(), RungError> {
    if count < FEWEST_IDS {
        return Err(RungError::FewIds { count });
    }
    Ok(())
}

fn privileged(choice: Choice) -> Result<Choice, RungError> {
    let has_admin = rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective
            .contains(rustix::thread::CapabilitySet::SYS_ADMIN)
    });
    if has_admin {
        Ok(choice)
    } else {
        Err(RungError::WeakRoot)
    }
}

/// Collects what entering needs, and refuses early what cannot work.
fn entry() -> Result<Entry, RungError> {
    check_settings()?;
    for program in enter::MAPPERS {
        if enter::find_program(program).is_none() {
            return Err(RungError::NoMapper { program });
        }
    }
    let (uid, gid) = (geteuid().as_raw(), getgid().as_raw());
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let user = name_of(uid, &passwd);
    let ids = |file| {
        let text = fs::read_to_string(PathBuf::from("/etc").join(file)).unwrap_or_default();
        idmap::subordinate(&text, user.as_deref(), uid)
    };
    let (uids, gids) = (ids("subuid"), ids("subgid"));
    if uids.is_empty() || gids.is_empty() {
        return Err(RungError::NoSubordinateIds {
            user: user.unwrap_or_else(|| uid.to_string()),
        });
    }
    let count =
        |ids: &[(u32, u32)]| 1 + ids.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
    ensure_enough(count(&uids).min(count(&gids)))?;
    Ok(Entry {
        uid_map: idmap::map(uid, &uids),
        gid_map: idmap::map(gid, &gids),
    })
}

/// Switches that turn user namespaces off, by file, value and remedy.
const SWITCHES: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "user.max_user_namespaces=15000",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "kernel.unprivileged_userns_clone=1",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

fn check_settings() -> Result<(), RungError> {
    let off = SWITCHES
        .iter()
        .find(|(file, off, _)| fs::read_to_string(file).is_ok_and(|value| value.trim() == *off));
    match off {
        Some((_, _, setting)) => Err(RungError::NamespacesOff { setting }),
        None => Ok(()),
    }
}

/// What runs inside.
#[derive(Clone, Debug)]
pub struct Inside {
    /// A program that calls [`run_if_init`](super::run_if_init) first: it does the entering.
    pub starter: PathBuf,
    /// The program that then runs.
    pub program: PathBuf,
    /// Its command line, its name first.
    pub words: Vec<OsString>,
    /// Variables added to its environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Inside {
    /// This program itself.
    pub fn new(words: Vec<OsString>, env: Vec<(OsString, OsString)>) -> Self {
        Self {
            starter: enter::SELF.into(),
            program: enter::SELF.into(),
            words,
            env,
        }
    }
}

impl Entry {
    /// Replaces this process by a program inside a new user namespace. There, [`detect`] answers [`Choice::Ready`].
    ///
    /// Keeps process id, streams, working directory, groups and the command line with its name. `HOME` and the like stay
    /// those of the user, but the effective user id is 0 inside: what depends on it has to be passed on.
    ///
    /// # Errors
    /// Only returns if it failed.
    pub fn enter(&self, inside: &Inside) -> RungError {
        enter::replace(self, inside)
    }
}

/// Tries a whole step in a directory below `dir`, up to looking its program up.
///
/// # Errors
/// Steps cannot be run there.
pub fn probe(host: &SandboxHost, dir: &Path) -> Result<(), RungError> {
    let prepared = tempfile::tempdir_in(dir).and_then(|temp| {
        for name in ["lower", "upper", "work"] {
            fs::create_dir(temp.path().join(name))?;
        }
        Ok((temp, Cancel::new()?))
    });
    let (temp, cancel) = prepared.map_err(|source| RungError::ProbeDir {
        dir: dir.to_owned(),
        source,
    })?;
    let rootfs = Rootfs {
        dir: temp.path().to_owned(),
        lowers: vec!["lower".into()],
        upper: "upper".into(),
        work: "work".into(),
    };
    let process = Process {
        // Everything is done before it is found missing.
        args: vec!["/probe".into()],
        env: Vec::new(),
        cwd: "/".into(),
        user: String::new(),
    };
    let spec = SandboxSpec::new(rootfs, process);
    match host.run(&spec, &[], &cancel, &mut |_, _| {}) {
        Ok(_) => Ok(()),
        Err(SandboxError::Setup(SetupError::Action {
            action: Action::Mount,
            path,
            ..
        })) if path == Path::new("overlay") => Err(RungError::Store {
            dir: dir.to_owned(),
        }),
        Err(source) => Err(RungError::Probe { source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for rung in [Rung::Root, Rung::UserNamespace] {
            assert_eq!(Rung::parse(rung.name()), Some(rung));
        }
        assert_eq!(Rung::parse("chroot"), None);
    }

    #[test]
    fn errors_say_what_to_do() {
        let text = RungError::NoSubordinateIds {
            user: "alice".into(),
        }
        .to_string();
        assert!(text.starts_with("not supported yet: "));
        assert!(
            text.ends_with("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 alice")
        );
    }
}
