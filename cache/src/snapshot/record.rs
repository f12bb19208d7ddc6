//! `layer.json`.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::SnapshotError;
use crate::claim::{self, LockMode, Wait, names_same_file};
use crate::digest::Descriptor;
use crate::durable::BootId;

/// What `layer.json` says. Fields that a newer version added are kept out of reach by the version of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Size of the tar in bytes.
    pub(super) size: u64,
    /// Tree ids by format.
    #[serde(default)]
    pub(super) trees: BTreeMap<String, String>,
    /// Blobs by codec.
    #[serde(default)]
    pub(super) blobs: BTreeMap<String, Descriptor>,
    /// What may not have reached the disk, with the boot it was written in: formats of trees, and [`INDEX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) unsynced: BTreeMap<String, BootId>,
}

/// The index among what is not synced; no format has this name.
pub(super) const INDEX: &str = "index";

const NAME: &str = "layer.json";

/// Reads the record of a layer's folder; `None` if there is none.
pub(super) fn read(folder: &Path) -> Result<Option<Record>, SnapshotError> {
    let path = folder.join(NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // What the disk cannot read is as damaged as what it has lost.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Vec::new(),
        Err(error) => return Err(SnapshotError::io("read", path)(error)),
    };
    let record = serde_json::from_slice(&text);
    record
        .map(Some)
        .map_err(|source| SnapshotError::Record { path, source })
}

/// The lock of a layer's folder: whoever has it may change what is in there.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    folder: &'a Path,
    /// The lock ends when this is closed.
    _handle: fs::File,
}

/// Locks a folder that exists; waits for others.
///
/// Who has the lock may take the folder away. One that waited then has the lock of a folder without a name, beside one
/// that others have made anew: it begins again.
pub(super) fn lock(folder: &Path) -> Result<Locked<'_>, SnapshotError> {
    loop {
        let handle = open(folder)?;
        rustix::fs::flock(handle.as_fd(), FlockOperation::LockExclusive)
            .map_err(SnapshotError::os("lock", folder))?;
        if names_same_file(folder, &handle)? {
            return Ok(Locked {
                folder,
                _handle: handle,
            });
        }
    }
}

/// As [`lock`], of a folder that is made if there is none.
pub(super) fn make_locked(folder: &Path) -> Result<Locked<'_>, SnapshotError> {
    loop {
        fs::create_dir_all(folder).map_err(SnapshotError::io("make directory", folder))?;
        match lock(folder) {
            Err(error) if error.is_missing() => {}
            locked => return locked,
        }
    }
}

/// As [`lock`], unless somebody else has it.
pub(super) fn try_lock(folder: &Path) -> Result<Option<Locked<'_>>, SnapshotError> {
    let handle = open(folder)?;
    let is_ours = claim::lock(&handle, folder, LockMode::Exclusive, Wait::Never)?
        && names_same_file(folder, &handle)?;
    Ok(is_ours.then_some(Locked {
        folder,
        _handle: handle,
    }))
}

fn open(folder: &Path) -> Result<fs::File, SnapshotError> {
    fs::File::open(folder).map_err(SnapshotError::io("open", folder))
}

impl Locked<'_> {
    /// Changes the record; writes only what differs. A damaged one is made anew.
    pub(super) fn update(&self, change: impl FnOnce(&mut Record)) -> Result<Record, SnapshotError> {
        let before = match read(self.folder) {
            Ok(record) => record,
            Err(SnapshotError::Record { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut record = before.clone().unwrap_or_default();
        change(&mut record);
        if before.as_ref() != Some(&record) {
            write(self.folder, &record)?;
        }
        Ok(record)
    }
}

fn write(folder: &Path, record: &Record) -> Result<(), SnapshotError> {
    let path = folder.join(NAME);
    let text = serde_json::to_vec(record).map_err(|source| SnapshotError::Record {
        path: path.clone(),
        source,
    })?;
    // Under the folder's lock one temporary name is enough; a stale one is overwritten.
    let temporary = folder.join("layer.json.tmp");
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(SnapshotError::io("write", path))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waited_for_a_folder_that_was_made_anew_locks_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("layer");
        let old = make_locked(&folder).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let locked = lock(&folder).unwrap();
                assert!(names_same_file(&folder, &locked._handle).unwrap());
            });
            // It waits by now; if it does not, it finds the new one at once.
            std::thread::sleep(Duration::from_millis(100));
            fs::remove_dir(&folder).unwrap();
            let new = make_locked(&folder).unwrap();
            drop(old);
            std::thread::sleep(Duration::from_millis(100));
            assert!(!waiting.is_finished(), "two have the folder");
            drop(new);
        });
    }
}
