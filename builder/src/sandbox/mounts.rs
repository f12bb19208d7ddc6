//! Puts a step's file systems together: applies the mounts of a plan.
//!
//! Targets are resolved in the root ([`rooted`](super::rooted)) and held as descriptors, so a symlink of the image leads
//! nowhere else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs, mkdirat, openat};
use rustix::io::Errno;

use super::dev;
use super::error::{Action, Attempt, Kind, SetupError};
use super::plan::{MountKind, MountStep, Nodes, Place, Plan, READ_ONLY, Refused};
use super::rooted::{Afterwards, Found, Make, Rooted};
use super::sources::{self, Staging};
use super::sys;

/// Mounts everything; returns the root, attached in this mount namespace.
pub(super) fn assemble(plan: &Plan) -> Result<Rooted, SetupError> {
    let work = plan
        .root
        .upper
        .as_ref()
        .map(|(_, work)| plan.root.dir.join(work));
    let work = work.unwrap_or_else(|| plan.root.dir.clone());
    let root = sources::overlay(&plan.root, None, &work)?;
    set_attributes(root.as_fd(), plan.root_attributes, Path::new("/"))?;
    let staging = Staging::mount_on(&work)?;
    let target = openat(
        rustix::fs::CWD,
        &work,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .attempt(Action::Open, &work)?;
    sources::attach(root.as_fd(), target.as_fd()).attempt(Action::Mount, "/")?;
    let mut assembly = Assembly {
        root: Rooted::new(root).attempt(Action::Open, "/")?,
        staging,
        null: Err(Errno::NOENT),
    };
    for mount in &plan.mounts {
        assembly.mount(mount)?;
    }
    for path in &plan.sealed {
        let mount = assembly.root.open(path).attempt(Action::Open, path)?;
        set_attributes(mount.as_fd(), READ_ONLY, path)?;
    }
    for path in &plan.masked {
        assembly.mask(Path::new(path))?;
    }
    for path in plan.protected {
        assembly.protect(Path::new(path))?;
    }
    Ok(assembly.root)
}

struct Assembly {
    root: Rooted,
    staging: Staging,
    /// `/dev/null` as the sandbox made it: by its path, something else may be found once a step's mounts are in place.
    null: Result<OwnedFd, Errno>,
}

impl Assembly {
    fn mount(&mut self, step: &MountStep) -> Result<(), SetupError> {
        if let MountKind::Tmpfs { size, mode } = step.kind {
            return self.mount_tmpfs(step, size, mode);
        }
        let Some((mount, is_recursive)) = self.source(step)? else {
            return Ok(());
        };
        sys::mount_setattr(mount.as_fd(), step.attributes, is_recursive)
            .attempt(Action::Remount, &step.target)?;
        let mounted = kind(mount.as_fd()).attempt(Action::Open, &step.target)?;
        let make = match mounted {
            Kind::Directory => Make::Directory,
            Kind::File => Make::File,
        };
        let target = self.target(step, make)?;
        ensure_kind(&target, mounted, &step.target)?;
        sources::attach(mount.as_fd(), target.fd.as_fd()).attempt(Action::Mount, &step.target)?;
        match &step.kind {
            MountKind::Devices(nodes) => {
                dev::populate(&mount, *nodes)?;
                self.null = dev::null(&mount);
                Ok(())
            }
            MountKind::Controllers { names, attributes } => {
                mount_controllers(mount.as_fd(), names, *attributes, &step.target)
            }
            MountKind::Kernel { .. }
            | MountKind::Tmpfs { .. }
            | MountKind::Bind { .. }
            | MountKind::Layers { .. }
            | MountKind::File { .. } => Ok(()),
        }
    }

    /// The mount of a step, attached nowhere, and whether there are mounts below it.
    fn source(&mut self, step: &MountStep) -> Result<Option<(OwnedFd, bool)>, SetupError> {
        let target = &step.target;
        let mount = match &step.kind {
            MountKind::Kernel {
                name,
                options,
                refused,
            } => match (sources::filesystem(name, options), refused) {
                (Err(Errno::PERM | Errno::ACCESS), Refused::Skip) => return Ok(None),
                (Err(Errno::PERM | Errno::ACCESS), Refused::BindHost) => {
                    let host = sources::clone_recursive(target).attempt(Action::Bind, target)?;
                    return Ok(Some((host, true)));
                }
                (made, _) => made.attempt(Action::Mount, target)?,
            },
            MountKind::Devices(_) => dev::filesystem_of_devices().attempt(Action::Mount, target)?,
            MountKind::Controllers { .. } => tmpfs(None, 0o755, target)?,
            MountKind::Tmpfs { size, mode } => tmpfs(*size, mode.unwrap_or(0o1777), target)?,
            MountKind::Bind { path, subpath } => sources::bind(path, target, subpath)?,
            MountKind::Layers { overlay, subpath } => {
                self.staging.layers(overlay, target, subpath)?
            }
            MountKind::File {
                data,
                mode,
                uid,
                gid,
            } => self
                .staging
                .file(&data.0, *mode, (*uid, *gid))
                .attempt(Action::Create, target)?,
        };
        Ok(Some((mount, false)))
    }

    /// A tmpfs takes the mode of the directory it covers.
    fn mount_tmpfs(
        &mut self,
        step: &MountStep,
        size: Option<u64>,
        mode: Option<u32>,
    ) -> Result<(), SetupError> {
        let found = self.target(step, Make::Directory)?;
        ensure_kind(&found, Kind::Directory, &step.target)?;
        let covered = fstat(&found.fd).attempt(Action::Open, &step.target)?;
        let mode = match (mode, found.was_made) {
            (Some(mode), _) => mode,
            (None, true) => 0o1777,
            (None, false) => covered.st_mode & 0o7777,
        };
        let mount = tmpfs(size, mode, &step.target)?;
        set_attributes(mount.as_fd(), step.attributes, &step.target)?;
        sources::attach(mount.as_fd(), found.fd.as_fd()).attempt(Action::Mount, &step.target)
    }

    fn target(&mut self, step: &MountStep, make: Make) -> Result<Found, SetupError> {
        match step.place {
            Place::System => {
                let fd = self
                    .root
                    .system_dir(&step.target)
                    .map_err(|errno| match errno {
                        Errno::NOTDIR | Errno::LOOP => SetupError::NotADirectory {
                            filesystem: filesystem_name(&step.kind).to_owned(),
                            path: step.target.clone(),
                        },
                        errno => SetupError::Action {
                            action: Action::Create,
                            path: step.target.clone(),
                            errno: errno.into(),
                        },
                    })?;
                Ok(Found {
                    fd,
                    was_made: false,
                })
            }
            Place::Anywhere => {
                let found = self
                    .root
                    .ensure(&step.target, make, Afterwards::TakeBack)
                    .attempt(Action::Create, &step.target)?;
                // Where a symlink leads to is known only now.
                let filesystem = fstatfs(&found.fd).attempt(Action::Open, &step.target)?;
                if filesystem.f_type == PROC_SUPER_MAGIC {
                    let target = step.target.clone();
                    return Err(SetupError::ForbiddenTarget { target });
                }
                Ok(found)
            }
        }
    }

    /// Hides a path if it is there: a directory under an empty one, a file under `/dev/null`.
    fn mask(&self, path: &Path) -> Result<(), SetupError> {
        let Some(target) = self.existing(path)? else {
            return Ok(());
        };
        let stat = fstat(&target).attempt(Action::Mask, path)?;
        let cover = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let empty = self.staging.empty().attempt(Action::Mask, path)?;
                set_attributes(empty.as_fd(), READ_ONLY, path)?;
                empty
            }
            _ => {
                let null = self.null.as_ref().map_err(|errno| *errno);
                let null = null.attempt(Action::Mask, path)?;
                sources::clone_fd(null.as_fd()).attempt(Action::Mask, path)?
            }
        };
        sources::attach(cover.as_fd(), target.as_fd()).attempt(Action::Mask, path)
    }

    /// Makes a path read-only if it is there.
    fn protect(&self, path: &Path) -> Result<(), SetupError> {
        let Some(target) = self.existing(path)? else {
            return Ok(());
        };
        let same = sources::clone_fd(target.as_fd()).attempt(Action::Protect, path)?;
        set_attributes(same.as_fd(), READ_ONLY, path)?;
        sources::attach(same.as_fd(), target.as_fd()).attempt(Action::Protect, path)
    }

    fn existing(&self, path: &Path) -> Result<Option<OwnedFd>, SetupError> {
        match self.root.open(path) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno).attempt(Action::Open, path),
        }
    }
}

/// Into an attached tmpfs that is empty: nothing of the image is in the way, so no path is looked up in the root.
fn mount_controllers(
    tmpfs: BorrowedFd<'_>,
    names: &[String],
    attributes: u64,
    at: &Path,
) -> Result<(), SetupError> {
    for name in names {
        let mount = match sources::filesystem("cgroup", &[(name.clone(), None)]) {
            Err(Errno::PERM | Errno::ACCESS) => continue,
            made => made.attempt(Action::Mount, at.join(name))?,
        };
        set_attributes(mount.as_fd(), attributes, &at.join(name))?;
        mkdirat(tmpfs, name, Mode::from_raw_mode(0o755))
            .and_then(|()| sources::attach_in(mount.as_fd(), tmpfs, name))
            .attempt(Action::Mount, at.join(name))?;
    }
    Ok(())
}

fn kind(fd: BorrowedFd<'_>) -> Result<Kind, Errno> {
    let stat = fstat(fd)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        _ => Kind::File,
    })
}

/// The kernel mounts directories on directories and files on files, and says no more than that the argument is invalid.
fn ensure_kind(target: &Found, mounted: Kind, path: &Path) -> Result<(), SetupError> {
    let found = kind(target.fd.as_fd()).attempt(Action::Open, path)?;
    if found == mounted {
        return Ok(());
    }
    Err(SetupError::OtherKind {
        target: path.to_owned(),
        found,
        mounted,
    })
}

fn filesystem_name(kind: &MountKind) -> &'static str {
    match kind {
        MountKind::Kernel { name, .. } => name,
        MountKind::Devices(Nodes::Made | Nodes::Bound | Nodes::AllOfHost) => "the devices",
        MountKind::Tmpfs { .. } | MountKind::Controllers { .. } => "tmpfs",
        MountKind::Bind { .. } | MountKind::Layers { .. } | MountKind::File { .. } => "a mount",
    }
}

fn tmpfs(size: Option<u64>, mode: u32, target: &Path) -> Result<OwnedFd, SetupError> {
    let mut options = vec![("mode".to_owned(), Some(format!("{mode:o}")))];
    if let Some(size) = size {
        options.push(("size".to_owned(), Some(size.to_string())));
    }
    sources::filesystem("tmpfs", &options).attempt(Action::Mount, target)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: u64, path: &Path) -> Result<(), SetupError> {
    if attributes == 0 {
        return Ok(());
    }
    sys::mount_setattr(mount, attributes, false).attempt(Action::Remount, path)
}
