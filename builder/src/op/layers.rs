//! The layers a build works with: those of the store, and those that registries and OCI layouts have and that are fetched
//! when, and only as far as, somebody needs them.
//!
//! A layer's index needs its blob downloaded and read once; its tree needs it unpacked. Neither is needed to find out
//! that everything is cached, nor to push to where the layer came from.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cache::blob::BlobStore;
use cache::blob::dir::DirStore;
use cache::digest::{Descriptor, DiffId, Digest};
use cache::durable::BootId;
use cache::layer::compress::decompress::decompress;
use cache::layer::compress::{self, CompressOptions, Compressor};
use cache::layer::freeze::{FreezeOptions, freeze};
use cache::layer::index::LayerIndex;
use cache::layer::pack::pack;
use cache::layer::scan::scan;
use cache::layer::sink::{Boundary, Plain, TarSink, nowhere};
use cache::layer::stack::LayerStack;
use cache::lease::Lease;
use cache::root::StatePaths;
use cache::snapshot::active::ActiveTree;
use cache::snapshot::format::TreeFormat;
use cache::snapshot::layer::Layer;
use cache::snapshot::mount::{self, Access, MountPlan, Planned};
use cache::snapshot::store::{LayerStore, Reader};
use cache::tag::{Source, Sources};
use tokio::runtime::Handle;

use super::error::StepError;
use super::image::{KnownImage, Origin};
use crate::cancel::CancelFlag;
use crate::export::BlobOrigin;
use crate::lock::locked;
use crate::progress::event::{Event, VertexRef};
use crate::progress::sink::EventSink;
use crate::registry::client::Client;
use crate::registry::error::RegistryError;
use crate::registry::pull::pull_layer;
use crate::registry::resolve::LayerDescriptor;
use frontend::reference::Reference;

/// The name, among a layer's blobs, of the one that it came as.
const AS_PULLED: &str = "pulled";

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

/// What [`Layers`] is made of.
pub struct LayerParts<'a> {
    /// Names of files of the store.
    pub paths: &'a StatePaths,
    /// The registries.
    pub client: Client,
    /// Where downloads run.
    pub handle: Handle,
    /// The build's hold on the store.
    pub lease: Arc<Lease>,
    /// The images of the build.
    pub images: &'a BTreeMap<String, KnownImage>,
    /// How trees are to be read.
    pub format: TreeFormat,
    /// Ends downloads when it is set.
    pub stop: CancelFlag,
    /// The running boot of the machine.
    pub boot: BootId,
}

impl std::fmt::Debug for LayerParts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerParts").finish_non_exhaustive()
    }
}

/// A layer that can be fetched.
#[derive(Clone)]
struct Fetchable {
    layer: LayerDescriptor,
    origin: Origin,
}

/// The layers of a build.
pub struct Layers {
    store: LayerStore,
    blobs: DirStore,
    sources: Sources,
    client: Client,
    handle: Handle,
    lease: Arc<Lease>,
    format: TreeFormat,
    stop: CancelFlag,
    fetchable: BTreeMap<DiffId, Fetchable>,
    /// Vertices of images, by layer, until their layers are here.
    announced: Mutex<BTreeMap<DiffId, Progress>>,
    open: Mutex<BTreeMap<VertexRef, Arc<dyn EventSink>>>,
    turns: Mutex<BTreeMap<DiffId, Arc<Mutex<()>>>>,
    /// Layers that this build wrote something of.
    made: Mutex<BTreeSet<DiffId>>,
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers").finish_non_exhaustive()
    }
}

/// A stack ready to be mounted; its skeletons live as long as this.
#[derive(Debug)]
pub struct OverlayLayers {
    /// The directory that the names are relative to.
    pub dir: PathBuf,
    /// Top first.
    pub lowers: Vec<PathBuf>,
    _skeletons: Vec<ActiveTree>,
}

impl Layers {
    /// Opens the layers of a store for a build.
    ///
    /// # Errors
    ///
    /// The store cannot be used.
    pub fn open(parts: LayerParts<'_>) -> Result<Self, StepError> {
        let mut fetchable = BTreeMap::new();
        for image in parts.images.values() {
            for layer in &image.layers {
                let origin = image.origin.clone();
                fetchable.insert(
                    layer.diff_id.clone(),
                    Fetchable {
                        layer: layer.clone(),
                        origin,
                    },
                );
            }
        }
        let reader = Reader {
            boot: parts.boot,
            format: parts.format.clone(),
        };
        Ok(Self {
            store: LayerStore::open_in(parts.paths, parts.lease.work()?, reader)?,
            blobs: DirStore::new(parts.paths),
            sources: Sources::new(parts.paths),
            client: parts.client,
            handle: parts.handle,
            lease: parts.lease,
            format: parts.format,
            stop: parts.stop,
            fetchable,
            announced: Mutex::default(),
            open: Mutex::default(),
            turns: Mutex::default(),
            made: Mutex::default(),
        })
    }

    /// Whether every layer is in the store or can be fetched.
    pub(crate) fn has_all(&self, layers: &[DiffId]) -> Result<bool, StepError> {
        for layer in layers {
            // Pinned first: what is found now must not be collected before it is used.
            self.lease.pin(layer)?;
            let is_known = self.fetchable.contains_key(layer)
                || self.is_usable(layer)?
                || self.can_be_fetched(layer)?;
            if !is_known {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the store has what a tree can be made of, if not the tree: one made under another id map is of no use.
    fn is_usable(&self, diff_id: &DiffId) -> Result<bool, StepError> {
        let Some(layer) = self.store.layer(diff_id)? else {
            return Ok(false);
        };
        if layer.tree(&self.format).is_some() {
            return Ok(true);
        }
        for blob in layer.blobs().into_values() {
            if self.has_blob(&blob.digest)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a registry that is known to have a layer may be asked, or its blob is here.
    fn can_be_fetched(&self, layer: &DiffId) -> Result<bool, StepError> {
        for source in self.sources.of(layer)? {
            if !self.client.is_offline() || self.has_blob(&source.blob.digest)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many of these layers are not in the store, and how big their blobs are.
    pub(crate) fn absent(&self, layers: &[DiffId]) -> (usize, u64) {
        let is_absent = |layer: &&DiffId| {
            let blob = self.fetchable.get(*layer).map(|l| &l.layer.descriptor);
            let has_blob = blob.is_some_and(|blob| self.has_blob(&blob.digest).unwrap_or(false));
            let known = self.store.layer(layer).ok().flatten();
            !has_blob && known.is_none_or(|known| known.tree(&self.format).is_none())
        };
        let absent: Vec<&DiffId> = layers.iter().filter(is_absent).collect();
        let size = |layer: &&DiffId| self.fetchable.get(*layer).map(|l| l.layer.descriptor.size);
        (absent.len(), absent.iter().filter_map(size).sum())
    }

    /// The layers that this build wrote something of.
    pub(crate) fn made(&self) -> BTreeSet<DiffId> {
        locked(&self.made).clone()
    }

    /// Does work on a blob of the layer. One that turns out to be damaged is fetched again, once.
    fn with_blob<T>(
        &self,
        diff_id: &DiffId,
        work: impl Fn(&Descriptor) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let blob = self.fetch(diff_id)?;
        match work(&blob) {
            Err(error) if !self.blobs.is_intact(&blob.digest)? => {
                tracing::debug!(digest = %blob.digest, %error, "damaged blob");
                self.blobs.remove(&blob.digest)?;
                work(&self.fetch(diff_id)?)
            }
            outcome => outcome,
        }
    }

    /// Tells that an image is part of the build: done at once if its layers are here, else open until they are or the
    /// build ends.
    pub(super) fn announce(&self, layers: &[DiffId], progress: &Progress) -> Result<(), StepError> {
        let mut missing = Vec::new();
        for layer in layers {
            self.lease.pin(layer)?;
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
    fn layer(&self, diff_id: &DiffId) -> Result<Arc<Layer>, StepError> {
        if let Some(layer) = self.store.layer(diff_id)? {
            return Ok(layer);
        }
        let turn = self.turn(diff_id);
        let _turn = locked(&turn);
        if let Some(layer) = self.store.layer(diff_id)? {
            return Ok(layer);
        }
        let (index, size) = self.with_blob(diff_id, |blob| {
            let reader = self.open_blob(&blob.digest)?;
            self.read_tar(diff_id, reader, |tar| Ok(scan(tar)?))
        })?;
        locked(&self.made).insert(diff_id.clone());
        Ok(self.store.register(diff_id, index, size)?)
    }

    /// Reads a blob's tar with `work`, which must leave it at its end; the tar must have the diff id.
    fn read_tar<T>(
        &self,
        diff_id: &DiffId,
        blob: Box<dyn Read + Send>,
        work: impl FnOnce(&mut dyn Read) -> Result<T, StepError>,
    ) -> Result<(T, u64), StepError> {
        let failed = |source| StepError::Io {
            attempt: "unpack the layer",
            path: diff_id.to_string().into(),
            source,
        };
        let plain = decompress(blob).map_err(failed)?;
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

    /// The tree of a layer, made if need be.
    pub(crate) fn tree(&self, diff_id: &DiffId) -> Result<PathBuf, StepError> {
        let layer = self.with_tree(diff_id)?;
        let tree = layer.tree(&self.format);
        let tree = tree.ok_or(StepError::Internal {
            what: "a layer without its tree",
        })?;
        Ok(self.store.tree_path(&tree))
    }

    fn with_tree(&self, diff_id: &DiffId) -> Result<Arc<Layer>, StepError> {
        if let Some(layer) = self.store.layer(diff_id)?
            && layer.tree(&self.format).is_some()
        {
            return Ok(layer);
        }
        let turn = self.turn(diff_id);
        let _turn = locked(&turn);
        locked(&self.made).insert(diff_id.clone());
        self.with_blob(diff_id, |blob| {
            let open = || {
                let blob = self.open_blob(&blob.digest).map_err(io::Error::other)?;
                decompress(blob)
            };
            Ok(self.store.ensure_tree(diff_id, &self.format, open)?)
        })
    }

    fn turn(&self, diff_id: &DiffId) -> Arc<Mutex<()>> {
        Arc::clone(locked(&self.turns).entry(diff_id.clone()).or_default())
    }

    /// Makes sure that a blob of the layer is in the store: the one it came as, or one made of another tree.
    fn fetch(&self, diff_id: &DiffId) -> Result<Descriptor, StepError> {
        let Some(fetchable) = self.find(diff_id)? else {
            return self.blob_of_other_tree(diff_id);
        };
        let descriptor = fetchable.layer.descriptor.clone();
        if self.has_blob(&descriptor.digest)? {
            self.arrived(diff_id);
            return Ok(descriptor);
        }
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
                let pull = pull_layer(
                    &self.client,
                    &self.blobs,
                    reference,
                    &fetchable.layer,
                    &told,
                );
                self.block_on(pull)
            }
            Origin::Layout(layout) => {
                self.block_on(layout.pull_layer(&self.blobs, &fetchable.layer, &told))
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

    fn note_source(
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
    fn find(&self, diff_id: &DiffId) -> Result<Option<Fetchable>, StepError> {
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

    /// The indexes of a stack, bottom first.
    pub(crate) fn stack(&self, layers: &[DiffId]) -> Result<LayerStack, StepError> {
        let fetched = self.each(layers, |layer| Ok(self.layer(layer)?.index()?))?;
        Ok(LayerStack::new(fetched))
    }

    /// Does work on several layers at once: most of it is waiting for a registry or unpacking.
    fn each<T: Send>(
        &self,
        layers: &[DiffId],
        work: impl Fn(&DiffId) -> Result<T, StepError> + Sync,
    ) -> Result<Vec<T>, StepError> {
        let is_here = |layer: &DiffId| matches!(self.store.layer(layer), Ok(Some(_)));
        if layers.iter().all(is_here) {
            return layers.iter().map(work).collect();
        }
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = layers
                .iter()
                .map(|layer| scope.spawn(move || work(layer)))
                .collect();
            let ended = threads.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ended.collect()
        })
    }

    /// A stack as lower directories of an overlay.
    pub(super) fn overlay(&self, layers: &[DiffId]) -> Result<OverlayLayers, StepError> {
        let distinct: BTreeSet<&DiffId> = layers.iter().collect();
        let distinct: Vec<DiffId> = distinct.into_iter().cloned().collect();
        self.each(&distinct, |layer| self.with_tree(layer))?;
        // overlayfs refuses a directory that is given twice. What a layer says is said by its upper occurrence already,
        // so the lower ones can go.
        let mut seen = BTreeSet::new();
        let mut stacked: Vec<Arc<Layer>> = Vec::with_capacity(layers.len());
        for layer in layers.iter().rev().filter(|layer| seen.insert(*layer)) {
            stacked.push(self.with_tree(layer)?);
        }
        stacked.reverse();
        let layers = stacked;
        let Planned { plan, skeletons } =
            mount::plan(&self.store, &layers, &self.format, Access::ReadOnly)?;
        let (dir, lowers) = match plan {
            MountPlan::Overlay(overlay) => (overlay.dir, overlay.lowers),
            MountPlan::Bind { source } => (self.store.trees(), vec![source]),
        };
        Ok(OverlayLayers {
            dir,
            lowers,
            _skeletons: skeletons,
        })
    }

    /// What the file system of the store has free, in bytes; as much as you like if it cannot tell.
    pub(super) fn free_bytes(&self) -> u64 {
        let free = rustix::fs::statvfs(self.store.trees());
        free.map_or(u64::MAX, |free| free.f_bavail.saturating_mul(free.f_frsize))
    }

    /// A fresh tree.
    pub(super) fn new_tree(&self) -> Result<ActiveTree, StepError> {
        Ok(self.store.new_tree()?)
    }

    /// A fresh tree whose root looks like that of a stack.
    pub(super) fn new_tree_on(&self, layers: &[DiffId]) -> Result<ActiveTree, StepError> {
        let tree = self.store.new_tree()?;
        tree.take_root_of(&self.stack(layers)?)?;
        Ok(tree)
    }

    /// Makes what a command left in an upper directory a layer.
    pub(super) fn freeze(&self, tree: ActiveTree, below: &[DiffId]) -> Result<DiffId, StepError> {
        let lower = self.stack(below)?;
        let options = FreezeOptions {
            xattrs: self.format.xattrs(),
            clamp_mtime: None,
        };
        let frozen = freeze(tree.upper(), &lower, &mut nowhere(), options)?;
        self.publish(tree, frozen.index, frozen.diff_id, frozen.size)
    }

    /// Makes a tree whose index is known a layer.
    pub(super) fn commit(&self, tree: ActiveTree, index: LayerIndex) -> Result<DiffId, StepError> {
        let packed = pack(&index, tree.upper(), &mut nowhere())?;
        self.publish(tree, index, packed.diff_id, packed.size)
    }

    fn publish(
        &self,
        tree: ActiveTree,
        index: LayerIndex,
        diff_id: DiffId,
        size: u64,
    ) -> Result<DiffId, StepError> {
        self.lease.pin(&diff_id)?;
        locked(&self.made).insert(diff_id.clone());
        self.store
            .commit(tree, index, &diff_id, size, &self.format)?;
        Ok(diff_id)
    }

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

    /// Compresses a pulled layer's own tar in another way. Its tree would give another tar.
    fn recompress(&self, diff_id: &DiffId, packing: Packing) -> Result<(Digest, u64), StepError> {
        let blob = self.fetch(diff_id)?;
        let reader = self.open_blob(&blob.digest)?;
        let failed = |source| StepError::Io {
            attempt: "compress the layer",
            path: diff_id.to_string().into(),
            source,
        };
        let writer = self.blobs.writer()?;
        let mut compressor =
            Compressor::new(writer, packing.codec, packing.options).map_err(failed)?;
        let mut sink = Stoppable {
            sink: &mut compressor,
            stop: &packing.stop,
        };
        match self.read_tar(diff_id, reader, |tar| {
            io::copy(tar, &mut sink).map_err(failed)
        }) {
            Err(_) if packing.stop.is_set() => return Err(StepError::Canceled),
            copied => copied?,
        };
        let (compressed, writer) = compressor.finish().map_err(failed)?;
        Ok(writer.commit(Some(&compressed.digest))?)
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
        let failed = |source| StepError::Io {
            attempt: "compress the layer",
            path: diff_id.to_string().into(),
            source,
        };
        let writer = self.blobs.writer()?;
        let mut compressor =
            Compressor::new(writer, packing.codec, packing.options).map_err(failed)?;
        let mut sink = Stoppable {
            sink: &mut compressor,
            stop: &packing.stop,
        };
        let packed = match pack(&index, &tree, &mut sink) {
            Err(_) if packing.stop.is_set() => return Err(StepError::Canceled),
            packed => packed?,
        };
        if packed.diff_id != *diff_id {
            return Err(StepError::WrongDiffId {
                expected: diff_id.to_string(),
                found: packed.diff_id.to_string(),
            });
        }
        let (compressed, writer) = compressor.finish().map_err(failed)?;
        Ok(writer.commit(Some(&compressed.digest))?)
    }

    /// Notes that a blob holds a layer of the store.
    pub(crate) fn record_blob(&self, diff_id: &DiffId, blob: &Descriptor) -> Result<(), StepError> {
        if let Some(layer) = self.store.layer(diff_id)? {
            self.store
                .record_blob(&layer, &blob.media_type, blob.clone())?;
        }
        Ok(())
    }

    /// The layer with no time after `epoch`; itself if there is none.
    pub(crate) fn clamp_times(&self, diff_id: &DiffId, epoch: i64) -> Result<DiffId, StepError> {
        let layer = self.with_tree(diff_id)?;
        let index = layer.index()?;
        if index.nodes().iter().all(|node| node.entry.mtime <= epoch) {
            return Ok(diff_id.clone());
        }
        let clamped = |mut entry: cache::layer::entry::Entry| {
            entry.mtime = entry.mtime.min(epoch);
            entry
        };
        let entries = index.entries().cloned().map(clamped).collect();
        let implied = index.implied().cloned().map(clamped).collect();
        let clamped = LayerIndex::new(entries, implied)?;
        let tree = self.tree(diff_id)?;
        let packed = pack(&clamped, &tree, &mut nowhere())?;
        self.lease.pin(&packed.diff_id)?;
        locked(&self.made).insert(packed.diff_id.clone());
        let failed = |source| StepError::Io {
            attempt: "pack the layer",
            path: tree.clone(),
            source,
        };
        let (reader, writer) = io::pipe().map_err(failed)?;
        std::thread::scope(|scope| {
            let packing = scope.spawn(|| {
                let mut sink = Plain(io::BufWriter::with_capacity(1 << 18, writer));
                pack(&clamped, &tree, &mut sink)
            });
            let made = self
                .store
                .ensure_tree(&packed.diff_id, &self.format, || Ok(reader));
            match packing.join() {
                // A reader that gave up breaks the pipe; why it gave up is the cause.
                Ok(packing) => made
                    .map_err(StepError::from)
                    .and(packing.map_err(StepError::from)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        Ok(packed.diff_id)
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

/// Hashes what is read through it.
struct Hashing<'a> {
    inner: Box<dyn Read + Send + 'a>,
    hasher: sha2::Sha256,
    size: u64,
}

impl Hashing<'_> {
    fn finish(self) -> (Digest, u64) {
        use sha2::Digest as _;
        (Digest::from_hash(self.hasher.finalize().into()), self.size)
    }
}

impl Read for Hashing<'_> {
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
    last: Mutex<Option<std::time::Instant>>,
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
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
        let mut last = locked(&self.last);
        if last.is_none_or(|last| last.elapsed() >= PAUSE) {
            *last = Some(std::time::Instant::now());
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
