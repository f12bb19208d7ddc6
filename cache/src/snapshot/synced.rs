//! What of a layer is known to be on disk.

use super::error::SnapshotError;
use super::record::{self, INDEX};
use crate::digest::DiffId;
use crate::durable::{BootId, Identity, identity};
use crate::root::StatePaths;

/// What of a layer is not known to be on disk: names in its record, and which incarnation each is.
#[derive(Debug)]
pub(crate) struct Unsynced(Vec<(String, Identity)>);

/// What of a layer was written in this boot and not waited for yet.
pub(crate) fn unsynced(
    paths: &StatePaths,
    layer: &DiffId,
    boot: &BootId,
) -> Result<Option<Unsynced>, SnapshotError> {
    let folder = paths.layer(layer);
    let Some(record) = record::read(&folder)? else {
        return Ok(None);
    };
    let mut found = Vec::new();
    for (name, written) in &record.unsynced {
        if written == boot
            && let Some(identity) = identity_of(paths, layer, &record, name)
        {
            found.push((name.clone(), identity));
        }
    }
    Ok((!found.is_empty()).then_some(Unsynced(found)))
}

fn identity_of(
    paths: &StatePaths,
    layer: &DiffId,
    record: &record::Record,
    name: &str,
) -> Option<Identity> {
    match name {
        INDEX => identity(&paths.layer(layer).join("index")),
        format => identity(&paths.trees().join(record.trees.get(format)?)),
    }
}

/// Marks as being on disk what still is what it was.
pub(crate) fn mark(
    paths: &StatePaths,
    layer: &DiffId,
    found: &Unsynced,
) -> Result<(), SnapshotError> {
    let folder = paths.layer(layer);
    // A collection may have taken the layer meanwhile.
    let locked = match record::lock(&folder) {
        Err(error) if error.is_missing() => return Ok(()),
        locked => locked?,
    };
    let Some(now) = record::read(&folder)? else {
        return Ok(());
    };
    let same = |(name, identity): &&(String, Identity)| {
        identity_of(paths, layer, &now, name).as_ref() == Some(identity)
    };
    let same: Vec<&String> = found.0.iter().filter(same).map(|(name, _)| name).collect();
    locked.update(|record| record.unsynced.retain(|name, _| !same.contains(&name)))?;
    Ok(())
}
