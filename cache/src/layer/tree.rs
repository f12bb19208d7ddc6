//! Frozen trees on disk, read and written descriptor by descriptor: no path is ever resolved through a symlink.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};

use super::error::LayerError;
use super::path as layer_path;

/// Which names overlayfs uses for its own attributes in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`: mounted by root.
    Trusted,
    /// `user.overlay.*`: mounted with `userxattr`, in user namespaces.
    User,
}

impl OverlayXattrs {
    /// The attribute that makes a directory opaque; its value is `y`.
    pub fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }
}

/// The attribute that holds a file's capabilities.
pub(super) const CAPABILITY: &str = "security.capability";

/// The longest list or value of attributes (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MOST_XATTR: usize = 65_536;

/// Directories of a tree, opened one below the other; keeps the last one open.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    place: PathBuf,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Tree {
    pub(super) fn open(place: &Path) -> Result<Self, LayerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(place, flags, Mode::empty()).map_err(LayerError::os("open", place))?;
        Ok(Self {
            root,
            place: place.to_owned(),
            last: None,
        })
    }

    /// A path of the tree for messages.
    pub(super) fn shown(&self, at: &[u8]) -> PathBuf {
        self.place.join(OsStr::from_bytes(at))
    }

    /// A descriptor of a directory, for use as the start of further calls only.
    pub(super) fn dir(&mut self, at: &[u8]) -> Result<BorrowedFd<'_>, LayerError> {
        if at.is_empty() {
            return Ok(self.root.as_fd());
        }
        let is_last = matches!(&self.last, Some((path, _)) if path == at);
        if !is_last {
            let opened = self.descend(at)?;
            self.last = Some((at.to_vec(), opened));
        }
        // Set just above in any case.
        Ok(self
            .last
            .as_ref()
            .map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }

    fn descend(&self, at: &[u8]) -> Result<OwnedFd, LayerError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (start, rest) = match &self.last {
            Some((path, fd)) if layer_path::is_below(path, at) => {
                (fd.as_fd(), at.get(path.len() + 1..).unwrap_or_default())
            }
            Some(_) | None => (self.root.as_fd(), at),
        };
        let mut opened: Option<OwnedFd> = None;
        for part in layer_path::components(rest) {
            let from = opened.as_ref().map_or(start, AsFd::as_fd);
            let next = fs::openat(from, part, flags, Mode::empty())
                .map_err(LayerError::os("open directory", self.shown(at)))?;
            opened = Some(next);
        }
        let invalid = || LayerError::os("open directory", self.shown(at))(rustix::io::Errno::INVAL);
        opened.ok_or_else(invalid)
    }

    /// The directory that holds a path, and the name in it. The root is `.` in itself.
    pub(super) fn parent<'a>(
        &mut self,
        at: &'a [u8],
    ) -> Result<(BorrowedFd<'_>, &'a [u8]), LayerError> {
        match layer_path::split(at) {
            Some((dir, name)) => Ok((self.dir(dir)?, name)),
            None => Ok((self.root.as_fd(), b".")),
        }
    }

    /// Opens a regular file for reading.
    pub(super) fn open_file(&mut self, at: &[u8]) -> Result<std::fs::File, LayerError> {
        let shown = self.shown(at);
        let (dir, name) = self.parent(at)?;
        open_regular(dir, name)
            .map(Into::into)
            .map_err(LayerError::os("open", shown))
    }

    /// Forgets the open directory, for when it may have been removed.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

/// Opens what must be a regular file: never follows a link, never waits for a pipe.
pub(super) fn open_regular(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Opens a directory for reading.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// The names in a directory, sorted by their bytes.
pub(super) fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for item in Dir::read_from(dir)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What a name is, without following it.
pub(super) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Stat> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes overlay's mark for a deletion.
pub(super) fn make_whiteout(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Access and modification time, both whole seconds.
pub fn both_times(mtime: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Sets a name's modification time only.
pub(super) fn set_mtime(dir: BorrowedFd<'_>, name: &[u8], mtime: i64) -> rustix::io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime,
            tv_nsec: 0,
        },
    };
    fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// The names of a descriptor's attributes. None where the file system has none.
pub(super) fn xattr_names(file: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let size = match fs::flistxattr_query(file) {
        Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(size) => size,
        Err(error) => return Err(error),
    };
    let mut list = vec![0_u8; size.min(MOST_XATTR)];
    let length = fs::flistxattr(file, &mut list[..])?;
    Ok(split_names(&list[..length]))
}

/// As [`xattr_names`], of a path whose last part is not followed.
pub(super) fn link_xattr_names(path: &Path) -> rustix::io::Result<Vec<Vec<u8>>> {
    let size = match fs::llistxattr_query(path) {
        Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(size) => size,
        Err(error) => return Err(error),
    };
    let mut list = vec![0_u8; size.min(MOST_XATTR)];
    let length = fs::llistxattr(path, &mut list[..])?;
    Ok(split_names(&list[..length]))
}

fn split_names(list: &[u8]) -> Vec<Vec<u8>> {
    let names = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    names.map(<[u8]>::to_vec).collect()
}

/// The value of an attribute, if it is there.
pub(super) fn xattr(file: BorrowedFd<'_>, name: &str) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 256];
    loop {
        match fs::fgetxattr(file, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(rustix::io::Errno::RANGE) if value.len() < MOST_XATTR => {
                value.resize(MOST_XATTR, 0);
            }
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}
