//! The layers of a state directory.

mod check;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::active::ActiveTree;
use super::error::SnapshotError;
use super::format::{TreeFormat, TreeId};
use super::layer::Layer;
use super::record::{self, INDEX, Record};
use crate::digest::{Descriptor, DiffId, Digest};
use crate::durable::BootId;
use crate::layer::apply::{apply, set_directories};
use crate::layer::index::LayerIndex;
use crate::lease::Lease;
use crate::lock::locked;
use crate::root::StatePaths;

/// Names are 32 bits of a hash: with a million trees the sixteenth is free for sure.
const MOST_NAMES: u32 = 16;

/// The layers of a state directory. Shared by threads.
#[derive(Debug)]
pub struct LayerStore {
    paths: StatePaths,
    /// Pins what is found; tests may do without.
    lease: Option<Arc<Lease>>,
    reader: Reader,
    known: Mutex<BTreeMap<DiffId, Arc<Layer>>>,
}

/// Who works with the layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The running boot of the machine.
    pub boot: BootId,
    /// The format of trees that this process can read, and so verify.
    pub format: TreeFormat,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            boot: BootId::default(),
            format: TreeFormat::Native,
        }
    }
}

impl LayerStore {
    /// Opens the layers for whoever has the lease; makes the directories it needs.
    ///
    /// A layer that is found stays until the lease ends: it is pinned before it is looked for. Trees are made in the
    /// lease's directory for unfinished work.
    ///
    /// # Errors
    ///
    /// A directory cannot be made.
    pub fn open(
        paths: &StatePaths,
        lease: Arc<Lease>,
        reader: Reader,
    ) -> Result<Self, SnapshotError> {
        Self::open_in(paths, Some(lease), reader)
    }

    /// Opens the layers without keeping anything from being collected.
    #[cfg(test)]
    pub(crate) fn unpinned(paths: &StatePaths) -> Result<Self, SnapshotError> {
        Self::open_in(paths, None, Reader::default())
    }

    fn open_in(
        paths: &StatePaths,
        lease: Option<Arc<Lease>>,
        reader: Reader,
    ) -> Result<Self, SnapshotError> {
        for dir in [&paths.layers(), &paths.trees()] {
            fs::create_dir_all(dir).map_err(SnapshotError::io("make directory", dir))?;
        }
        Ok(Self {
            paths: paths.clone(),
            lease,
            reader,
            known: Mutex::default(),
        })
    }

    /// Where trees are: the working directory of overlay mounts.
    pub fn trees(&self) -> PathBuf {
        self.paths.trees()
    }

    /// The directory of a tree.
    pub fn tree_path(&self, tree: &TreeId) -> PathBuf {
        self.paths.trees().join(tree.as_str())
    }

    /// Where trees are made.
    fn work(&self) -> Result<PathBuf, SnapshotError> {
        match &self.lease {
            Some(lease) => Ok(lease.work()?),
            None => {
                let work = self.paths.work();
                fs::create_dir_all(&work).map_err(SnapshotError::io("make directory", &work))?;
                Ok(work)
            }
        }
    }

    /// A fresh directory for a tree.
    pub fn new_tree(&self) -> Result<ActiveTree, SnapshotError> {
        // Each number is used once, also by several stores of a process: a tree that was committed gives its name free.
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let work = self.work()?;
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let dir = work.join(format!("t{}-{number}", std::process::id()));
            if let Some(active) = ActiveTree::create(dir)? {
                return Ok(active);
            }
        }
    }

    /// A layer, if the store has it; pinned, whether it is there or not.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<Arc<Layer>>, SnapshotError> {
        if let Some(layer) = self.known().get(diff_id) {
            return Ok(Some(Arc::clone(layer)));
        }
        self.pin(diff_id)?;
        let folder = self.paths.layer(diff_id);
        let mut record = match record::read(&folder) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            // A crash of the machine may leave an empty file; the layer is made again then.
            Err(error @ SnapshotError::Record { .. }) => {
                tracing::debug!(%error, "layer is taken as missing");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // A layer without its index is made again, and its trees are found then.
        if !folder.join("index").exists() {
            return Ok(None);
        }
        let is_foreign = |boot: &BootId| !boot.is(&self.reader.boot);
        if record.unsynced.values().any(is_foreign) {
            match self.check_after_reboot(diff_id)? {
                Some(checked) => record = checked,
                None => return Ok(None),
            }
        }
        record
            .trees
            .retain(|_, tree| self.paths.trees().join(tree).is_dir());
        Ok(Some(self.remember(diff_id, record)))
    }

    fn pin(&self, diff_id: &DiffId) -> Result<(), SnapshotError> {
        match &self.lease {
            Some(lease) => Ok(lease.pin(diff_id)?),
            None => Ok(()),
        }
    }

    /// Takes a tree out of sight at once, then deletes it.
    fn discard_tree(&self, path: &Path) -> Result<(), SnapshotError> {
        let active = self.new_tree()?;
        // In place of the empty one.
        match fs::rename(path, active.upper()) {
            Ok(()) => active.discard(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SnapshotError::io("remove", path)(error)),
        }
    }

    /// Stores a layer of which there is no tree yet: its tar is elsewhere.
    pub fn register(
        &self,
        diff_id: &DiffId,
        index: LayerIndex,
        size: u64,
    ) -> Result<Arc<Layer>, SnapshotError> {
        self.publish(diff_id, index, size, None)
    }

    /// Makes a frozen tree a layer of the store. If there is such a tree already, the new one is discarded.
    pub fn commit(
        &self,
        active: ActiveTree,
        index: LayerIndex,
        diff_id: &DiffId,
        size: u64,
        format: &TreeFormat,
    ) -> Result<Arc<Layer>, SnapshotError> {
        self.publish(diff_id, index, size, Some((&active, format)))
    }

    /// Notes that a blob holds the layer in a codec.
    pub fn record_blob(
        &self,
        layer: &Layer,
        codec: &str,
        blob: Descriptor,
    ) -> Result<(), SnapshotError> {
        let folder = self.paths.layer(layer.diff_id());
        let record = record::lock(&folder)?.update(|record| {
            record.blobs.insert(codec.to_owned(), blob);
        })?;
        layer.replace_record(record);
        Ok(())
    }

    /// Gives a layer with a tree of the format: if there is none, it is made from the tar, which must have the diff id.
    pub fn ensure_tree<R: Read>(
        &self,
        diff_id: &DiffId,
        format: &TreeFormat,
        tar: impl FnOnce() -> io::Result<R>,
    ) -> Result<Arc<Layer>, SnapshotError> {
        if let Some(layer) = self.layer(diff_id)?
            && layer.tree(format).is_some()
        {
            return Ok(layer);
        }
        let active = self.new_tree()?;
        let tar = tar().map_err(crate::layer::error::LayerError::Read)?;
        let mut reader = HashingReader {
            inner: tar,
            hasher: Sha256::new(),
            size: 0,
        };
        let index = apply(&mut reader, active.upper(), format.xattrs())?;
        let found = DiffId(Digest::from_hash(reader.hasher.finalize().into()));
        if found != *diff_id {
            return Err(SnapshotError::Mismatch {
                expected: diff_id.clone(),
                found,
            });
        }
        self.commit(active, index, diff_id, reader.size, format)
    }

    /// Renames a tree into the store under the first name that is its own or free.
    fn place(
        &self,
        active: &ActiveTree,
        diff_id: &DiffId,
        format: &TreeFormat,
    ) -> Result<Place, SnapshotError> {
        for attempt in 0..MOST_NAMES {
            let tree = TreeId::candidate(diff_id, format, attempt);
            if !self.claim_name(active, &tree, diff_id, format)? {
                continue;
            }
            let target = self.tree_path(&tree);
            let renamed = rustix::fs::renameat_with(
                CWD,
                active.upper(),
                CWD,
                &target,
                RenameFlags::NOREPLACE,
            );
            return match renamed {
                Ok(()) => Ok(Place::New(tree)),
                Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(Place::Existing(tree)),
                Err(error) => Err(SnapshotError::os("rename a tree to", target)(error)),
            };
        }
        Err(SnapshotError::NoName(diff_id.clone()))
    }

    /// Takes a name for a tree; tells whether it is the tree's (now or since earlier).
    fn claim_name(
        &self,
        active: &ActiveTree,
        tree: &TreeId,
        diff_id: &DiffId,
        format: &TreeFormat,
    ) -> Result<bool, SnapshotError> {
        let owner = format!("{format} {diff_id}\n");
        let marker = self.paths.trees().join(format!("{tree}.id"));
        match fs::read_to_string(&marker) {
            Ok(text) => return Ok(text == owner),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // One that the disk has lost speaks for nobody: another name is free.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => return Ok(false),
            Err(error) => return Err(SnapshotError::io("read", marker)(error)),
        }
        let temporary = active.temporary();
        fs::write(&temporary, &owner).map_err(SnapshotError::io("write", &temporary))?;
        let renamed =
            rustix::fs::renameat_with(CWD, &temporary, CWD, &marker, RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => {
                fs::remove_file(&temporary).ok();
                let text =
                    fs::read_to_string(&marker).map_err(SnapshotError::io("read", marker))?;
                Ok(text == owner)
            }
            Err(error) => Err(SnapshotError::os("write", marker)(error)),
        }
    }

    /// Stores index and tree under the lock of the layer's folder.
    ///
    /// The index of a layer is the first one stored, and all its trees have the implied directories that it tells:
    /// the same changes frozen over another base, or unpacked from a tar, may have had others.
    fn publish(
        &self,
        diff_id: &DiffId,
        index: LayerIndex,
        size: u64,
        tree: Option<(&ActiveTree, &TreeFormat)>,
    ) -> Result<Arc<Layer>, SnapshotError> {
        self.pin(diff_id)?;
        let folder = self.paths.layer(diff_id);
        let locked = record::make_locked(&folder)?;
        let file = folder.join("index");
        // One that a crash of the machine tore is as good as none.
        let stored = LayerIndex::load(&file).ok();
        let is_first = stored.is_none();
        let known = record::read(&folder).ok().flatten().unwrap_or_default();
        if is_first {
            index.save(&file)?;
        }
        let is_other = stored.as_ref().is_some_and(|stored| *stored != index);
        let stored = stored.unwrap_or(index);
        let mut placed = None;
        let mut is_new = false;
        if let Some((active, format)) = tree {
            if is_other {
                set_directories(active.upper(), stored.implied())?;
            }
            let mut place = self.place(active, diff_id, format)?;
            // A tree that nobody vouches for is what a crash left: the new one takes its place.
            if let Place::Existing(id) = &place
                && !self.is_trusted(&known, format, id)
            {
                self.discard_tree(&self.tree_path(id))?;
                place = self.place(active, diff_id, format)?;
            }
            let id = match place {
                Place::New(id) => {
                    is_new = true;
                    id
                }
                Place::Existing(id) => {
                    if is_first {
                        set_directories(&self.tree_path(&id), stored.implied())?;
                    }
                    id
                }
            };
            placed = Some((format.as_str().to_owned(), id.0));
        }
        let boot = &self.reader.boot;
        let record = locked.update(|record| {
            record.size = size;
            if is_first {
                record.unsynced.insert(INDEX.to_owned(), boot.clone());
            }
            if let Some((name, id)) = placed {
                if is_new {
                    record.unsynced.insert(name.clone(), boot.clone());
                }
                record.trees.insert(name, id);
            }
        })?;
        let layer = self.remember(diff_id, record);
        layer.remember(Arc::new(stored));
        Ok(layer)
    }

    /// Whether the record says that this tree is whole: made in this boot, or known to be on disk.
    fn is_trusted(&self, record: &Record, format: &TreeFormat, tree: &TreeId) -> bool {
        let name = format.as_str();
        record.trees.get(name) == Some(&tree.0)
            && record
                .unsynced
                .get(name)
                .is_none_or(|boot| boot.is(&self.reader.boot))
    }

    fn remember(&self, diff_id: &DiffId, record: Record) -> Arc<Layer> {
        let mut known = self.known();
        if let Some(layer) = known.get(diff_id) {
            layer.replace_record(record);
            return Arc::clone(layer);
        }
        let folder = self.paths.layer(diff_id);
        let layer = Arc::new(Layer::new(diff_id.clone(), folder, record));
        known.insert(diff_id.clone(), Arc::clone(&layer));
        layer
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<DiffId, Arc<Layer>>> {
        locked(&self.known)
    }
}

/// Where a tree came to lie.
enum Place {
    /// It was renamed there.
    New(TreeId),
    /// The same tree was there.
    Existing(TreeId),
}

struct HashingReader<R> {
    inner: R,
    hasher: Sha256,
    size: u64,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
