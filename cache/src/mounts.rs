//! Cache mounts: directories that outlive builds, shared by steps in one of three ways.
//!
//! # Layout
//!
//! ```text
//! cache-mounts/HASH/      one folder an identity (id, first content, owner, mode: the caller's text)
//!   lock                    flock, held while directories are made or given up; shared, while it is asked which are used
//!   current                 the number of the first directory in use; 0 if missing
//!   N/                      a directory
//!   N.lock                  flock of its users: shared or exclusive
//!   N.ready                 its first content is complete
//! ```
//!
//! Users that share take `current` with a shared lock, users that lock it take it with an exclusive one, private users
//! take the first directory from `current` on that nobody uses, and make one if there is none. Starting empty makes a
//! new directory the current one; later builds go on with it.
//!
//! # Concurrency
//!
//! All directories of a step are locked in the order of their identities, so two steps never wait for each other. The
//! locks can be handed to the step's sandbox: a directory stays locked until the step's last process has ended.
//!
//! # Failure
//!
//! A directory without `N.ready` was given up before its first content was complete: it is emptied and begun again.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::claim::{FIRST_PAUSE, LockMode, Wait, lock, lock_file};
use crate::digest::hex;
use crate::io::{Attempt, IoError, make_private_dir, names_in, read_if_present, write_whole};
use crate::remove::remove_tree;
use crate::root::StatePaths;

/// What two users at once get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// The same directory.
    Shared,
    /// The second waits.
    Locked,
    /// The second gets another directory.
    Private,
}

/// Which content a user begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// What earlier users left.
    Kept,
    /// Nothing; later users go on with the new directory.
    Empty,
}

/// A cache mount that a step asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRequest {
    /// Everything that makes it this cache and no other.
    pub identity: String,
    /// How it is used.
    pub sharing: Sharing,
    /// What it begins with.
    pub start: Start,
}

/// A directory locked for a step; given back when dropped.
#[derive(Debug)]
#[must_use = "a dropped directory is given back"]
pub struct MountDirectory {
    path: PathBuf,
    lock: File,
    sharing: Sharing,
    is_new: bool,
}

impl MountDirectory {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is empty and waits for its first content, owner and mode. It is locked exclusively until
    /// [`MountDirectory::ready`] is called.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Says that the first content is complete.
    pub fn ready(&mut self) -> Result<(), IoError> {
        if !self.is_new {
            return Ok(());
        }
        write_whole(&self.path.with_extension("ready"), b"")?;
        self.is_new = false;
        if self.sharing == Sharing::Shared {
            let path = self.path.with_extension("lock");
            flock(&self.lock, FlockOperation::LockShared).attempt("lock", &path)?;
        }
        Ok(())
    }
}

impl AsFd for MountDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

/// The directories of one step.
#[derive(Debug)]
pub struct StepMounts {
    /// The directories, one an identity.
    pub directories: Vec<MountDirectory>,
    /// For each request its directory: several mounts of one identity in a step are one directory.
    pub places: Vec<usize>,
}

/// Locks directories for the mounts of one step. `None` if waiting was cancelled.
pub fn acquire(
    paths: &StatePaths,
    requests: &[MountRequest],
    wait: Wait<'_>,
) -> Result<Option<StepMounts>, IoError> {
    let mut wanted: Vec<MountRequest> = Vec::new();
    for request in requests {
        match wanted.iter_mut().find(|w| w.identity == request.identity) {
            // A step must not wait for itself: the strictest wish of its mounts holds for all.
            Some(same) => {
                same.sharing = same.sharing.max(request.sharing);
                if request.start == Start::Empty {
                    same.start = Start::Empty;
                }
            }
            None => wanted.push(request.clone()),
        }
    }
    wanted.sort_by(|a, b| a.identity.cmp(&b.identity));
    let mut directories = Vec::new();
    for request in &wanted {
        match acquire_one(paths, request, wait)? {
            Some(directory) => directories.push(directory),
            None => return Ok(None),
        }
    }
    let places = requests
        .iter()
        .filter_map(|request| wanted.iter().position(|w| w.identity == request.identity))
        .collect();
    Ok(Some(StepMounts {
        directories,
        places,
    }))
}

/// Whether a step uses any directory of a cache mount's folder now, or is about to.
///
/// Asking takes each directory for a moment. Whoever looks for one that is free must not meet that, and does so under the
/// folder's lock.
pub(crate) fn is_used(folder: &Path) -> Result<bool, IoError> {
    let lock_path = folder.join("lock");
    // Without a lock it never had a user.
    let Ok(guard) = File::open(&lock_path) else {
        return Ok(false);
    };
    // With others who ask.
    if !lock(&guard, &lock_path, LockMode::Shared, Wait::Never)? {
        return Ok(true);
    }
    for name in names_in(folder)? {
        if Path::new(&name).extension().is_none_or(|end| end != "lock") {
            continue;
        }
        let path = folder.join(&name);
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if !lock(&file, &path, LockMode::Exclusive, Wait::Never)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a cache mount's folder has a directory.
pub(crate) fn has_content(folder: &Path) -> Result<bool, IoError> {
    let is_number = |name: &std::ffi::OsString| {
        name.to_str()
            .is_some_and(|name| name.parse::<u64>().is_ok())
    };
    Ok(names_in(folder)?.iter().any(is_number))
}

/// Gives up the directories of a cache mount that nobody uses, by moving them into the directory `trash`; later users
/// begin with an empty one.
pub(crate) fn discard(folder: &Path, trash: &Path) -> Result<(), IoError> {
    let lock_path = folder.join("lock");
    let Some(_guard) = lock_file(&lock_path, LockMode::Exclusive, Wait::Never)? else {
        return Ok(());
    };
    let folder = Folder {
        path: folder.to_owned(),
    };
    let identity = folder.path.file_name().unwrap_or_default().display();
    folder.start_anew(|directory| {
        let number = directory.file_name().unwrap_or_default().display();
        // Where a disk is mounted on the mounts' directory, nothing can be moved.
        fs::rename(directory, trash.join(format!("{identity}-{number}")))
            .or_else(|_| remove_tree(directory))
    })
}

fn acquire_one(
    paths: &StatePaths,
    request: &MountRequest,
    wait: Wait<'_>,
) -> Result<Option<MountDirectory>, IoError> {
    let folder = Folder {
        path: paths.cache_mounts().join(hex(
            &blake3::hash(request.identity.as_bytes()).as_bytes()[..16]
        )),
    };
    let Some(guard) = lock_file(&folder.path.join("lock"), LockMode::Exclusive, wait)? else {
        return Ok(None);
    };
    if request.start == Start::Empty {
        folder.start_anew(remove_tree)?;
    }
    let current = folder.current()?;
    if request.sharing == Sharing::Private {
        // Ends: there are finitely many directories, and one that is made now has no user.
        for number in current.. {
            if let Some(taken) = folder.take(number, request.sharing, Wait::Never)? {
                return Ok(Some(taken));
            }
        }
    }
    // While waiting for a user to end, others must be able to take private directories or start anew.
    drop(guard);
    folder.take(current, request.sharing, wait)
}

struct Folder {
    path: PathBuf,
}

impl Folder {
    fn current(&self) -> Result<u64, IoError> {
        let text = read_if_present(&self.path.join("current"))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        Ok(text.trim().parse().unwrap_or_default())
    }

    /// Makes a number current that no directory has, and removes the directories nobody uses. What cannot be removed stays
    /// for the next time.
    fn start_anew(&self, remove: impl Fn(&Path) -> io::Result<()>) -> Result<(), IoError> {
        let numbers: Vec<u64> = names_in(&self.path)?
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect();
        let next = numbers
            .iter()
            .map(|number| number + 1)
            .max()
            .unwrap_or_default()
            .max(self.current()? + 1);
        write_whole(&self.path.join("current"), next.to_string().as_bytes())?;
        for number in numbers {
            let path = self.path.join(number.to_string());
            let lock_path = path.with_extension("lock");
            let Some(_unused) = lock_file(&lock_path, LockMode::Exclusive, Wait::Never)? else {
                continue;
            };
            fs::remove_file(path.with_extension("ready")).ok();
            if let Err(error) = remove(&path) {
                tracing::debug!(path = %path.display(), %error, "a cache mount stays");
            }
        }
        Ok(())
    }

    fn take(
        &self,
        number: u64,
        sharing: Sharing,
        wait: Wait<'_>,
    ) -> Result<Option<MountDirectory>, IoError> {
        let path = self.path.join(number.to_string());
        let lock_path = path.with_extension("lock");
        let mut pause = FIRST_PAUSE;
        loop {
            let is_ready = path.with_extension("ready").exists();
            let mode = match sharing {
                Sharing::Shared if is_ready => LockMode::Shared,
                Sharing::Shared | Sharing::Locked | Sharing::Private => LockMode::Exclusive,
            };
            let is_being_made = sharing == Sharing::Shared && !is_ready;
            // Who makes the first content lets others in when it is complete, and goes on using the directory: which lock
            // will do is looked at anew each time.
            let patience = if is_being_made { Wait::Never } else { wait };
            let Some(file) = lock_file(&lock_path, mode, patience)? else {
                if is_being_made && wait.pause(&mut pause) {
                    continue;
                }
                return Ok(None);
            };
            let is_ready_now = path.with_extension("ready").exists();
            if mode == LockMode::Shared && !is_ready_now {
                continue;
            }
            if !is_ready_now {
                empty(&path)?;
            } else if mode == LockMode::Exclusive && sharing == Sharing::Shared {
                // Somebody else completed it while we waited: share it.
                if !lock(&file, &lock_path, LockMode::Shared, wait)? {
                    return Ok(None);
                }
            }
            return Ok(Some(MountDirectory {
                path,
                lock: file,
                sharing,
                is_new: !is_ready_now,
            }));
        }
    }
}

fn empty(path: &Path) -> Result<(), IoError> {
    match remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).attempt("empty", path);
        }
        Ok(()) | Err(_) => {}
    }
    make_private_dir(path)
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
