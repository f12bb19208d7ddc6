//! `layer.json`.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::SnapshotError;
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
pub(super) fn lock(folder: &Path) -> Result<Locked<'_>, SnapshotError> {
    let handle = fs::File::open(folder).map_err(SnapshotError::io("open", folder))?;
    rustix::fs::flock(handle.as_fd(), FlockOperation::LockExclusive)
        .map_err(SnapshotError::os("lock", folder))?;
    Ok(Locked {
        folder,
        _handle: handle,
    })
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
