//! Brings layers here: their blobs from registries, OCI layouts and the store itself, and their indexes out of the blobs.
//!
//! A blob is fetched when, and only as far as, somebody needs it; one that turns out to be damaged is fetched again, once.
//!
//! Not here: what is made of a blob (`layers`) and making blobs of layers (`blob`).

use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache::blob::BlobStore;
use cache::blob::dir::FoundBlob;
use cache::digest::{Descriptor, DiffId, Digest};
use cache::layer::compress::decompress::{decompress, decompress_ahead};
use cache::layer::scan::scan;
use cache::snapshot::layer::Layer;
use cache::tag::Source;
use frontend::reference::Reference;

use super::error::StepError;
use super::image::Origin;
use super::layers::{Fetchable, Layers};
use crate::lock::locked;
use crate::progress::event::{Event, VertexRef};
use crate::progress::sink::EventSink;
use crate::registry::error::RegistryError;
use crate::registry::pull::pull_layer;
use crate::registry::resolve::LayerDescriptor;

/// Where fetching layers is shown.
#[derive(Clone)]
pub struct Progress {
    /// The sink.
    pub events: Arc<dyn EventSink>,
    /// The vertex whose layers they are.
    pub vertex: VertexRef,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Layers {
    /// Tells that an image is part of the build: done at once if its layers are here, else open until they are or the
    /// build ends.
    pub(super) fn announce(&self, layers: &[DiffId], progress: &Progress) -> Result<(), StepError> {
        let mut missing = Vec::new();
        for layer in layers {
            if self.store.layer(layer)?.is_none() {
                missing.push(layer.clone());
            }
        }
        let vertex = progress.vertex.clone();
        if missing.is_empty() {
            progress.events.emit(Event::CacheHit { vertex });
            return Ok(());
        }
        progress.events.emit(Event::Started {
            vertex: vertex.clone(),
        });
        locked(&self.open).insert(vertex, Arc::clone(&progress.events));
        let mut announced = locked(&self.announced);
        for layer in missing {
            announced.insert(layer, progress.clone());
        }
        Ok(())
    }

    /// Completes the vertices of images of which not every layer was needed.
    pub(super) fn finish_pulls(&self) {
        for (vertex, events) in std::mem::take(&mut *locked(&self.open)) {
            events.emit(Event::Completed { vertex });
        }
    }

    /// A layer with its index, fetched if need be.
    pub(super) fn layer(&self, diff_id: &DiffId) -> Result<Arc<Layer>, StepError> {
        if let Some(layer) = self.store.layer(diff_id)? {
            return Ok(layer);
        }
        if self.is_unpacked_at_once(diff_id) {
            return self.with_tree(diff_id);
        }
        let turn = self.turn(diff_id);
        let _turn = locked(&turn);
        if let Some(layer) = self.store.layer(diff_id)? {
            return Ok(layer);
        }
        if let Some(blob) = self.awaited(diff_id)?
            && let Some(layer) =
                self.while_it_arrives(diff_id, &blob, |plain| self.read_plain(diff_id, plain))?
        {
            return Ok(layer);
        }
        self.with_blob(diff_id, |blob| self.read_layer(diff_id, blob))
    }

    /// Reads a blob for the index of its layer.
    pub(super) fn read_layer(
        &self,
        diff_id: &DiffId,
        blob: &Descriptor,
    ) -> Result<Arc<Layer>, StepError> {
        self.read_plain(diff_id, self.open_plain(blob)?)
    }

    /// Reads a tar for the index of its layer.
    fn read_plain(
        &self,
        diff_id: &DiffId,
        plain: Box<dyn Read + Send>,
    ) -> Result<Arc<Layer>, StepError> {
        let (index, size) = hash_tar(diff_id, plain, |tar| Ok(scan(tar)?))?;
        locked(&self.made).insert(diff_id.clone());
        Ok(self.store.register(diff_id, index, size)?)
    }

    /// Does work on a blob of the layer. One that turns out to be damaged is fetched again, once.
    pub(super) fn with_blob<T>(
        &self,
        diff_id: &DiffId,
        work: impl Fn(&Descriptor) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let blob = self.fetch(diff_id)?;
        // The one that is worked on: another build that comes upon it may put a whole one in its place.
        let mut found = self.blobs.find(&blob.digest)?;
        let mut is_intact = || found.as_mut().map_or(Ok(false), FoundBlob::is_intact);
        match work(&blob) {
            Ok(made) => Ok(made),
            Err(error @ StepError::Room(_)) => Err(error),
            Err(error) if !is_intact()? => {
                tracing::debug!(digest = %blob.digest, %error, "damaged blob");
                if let Some(damaged) = &found {
                    damaged.remove()?;
                }
                work(&self.fetch(diff_id)?)
            }
            Err(StepError::Canceled) => Err(StepError::Canceled),
            Err(error) => Err(StepError::Unpack {
                digest: blob.digest.to_string(),
                image: self.image_of(diff_id)?,
                source: Box::new(error),
            }),
        }
    }

    /// What has a layer, for messages.
    fn image_of(&self, diff_id: &DiffId) -> Result<String, StepError> {
        Ok(match self.find(diff_id)?.map(|found| found.origin) {
            Some(Origin::Registry(reference)) => reference.to_string(),
            Some(Origin::Layout(layout)) => format!("the OCI layout `{}`", layout.dir().display()),
            Some(Origin::Store) | None => "the store".to_owned(),
        })
    }

    /// Reads a blob's tar with `work`, which must leave it at its end; the tar must have the diff id.
    pub(super) fn read_tar<T>(
        &self,
        diff_id: &DiffId,
        blob: &Descriptor,
        work: impl FnOnce(&mut dyn Read) -> Result<T, StepError>,
    ) -> Result<(T, u64), StepError> {
        hash_tar(diff_id, self.open_plain(blob)?, work)
    }

    /// The uncompressed bytes of a blob.
    pub(super) fn open_plain(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StepError> {
        let opened = || self.open_blob(&blob.digest);
        let plain = match decompressed(opened()?, blob.size) {
            Ok(plain) => return Ok(plain),
            // Where no thread is to be had, it is done by whoever reads.
            Err(_) => decompress(opened()?),
        };
        plain.map_err(|source| unreadable(blob, source))
    }

    pub(super) fn turn(&self, diff_id: &DiffId) -> Arc<Mutex<()>> {
        Arc::clone(locked(&self.turns).entry(diff_id.clone()).or_default())
    }

    /// Makes sure that a blob of the layer is in the store: the one it came as, or one made of another tree.
    pub(super) fn fetch(&self, diff_id: &DiffId) -> Result<Descriptor, StepError> {
        self.fetch_into(diff_id, &self.blobs)
    }

    /// As [`Self::fetch`]; what is transferred is written to `blobs`, which is the store by another name.
    pub(super) fn fetch_into(
        &self,
        diff_id: &DiffId,
        blobs: &dyn BlobStore,
    ) -> Result<Descriptor, StepError> {
        let Some(fetchable) = self.find(diff_id)? else {
            return self.blob_of_other_tree(diff_id);
        };
        let descriptor = fetchable.layer.descriptor.clone();
        if self.has_blob(&descriptor.digest)? {
            self.arrived(diff_id);
            return Ok(descriptor);
        }
        self.room.reserve(descriptor.size)?;
        let announced = locked(&self.announced).get(diff_id).cloned();
        let progress = Throttled::new(announced, descriptor.digest.to_string());
        let told = |current: u64, total: u64| progress.tell(current, total);
        let pulled = match &fetchable.origin {
            Origin::Store => return self.blob_of_other_tree(diff_id),
            Origin::Registry(reference) if self.client.is_offline() => {
                let (digest, size) = (&descriptor.digest, descriptor.size);
                let name = format!("layer {digest} ({size} bytes) of {reference}");
                return Err(RegistryError::Offline { name }.into());
            }
            Origin::Registry(reference) => {
                let pull = pull_layer(&self.client, blobs, reference, &fetchable.layer, &told);
                self.block_on(pull)
            }
            Origin::Layout(layout) => {
                self.block_on(layout.pull_layer(blobs, &fetchable.layer, &told))
            }
        };
        pulled??;
        progress.end(descriptor.size);
        if let Origin::Registry(reference) = &fetchable.origin {
            self.note_source(diff_id, reference, &fetchable)?;
        }
        self.arrived(diff_id);
        Ok(descriptor)
    }

    pub(super) fn note_source(
        &self,
        layer: &DiffId,
        reference: &Reference,
        fetchable: &Fetchable,
    ) -> Result<(), StepError> {
        let source = Source {
            repository: format!("{}/{}", reference.registry, reference.repository),
            blob: fetchable.layer.descriptor.clone(),
        };
        Ok(self.sources.add(layer, &source)?)
    }

    /// Waits for a transfer, unless it is no longer wanted.
    fn block_on<T>(&self, transfer: impl Future<Output = T>) -> Result<T, StepError> {
        self.handle.block_on(async {
            tokio::select! {
                ended = transfer => Ok(ended),
                () = self.stop.wait() => Err(StepError::Canceled),
            }
        })
    }

    /// Notes that a layer is here; completes its image's vertex with the last one.
    fn arrived(&self, diff_id: &DiffId) {
        let mut announced = locked(&self.announced);
        let Some(progress) = announced.remove(diff_id) else {
            return;
        };
        let is_last = announced
            .values()
            .all(|other| other.vertex != progress.vertex);
        if is_last && locked(&self.open).remove(&progress.vertex).is_some() {
            progress.events.emit(Event::Completed {
                vertex: progress.vertex.clone(),
            });
        }
    }

    /// Where a layer can be fetched from: an image of this build, or a registry that had it earlier.
    pub(super) fn find(&self, diff_id: &DiffId) -> Result<Option<Fetchable>, StepError> {
        if let Some(fetchable) = self.fetchable.get(diff_id) {
            return Ok(Some(fetchable.clone()));
        }
        let Some(source) = self.sources.of(diff_id)?.into_iter().next() else {
            return Ok(None);
        };
        let Ok(reference) = Reference::parse(&source.repository) else {
            return Ok(None);
        };
        let layer = LayerDescriptor {
            descriptor: source.blob,
            diff_id: diff_id.clone(),
            urls: Vec::new(),
        };
        Ok(Some(Fetchable {
            layer,
            origin: Origin::Registry(reference),
        }))
    }

    /// A layer that was made here under another id map: its tar is packed from a blob that was exported.
    fn blob_of_other_tree(&self, diff_id: &DiffId) -> Result<Descriptor, StepError> {
        let gone = StepError::LayerGone {
            diff_id: diff_id.to_string(),
        };
        let Some(layer) = self.store.layer(diff_id)? else {
            return Err(gone);
        };
        for blob in layer.blobs().into_values() {
            if self.has_blob(&blob.digest)? {
                return Ok(blob);
            }
        }
        Err(gone)
    }
}

/// The uncompressed bytes of a blob of so many bytes, made by another thread if that is worth it. An error also where no thread
/// is to be had.
pub(super) fn decompressed(
    blob: impl Read + Send + 'static,
    size: u64,
) -> io::Result<Box<dyn Read + Send>> {
    /// Smaller ones, in bytes, are not worth a thread.
    const WORTH_A_THREAD: u64 = 1 << 20;
    match size < WORTH_A_THREAD {
        true => decompress(blob),
        false => Ok(Box::new(decompress_ahead(blob)?)),
    }
}

/// The error of a blob that cannot be decompressed.
pub(super) fn unreadable(blob: &Descriptor, source: io::Error) -> StepError {
    StepError::Io {
        attempt: "read the blob",
        path: blob.digest.to_string().into(),
        source,
    }
}

/// Reads a tar with `work`, which must leave it at its end; it must have the diff id.
fn hash_tar<T>(
    diff_id: &DiffId,
    plain: Box<dyn Read + Send>,
    work: impl FnOnce(&mut dyn Read) -> Result<T, StepError>,
) -> Result<(T, u64), StepError> {
    let failed = |source| StepError::Io {
        attempt: "unpack the layer",
        path: diff_id.to_string().into(),
        source,
    };
    let mut hashing = Hashing {
        inner: plain,
        hasher: sha2::Sha256::default(),
        size: 0,
    };
    let made = work(&mut hashing)?;
    io::copy(&mut hashing, &mut io::sink()).map_err(failed)?;
    let (found, size) = hashing.finish();
    if found != diff_id.0 {
        return Err(StepError::WrongDiffId {
            expected: diff_id.to_string(),
            found: found.to_string(),
        });
    }
    Ok((made, size))
}

/// Hashes what is read through it.
struct Hashing {
    inner: Box<dyn Read + Send>,
    hasher: sha2::Sha256,
    size: u64,
}

impl Hashing {
    fn finish(self) -> (Digest, u64) {
        use sha2::Digest as _;
        (Digest::from_hash(self.hasher.finalize().into()), self.size)
    }
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use sha2::Digest as _;
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }
}

/// Tells how far a transfer is, some ten times a second at most.
struct Throttled {
    progress: Option<Progress>,
    id: String,
    last: Mutex<Option<Instant>>,
}

impl Throttled {
    fn new(progress: Option<Progress>, id: String) -> Self {
        Self {
            progress,
            id,
            last: Mutex::default(),
        }
    }

    fn tell(&self, current: u64, total: u64) {
        const PAUSE: Duration = Duration::from_millis(100);
        let mut last = locked(&self.last);
        if last.is_none_or(|last| last.elapsed() >= PAUSE) {
            *last = Some(Instant::now());
            self.emit(current, total, false);
        }
    }

    fn end(&self, total: u64) {
        self.emit(total, total, true);
    }

    fn emit(&self, current: u64, total: u64, is_completed: bool) {
        if let Some(progress) = &self.progress {
            progress.events.emit(Event::Status {
                vertex: progress.vertex.clone(),
                id: self.id.clone(),
                current,
                total,
                is_completed,
            });
        }
    }
}
