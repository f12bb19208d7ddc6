//! The layers a build works with: those of the store, and those that registries and OCI layouts have and that are fetched
//! when, and only as far as, somebody needs them.
//!
//! A layer's index needs its blob downloaded and read once; its tree needs it unpacked. Neither is needed to find out
//! that everything is cached, nor to push to where the layer came from.
//!
//! Not here: getting the bytes (`fetch`), unpacking them (`trees`), and blobs that are made of layers (`blob`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::ScopedJoinHandle;

use cache::blob::dir::DirStore;
use cache::digest::DiffId;
use cache::durable::BootId;
use cache::layer::freeze::{FreezeOptions, freeze};
use cache::layer::index::LayerIndex;
use cache::layer::pack::{Packed, pack};
use cache::layer::sink::{Plain, TarSink, nowhere};
use cache::layer::stack::LayerStack;
use cache::lease::Lease;
use cache::room::Room;
use cache::root::StatePaths;
use cache::snapshot::active::ActiveTree;
use cache::snapshot::format::TreeFormat;
use cache::snapshot::layer::Layer;
use cache::snapshot::mount::{self, Access, MountPlan, Planned};
use cache::snapshot::mount_points::MountPoints;
use cache::snapshot::store::{LayerStore, Reader};
use cache::tag::Sources;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::early_blob;
use super::error::StepError;
use super::fetch::Progress;
use super::image::{KnownImage, Origin};
use crate::cancel::CancelFlag;
use crate::lock::locked;
use crate::parallel;
use crate::progress::event::VertexRef;
use crate::progress::sink::EventSink;
use crate::registry::client::Client;
use crate::registry::resolve::LayerDescriptor;

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
    /// What may be written.
    pub room: Room,
}

impl std::fmt::Debug for LayerParts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerParts").finish_non_exhaustive()
    }
}

/// A layer that can be fetched.
#[derive(Clone)]
pub(super) struct Fetchable {
    pub(super) layer: LayerDescriptor,
    pub(super) origin: Origin,
}

/// The layers of a build.
pub struct Layers {
    pub(super) store: LayerStore,
    pub(super) blobs: DirStore,
    pub(super) sources: Sources,
    pub(super) client: Client,
    pub(super) handle: Handle,
    pub(super) lease: Arc<Lease>,
    pub(super) room: Room,
    pub(super) format: TreeFormat,
    pub(super) stop: CancelFlag,
    pub(super) fetchable: BTreeMap<DiffId, Fetchable>,
    /// Vertices of images, by layer, until their layers are here.
    pub(super) announced: Mutex<BTreeMap<DiffId, Progress>>,
    pub(super) open: Mutex<BTreeMap<VertexRef, Arc<dyn EventSink>>>,
    pub(super) turns: Mutex<BTreeMap<DiffId, Arc<Mutex<()>>>>,
    /// Layers that this build wrote something of.
    pub(super) made: Mutex<BTreeSet<DiffId>>,
    /// Those that a step of this build needed.
    mount_points: Mutex<Vec<(MountPoints, Arc<ActiveTree>)>>,
    /// Layers that commands need the trees of, if they run.
    for_commands: OnceLock<BTreeSet<DiffId>>,
    /// Turns to make a blob while a layer is made.
    pub(super) early_blobs: Semaphore,
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
            store: LayerStore::open(parts.paths, Arc::clone(&parts.lease), reader)?,
            blobs: DirStore::new(parts.paths),
            sources: Sources::new(parts.paths),
            client: parts.client,
            handle: parts.handle,
            lease: parts.lease,
            room: parts.room,
            format: parts.format,
            stop: parts.stop,
            fetchable,
            announced: Mutex::default(),
            open: Mutex::default(),
            turns: Mutex::default(),
            made: Mutex::default(),
            mount_points: Mutex::default(),
            for_commands: OnceLock::new(),
            early_blobs: Semaphore::new(early_blob::MOST_AT_ONCE),
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

    /// Tells of which layers commands need the trees, if they run. The first call counts.
    pub(super) fn expect_commands_on(&self, layers: BTreeSet<DiffId>) {
        self.for_commands.get_or_init(|| layers);
    }

    /// Whether a layer that was never seen is unpacked when its index is wanted, and not only read: what stands on it
    /// was not made here yet.
    pub(super) fn is_unpacked_at_once(&self, layer: &DiffId) -> bool {
        let for_commands = self.for_commands.get();
        for_commands.is_some_and(|layers| layers.contains(layer))
    }

    /// The indexes of a stack, bottom first.
    pub(crate) fn stack(&self, layers: &[DiffId]) -> Result<LayerStack, StepError> {
        let is_here = |layer: &DiffId| matches!(self.store.layer(layer), Ok(Some(_)));
        let fetched = each(layers, is_here, |layer| Ok(self.layer(layer)?.index()?))?;
        Ok(LayerStack::new(fetched))
    }

    /// A stack as lower directories of an overlay.
    pub(super) fn overlay(&self, layers: &[DiffId]) -> Result<OverlayLayers, StepError> {
        let distinct: BTreeSet<&DiffId> = layers.iter().collect();
        let distinct: Vec<DiffId> = distinct.into_iter().cloned().collect();
        let is_unpacked = |layer: &DiffId| {
            let known = self.store.layer(layer).ok().flatten();
            known.is_some_and(|known| known.tree(&self.format).is_some())
        };
        each(&distinct, is_unpacked, |layer| self.with_tree(layer))?;
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
        cache::disk::file_system_free(&self.store.trees()).unwrap_or(u64::MAX)
    }

    /// A fresh tree.
    pub(super) fn new_tree(&self) -> Result<ActiveTree, StepError> {
        Ok(self.store.new_tree()?)
    }

    /// A fresh tree whose root looks like that of a stack.
    pub(super) fn new_tree_on(&self, stack: &LayerStack) -> Result<ActiveTree, StepError> {
        let tree = self.store.new_tree()?;
        tree.take_root_of(stack)?;
        Ok(tree)
    }

    /// Puts places for files to be mounted on top of a stack of which these are the lower directories, where it lacks them.
    pub(super) fn add_mount_points(
        &self,
        overlay: &mut OverlayLayers,
        stack: &LayerStack,
        files: &[&str],
    ) -> Result<(), StepError> {
        let missing = MountPoints::missing(stack, files);
        let Some(missing) = missing.filter(|_| overlay.lowers.len() < MOST_LOWERS) else {
            return Ok(());
        };
        let mut made = locked(&self.mount_points);
        let known = made.iter().find(|(known, _)| *known == missing);
        let tree = match known {
            Some((_, tree)) => Arc::clone(tree),
            None => {
                let tree = Arc::new(missing.make(&self.store)?);
                made.push((missing, Arc::clone(&tree)));
                tree
            }
        };
        let lower = mount::relative(&overlay.dir, tree.upper());
        overlay.lowers.insert(0, lower);
        Ok(())
    }

    /// Makes what a command left in an upper directory a layer; writes its tar to `sink`.
    pub(super) fn freeze(
        &self,
        tree: ActiveTree,
        lower: &LayerStack,
        sink: &mut dyn TarSink,
    ) -> Result<DiffId, StepError> {
        let options = FreezeOptions {
            xattrs: self.format.xattrs(),
            clamp_mtime: None,
        };
        let frozen = freeze(tree.upper(), lower, sink, options)?;
        self.room.wrote(frozen.size)?;
        let (diff_id, size) = (frozen.diff_id, frozen.size);
        self.publish(tree, frozen.index, Packed { diff_id, size })
    }

    /// Makes a tree whose index and tar are known a layer.
    pub(super) fn publish(
        &self,
        tree: ActiveTree,
        index: LayerIndex,
        Packed { diff_id, size }: Packed,
    ) -> Result<DiffId, StepError> {
        locked(&self.made).insert(diff_id.clone());
        self.store
            .commit(tree, index, &diff_id, size, &self.format)?;
        Ok(diff_id)
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
        locked(&self.made).insert(packed.diff_id.clone());
        std::thread::scope(|scope| {
            let mut packing = None;
            // Not asked for where the store has it already, by an earlier build with the same epoch.
            let made = self.store.ensure_tree(&packed.diff_id, &self.format, || {
                let (reader, writer) = io::pipe()?;
                packing = Some(scope.spawn(|| {
                    let mut sink = Plain(io::BufWriter::with_capacity(1 << 18, writer));
                    pack(&clamped, &tree, &mut sink)
                }));
                Ok(reader)
            });
            match packing.map(ScopedJoinHandle::join) {
                None => made.map(drop).map_err(StepError::from),
                // A reader that gave up breaks the pipe; why it gave up is the cause.
                Some(Ok(packing)) => made
                    .map_err(StepError::from)
                    .and(packing.map(drop).map_err(StepError::from)),
                Some(Err(panic)) => std::panic::resume_unwind(panic),
            }
        })?;
        Ok(packed.diff_id)
    }
}

/// As many lower directories as overlayfs takes (`OVL_MAX_STACK`).
const MOST_LOWERS: usize = 500;

/// How many layers are fetched or unpacked at once: enough to keep a registry's line and the cores busy, and few enough
/// for the memory that each takes.
const LAYERS_AT_ONCE: usize = 8;

/// Does work on several layers, on several threads if not all are ready: most of it is waiting for a registry or unpacking.
fn each<T: Send>(
    layers: &[DiffId],
    is_ready: impl Fn(&DiffId) -> bool,
    work: impl Fn(&DiffId) -> Result<T, StepError> + Sync,
) -> Result<Vec<T>, StepError> {
    let threads = match layers.iter().all(is_ready) {
        true => 1,
        false => LAYERS_AT_ONCE,
    };
    parallel::map(layers, threads, work)
}
