//! What is in a step's `/dev`.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{
    CWD, FileType, Mode, OFlags, fstat, makedev, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::devices::DEVICES;
use super::error::{Action, Attempt, SetupError};
use super::plan::Nodes;
use super::sources::{attach, clone_path, filesystem};

/// Links every `/dev` has: (name, target).
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The tmpfs of `/dev`, attached nowhere and empty.
pub(super) fn filesystem_of_devices() -> Result<OwnedFd, Errno> {
    let options = [("mode", "755"), ("size", "65536k")]
        .map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    filesystem("tmpfs", &options)
}

/// Fills it; it has to be attached.
pub(super) fn populate(dev: &OwnedFd, nodes: Nodes) -> Result<(), SetupError> {
    for (name, target) in LINKS {
        symlinkat(target, dev, name).attempt(Action::Create, Path::new("/dev").join(name))?;
    }
    if nodes == Nodes::AllOfHost {
        return copy_host_nodes(dev, Path::new("/dev"), Path::new(""));
    }
    for device in DEVICES {
        let (Some(name), Some(minor)) = (device.node, device.minor) else {
            continue;
        };
        let made = match nodes {
            Nodes::Bound => bind_node(dev, name),
            Nodes::Made | Nodes::AllOfHost => match make_node(dev, name, device.major, minor) {
                // Without CAP_MKNOD the host's own does as well.
                Err(Errno::PERM) => bind_node(dev, name),
                made => made,
            },
        };
        made.attempt(Action::Create, Path::new("/dev").join(name))?;
    }
    Ok(())
}

/// The null device of a filled one, and nothing that goes by its name.
pub(super) fn null(dev: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = openat(dev, "null", flags, Mode::empty())?;
    let stat = fstat(&null)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if is_device && stat.st_rdev == makedev(1, 3) {
        Ok(null)
    } else {
        Err(Errno::NODEV)
    }
}

fn make_node(dev: &OwnedFd, name: &str, major: u32, minor: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o666);
    let number = makedev(major, minor);
    mknodat(dev, name, FileType::CharacterDevice, mode, number)
}

fn bind_node(dev: &OwnedFd, name: &str) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(openat(dev, name, flags, Mode::from_raw_mode(0o666))?);
    let target = openat(dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let source = clone_path(CWD, &Path::new("/dev").join(name))?;
    attach(source.as_fd(), target.as_fd())
}

/// All device nodes of the host below `dir`; what has a file system of its own there is left out.
fn copy_host_nodes(dev: &OwnedFd, dir: &Path, inside: &Path) -> Result<(), SetupError> {
    let entries = fs::read_dir(dir).attempt(Action::Read, dir)?;
    for entry in entries.filter_map(Result::ok) {
        let (path, name) = (entry.path(), inside.join(entry.file_name()));
        // A node that vanished meanwhile is no node.
        let Ok(found) = entry.metadata() else {
            continue;
        };
        let kind = found.file_type();
        let node = if kind.is_char_device() {
            FileType::CharacterDevice
        } else if kind.is_block_device() {
            FileType::BlockDevice
        } else {
            let is_own = inside.as_os_str().is_empty()
                && ["pts", "shm", "mqueue", "fd"]
                    .iter()
                    .any(|own| name == Path::new(own));
            if kind.is_dir() && !is_own {
                mkdirat(dev, &name, Mode::from_raw_mode(0o755)).attempt(Action::Create, &path)?;
                copy_host_nodes(dev, &path, &name)?;
            }
            continue;
        };
        if name == Path::new("ptmx") {
            continue;
        }
        let mode = Mode::from_raw_mode(found.mode() & 0o7777);
        mknodat(dev, &name, node, mode, found.rdev()).attempt(Action::Create, &path)?;
    }
    Ok(())
}
