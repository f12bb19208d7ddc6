//! Verifying layers that are in the store: after a reboot what was never waited for, and whatever is asked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::error::SnapshotError;
use super::super::format::TreeFormat;
use super::super::record::{self, INDEX, Record};
use super::LayerStore;
use crate::digest::DiffId;
use crate::layer::index::LayerIndex;
use crate::layer::verify::is_intact;
use crate::lease::Lease;

impl LayerStore {
    /// Verifies what an earlier boot wrote and never waited for: what is not as it was made is dropped. `None` if the
    /// layer is gone with it.
    pub(super) fn check_after_reboot(
        &self,
        diff_id: &DiffId,
    ) -> Result<Option<Record>, SnapshotError> {
        let folder = self.paths.layer(diff_id);
        let locked = match record::lock(&folder) {
            Err(error) if error.is_missing() => return Ok(None),
            locked => locked?,
        };
        let Some(before) = record::read(&folder)? else {
            return Ok(None);
        };
        let Ok(index) = LayerIndex::load(&folder.join("index")) else {
            tracing::debug!(%diff_id, "the index did not survive the reboot");
            let path = folder.join("layer.json");
            fs::remove_file(&path).map_err(SnapshotError::io("remove", path))?;
            return Ok(None);
        };
        let mut bad = Vec::new();
        let mut good = vec![INDEX.to_owned()];
        for (name, tree) in &before.trees {
            let boot = before.unsynced.get(name);
            let format = TreeFormat::from_name(name);
            let is_suspect = boot.is_some_and(|boot| !boot.is(&self.reader.boot));
            // Another format's owners mean something else here: whoever reads it verifies it.
            if !is_suspect || format != self.reader.format {
                continue;
            }
            let path = self.paths.trees().join(tree);
            match is_intact(&index, &path, format.xattrs()) {
                true => good.push(name.clone()),
                false => bad.push((name.clone(), path)),
            }
        }
        for (_, path) in &bad {
            tracing::debug!(%diff_id, path = %path.display(), "a tree did not survive the reboot");
            self.discard_tree(path)?;
        }
        let checked = locked.update(|record| {
            record
                .unsynced
                .retain(|name, boot| boot.is(&self.reader.boot) || !good.contains(name));
            for (name, _) in &bad {
                record.trees.remove(name);
                record.unsynced.remove(name);
            }
        })?;
        let mut told = checked;
        // Not verified is not there.
        let unsynced = std::mem::take(&mut told.unsynced);
        told.trees
            .retain(|name, _| unsynced.get(name).is_none_or(|b| b.is(&self.reader.boot)));
        Ok(Some(told))
    }

    /// Verifies a layer whatever is known of it, and drops what is damaged: whether anything of use is left, and what was
    /// found. `None` if there is no such layer.
    ///
    /// A whole layer is neither pinned nor locked: collections may take it away meanwhile, and need not wait. What seems
    /// to be damaged is looked at again before it is dropped: it may have been on its way out, or in.
    pub fn check(
        &self,
        diff_id: &DiffId,
    ) -> Result<Option<(bool, Vec<&'static str>)>, SnapshotError> {
        let folder = self.paths.layer(diff_id);
        if self.look(&folder)?.is_some_and(|seen| seen.is_whole()) {
            return Ok(Some((true, Vec::new())));
        }
        let lease = Lease::for_upkeep(&self.paths)?;
        lease.pin(diff_id)?;
        let locked = match record::lock(&folder) {
            Err(error) if error.is_missing() => return Ok(None),
            locked => locked?,
        };
        let Some(seen) = self.look(&folder)? else {
            return Ok(None);
        };
        if !seen.has_index {
            let path = folder.join("layer.json");
            fs::remove_file(&path).map_err(SnapshotError::io("remove", path))?;
            return Ok(Some((
                false,
                vec!["has no index that can be read: removed"],
            )));
        }
        let mut findings = vec!["has no tree any more: noted"; seen.gone.len()];
        for (_, path) in &seen.torn {
            findings.push("has a tree that is not what its diff id says: tree removed");
            self.discard_tree(path)?;
        }
        let torn = seen.torn.iter().map(|(format, _)| format);
        let bad: BTreeSet<&String> = seen.gone.iter().chain(torn).collect();
        let left = locked.update(|record| {
            record.trees.retain(|name, _| !bad.contains(name));
            record.unsynced.retain(|name, _| !bad.contains(name));
            record.blobs.retain(|codec, _| !seen.lost.contains(codec));
        })?;
        // A pulled layer of which only the index is here names neither.
        let was_bare = seen.record.trees.is_empty() && seen.record.blobs.is_empty();
        let is_of_use = was_bare || !left.trees.is_empty() || !left.blobs.is_empty();
        Ok(Some((is_of_use, findings)))
    }

    /// What there is of a layer that has a record that can be read.
    fn look(&self, folder: &Path) -> Result<Option<Seen>, SnapshotError> {
        let record = match record::read(folder) {
            Ok(Some(record)) => record,
            Ok(None) | Err(SnapshotError::Record { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut seen = Seen::default();
        if let Ok(index) = LayerIndex::load(&folder.join("index")) {
            seen.has_index = true;
            for (name, tree) in &record.trees {
                let path = self.paths.trees().join(tree);
                let format = TreeFormat::from_name(name);
                // Another format's owners mean something else here.
                let is_readable = format == self.reader.format;
                if !path.is_dir() {
                    seen.gone.push(name.clone());
                } else if is_readable && !is_intact(&index, &path, format.xattrs()) {
                    seen.torn.push((name.clone(), path));
                }
            }
        }
        for (codec, blob) in &record.blobs {
            if !self.paths.blob(&blob.digest).exists() {
                seen.lost.push(codec.clone());
            }
        }
        seen.record = record;
        Ok(Some(seen))
    }
}

/// What there is of a layer.
#[derive(Default)]
struct Seen {
    record: Record,
    has_index: bool,
    /// Formats of trees that are not there.
    gone: Vec<String>,
    /// Trees that are not what the index says, by format.
    torn: Vec<(String, PathBuf)>,
    /// Codecs of blobs that are not there.
    lost: Vec<String>,
}

impl Seen {
    fn is_whole(&self) -> bool {
        self.has_index && self.gone.is_empty() && self.torn.is_empty() && self.lost.is_empty()
    }
}
