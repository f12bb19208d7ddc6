//! Claims: who runs a step runs it alone, on this machine.
//!
//! A claim is an flock on `claims/KEY`. It ends when the last descriptor of it is closed: this process hands a
//! duplicate to the step's sandbox, so that the claim outlives a killed builder for as long as the step does.
//!
//! # Unlink races
//!
//! Lock files are deleted only under the exclusive store lock, but a name may still have changed hands between open and
//! lock when a store is deleted and made anew. So after locking, name and descriptor must be the same file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::digest::CacheKey;
use crate::io::{Attempt, IoError, make_private_dir};
use crate::root::StatePaths;

/// First and longest pause between two looks at a lock held by somebody else. flock cannot be waited for and cancelled
/// at once without signals; a step takes milliseconds at least, so these pauses cost little.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// What to do while somebody else has the lock.
#[derive(Clone, Copy, Debug)]
pub enum Wait<'a> {
    /// Give up at once.
    Never,
    /// Wait until the flag is set.
    UntilCanceled(&'a AtomicBool),
}

impl Wait<'_> {
    /// Pauses, longer each time; false if waiting is over. `pause` is [`FIRST_PAUSE`] at first.
    pub(crate) fn pause(self, pause: &mut Duration) -> bool {
        match self {
            Self::Never => return false,
            Self::UntilCanceled(flag) if flag.load(Ordering::Relaxed) => return false,
            Self::UntilCanceled(_) => std::thread::sleep(*pause),
        }
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// The right to run a step; given back when dropped.
#[derive(Debug)]
#[must_use = "a dropped claim is given back"]
pub struct Claim {
    file: File,
}

impl Claim {
    /// Claims a key. `None` if somebody else has it and waiting is over.
    pub fn acquire(
        paths: &StatePaths,
        key: &CacheKey,
        wait: Wait<'_>,
    ) -> Result<Option<Self>, IoError> {
        let file = lock_file(&paths.claim(key), LockMode::Exclusive, wait)?;
        Ok(file.map(|file| Self { file }))
    }
}

impl AsFd for Claim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How a file is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockMode {
    /// Together with others.
    Shared,
    /// Alone.
    Exclusive,
}

/// Opens and locks a file that may be unlinked by others at any time.
pub(crate) fn lock_file(
    path: &Path,
    mode: LockMode,
    wait: Wait<'_>,
) -> Result<Option<File>, IoError> {
    loop {
        let file = open_lock_file(path)?;
        if !lock(&file, path, mode, wait)? {
            return Ok(None);
        }
        if names_same_file(path, &file)? {
            return Ok(Some(file));
        }
    }
}

pub(crate) fn open_lock_file(path: &Path) -> Result<File, IoError> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_private_dir(path.parent().unwrap_or(Path::new("/")))?;
            open().attempt("open", path)
        }
        opened => opened.attempt("open", path),
    }
}

/// Locks an open file; false if waiting is over.
pub(crate) fn lock(
    file: &File,
    path: &Path,
    mode: LockMode,
    wait: Wait<'_>,
) -> Result<bool, IoError> {
    let attempt = match mode {
        LockMode::Shared => FlockOperation::NonBlockingLockShared,
        LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        match flock_now(file, attempt) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => return Err(errno).attempt("lock", path),
        }
        if !wait.pause(&mut pause) {
            return Ok(false);
        }
    }
}

fn flock_now(file: &File, operation: FlockOperation) -> rustix::io::Result<()> {
    #[cfg(test)]
    let _none_starts = starting::STARTS.read();
    flock(file, operation)
}

/// Starts processes of tests.
///
/// Between fork and exec a process has every descriptor of its parent, and with them the locks that other tests, in other
/// threads, give back and take again at once.
#[cfg(test)]
pub(crate) mod starting {
    use std::process::{Child, Command};
    use std::sync::RwLock;

    pub(super) static STARTS: RwLock<()> = RwLock::new(());

    /// Starts a process while no lock is tried.
    pub(crate) fn start(command: &mut Command) -> Child {
        let _alone = STARTS.write();
        // Returns when the process has come to exec.
        command.spawn().unwrap()
    }
}

/// Whether a name still is the file that was opened under it.
pub(crate) fn names_same_file(path: &Path, file: &File) -> Result<bool, IoError> {
    let ours = file.metadata().attempt("examine", path)?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).attempt("examine", path),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn a_claim_excludes_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let key = CacheKey([1; 32]);
        let first = Claim::acquire(&paths, &key, Wait::Never).unwrap().unwrap();
        assert!(Claim::acquire(&paths, &key, Wait::Never).unwrap().is_none());
        let other = CacheKey([2; 32]);
        assert!(
            Claim::acquire(&paths, &other, Wait::Never)
                .unwrap()
                .is_some()
        );

        let handed_on = first.as_fd().try_clone_to_owned().unwrap();
        drop(first);
        let canceled = AtomicBool::new(true);
        let wait = Wait::UntilCanceled(&canceled);
        assert!(
            Claim::acquire(&paths, &key, wait).unwrap().is_none(),
            "the duplicate holds it"
        );
        drop(handed_on);
        assert!(Claim::acquire(&paths, &key, Wait::Never).unwrap().is_some());
    }

    #[test]
    fn a_deleted_lock_file_does_not_let_two_in() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Arc::new(StatePaths::new(dir.path()));
        let key = CacheKey([3; 32]);
        let inside = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (paths, inside) = (Arc::clone(&paths), Arc::clone(&inside));
                std::thread::spawn(move || {
                    let never = AtomicBool::new(false);
                    for _ in 0..20 {
                        let wait = Wait::UntilCanceled(&never);
                        let claim = Claim::acquire(&paths, &key, wait).unwrap().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        // Whoever holds the lock may delete the file; with the name the claim is over.
                        fs::remove_file(paths.claim(&key)).unwrap();
                        drop(claim);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
