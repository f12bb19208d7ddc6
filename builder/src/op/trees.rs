//! Trees of layers: made of their blobs when somebody needs the files and not only the index, as far as there is room.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use cache::digest::{Descriptor, DiffId};
use cache::snapshot::layer::Layer;

use super::error::StepError;
use super::layers::Layers;
use crate::lock::locked;

impl Layers {
    /// The tree of a layer, made if need be.
    pub(crate) fn tree(&self, diff_id: &DiffId) -> Result<PathBuf, StepError> {
        let layer = self.with_tree(diff_id)?;
        let tree = layer.tree(&self.format);
        let tree = tree.ok_or(StepError::Internal {
            what: "a layer without its tree",
        })?;
        Ok(self.store.tree_path(&tree))
    }

    /// A layer that has its tree, unpacked if need be.
    pub(super) fn with_tree(&self, diff_id: &DiffId) -> Result<Arc<Layer>, StepError> {
        if let Some(layer) = self.store.layer(diff_id)?
            && layer.tree(&self.format).is_some()
        {
            return Ok(layer);
        }
        let turn = self.turn(diff_id);
        let _turn = locked(&turn);
        let known = self.store.layer(diff_id)?;
        // While its turn was waited for, another step may have made it.
        if let Some(layer) = &known
            && layer.tree(&self.format).is_some()
        {
            return Ok(Arc::clone(layer));
        }
        self.unpack(diff_id, known.as_deref())
    }

    /// Unpacks a layer, while its blob arrives if that is not here.
    fn unpack(&self, diff_id: &DiffId, known: Option<&Layer>) -> Result<Arc<Layer>, StepError> {
        locked(&self.made).insert(diff_id.clone());
        let unpack = |plain: Box<dyn Read + Send>, left: u64| {
            let open = || Ok(Roomy { inner: plain, left });
            let layer = self.store.ensure_tree(diff_id, &self.format, open)?;
            Ok::<_, StepError>(layer)
        };
        let mut reserved = None;
        if let Some(blob) = self.awaited(diff_id)?
            && match known {
                Some(layer) => layer.size().saturating_add(blob.size) <= self.free_bytes(),
                None => !self.is_short_of_room(&blob),
            }
        {
            let size = known.map_or(blob.size, Layer::size);
            self.room.reserve(size)?;
            reserved = Some(size);
            let left = self.free_bytes().saturating_sub(blob.size);
            let unpack = |plain| unpack(plain, left);
            if let Some(layer) = self.while_it_arrives(diff_id, &blob, unpack)? {
                self.room.wrote(layer.size().saturating_sub(size))?;
                return Ok(layer);
            }
        }
        self.with_blob(diff_id, |blob| {
            let size = match known {
                Some(layer) => layer.size(),
                // Where it may not fit, how big it is has to be known, so that room is made.
                None if self.is_short_of_room(blob) => self.read_layer(diff_id, blob)?.size(),
                // Only how big it is compressed is known before it has been read.
                None => blob.size,
            };
            if reserved != Some(size) {
                self.room.reserve(size)?;
            }
            let layer = unpack(self.open_plain(blob)?, self.free_bytes())?;
            self.room.wrote(layer.size().saturating_sub(size))?;
            Ok(layer)
        })
    }

    /// Whether what a blob unpacks to might not fit: nobody compresses files to less than this part of them, but for
    /// holes and the like.
    fn is_short_of_room(&self, blob: &Descriptor) -> bool {
        const USUAL_RATIO: u64 = 20;
        blob.size.saturating_mul(USUAL_RATIO) > self.free_bytes()
    }
}

/// A tar on its way to a tree: an error where it goes on beyond what was free when it began.
struct Roomy<R> {
    inner: R,
    /// Bytes.
    left: u64,
}

impl<R: Read> Read for Roomy<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.left.checked_sub(count as u64);
        self.left = left.ok_or_else(|| {
            let text = "it unpacks to more bytes than the file system of the store had free";
            io::Error::new(io::ErrorKind::StorageFull, text)
        })?;
        Ok(count)
    }
}
