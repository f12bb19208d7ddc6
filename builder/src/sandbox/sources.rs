//! Makes mounts that are attached nowhere yet.
//!
//! Files in memory live on one tmpfs per step, the *staging* mount. It sits on the overlay's work directory, in the step's mount
//! namespace only, and goes away with the old root; what was cloned from it stays.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir};

use super::channel::write_all;
use super::error::{Action, Attempt, Errno as ErrorNumber, SetupError};
use super::plan::Overlay;
use super::rooted::open_inside;

/// Mounts a kernel file system, attached nowhere. Its source is its name, as `df` and scripts expect.
pub(super) fn filesystem(
    name: &str,
    options: &[(String, Option<String>)],
) -> Result<OwnedFd, Errno> {
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", name)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&context, key.as_str())?,
        }
    }
    finish(&context)
}

fn finish(context: &OwnedFd) -> Result<OwnedFd, Errno> {
    fsconfig_create(context)?;
    fsmount(
        context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

/// Clones the mount a path is on, with that path as its root.
pub(super) fn clone_path(at: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(at, path, flags)
}

/// As [`clone_path`], of what a descriptor stands for.
pub(super) fn clone_fd(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(fd, "", flags)
}

/// Clones a path of the host with all that is mounted below.
pub(super) fn clone_recursive(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags)
}

/// Attaches a mount over what a descriptor stands for.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Attaches a mount over a directory by its name in one that nobody else changes.
pub(super) fn attach_in(
    mount: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &str,
) -> Result<(), Errno> {
    move_mount(
        mount,
        "",
        dir,
        name,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Files in memory and places to mount on.
#[derive(Debug)]
pub(super) struct Staging {
    root: OwnedFd,
    path: PathBuf,
    next: u32,
}

const EMPTY: &str = "empty";

impl Staging {
    /// Mounts it on `dir`, a directory nobody looks into from now on.
    pub(super) fn mount_on(dir: &Path) -> Result<Self, SetupError> {
        let options = [("mode".to_owned(), Some("0700".to_owned()))];
        let root = filesystem("tmpfs", &options).attempt(Action::Mount, "tmpfs")?;
        let target = open_path(dir).attempt(Action::Open, dir)?;
        attach(root.as_fd(), target.as_fd()).attempt(Action::Mount, dir)?;
        let staging = Self {
            root,
            path: dir.to_owned(),
            next: 0,
        };
        mkdirat(&staging.root, EMPTY, Mode::from_raw_mode(0o755)).attempt(Action::Create, EMPTY)?;
        Ok(staging)
    }

    /// A file.
    pub(super) fn file(
        &mut self,
        data: &[u8],
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> Result<OwnedFd, Errno> {
        let name = self.fresh_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.root, &name, flags, Mode::from_raw_mode(mode))?;
        write_all(&file, data).map_err(|error| {
            error
                .raw_os_error()
                .map_or(Errno::IO, Errno::from_raw_os_error)
        })?;
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        // Changing the owner may clear bits, and the creation mode went through no umask but must hold exactly.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        clone_path(self.root.as_fd(), Path::new(&name))
    }

    /// An empty directory.
    pub(super) fn empty(&self) -> Result<OwnedFd, Errno> {
        clone_path(self.root.as_fd(), Path::new(EMPTY))
    }

    /// Layers, or a path in them.
    pub(super) fn layers(
        &mut self,
        wanted: &Overlay,
        target: &Path,
        subpath: &Path,
    ) -> Result<OwnedFd, SetupError> {
        let spot = self.fresh_name();
        mkdirat(&self.root, &spot, Mode::from_raw_mode(0o700)).attempt(Action::Create, &spot)?;
        let path = self.path.join(&spot);
        let mount = overlay(wanted, Some(self), &path)?;
        if subpath.as_os_str().is_empty() || subpath == Path::new("/") {
            return Ok(mount);
        }
        let at = openat(
            &self.root,
            &spot,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .attempt(Action::Open, &path)?;
        attach(mount.as_fd(), at.as_fd()).attempt(Action::Mount, &path)?;
        inside(mount.as_fd(), target, subpath)
    }

    fn fresh_name(&mut self) -> OsString {
        self.next += 1;
        self.next.to_string().into()
    }
}

/// A path of the host, or a path inside it.
pub(super) fn bind(path: &Path, target: &Path, subpath: &Path) -> Result<OwnedFd, SetupError> {
    if subpath.as_os_str().is_empty() {
        return clone_path(CWD, path).attempt(Action::Bind, path);
    }
    let base = open_path(path).attempt(Action::Open, path)?;
    inside(base.as_fd(), target, subpath)
}

fn inside(base: BorrowedFd<'_>, target: &Path, subpath: &Path) -> Result<OwnedFd, SetupError> {
    let found = open_inside(base, subpath).map_err(|errno| SetupError::Source {
        target: target.to_owned(),
        source_path: subpath.to_owned(),
        errno: ErrorNumber::from(errno),
    })?;
    clone_fd(found.as_fd()).attempt(Action::Bind, subpath)
}

fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Mounts layers, attached nowhere. `spot` is a directory that may be mounted on for a moment.
///
/// An overlay without upper needs two layers: the staging mount's empty directory is the second of a single one.
pub(super) fn overlay(
    wanted: &Overlay,
    staging: Option<&Staging>,
    spot: &Path,
) -> Result<OwnedFd, SetupError> {
    chdir(&wanted.dir).attempt(Action::Open, &wanted.dir)?;
    if let (Some((upper, _)), []) = (&wanted.upper, wanted.lowers.as_slice()) {
        // Nothing below: nothing to stack.
        return clone_path(CWD, upper).attempt(Action::Bind, upper);
    }
    let filler = match (&wanted.upper, wanted.lowers.len()) {
        (None, 0 | 1) => staging,
        _ => None,
    };
    if wanted.upper.is_none()
        && wanted.lowers.is_empty()
        && let Some(staging) = staging
    {
        return staging.empty().attempt(Action::Bind, EMPTY);
    }
    match overlay_by_steps(wanted, filler) {
        // A kernel before 6.5 knows no `lowerdir+`.
        Err(Errno::INVAL | Errno::NOSYS) => overlay_by_options(wanted, filler, spot),
        other => other,
    }
    .attempt(Action::Mount, "overlay")
}

/// Options every overlay of a step has. `volatile`: unmounting must not sync the whole file system.
const OPTIONS: [(&str, &str); 3] = [
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "nofollow"),
];

fn overlay_by_steps(wanted: &Overlay, filler: Option<&Staging>) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for lower in &wanted.lowers {
        fsconfig_set_string(&context, "lowerdir+", lower.as_path())?;
    }
    if let Some(staging) = filler {
        fchdir(&staging.root)?;
        fsconfig_set_string(&context, "lowerdir+", EMPTY)?;
        chdir(&wanted.dir)?;
    }
    if let Some((upper, work)) = &wanted.upper {
        fsconfig_set_string(&context, "upperdir", upper.as_path())?;
        fsconfig_set_string(&context, "workdir", work.as_path())?;
        fsconfig_set_flag(&context, "volatile")?;
    }
    for (key, value) in OPTIONS {
        fsconfig_set_string(&context, key, value)?;
    }
    if wanted.uses_user_xattr {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    finish(&context)
}

/// The old way: all in one string of at most a page.
fn overlay_by_options(
    wanted: &Overlay,
    filler: Option<&Staging>,
    spot: &Path,
) -> Result<OwnedFd, Errno> {
    let mut options = OsString::from("lowerdir=");
    for (index, lower) in wanted.lowers.iter().enumerate() {
        options.push(if index == 0 { "" } else { ":" });
        options.push(lower);
    }
    if let Some(staging) = filler {
        options.push(":");
        options.push(staging.path.join(EMPTY));
    }
    if let Some((upper, work)) = &wanted.upper {
        options.push(",upperdir=");
        options.push(upper);
        options.push(",workdir=");
        options.push(work);
        options.push(",volatile");
    }
    for (key, value) in OPTIONS {
        options.push(format!(",{key}={value}"));
    }
    if wanted.uses_user_xattr {
        options.push(",userxattr");
    }
    let options = std::ffi::CString::new(options.into_encoded_bytes())
        .map_err(|_nul_in_path| Errno::INVAL)?;
    mount(
        "overlay",
        spot,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )?;
    let clone = clone_path(CWD, spot);
    unmount(spot, UnmountFlags::DETACH)?;
    clone
}
