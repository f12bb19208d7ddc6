//! Layers for tests of stores.

use std::fs;

use super::format::TreeFormat;
use super::store::LayerStore;
use crate::digest::DiffId;
use crate::layer::freeze::{FreezeOptions, freeze};
use crate::layer::sink::nowhere;
use crate::layer::stack::LayerStack;

/// A layer with one file.
pub(crate) fn commit(store: &LayerStore, text: &str) -> DiffId {
    let active = store.new_tree().unwrap();
    fs::write(active.upper().join("file"), text).unwrap();
    let options = FreezeOptions {
        xattrs: TreeFormat::Native.xattrs(),
        clamp_mtime: Some(0),
    };
    let stack = LayerStack::default();
    let frozen = freeze(active.upper(), &stack, &mut nowhere(), options).unwrap();
    let format = TreeFormat::Native;
    let (diff_id, size) = (frozen.diff_id, frozen.size);
    let layer = store.commit(active, frozen.index, &diff_id, size, &format);
    layer.unwrap().diff_id().clone()
}

/// Whether the store has the layer's tree.
pub(crate) fn has_tree(store: &LayerStore, layer: &DiffId) -> bool {
    let layer = store.layer(layer).unwrap();
    layer.is_some_and(|layer| layer.tree(&TreeFormat::Native).is_some())
}
