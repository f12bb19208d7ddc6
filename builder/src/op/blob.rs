//! The blobs of a build's layers: which there are, where else they are, and making one of a layer.
//!
//! Not here: fetching them (`fetch`), and which layers need one (`engine::blobs`).

use std::io::{self, Read, Write};

use cache::blob::BlobStore;
use cache::blob::writer::UnhashedWriter;
use cache::digest::{Descriptor, DiffId, Digest};
use cache::layer::compress::{self, CompressOptions, Compressor};
use cache::layer::pack::pack;
use cache::layer::sink::{Boundary, TarSink};

use super::error::StepError;
use super::image::Origin;
use super::layers::{Fetchable, Layers};
use crate::cancel::CancelFlag;
use crate::export::BlobOrigin;
use crate::lock::locked;

/// The name, among a layer's blobs, of the one that it came as.
const AS_PULLED: &str = "pulled";

/// How a layer's blob is made.
#[derive(Debug)]
pub struct Packing {
    /// The codec.
    pub codec: compress::Codec,
    /// Threads and chunk cache.
    pub options: CompressOptions,
    /// Set when the blob is no longer wanted.
    pub stop: CancelFlag,
}

impl Layers {
    /// Whether a blob is in the store.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool, StepError> {
        // Pinned first: what is found now must not be collected before it is read.
        self.lease.pin_blob(digest)?;
        Ok(self.blobs.contains(digest)?)
    }

    /// Opens a blob of the store.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, StepError> {
        match self.blobs.open(digest)? {
            Some(blob) => Ok(Box::new(blob)),
            None => Err(StepError::LayerGone {
                diff_id: digest.to_string(),
            }),
        }
    }

    /// The blob that a layer came as, if it was pulled.
    pub(crate) fn pulled_blob(&self, layer: &DiffId) -> Option<Descriptor> {
        match self.find(layer) {
            Ok(
                Some(Fetchable {
                    origin: Origin::Store,
                    ..
                })
                | None,
            )
            | Err(_) => {
                let layer = self.store.layer(layer).ok()??;
                layer.blobs().remove(AS_PULLED)
            }
            Ok(Some(fetchable)) => Some(fetchable.layer.descriptor),
        }
    }

    /// Opens the blob that a layer came as, fetching it if need be.
    pub(crate) fn open_pulled(
        &self,
        layer: &DiffId,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, StepError> {
        if !self.has_blob(&blob.digest)? {
            let turn = self.turn(layer);
            let _turn = locked(&turn);
            self.fetch(layer)?;
        }
        self.open_blob(&blob.digest)
    }

    /// Makes sure that the layers of an image that is kept can be had by later builds and pushes: those that registries
    /// have from there, those of an OCI layout only from here.
    pub(crate) fn keep(&self, layers: &[DiffId]) -> Result<(), StepError> {
        for layer in layers {
            let Some(fetchable) = self.fetchable.get(layer) else {
                continue;
            };
            match &fetchable.origin {
                Origin::Store => {}
                Origin::Registry(reference) => self.note_source(layer, reference, fetchable)?,
                Origin::Layout(_) => self.keep_blob(layer, &fetchable.layer.descriptor)?,
            }
        }
        Ok(())
    }

    fn keep_blob(&self, diff_id: &DiffId, blob: &Descriptor) -> Result<(), StepError> {
        let layer = self.layer(diff_id)?;
        if layer.blobs().get(AS_PULLED) == Some(blob) {
            return Ok(());
        }
        if !self.has_blob(&blob.digest)? {
            self.fetch(diff_id)?;
        }
        Ok(self.store.record_blob(&layer, AS_PULLED, blob.clone())?)
    }

    /// Repositories that are known to have a layer's blob.
    pub(crate) fn blob_origins(&self, layer: &DiffId) -> Vec<BlobOrigin> {
        let mut origins = Vec::new();
        if let Some(Fetchable {
            layer: found,
            origin: Origin::Registry(reference),
        }) = self.fetchable.get(layer)
        {
            origins.push(BlobOrigin {
                registry: reference.registry.clone(),
                repository: reference.repository.clone(),
                digest: found.descriptor.digest.clone(),
            });
        }
        for source in self.sources.of(layer).unwrap_or_default() {
            if let Some((registry, repository)) = source.repository.split_once('/') {
                origins.push(BlobOrigin {
                    registry: registry.to_owned(),
                    repository: repository.to_owned(),
                    digest: source.blob.digest,
                });
            }
        }
        origins
    }

    /// Makes a blob of a layer: of its tar if it was pulled, else packed from its tree.
    pub(crate) fn pack_blob(
        &self,
        diff_id: &DiffId,
        packing: Packing,
    ) -> Result<(Digest, u64), StepError> {
        if self.pulled_blob(diff_id).is_some() {
            return self.recompress(diff_id, packing);
        }
        let index = self.with_tree(diff_id)?.index()?;
        let tree = self.tree(diff_id)?;
        self.compress(diff_id, packing, |sink| {
            let packed = pack(&index, &tree, sink);
            let is_whole = matches!(&packed, Ok(packed) if packed.diff_id == *diff_id);
            if !is_whole && !sink.stop.is_set() && self.drops_damaged(diff_id)? {
                return Err(StepError::Damaged);
            }
            let packed = packed?;
            if packed.diff_id != *diff_id {
                return Err(StepError::WrongDiffId {
                    expected: diff_id.to_string(),
                    found: packed.diff_id.to_string(),
                });
            }
            Ok(())
        })
    }

    /// Looks whether a layer's tree is what it should be, and drops it if it is not: results that name the layer are no hits
    /// any more then.
    pub(crate) fn drops_damaged(&self, diff_id: &DiffId) -> Result<bool, StepError> {
        let checked = self.store.check(diff_id)?;
        // If there is none any more, another build or a check has dropped it.
        Ok(checked.is_none_or(|(_, findings)| !findings.is_empty()))
    }

    /// Compresses a pulled layer's own tar in another way. Its tree would give another tar.
    fn recompress(&self, diff_id: &DiffId, packing: Packing) -> Result<(Digest, u64), StepError> {
        let blob = self.fetch(diff_id)?;
        self.compress(diff_id, packing, |sink| {
            self.read_tar(diff_id, &blob, |tar| {
                io::copy(tar, sink).map_err(|source| compressing(diff_id, source))
            })?;
            Ok(())
        })
    }

    /// Makes a blob of what `fill` writes.
    fn compress(
        &self,
        diff_id: &DiffId,
        packing: Packing,
        fill: impl FnOnce(&mut Stoppable<'_>) -> Result<(), StepError>,
    ) -> Result<(Digest, u64), StepError> {
        let failed = |source| compressing(diff_id, source);
        let writer = self.blobs.unhashed_writer()?;
        let mut compressor =
            Compressor::new(writer, packing.codec, packing.options).map_err(failed)?;
        let mut sink = Stoppable {
            sink: &mut compressor,
            stop: &packing.stop,
        };
        match fill(&mut sink) {
            Err(_) if packing.stop.is_set() => return Err(StepError::Canceled),
            filled => filled?,
        }
        self.finish_blob(diff_id, compressor)
    }

    /// Ends a layer's blob and puts it into the store.
    pub(super) fn finish_blob(
        &self,
        diff_id: &DiffId,
        compressor: Compressor<UnhashedWriter>,
    ) -> Result<(Digest, u64), StepError> {
        let finished = compressor.finish();
        let (compressed, writer) = finished.map_err(|source| compressing(diff_id, source))?;
        self.room.wrote(compressed.size)?;
        // Pinned first: one that is there already may be old, and about to be collected.
        self.lease.pin_blob(&compressed.digest)?;
        let size = writer.commit(&compressed.digest)?;
        Ok((compressed.digest, size))
    }

    /// Notes that a blob holds a layer of the store.
    pub(crate) fn record_blob(&self, diff_id: &DiffId, blob: &Descriptor) -> Result<(), StepError> {
        if let Some(layer) = self.store.layer(diff_id)? {
            self.store
                .record_blob(&layer, &blob.media_type, blob.clone())?;
        }
        Ok(())
    }
}

fn compressing(diff_id: &DiffId, source: io::Error) -> StepError {
    StepError::Io {
        attempt: "compress the layer",
        path: diff_id.to_string().into(),
        source,
    }
}

/// Takes no more bytes once they are no longer wanted.
struct Stoppable<'a> {
    sink: &'a mut dyn TarSink,
    stop: &'a CancelFlag,
}

impl Stoppable<'_> {
    fn check(&self) -> io::Result<()> {
        match self.stop.is_set() {
            true => Err(io::Error::other("no longer wanted")),
            false => Ok(()),
        }
    }
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl TarSink for Stoppable<'_> {
    fn boundary(&mut self, entry: Boundary) -> io::Result<()> {
        self.sink.boundary(entry)
    }
}
