//! Verifying layers that are in the store: after a reboot what was never waited for, and whatever is asked for.

use std::fs;

use super::super::error::SnapshotError;
use super::super::format::TreeFormat;
use super::super::record::{self, INDEX, Record};
use super::LayerStore;
use crate::digest::DiffId;
use crate::layer::index::LayerIndex;
use crate::layer::verify::is_intact;

impl LayerStore {
    /// Verifies what an earlier boot wrote and never waited for: what is not as it was made is dropped. `None` if the
    /// layer is gone with it.
    pub(super) fn check_after_reboot(
        &self,
        diff_id: &DiffId,
    ) -> Result<Option<Record>, SnapshotError> {
        let folder = self.paths.layer(diff_id);
        let locked = record::lock(&folder)?;
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
    /// found.
    pub fn check(&self, diff_id: &DiffId) -> Result<(bool, Vec<&'static str>), SnapshotError> {
        let folder = self.paths.layer(diff_id);
        if !folder.is_dir() {
            return Ok((false, Vec::new()));
        }
        let locked = record::lock(&folder)?;
        let mut findings = Vec::new();
        let Some(record) = record::read(&folder).ok().flatten() else {
            return Ok((false, findings));
        };
        let Ok(index) = LayerIndex::load(&folder.join("index")) else {
            findings.push("has no index that can be read: removed");
            let path = folder.join("layer.json");
            fs::remove_file(&path).map_err(SnapshotError::io("remove", path))?;
            return Ok((false, findings));
        };
        let mut bad = Vec::new();
        for (name, tree) in &record.trees {
            let path = self.paths.trees().join(tree);
            let format = TreeFormat::from_name(name);
            let is_readable = format == self.reader.format;
            if !path.is_dir() {
                findings.push("has no tree any more: noted");
            } else if is_readable && !is_intact(&index, &path, format.xattrs()) {
                findings.push("has a tree that is not what its diff id says: tree removed");
                self.discard_tree(&path)?;
            } else {
                continue;
            }
            bad.push(name.clone());
        }
        let lost: Vec<String> = record
            .blobs
            .iter()
            .filter(|(_, blob)| !self.paths.blob(&blob.digest).exists())
            .map(|(codec, _)| codec.clone())
            .collect();
        let left = locked.update(|record| {
            record.trees.retain(|name, _| !bad.contains(name));
            record.unsynced.retain(|name, _| !bad.contains(name));
            record.blobs.retain(|codec, _| !lost.contains(codec));
        })?;
        // A pulled layer of which only the index is here names neither.
        let was_bare = record.trees.is_empty() && record.blobs.is_empty();
        let is_of_use = was_bare || !left.trees.is_empty() || !left.blobs.is_empty();
        Ok((is_of_use, findings))
    }
}
