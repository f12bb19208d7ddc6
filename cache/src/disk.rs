//! What lies in the state directory, how big it is, what needs it: for `du`, and for deciding what goes.
//!
//! Sizes are what the file system has allocated, a hard-linked file counted once, directories included: the sum over all
//! items is what `du` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::blob::dir::DirStore;
use crate::blob::{BlobError, BlobStore};
use crate::claim::{LockMode, Wait, lock};
use crate::digest::{DiffId, Digest};
use crate::io::{Attempt, IoError, names_in};
use crate::key::index::{KeyError, Keys, RecordUse};
use crate::lease::{self, Lease, Pinned, written_ms};
use crate::mirror;
use crate::root::StatePaths;
use crate::snapshot::contents::{self, LayerContents};
use crate::snapshot::error::SnapshotError;
use crate::tag::Images;

/// The longest config or manifest that is read.
const MOST_DOCUMENT: u64 = 16 << 20;

/// What kind of thing an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A layer: its trees, its index, and blobs made of it.
    Layer,
    /// A config or manifest of a tagged image.
    Image,
    /// A pulled layer, or a document of an image that is not tagged.
    Blob,
    /// A compressed chunk.
    Chunk,
    /// The directories of one cache mount.
    CacheMount,
    /// Digests of the files of a build context.
    Context,
    /// What was fetched of a git repository.
    Git,
    /// Output of steps.
    Log,
    /// Keys and records.
    Database,
    /// What running builds are making.
    Work,
    /// Tags, references, locks, and the directories themselves.
    Other,
}

/// Something in the store.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its digest or file name.
    pub name: String,
    /// Allocated bytes.
    pub bytes: u64,
    /// When it was last of use, in milliseconds since the Unix epoch, as far as is known.
    pub used_ms: u64,
    /// What it would take to make it again, in milliseconds.
    pub cost_ms: u64,
    /// What needs it; nothing of this may go.
    pub pins: Vec<String>,
    /// Steps whose results need it.
    pub records: Vec<String>,
}

/// Why the store could not be looked through.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The database could not be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A blob could not be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A layer's record could not be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Everything in the store.
#[derive(Debug)]
pub struct Disk {
    /// The items.
    pub items: Vec<Item>,
    /// The records of steps.
    pub records: Vec<RecordUse>,
    /// The layers.
    pub layers: BTreeMap<DiffId, LayerContents>,
    /// Allocated bytes of what is being deleted, part of the work.
    trash_bytes: u64,
}

impl Disk {
    /// Allocated bytes of everything.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }

    /// As [`Self::bytes`], but for what is being deleted by whoever took it away.
    pub(crate) fn lasting_bytes(&self) -> u64 {
        self.bytes().saturating_sub(self.trash_bytes)
    }

    /// Looks through a store. What the lease of whoever asks pins is not told as needed.
    pub fn survey(
        paths: &StatePaths,
        keys: &Keys,
        asking: Option<&Lease>,
    ) -> Result<Self, DiskError> {
        let needs = Needs::of(paths, asking)?;
        let records = keys.uses()?;
        let mut sizes = Sizes::default();
        let layers = contents::all(paths)?;
        let mut users: BTreeMap<&DiffId, Vec<&RecordUse>> = BTreeMap::new();
        for record in &records {
            let distinct: BTreeSet<&DiffId> = record.layers.iter().collect();
            for layer in distinct {
                users.entry(layer).or_default().push(record);
            }
        }
        let mut items = Vec::new();
        let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
        for (diff_id, contents) in &layers {
            let users = users.get(diff_id).map_or(&[][..], Vec::as_slice);
            items.push(layer_item(
                paths, diff_id, contents, &needs, users, &mut sizes, &mut seen,
            ));
        }
        items.extend(blob_items(paths, &needs, &mut sizes, &seen)?);
        for (kind, folder) in [
            (Kind::Chunk, paths.chunks()),
            (Kind::CacheMount, paths.cache_mounts()),
            (Kind::Context, paths.contexts()),
            (Kind::Log, paths.logs()),
        ] {
            for name in names_in(&folder)? {
                let path = folder.join(name);
                // What is left of one that was given up are its locks: nothing that could go.
                if kind != Kind::CacheMount || crate::mounts::has_content(&path)? {
                    items.push(file_item(kind, &path, &mut sizes));
                }
            }
        }
        for name in names_in(&paths.git())? {
            let path = paths.git().join(name);
            if path.is_dir() {
                items.push(mirror_item(&path, &mut sizes)?);
            }
        }
        for item in &mut items {
            let is_mount = item.kind == Kind::CacheMount;
            if is_mount && crate::mounts::is_used(&paths.cache_mounts().join(&item.name))? {
                item.pins.push("a running step".to_owned());
            }
        }
        for item in &mut items {
            if item.kind == Kind::Log && is_held(&paths.logs().join(&item.name))? {
                item.pins.push(BUILD.to_owned());
            }
        }
        let trashes = lease::trashes(paths)?;
        let trash_bytes = trashes.iter().map(|trash| sizes.of(trash)).sum();
        items.extend(rest(paths, &mut sizes, trash_bytes));
        Ok(Self {
            trash_bytes,
            items,
            records,
            layers,
        })
    }
}

/// Whether somebody holds a lock on a file or folder.
fn is_held(path: &Path) -> Result<bool, IoError> {
    match fs::File::open(path) {
        Ok(file) => Ok(!lock(&file, path, LockMode::Exclusive, Wait::Never)?),
        Err(_) => Ok(false),
    }
}

/// What tags and running builds need.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Tags by layer.
    pub(crate) layers: BTreeMap<DiffId, BTreeSet<String>>,
    /// Tags by blob.
    pub(crate) blobs: BTreeMap<Digest, BTreeSet<String>>,
    /// What running builds pin.
    pub(crate) pinned: Pinned,
}

/// What stands before the name of an image that something cannot go because of.
pub(crate) const IMAGE: &str = "image ";

/// Who holds what cannot go because of a build.
const BUILD: &str = "a running build";

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    rootfs: Rootfs,
}

#[derive(Default, Deserialize)]
struct Rootfs {
    #[serde(default)]
    diff_ids: Vec<DiffId>,
}

#[derive(Default, Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<crate::digest::Descriptor>,
}

impl Needs {
    pub(crate) fn of(paths: &StatePaths, asking: Option<&Lease>) -> Result<Self, DiskError> {
        let blobs = DirStore::new(paths);
        let mut needs = Self {
            pinned: lease::pinned(paths, asking)?,
            ..Self::default()
        };
        for tag in Images::new(paths).list()? {
            let name = tag.name.clone();
            let mut need_blob = |digest: &Digest| {
                let tags = needs.blobs.entry(digest.clone()).or_default();
                tags.insert(name.clone());
            };
            need_blob(&tag.config);
            if let Some(manifest) = &tag.manifest {
                need_blob(&manifest.digest);
                let document: Manifest = document(&blobs, &manifest.digest)?;
                document.layers.iter().for_each(|l| need_blob(&l.digest));
            }
            let config: Config = document(&blobs, &tag.config)?;
            for layer in config.rootfs.diff_ids {
                let tags = needs.layers.entry(layer).or_default();
                tags.insert(tag.name.clone());
            }
        }
        Ok(needs)
    }

    fn of_layer(&self, layer: &DiffId) -> Vec<String> {
        let tags = self.layers.get(layer).into_iter().flatten();
        let mut pins: Vec<String> = tags.map(|tag| format!("{IMAGE}{tag}")).collect();
        if self.pinned.layers.contains(layer) {
            pins.push(BUILD.to_owned());
        }
        pins
    }

    fn of_blob(&self, blob: &Digest) -> Vec<String> {
        let tags = self.blobs.get(blob).into_iter().flatten();
        let mut pins: Vec<String> = tags.map(|tag| format!("{IMAGE}{tag}")).collect();
        if self.pinned.blobs.contains(blob) {
            pins.push(BUILD.to_owned());
        }
        pins
    }

    /// Whether a blob of this time may be about to be referred to by a build that runs.
    pub(crate) fn is_young(&self, written_ms: u64) -> bool {
        let since_ms = self.pinned.since_ms;
        since_ms.is_some_and(|since_ms| written_ms >= since_ms)
    }
}

/// A document of the store; an empty one if it is not there or no document.
fn document<T: Default + serde::de::DeserializeOwned>(
    blobs: &DirStore,
    digest: &Digest,
) -> Result<T, BlobError> {
    let Some(blob) = blobs.open(digest)? else {
        return Ok(T::default());
    };
    let mut bytes = Vec::new();
    if io::Read::read_to_end(&mut io::Read::take(blob, MOST_DOCUMENT), &mut bytes).is_err() {
        return Ok(T::default());
    }
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

#[expect(clippy::too_many_arguments, reason = "tables that the survey fills")]
fn layer_item(
    paths: &StatePaths,
    diff_id: &DiffId,
    contents: &LayerContents,
    needs: &Needs,
    records: &[&RecordUse],
    sizes: &mut Sizes,
    seen: &mut BTreeSet<PathBuf>,
) -> Item {
    let mut bytes = sizes.of(&paths.layer(diff_id));
    for tree in &contents.trees {
        let path = paths.trees().join(tree);
        let marker = paths.trees().join(format!("{tree}.id"));
        bytes += sizes.of(&path) + sizes.of(&marker);
        seen.insert(path);
        seen.insert(marker);
    }
    for blob in &contents.blobs {
        let path = paths.blob(blob);
        bytes += sizes.of(&path);
        seen.insert(path);
    }
    let users = || records.iter().copied();
    // What a layer saves is the time of the steps that made it.
    let makers = users().filter(|record| record.layers.last() == Some(diff_id));
    let blob_pins = contents.blobs.iter().flat_map(|blob| needs.of_blob(blob));
    let mut pins = needs.of_layer(diff_id);
    pins.extend(blob_pins);
    pins.dedup();
    Item {
        kind: Kind::Layer,
        name: diff_id.to_string(),
        bytes,
        used_ms: users()
            .map(|record| record.used_ms)
            .max()
            .unwrap_or_else(|| changed_ms(&paths.layer(diff_id))),
        cost_ms: makers.map(|record| record.cost_ms).max().unwrap_or(0),
        pins,
        records: users().map(|record| record.name.clone()).collect(),
    }
}

fn blob_items(
    paths: &StatePaths,
    needs: &Needs,
    sizes: &mut Sizes,
    seen: &BTreeSet<PathBuf>,
) -> Result<Vec<Item>, IoError> {
    let mut items = Vec::new();
    for name in names_in(&paths.blobs())? {
        let path = paths.blobs().join(&name);
        if seen.contains(&path) {
            continue;
        }
        let mut item = file_item(Kind::Blob, &path, sizes);
        if let Ok(digest) = format!("sha256:{}", item.name).parse::<Digest>() {
            item.name = digest.to_string();
            item.pins = needs.of_blob(&digest);
            if item.pins.is_empty() && needs.is_young(item.used_ms) {
                item.pins.push(BUILD.to_owned());
            }
            if needs.blobs.contains_key(&digest) {
                item.kind = Kind::Image;
            }
        }
        items.push(item);
    }
    Ok(items)
}

fn file_item(kind: Kind, path: &Path, sizes: &mut Sizes) -> Item {
    let bytes = sizes.of(path);
    let name = path.file_name().unwrap_or_default();
    Item {
        kind,
        name: name.to_string_lossy().into_owned(),
        bytes,
        used_ms: changed_ms(path),
        cost_ms: cost_of(kind, bytes),
        pins: Vec::new(),
        records: Vec::new(),
    }
}

fn mirror_item(path: &Path, sizes: &mut Sizes) -> Result<Item, IoError> {
    let mut item = file_item(Kind::Git, path, sizes);
    let lock = mirror::lock_of(path);
    item.used_ms = changed_ms(&lock);
    if is_held(&lock)? {
        item.pins.push(BUILD.to_owned());
    }
    Ok(item)
}

/// What it takes to make something again that no step made: fetched at 20 MB a second, compressed at 50; what a cache
/// mount saves is not known, and is taken as fetched.
fn cost_of(kind: Kind, bytes: u64) -> u64 {
    match kind {
        Kind::Blob | Kind::CacheMount | Kind::Git => bytes / 20_000,
        Kind::Chunk => bytes / 50_000,
        Kind::Layer
        | Kind::Image
        | Kind::Context
        | Kind::Log
        | Kind::Database
        | Kind::Work
        | Kind::Other => 0,
    }
}

/// Everything that no other item covers.
fn rest(paths: &StatePaths, sizes: &mut Sizes, trash_bytes: u64) -> Vec<Item> {
    let database = paths.database();
    let mut items = Vec::new();
    for suffix in ["", "-wal", "-shm"] {
        let mut name = database.clone().into_os_string();
        name.push(suffix);
        items.push(file_item(Kind::Database, Path::new(&name), sizes));
    }
    let mut work = file_item(Kind::Work, &paths.work(), sizes);
    work.bytes += trash_bytes;
    items.push(work);
    // Whatever was counted is not counted again, so this is the remainder.
    let mut other = file_item(Kind::Other, paths.root(), sizes);
    other.name = "other".to_owned();
    items.push(other);
    items.retain(|item| item.bytes > 0);
    items
}

/// When a file or directory was last changed, in milliseconds since the Unix epoch.
pub(crate) fn changed_ms(path: &Path) -> u64 {
    let changed = |metadata: Metadata| written_ms(&metadata);
    let own = fs::symlink_metadata(path).map(changed).unwrap_or_default();
    // The directories of a cache mount change, not their folder.
    let inner = fs::read_dir(path).into_iter().flatten().flatten();
    inner
        .filter_map(|entry| entry.metadata().ok().map(changed))
        .max()
        .map_or(own, |inner| inner.max(own))
}

/// Adds up allocated bytes, each inode once.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    counted: BTreeSet<(u64, u64)>,
}

impl Sizes {
    /// Allocated bytes of a file, or of a directory with everything below it that was not counted yet.
    pub(crate) fn of(&mut self, path: &Path) -> u64 {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return 0;
        };
        let is_new = self.counted.insert((metadata.dev(), metadata.ino()));
        let mut bytes = if is_new { metadata.blocks() * 512 } else { 0 };
        if metadata.is_dir() {
            // What vanishes or cannot be read meanwhile is not there.
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                bytes += self.of(&entry.path());
            }
        }
        bytes
    }
}

/// Bytes of the file system that a path is on: all, and in use.
pub fn file_system(path: &Path) -> Result<(u64, u64), IoError> {
    let all = rustix::fs::statvfs(path).attempt("examine the file system of", path)?;
    let used = all.f_blocks.saturating_sub(all.f_bfree);
    Ok((all.f_blocks * all.f_frsize, used * all.f_frsize))
}

/// Bytes that are free on the file system that a path is on.
pub fn file_system_free(path: &Path) -> Result<u64, IoError> {
    let all = rustix::fs::statvfs(path).attempt("examine the file system of", path)?;
    Ok(all.f_bavail.saturating_mul(all.f_frsize))
}
