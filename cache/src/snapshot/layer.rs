//! A layer that the store has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use super::error::SnapshotError;
use super::format::{TreeFormat, TreeId};
use super::record::Record;
use crate::digest::{Descriptor, DiffId};
use crate::layer::index::LayerIndex;
use crate::lock::locked;

/// A layer that the store has: its index always, trees perhaps.
#[derive(Debug)]
pub struct Layer {
    diff_id: DiffId,
    folder: PathBuf,
    index: OnceLock<Arc<LayerIndex>>,
    record: Mutex<Record>,
}

impl Layer {
    pub(super) fn new(diff_id: DiffId, folder: PathBuf, record: Record) -> Self {
        Self {
            diff_id,
            folder,
            index: OnceLock::new(),
            record: Mutex::new(record),
        }
    }

    /// Its diff id.
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    /// Size of its tar in bytes.
    pub fn size(&self) -> u64 {
        self.with_record(|record| record.size)
    }

    /// Its index: read when first asked for.
    pub fn index(&self) -> Result<Arc<LayerIndex>, SnapshotError> {
        if let Some(index) = self.index.get() {
            return Ok(Arc::clone(index));
        }
        let loaded = Arc::new(LayerIndex::load(&self.folder.join("index"))?);
        Ok(Arc::clone(self.index.get_or_init(|| loaded)))
    }

    /// Its tree of a format, if there is one.
    pub fn tree(&self, format: &TreeFormat) -> Option<TreeId> {
        self.with_record(|record| record.trees.get(format.as_str()).cloned().map(TreeId))
    }

    /// Its blobs by codec, as recorded.
    pub fn blobs(&self) -> BTreeMap<String, Descriptor> {
        self.with_record(|record| record.blobs.clone())
    }

    pub(super) fn remember(&self, index: Arc<LayerIndex>) {
        // Known already is fine: it is the same.
        drop(self.index.set(index));
    }

    pub(super) fn replace_record(&self, record: Record) {
        *locked(&self.record) = record;
    }

    fn with_record<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&locked(&self.record))
    }
}
