//! Mirrors: bare git repositories that objects of a remote were fetched into, shared by all builds with that remote.
//!
//! # Layout
//!
//! ```text
//! git/HEX/                the repository of the remote whose address has this hash; what is in it is git's business
//! git/HEX.lock            flock of who uses it; its time of change is the time of last use
//! ```
//!
//! A mirror that nobody has locked may go: what was in it is fetched again. Its lock stays.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};

use crate::claim::{LockMode, Wait, lock_file};
use crate::digest::hex;
use crate::io::{Attempt, IoError};
use crate::root::StatePaths;

/// A mirror that is in use; given back when dropped.
#[derive(Debug)]
pub struct Mirror {
    path: PathBuf,
    _lock: File,
}

impl Mirror {
    /// Locks the mirror of a remote. `None` if waiting for others was cancelled.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn acquire(
        paths: &StatePaths,
        remote: &str,
        wait: Wait<'_>,
    ) -> Result<Option<Self>, IoError> {
        let path = paths
            .git()
            .join(hex(&blake3::hash(remote.as_bytes()).as_bytes()[..16]));
        let lock_path = lock_of(&path);
        let Some(lock) = lock_file(&lock_path, LockMode::Exclusive, wait)? else {
            return Ok(None);
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        futimens(&lock, &times).attempt("set time of", &lock_path)?;
        Ok(Some(Self { path, _lock: lock }))
    }

    /// The directory; there may be none yet.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The lock of a mirror.
pub(crate) fn lock_of(mirror: &Path) -> PathBuf {
    mirror.with_extension("lock")
}

/// Takes a mirror away that nobody uses, by moving it into the directory `trash`.
pub(crate) fn discard(mirror: &Path, trash: &Path) -> Result<(), IoError> {
    let lock_path = lock_of(mirror);
    let Some(_lock) = lock_file(&lock_path, LockMode::Exclusive, Wait::Never)? else {
        return Ok(());
    };
    let name = mirror.file_name().unwrap_or_default();
    match fs::rename(mirror, trash.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => moved.attempt("remove", mirror),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_goes_when_nobody_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let trash = dir.path().join("trash");
        fs::create_dir(&trash).unwrap();
        let mirror = Mirror::acquire(&paths, "https://a/b", Wait::Never);
        let mirror = mirror.unwrap().unwrap();
        let path = mirror.path().to_owned();
        fs::create_dir(&path).unwrap();
        let again = Mirror::acquire(&paths, "https://a/b", Wait::Never).unwrap();
        assert!(again.is_none());
        let other = Mirror::acquire(&paths, "https://a/c", Wait::Never).unwrap();
        assert_ne!(other.unwrap().path(), path);
        discard(&path, &trash).unwrap();
        assert!(path.exists(), "in use");
        drop(mirror);
        discard(&path, &trash).unwrap();
        assert!(!path.exists());
        discard(&path, &trash).unwrap();
    }
}
