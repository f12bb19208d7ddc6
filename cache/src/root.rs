//! Opening and laying out the state directory. Names of files under it are built here and nowhere else.
//!
//! Opening is a handful of system calls: directories below the root are made by whoever first writes into them, and
//! nothing is synced.
//!
//! # Trust
//!
//! What the store says is believed, so nobody else may write it: the root must belong to the effective user and be
//! writable by nobody else.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, accessat, flock};

use crate::digest::{CacheKey, DiffId, Digest};
use crate::io::{
    Attempt, IoError, keep_apart, make_private_dir, names_in, read_if_present, write_whole,
};

/// What `format` holds. Changing the layout in a way that older programs misread means another number.
const FORMAT: &str = "build-store 1\n";

/// How a process holds the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreLock {
    /// Together with any number of others: building.
    #[default]
    Shared,
    /// Alone, waiting for the others to end: deleting lock files.
    Exclusive,
}

/// How to open a state directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct RootOptions {
    /// How to hold it.
    pub lock: StoreLock,
}

/// An opened state directory, locked for the life of this value.
#[derive(Debug)]
pub struct StateRoot {
    paths: StatePaths,
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It is something else than a directory.
    #[error("the state directory `{0}` is not a directory; set BUILD_ROOT to another path")]
    NotADirectory(PathBuf),
    /// Others could put things into it.
    #[error(
        "the state directory `{path}` can be written by others (mode {mode:04o}); run `chmod go-w {path}` or set BUILD_ROOT"
    )]
    WritableByOthers {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error(
        "the state directory `{path}` belongs to user {owner}, not to user {user}; set BUILD_ROOT to a directory of your own"
    )]
    ForeignOwner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// This process may not write it.
    #[error(
        "the state directory `{path}` cannot be written; make it writable or set BUILD_ROOT to another path"
    )]
    NotWritable {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It holds files of something else.
    #[error(
        "`{path}` is not a state directory: it has files (`{found}`) but no `format`; set BUILD_ROOT to an empty directory"
    )]
    NotAStore {
        /// Which.
        path: PathBuf,
        /// One of its files.
        found: String,
    },
    /// Another version of the program wrote it.
    #[error(
        "the state directory `{path}` has format `{found}`, this program knows `{}`; use the program that wrote it, or remove the directory, or set BUILD_ROOT",
        FORMAT.trim_end()
    )]
    UnknownFormat {
        /// Which.
        path: PathBuf,
        /// What its format file says.
        found: String,
    },
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl StateRoot {
    /// Opens a state directory, making it (mode 0700, parents too) if it is missing. Waits for the lock.
    pub fn open(path: &Path, options: &RootOptions) -> Result<Self, RootError> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_private_dir(path).map_err(|error| cannot_make(path, error))?;
                fs::metadata(path).attempt("open", path)?
            }
            Err(error) => return Err(error).attempt("open", path)?,
        };
        check_access(path, &metadata)?;
        let paths = StatePaths::new(path);
        check_format(&paths)?;
        let lock = open_lock(&paths, options.lock)?;
        Ok(Self { paths, _lock: lock })
    }

    /// Where everything lies.
    pub fn paths(&self) -> &StatePaths {
        &self.paths
    }
}

fn cannot_make(path: &Path, error: IoError) -> RootError {
    match error.source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            RootError::NotWritable {
                path: path.to_owned(),
                source: error.source,
            }
        }
        _ => error.into(),
    }
}

fn check_access(path: &Path, metadata: &fs::Metadata) -> Result<(), RootError> {
    let path = path.to_owned();
    if !metadata.is_dir() {
        return Err(RootError::NotADirectory(path));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        let owner = metadata.uid();
        return Err(RootError::ForeignOwner { path, owner, user });
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(RootError::WritableByOthers { path, mode });
    }
    accessat(
        CWD,
        &path,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(|errno| RootError::NotWritable {
        path,
        source: errno.into(),
    })
}

/// What may lie in a directory that is to become a store: what another process makes first, what file systems make, and
/// what a process that looks after a store leaves behind if the store is deleted under it. `SQLite` discards a log that
/// is older than its database.
const RESIDUE: [&str; 8] = [
    "format",
    "lock",
    "lost+found",
    "gate",
    "usage",
    "unsynced",
    "db.sqlite-wal",
    "db.sqlite-shm",
];

fn check_format(paths: &StatePaths) -> Result<(), RootError> {
    let path = paths.root().to_owned();
    match read_if_present(&paths.format())? {
        Some(found) if found == FORMAT.as_bytes() => Ok(()),
        Some(found) => Err(RootError::UnknownFormat {
            path,
            found: String::from_utf8_lossy(&found[..found.len().min(80)])
                .trim_end()
                .to_owned(),
        }),
        None => {
            let stranger = names_in(paths.root())?
                .into_iter()
                .find(|name| !name.to_str().is_some_and(|name| RESIDUE.contains(&name)));
            if let Some(found) = stranger {
                if paths.format().exists() {
                    return check_format(paths);
                }
                let found = found.to_string_lossy().into_owned();
                return Err(RootError::NotAStore { path, found });
            }
            keep_apart(paths.root());
            Ok(write_whole(&paths.format(), FORMAT.as_bytes())?)
        }
    }
}

fn open_lock(paths: &StatePaths, lock: StoreLock) -> Result<File, RootError> {
    let path = paths.lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .attempt("open", &path)?;
    let operation = match lock {
        StoreLock::Shared => FlockOperation::LockShared,
        StoreLock::Exclusive => FlockOperation::LockExclusive,
    };
    flock(&file, operation).attempt("lock", &path)?;
    Ok(file)
}

/// Where everything lies. Plain data: makes no file and takes no lock.
#[derive(Clone, Debug)]
pub struct StatePaths {
    root: PathBuf,
}

impl StatePaths {
    /// Takes the state directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The state directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `blobs/sha256`
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// A blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// `layers`
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The folder of a layer.
    pub fn layer(&self, diff_id: &DiffId) -> PathBuf {
        self.layers().join(diff_id.0.hex())
    }

    /// `trees`: working directory of overlay mounts.
    pub fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    /// `work`
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// `tags`
    pub fn tags(&self) -> PathBuf {
        self.root.join("tags")
    }

    /// `references`: what registries last said.
    pub fn references(&self) -> PathBuf {
        self.root.join("references")
    }

    /// `sources`: where layers can be had.
    pub fn sources(&self) -> PathBuf {
        self.root.join("sources")
    }

    /// `chunks`
    pub fn chunks(&self) -> PathBuf {
        self.root.join("chunks")
    }

    /// `contexts`
    pub fn contexts(&self) -> PathBuf {
        self.root.join("contexts")
    }

    /// `cache-mounts`
    pub fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    /// `git`: repositories that sources were fetched into.
    pub fn git(&self) -> PathBuf {
        self.root.join("git")
    }

    /// `leases`
    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// `unsynced`: what was made since the disk was last waited for.
    pub fn unsynced(&self) -> PathBuf {
        self.root.join("unsynced")
    }

    /// `logs`
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Lock file of a step being run.
    pub fn claim(&self, key: &CacheKey) -> PathBuf {
        self.root.join("claims").join(key.hex())
    }

    /// `claims`
    pub fn claims(&self) -> PathBuf {
        self.root.join("claims")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("db.sqlite")
    }

    /// The format version.
    pub fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    /// Held shared while a lease pins something, alone while a collection removes what nobody pins.
    pub fn gate(&self) -> PathBuf {
        self.root.join("gate")
    }

    /// How big the store was when it was last measured.
    pub fn usage(&self) -> PathBuf {
        self.root.join("usage")
    }

    /// The store lock.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Under what circumstances a step last worked here, in the words of whoever wrote it.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read.
    pub fn read_isolation(&self) -> Result<Option<Vec<u8>>, IoError> {
        read_if_present(&self.root.join("isolation"))
    }

    /// Notes under what circumstances a step worked here.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write_isolation(&self, circumstances: &[u8]) -> Result<(), IoError> {
        write_whole(&self.root.join("isolation"), circumstances)
    }
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
