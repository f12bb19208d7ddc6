//! A directory of the client, read where it lies.
//!
//! Nothing is copied or listed ahead: callers ask for paths, and only those are touched. Every path is opened relative to
//! the root's descriptor and no symlink is followed on the way (callers resolve links themselves, inside the root), so a
//! path that somebody swaps for a symlink is an error and never a way out.
//!
//! Paths are bytes relative to the root, without leading slash, `.` or `..`; the root is empty.
//!
//! # What is left out
//!
//! Ignored paths do not exist here. An ignored directory does exist if something below it is taken back in by an
//! exception. Owners are not told: files of a context arrive as 0:0.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cache::checksum::file::{HashError, hash_opened_while};
use cache::checksum::stat_cache::{FileStat, StatCache};
use cache::digest::ContentDigest;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, major, minor, openat, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;

/// Which paths of a directory are ignored. Implemented for the rules of `.dockerignore` by whoever reads them.
pub trait Excludes: Send + Sync {
    /// Whether a path is ignored.
    fn is_excluded(&self, path: &str) -> bool;

    /// Whether a directory and everything below it is ignored.
    fn can_skip_directory(&self, path: &str) -> bool;

    /// Why a path is ignored, such as ``.dockerignore:3 (`dist`)``.
    fn why(&self, path: &str) -> Option<String>;
}

/// Ignores nothing.
#[derive(Clone, Copy, Debug)]
pub struct ExcludeNothing;

impl Excludes for ExcludeNothing {
    fn is_excluded(&self, _path: &str) -> bool {
        false
    }

    fn can_skip_directory(&self, _path: &str) -> bool {
        false
    }

    fn why(&self, _path: &str) -> Option<String> {
        None
    }
}

/// What a path of a context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextEntry {
    /// Its type.
    pub kind: ContextKind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Whether the file has other names.
    pub has_other_names: bool,
    /// Everything that tells this version of it from others.
    pub stat: FileStat,
}

/// A regular file of a context that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashedFile {
    /// Digest of the bytes.
    pub content: ContentDigest,
    /// The version that was hashed.
    pub stat: FileStat,
    /// Whether any other version has another stat. A file that was written just before may be written again within the
    /// same tick of the clock.
    pub is_settled: bool,
}

/// The type of a path of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link with its text.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Why a context could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory itself.
    #[error("cannot open the directory `{path}`")]
    Root {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something in it.
    #[error("cannot {attempt} `{}`", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what, with the directory in front.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file could not be hashed.
    #[error("cannot read `{}`", path.display())]
    Hash {
        /// Which, with the directory in front.
        path: PathBuf,
        /// Why.
        #[source]
        source: HashError,
    },
}

/// A directory of the client.
pub struct ContextDir {
    path: PathBuf,
    root: OwnedFd,
    /// Of the root.
    device: u64,
    excludes: Box<dyn Excludes>,
    cache: StatCache,
}

impl std::fmt::Debug for ContextDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContextDir")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl ContextDir {
    /// Opens a directory.
    pub fn open(
        path: &Path,
        excludes: Box<dyn Excludes>,
        cache: StatCache,
    ) -> Result<Self, ContextError> {
        let opened = openat(
            rustix::fs::CWD,
            path,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|root| Ok((fstat(&root)?.st_dev, root)));
        let (device, root) = opened.map_err(|errno| ContextError::Root {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            root,
            device,
            excludes,
            cache,
        })
    }

    /// The digests of this context's files, to be saved when the build has used them.
    pub fn stat_cache(&self) -> &StatCache {
        &self.cache
    }

    /// Why a path does not exist here although the directory has it.
    pub fn why_excluded(&self, path: &[u8]) -> Option<String> {
        self.excludes.why(&String::from_utf8_lossy(path))
    }

    /// What is at a path, without following a symlink at its end.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<ContextEntry>, ContextError> {
        if path.is_empty() {
            let stat = fstat(&self.root).map_err(self.fail("examine", path))?;
            return self.entry(&self.root, b".", path, &stat);
        }
        let (parent, name) = split(path);
        let directory = match self.open_inside(parent, OFlags::DIRECTORY | OFlags::PATH) {
            Ok(directory) => directory,
            Err(errno) if is_absent(errno) => return Ok(None),
            Err(errno) => return Err(self.fail("examine", path)(errno)),
        };
        match statat(
            &directory,
            OsStr::from_bytes(name),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(stat) if self.is_visible(path, &stat)? => self.entry(&directory, name, path, &stat),
            Ok(_) => Ok(None),
            Err(errno) if is_absent(errno) => Ok(None),
            Err(errno) => Err(self.fail("examine", path)(errno)),
        }
    }

    /// What a directory holds, sorted by the bytes of the names.
    pub fn children(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, ContextEntry)>, ContextError> {
        let mut children = Vec::new();
        let directory = self
            .open_inside(path, OFlags::DIRECTORY | OFlags::RDONLY)
            .map_err(self.fail("list", path))?;
        for name in self.names(&directory, path)? {
            let child = join(path, &name);
            let found = statat(
                &directory,
                OsStr::from_bytes(&name),
                AtFlags::SYMLINK_NOFOLLOW,
            );
            let stat = match found {
                Ok(stat) => stat,
                // Deleted since it was listed: as if it had been before.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.fail("examine", &child)(errno)),
            };
            if self.is_visible(&child, &stat)?
                && let Some(entry) = self.entry(&directory, &name, &child, &stat)?
            {
                children.push((name, entry));
            }
        }
        Ok(children)
    }

    /// The digest of a regular file, and the version of the file it belongs to.
    pub fn digest(&self, path: &[u8], stat: &FileStat) -> Result<HashedFile, ContextError> {
        if let Some(content) = self.cache.get(stat) {
            return Ok(HashedFile {
                content,
                stat: *stat,
                is_settled: true,
            });
        }
        let (content, stat) = self.hash(path, &|| true)?;
        Ok(HashedFile {
            content,
            stat,
            // The cache keeps only what a later write cannot leave looking the same.
            is_settled: self.cache.get(&stat) == Some(content),
        })
    }

    fn hash(
        &self,
        path: &[u8],
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(ContentDigest, FileStat), ContextError> {
        let open = || {
            let file = self.open_inside(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
            Ok(File::from(file))
        };
        hash_opened_while(open, &self.cache, is_wanted).map_err(|source| ContextError::Hash {
            path: self.shown(path),
            source,
        })
    }

    /// Hashes a regular file for a later [`Self::digest`] of the same version, as long as `is_wanted` says so; not if that
    /// would have to read it again.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not wanted any more.
    pub fn digest_ahead(
        &self,
        path: &[u8],
        stat: &FileStat,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), ContextError> {
        let is_of_use = stat.device == self.device && self.cache.keeps(stat, &self.root);
        if is_of_use && self.cache.get(stat).is_none() {
            self.hash(path, is_wanted)?;
        }
        Ok(())
    }

    /// Opens a regular file.
    pub fn open_file(&self, path: &[u8]) -> Result<File, ContextError> {
        self.open_inside(path, OFlags::RDONLY | OFlags::NONBLOCK)
            .map(File::from)
            .map_err(self.fail("open", path))
    }

    /// Whether a path exists as far as the build is concerned.
    fn is_visible(&self, path: &[u8], stat: &Stat) -> Result<bool, ContextError> {
        let text = String::from_utf8_lossy(path);
        if !self.excludes.is_excluded(&text) {
            return Ok(true);
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory
            || self.excludes.can_skip_directory(&text)
        {
            return Ok(false);
        }
        let directory = self
            .open_inside(path, OFlags::DIRECTORY | OFlags::RDONLY)
            .map_err(self.fail("list", path))?;
        for name in self.names(&directory, path)? {
            let found = statat(
                &directory,
                OsStr::from_bytes(&name),
                AtFlags::SYMLINK_NOFOLLOW,
            );
            let Ok(stat) = found else {
                continue;
            };
            if self.is_visible(&join(path, &name), &stat)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn names(&self, directory: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, ContextError> {
        let mut names = Vec::new();
        let listed = Dir::read_from(directory).map_err(self.fail("list", path))?;
        for entry in listed {
            let entry = entry.map_err(self.fail("list", path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn entry(
        &self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<Option<ContextEntry>, ContextError> {
        let device = || (major(stat.st_rdev), minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => ContextKind::Directory,
            FileType::RegularFile => ContextKind::File,
            FileType::Symlink => match readlinkat(directory, OsStr::from_bytes(name), Vec::new()) {
                Ok(target) => ContextKind::Symlink(target.into_bytes()),
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(self.fail("read the link", path)(errno)),
            },
            FileType::CharacterDevice => ContextKind::CharDevice(device().0, device().1),
            FileType::BlockDevice => ContextKind::BlockDevice(device().0, device().1),
            FileType::Fifo => ContextKind::Fifo,
            FileType::Socket => ContextKind::Socket,
            FileType::Unknown => return Ok(None),
        };
        Ok(Some(ContextEntry {
            has_other_names: kind == ContextKind::File && stat.st_nlink > 1,
            kind,
            mode: stat.st_mode & 0o7777,
            stat: FileStat::from(stat),
        }))
    }

    /// Opens a path below the root without following any symlink.
    fn open_inside(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let whole = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(
            &self.root,
            OsStr::from_bytes(whole),
            flags,
            Mode::empty(),
            resolve,
        ) {
            // Kernels before 5.6 and seccomp filters that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.open_by_steps(whole, flags),
            opened => opened,
        }
    }

    fn open_by_steps(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let on_the_way = OFlags::DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut current: Option<OwnedFd> = None;
        let mut names = path.split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            let flags = if names.peek().is_some() {
                on_the_way
            } else {
                flags
            };
            let below = current.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            current = Some(openat(
                below,
                OsStr::from_bytes(name),
                flags,
                Mode::empty(),
            )?);
        }
        current.ok_or(Errno::NOENT)
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    fn fail(&self, attempt: &'static str, path: &[u8]) -> impl Fn(Errno) -> ContextError {
        move |errno| ContextError::Io {
            attempt,
            path: self.shown(path),
            source: errno.into(),
        }
    }
}

fn is_absent(errno: Errno) -> bool {
    // A symlink on the way was not there when the caller resolved the path: then the path is not there.
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        return name.to_vec();
    }
    [directory, b"/", name].concat()
}

#[cfg(test)]
mod tests;
