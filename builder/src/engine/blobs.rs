//! Layers as blobs: pulled ones as they came, our own compressed when first asked for, or while they are made where it is
//! known that they will be.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use cache::digest::{CacheKey, Descriptor, DiffId, Digest};
use cache::key::builder::KeyBuilder;
use cache::key::index::Keys;
use cache::layer::compress::cache::DirChunkCache;
use cache::layer::compress::{self, CompressOptions};
use cache::root::StatePaths;
use frontend::graph::VertexId;

use crate::cancel::CancelFlag;
use crate::clock::Clock;
use crate::export::{BlobOrigin, Codec, Encoding, LayerError, LayerSource, PulledBlobs};
use crate::once::OncePerKey;
use crate::op::blob::Packing;
use crate::op::early_blob::Packer;
use crate::op::error::StepError;
use crate::op::layers::Layers;

/// What [`Blobs`] is made of.
pub(super) struct BlobsParts {
    /// The layers.
    pub(super) layers: Arc<Layers>,
    /// The cache database, which remembers the blobs of layers.
    pub(super) keys: Arc<Keys>,
    /// Names of files of the store.
    pub(super) paths: StatePaths,
    /// The clock.
    pub(super) clock: Clock,
    /// Threads that compress one layer.
    pub(super) threads: usize,
    /// Ends compressing when it is set.
    pub(super) stop: CancelFlag,
}

/// The layers of a build as blobs.
pub(super) struct Blobs {
    layers: Arc<Layers>,
    keys: Arc<Keys>,
    paths: StatePaths,
    clock: Clock,
    threads: usize,
    stop: CancelFlag,
    /// One for each layer and encoding.
    made: OncePerKey<(DiffId, Codec), Descriptor>,
}

impl Blobs {
    /// Takes what it is made of.
    pub(super) fn new(parts: BlobsParts) -> Self {
        Self {
            layers: parts.layers,
            keys: parts.keys,
            paths: parts.paths,
            clock: parts.clock,
            threads: parts.threads,
            stop: parts.stop,
            made: OncePerKey::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// The blob that the layer came as, if that is to be used.
    fn pulled(&self, layer: &DiffId, encoding: Encoding) -> Option<Descriptor> {
        match encoding.pulled {
            PulledBlobs::Keep => self.layers.pulled_blob(layer),
            PulledBlobs::Recompress => None,
        }
    }

    fn remembered(&self, layer: &DiffId, codec: Codec) -> Result<Option<Descriptor>, StepError> {
        let memo = self.keys.memo(&memo_key(layer, codec))?;
        Ok(memo.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    fn compress(&self, layer: &DiffId, codec: Codec) -> Result<Descriptor, StepError> {
        if let Some(known) = self.remembered(layer, codec)?
            && self.layers.has_blob(&known.digest)?
        {
            return Ok(known);
        }
        let (digest, size) = self.layers.pack_blob(layer, self.packing(codec))?;
        self.keep(layer, codec, digest, size)
    }

    fn packing(&self, codec: Codec) -> Packing {
        let options = CompressOptions {
            threads: self.threads,
            cache: Some(Arc::new(DirChunkCache::new(self.paths.chunks()))),
        };
        Packing {
            codec: library_codec(codec),
            options,
            stop: self.stop.clone(),
        }
    }

    /// Keeps in mind which blob a layer has.
    fn keep(
        &self,
        layer: &DiffId,
        codec: Codec,
        digest: Digest,
        size: u64,
    ) -> Result<Descriptor, StepError> {
        let descriptor = Descriptor {
            media_type: codec.media_type().to_owned(),
            digest,
            size,
        };
        self.layers.record_blob(layer, &descriptor)?;
        if let Ok(bytes) = serde_json::to_vec(&descriptor) {
            self.keys
                .remember(&memo_key(layer, codec), &bytes, self.now_ms())?;
        }
        Ok(descriptor)
    }
}

/// The layers of a result, compressed while they are made because an output wants them so.
pub(super) struct Wanted {
    /// The layers of the build.
    pub(super) blobs: Arc<Blobs>,
    /// The vertices whose layers the result has.
    pub(super) chain: BTreeSet<VertexId>,
    /// How the output wants them.
    pub(super) codec: Codec,
}

impl Packer for Wanted {
    fn packing(&self, vertex: VertexId) -> Option<Packing> {
        let is_wanted = self.chain.contains(&vertex);
        is_wanted.then(|| self.blobs.packing(self.codec))
    }

    fn packed(&self, layer: &DiffId, digest: Digest, size: u64) -> Result<(), StepError> {
        self.blobs
            .keep(layer, self.codec, digest, size)
            .map(|_descriptor| ())
    }
}

fn memo_key(layer: &DiffId, codec: Codec) -> CacheKey {
    let mut key = KeyBuilder::new("compressed layer");
    key.text("layer", layer.0.as_str());
    match codec {
        Codec::Gzip { level } => key.text("gzip", &format!("{level:?}")),
        Codec::Zstd { level } => key.text("zstd", &format!("{level:?}")),
        Codec::Uncompressed => key.absent("codec"),
    };
    key.finish()
}

fn library_codec(codec: Codec) -> compress::Codec {
    match codec {
        Codec::Uncompressed => compress::Codec::None,
        Codec::Gzip { level: None } => compress::Codec::GZIP,
        // The library has no stored-only level; the lowest is nearest.
        Codec::Gzip { level: Some(level) } => compress::Codec::Gzip(level.clamp(1, 9)),
        Codec::Zstd { level: None } => compress::Codec::ZSTD,
        Codec::Zstd { level: Some(level) } => compress::Codec::Zstd(level.clamp(1, 22)),
    }
}

fn failed(attempt: &'static str, layer: &DiffId) -> impl FnOnce(StepError) -> LayerError {
    let layer = layer.clone();
    move |source| LayerError {
        attempt,
        layer,
        source: Box::new(source),
    }
}

impl LayerSource for Blobs {
    fn ensure(&self, layer: &DiffId, encoding: Encoding) -> Result<Descriptor, LayerError> {
        if let Some(pulled) = self.pulled(layer, encoding) {
            return Ok(pulled);
        }
        self.made.get((layer.clone(), encoding.codec), || {
            self.compress(layer, encoding.codec)
                .map_err(failed("compress", layer))
        })
    }

    fn known(&self, layer: &DiffId, encoding: Encoding) -> Option<Descriptor> {
        self.pulled(layer, encoding)
            .or_else(|| self.remembered(layer, encoding.codec).ok().flatten())
    }

    fn open(&self, layer: &DiffId, encoding: Encoding) -> Result<Box<dyn Read + Send>, LayerError> {
        let open = || {
            if let Some(pulled) = self.pulled(layer, encoding) {
                return self.layers.open_pulled(layer, &pulled);
            }
            let descriptor = self.compress(layer, encoding.codec)?;
            self.layers.open_blob(&descriptor.digest)
        };
        open().map_err(failed("read", layer))
    }

    fn origins(&self, layer: &DiffId) -> Vec<BlobOrigin> {
        self.layers.blob_origins(layer)
    }

    fn clamp_times(&self, layer: &DiffId, epoch: i64) -> Result<DiffId, LayerError> {
        self.layers
            .clamp_times(layer, epoch)
            .map_err(failed("clamp the times of", layer))
    }
}
