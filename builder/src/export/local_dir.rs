//! The image's file system in a directory of the user (`--output type=local`).
//!
//! Everything belongs to the user who builds. What is in the directory stays, unless an entry of the image has its name:
//! then it is replaced, whatever it is; only a directory is kept where the image has one.
//!
//! Every operation is relative to a descriptor of the parent and follows no symbolic link, so nothing outside the
//! directory is ever touched, whatever links the image or the directory have. A file gets its name when it is complete.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cache::layer::tree::both_times;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::activity::Activity;
use super::destination::Output;
use super::{ExportError, ExportReport, Exporter, FlatEntry, FlatKind, FlatTree, Source, tar};
use crate::progress::event::Event;
use crate::progress::sink::EventSink;

/// Bytes after which progress is told again.
const TELL_EVERY: u64 = 4 << 20;

/// Exports into a directory.
#[derive(Debug)]
pub struct LocalDir {
    /// Which; made if need be.
    pub directory: PathBuf,
}

impl Exporter for LocalDir {
    fn export(
        &self,
        source: &Source<'_>,
        events: &dyn EventSink,
    ) -> Result<ExportReport, ExportError> {
        let name = "exporting to client directory";
        Activity::run(events, name, source.output, |activity| {
            let mut writer = Writer::open(&self.directory, source.tree)?;
            activity.status("copying files", 0, 0, false);
            let (mut copied, mut told) = (0, 0);
            for entry in source.tree.entries().map_err(ExportError::Tree)? {
                copied += writer.write(&entry.map_err(ExportError::Tree)?)?;
                if copied - told >= TELL_EVERY {
                    told = copied;
                    activity.status("copying files", copied, 0, false);
                }
            }
            writer.finish()?;
            activity.status("copying files", copied, copied, true);
            if writer.skipped_devices > 0 {
                events.emit(Event::Warning {
                    vertex: None,
                    message: format!(
                        "{} device files were not exported to {}: only root can make them",
                        writer.skipped_devices,
                        self.directory.display()
                    ),
                });
            }
            Ok(ExportReport::default())
        })
    }
}

/// A directory being filled; its own mode and time are set when all in it is written.
struct Open {
    fd: OwnedFd,
    path: Vec<u8>,
    mode: u32,
    mtime: i64,
}

struct Writer<'a> {
    tree: &'a dyn FlatTree,
    directory: &'a Path,
    root: OwnedFd,
    /// From the first directory below the root down to that of the entry before.
    open: Vec<Open>,
    /// Name under which files are made.
    temporary: String,
    skipped_devices: usize,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl<'a> Writer<'a> {
    fn open(directory: &'a Path, tree: &'a dyn FlatTree) -> Result<Self, ExportError> {
        super::archive::ensure_directory(directory)?;
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let root = rustix::fs::openat(CWD, directory, flags, Mode::empty())
            .map_err(|error| ExportError::file("open", directory)(error.into()))?;
        Ok(Self {
            tree,
            directory,
            root,
            open: Vec::new(),
            temporary: format!(".build-export-{}", rustix::process::getpid().as_raw_pid()),
            skipped_devices: 0,
        })
    }

    /// Writes an entry; gives the number of its bytes.
    fn write(&mut self, entry: &FlatEntry) -> Result<u64, ExportError> {
        let (parent, name) = split(&entry.path).ok_or_else(|| ExportError::Entry {
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            problem: "it is no path below the root",
        })?;
        while let Some(top) = self.open.last() {
            if top.path == parent {
                break;
            }
            self.close_top()?;
        }
        if self.open.last().map_or(&b""[..], |top| &top.path) != parent {
            return Err(ExportError::Entry {
                path: String::from_utf8_lossy(&entry.path).into_owned(),
                problem: "its directory does not come before it",
            });
        }
        let written = match &entry.kind {
            FlatKind::Directory => self.enter(entry, name).map(|()| 0),
            FlatKind::File { size } => return self.write_file(entry, name, *size),
            FlatKind::HardLink { target } => self.link(target, name).map(|()| 0),
            FlatKind::Symlink { .. }
            | FlatKind::CharDevice { .. }
            | FlatKind::BlockDevice { .. }
            | FlatKind::Fifo => self.write_special(entry, name).map(|()| 0),
        };
        written.map_err(|error| self.failed("create", &entry.path)(error))
    }

    /// The directory that the entry at hand is in.
    fn here(&self) -> BorrowedFd<'_> {
        self.open
            .last()
            .map_or(self.root.as_fd(), |top| top.fd.as_fd())
    }

    fn failed(
        &self,
        attempt: &'static str,
        path: &[u8],
    ) -> impl FnOnce(Errno) -> ExportError + use<> {
        let path = self.directory.join(as_path(path));
        move |error| ExportError::file(attempt, path)(error.into())
    }

    fn enter(&mut self, entry: &FlatEntry, name: &[u8]) -> Result<(), Errno> {
        let here = self.here();
        match rustix::fs::mkdirat(here, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let found = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
                    rustix::fs::unlinkat(here, name, AtFlags::empty())?;
                    rustix::fs::mkdirat(here, name, Mode::RWXU)?;
                }
            }
            result => result?,
        }
        let fd = rustix::fs::openat(here, name, DIRECTORY, Mode::empty())?;
        rustix::fs::fchmod(&fd, Mode::RWXU)?;
        self.open.push(Open {
            fd,
            path: entry.path.clone(),
            mode: entry.mode,
            mtime: entry.mtime,
        });
        Ok(())
    }

    fn close_top(&mut self) -> Result<(), ExportError> {
        let Some(top) = self.open.pop() else {
            return Ok(());
        };
        rustix::fs::fchmod(&top.fd, Mode::from_raw_mode(top.mode))
            .and_then(|()| rustix::fs::futimens(&top.fd, &both_times(top.mtime)))
            .map_err(self.failed("set mode and time of", &top.path))
    }

    fn finish(&mut self) -> Result<(), ExportError> {
        while !self.open.is_empty() {
            self.close_top()?;
        }
        Ok(())
    }

    fn write_file(&self, entry: &FlatEntry, name: &[u8], size: u64) -> Result<u64, ExportError> {
        let path = self.directory.join(as_path(&entry.path));
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.clear_temporary()
            .and_then(|()| {
                let mode = Mode::RUSR | Mode::WUSR;
                rustix::fs::openat(self.here(), &*self.temporary, flags, mode)
            })
            .map_err(self.failed("create", &entry.path))
            .and_then(|fd| {
                let mut file = File::from(fd);
                tar::copy_file(self.tree, entry, size, &mut Output::file(&mut file, &path))?;
                complete(&file, entry)
                    .and_then(|()| self.publish(name))
                    .map_err(self.failed("create", &entry.path))
            })
            .inspect_err(|_| {
                // The first error is the one to tell.
                self.clear_temporary().unwrap_or_default();
            })?;
        Ok(size)
    }

    fn link(&self, target: &[u8], name: &[u8]) -> Result<(), Errno> {
        let (parent, file) = split(target).ok_or(Errno::INVAL)?;
        let mut directory = rustix::io::dup(&self.root)?;
        for part in parent.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            directory = rustix::fs::openat(&directory, part, DIRECTORY, Mode::empty())?;
        }
        self.clear_temporary()?;
        let flags = AtFlags::empty();
        rustix::fs::linkat(&directory, file, self.here(), &*self.temporary, flags)?;
        self.publish(name)?;
        // Renaming one name of a file to another of the same file does nothing, not even remove the first.
        self.clear_temporary()
    }

    fn write_special(&mut self, entry: &FlatEntry, name: &[u8]) -> Result<(), Errno> {
        self.clear_temporary()?;
        let mode = Mode::from_raw_mode(entry.mode);
        let make =
            |kind, device| rustix::fs::mknodat(self.here(), &*self.temporary, kind, mode, device);
        let made = match &entry.kind {
            FlatKind::Symlink { target } => {
                rustix::fs::symlinkat(target.as_slice(), self.here(), &*self.temporary)
            }
            FlatKind::CharDevice { major, minor } => make(
                FileType::CharacterDevice,
                rustix::fs::makedev(*major, *minor),
            ),
            FlatKind::BlockDevice { major, minor } => {
                make(FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
            }
            FlatKind::Fifo => make(FileType::Fifo, 0),
            FlatKind::Directory | FlatKind::File { .. } | FlatKind::HardLink { .. } => {
                Err(Errno::INVAL)
            }
        };
        match (made, &entry.kind) {
            (Err(Errno::PERM), FlatKind::CharDevice { .. } | FlatKind::BlockDevice { .. }) => {
                self.skipped_devices += 1;
                return Ok(());
            }
            (made, FlatKind::Symlink { .. }) => made?,
            (made, _not_a_link) => {
                made?;
                // The umask took bits away.
                rustix::fs::chmodat(self.here(), &*self.temporary, mode, AtFlags::empty())?;
            }
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(
            self.here(),
            &*self.temporary,
            &both_times(entry.mtime),
            flags,
        )?;
        self.publish(name)
    }

    /// Gives what has the temporary name its own.
    fn publish(&self, name: &[u8]) -> Result<(), Errno> {
        let rename = || rustix::fs::renameat(self.here(), &*self.temporary, self.here(), name);
        match rename() {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                remove_tree(self.here(), name)?;
                rename()
            }
            result => result,
        }
    }

    /// Removes what a killed export with our process id left.
    fn clear_temporary(&self) -> Result<(), Errno> {
        match rustix::fs::unlinkat(self.here(), &*self.temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn complete(file: &File, entry: &FlatEntry) -> Result<(), Errno> {
    if let Some(capability) = &entry.capability {
        let flags = XattrFlags::empty();
        match rustix::fs::fsetxattr(file, "security.capability", capability, flags) {
            // Without privilege, or on a file system without them, the user gets the file without.
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    rustix::fs::futimens(file, &both_times(entry.mtime))
}

/// Removes a directory and what is in it, following no links.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let fd = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    let mut children = Vec::new();
    for child in rustix::fs::Dir::read_from(&fd)? {
        let child = child?;
        let name = child.file_name().to_bytes();
        if name != b"." && name != b".." {
            children.push(name.to_vec());
        }
    }
    for child in children {
        match rustix::fs::unlinkat(&fd, &*child, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove_tree(fd.as_fd(), &child)?,
            result => result?,
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn as_path(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// Parent and name of a path that stays below the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_part = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    if !path.split(|b| *b == b'/').all(is_part) {
        return None;
    }
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => Some((&path[..at], &path[at + 1..])),
        None => Some((b"", path)),
    }
}

#[cfg(test)]
mod tests;
