//! What the folders of layers say they have: for surveys, collections and checks. Nothing is verified here.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::error::SnapshotError;
use super::record;
use crate::digest::{DiffId, Digest};
use crate::io::names_in;
use crate::root::StatePaths;

/// What a layer has on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerContents {
    /// Names of trees.
    pub trees: Vec<String>,
    /// Blobs made of it.
    pub blobs: Vec<Digest>,
}

/// All layers that have a record.
pub(crate) fn all(paths: &StatePaths) -> Result<BTreeMap<DiffId, LayerContents>, SnapshotError> {
    let mut layers = BTreeMap::new();
    for name in names_in(&paths.layers())? {
        let name = name.to_string_lossy();
        let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else {
            continue;
        };
        let layer = DiffId(digest);
        if let Some(contents) = of(paths, &layer)? {
            layers.insert(layer, contents);
        }
    }
    Ok(layers)
}

/// What a layer has, if it has a record.
///
/// # Errors
///
/// The store cannot be read. A record that is damaged is as good as none.
pub fn of(paths: &StatePaths, layer: &DiffId) -> Result<Option<LayerContents>, SnapshotError> {
    match record::read(&paths.layer(layer)) {
        Ok(Some(record)) => Ok(Some(LayerContents {
            trees: record.trees.into_values().collect(),
            blobs: record.blobs.into_values().map(|blob| blob.digest).collect(),
        })),
        Ok(None) | Err(SnapshotError::Record { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a layer: its record first, so that nobody finds it half gone. Trees are renamed away before they are deleted.
pub(crate) fn remove(
    paths: &StatePaths,
    layer: &DiffId,
    contents: &LayerContents,
    trash: &std::path::Path,
) -> Result<(), SnapshotError> {
    let folder = paths.layer(layer);
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    };
    let _locked = match record::lock(&folder) {
        Err(error) if error.is_missing() => return Ok(()),
        locked => locked?,
    };
    fs::remove_file(folder.join("layer.json"))
        .or_else(gone)
        .map_err(SnapshotError::io("remove", &folder))?;
    for tree in &contents.trees {
        let path = paths.trees().join(tree);
        fs::rename(&path, trash.join(tree))
            .or_else(gone)
            .map_err(SnapshotError::io("remove", &path))?;
        fs::remove_file(paths.trees().join(format!("{tree}.id")))
            .or_else(gone)
            .map_err(SnapshotError::io("remove", &path))?;
    }
    for blob in &contents.blobs {
        let path = paths.blob(blob);
        fs::remove_file(&path)
            .or_else(gone)
            .map_err(SnapshotError::io("remove", &path))?;
    }
    fs::remove_dir_all(&folder)
        .or_else(gone)
        .map_err(SnapshotError::io("remove", &folder))
}
