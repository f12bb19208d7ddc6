//! Durability, once a build: what was made is marked as being on disk after one `syncfs`.
//!
//! Nothing else in the store is synced. A layer's record says of each tree, and of the index, in which boot of the
//! machine it was written, until it is known to be on disk; after a reboot what still says so is verified before use
//! (`snapshot::store`).
//!
//! ```text
//! unsynced/NAME           the boot, then the layers that a build made, one a line; gone once they are marked
//! ```
//!
//! # Who waits
//!
//! Not the user: a build only writes its list ([`note`]); a process of its own waits for the disk and marks
//! ([`settle`]). If it is killed, the lists stay for the next one, or for the next boot, where they say nothing any more.
//!
//! # Concurrency
//!
//! One process settles at a time (flock on `unsynced`). Only what was there, as the same file, before the disk was
//! waited for is marked.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::{DiffId, Digest};
use crate::io::{Attempt, IoError, names_in, read_if_present, write_whole};
use crate::root::StatePaths;
use crate::snapshot::error::SnapshotError;
use crate::snapshot::synced;

/// A boot of the machine (`/proc/sys/kernel/random/boot_id`). Empty where the kernel does not tell: then every boot counts
/// as the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

impl BootId {
    /// Whether two are the same boot, as far as is known.
    pub fn is(&self, other: &Self) -> bool {
        self == other || self.0.is_empty() || other.0.is_empty()
    }
}

/// Why marking did not work: everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A layer's record could not be changed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Notes what a build made, under a name that is the build's own.
pub fn note<'a>(
    paths: &StatePaths,
    boot: &BootId,
    name: &str,
    layers: impl IntoIterator<Item = &'a DiffId>,
) -> Result<(), IoError> {
    let mut text = format!("{}\n", boot.0);
    let mut is_empty = true;
    for layer in layers {
        text.push_str(&format!("{layer}\n"));
        is_empty = false;
    }
    match is_empty {
        true => Ok(()),
        false => write_whole(&paths.unsynced().join(name), text.as_bytes()),
    }
}

/// Whether anything waits to be marked.
pub fn is_due(paths: &StatePaths) -> bool {
    names_in(&paths.unsynced()).is_ok_and(|names| !names.is_empty())
}

/// Waits until everything that was noted is on disk, and marks it so.
pub fn settle(paths: &StatePaths, boot: &BootId) -> Result<(), DurableError> {
    let directory = paths.unsynced();
    if !is_due(paths) {
        return Ok(());
    }
    let lock = File::open(&directory).attempt("open", &directory)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .attempt("lock", &directory)?;
    let mut lists = Vec::new();
    let mut files = Vec::new();
    for name in names_in(&directory)? {
        let path = directory.join(name);
        for layer in read_list(&path, boot)? {
            files.extend(synced::unsynced(paths, &layer, boot)?.map(|found| (layer, found)));
        }
        lists.push(path);
    }
    if !files.is_empty() {
        rustix::fs::syncfs(&lock).attempt("sync the file system of", paths.root())?;
    }
    for (layer, found) in &files {
        synced::mark(paths, layer, found)?;
    }
    for list in lists {
        fs::remove_file(&list).attempt("remove", &list)?;
    }
    Ok(())
}

/// The layers of a list that was written in this boot.
fn read_list(path: &Path, boot: &BootId) -> Result<Vec<DiffId>, IoError> {
    let bytes = read_if_present(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    if lines.next() != Some(boot.0.as_str()) {
        return Ok(Vec::new());
    }
    Ok(lines
        .filter_map(|line| line.parse::<Digest>().ok().map(DiffId))
        .collect())
}

/// Tells one incarnation of a file or directory from another of the same name: device, inode, and time of change with its
/// nanoseconds, since inodes are used again at once.
pub(crate) type Identity = (u64, u64, (i64, i64));

/// The incarnation that a name means now, if there is one.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Some((metadata.dev(), metadata.ino(), changed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_change_within_a_second_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        let second = || fs::metadata(&path).unwrap().ctime();
        let change = || {
            // Coarser than the clock of any file system.
            std::thread::sleep(std::time::Duration::from_millis(20));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            (second(), identity(&path).unwrap())
        };
        assert_eq!(identity(&path), identity(&path));
        let (mut before, mut after) = (change(), change());
        while before.0 != after.0 {
            (before, after) = (after, change());
        }
        assert_ne!(before.1, after.1);
        assert_eq!(identity(&dir.path().join("none")), None);
    }
}
