//! Collections: what may go, in which order, and taking it away under the feet of running builds.
//!
//! # What never goes
//!
//! Images that have a tag (their config, manifest and layers), what a running build pins, and cache mounts and mirrors
//! in use. Nor a blob that was written since the first running build began: it may be about to be
//! pinned.
//!
//! # Order
//!
//! Least benefit first: time saved per byte, halved for each week without use. A layer that others were built on goes
//! after them. With a layer go the records that name it, first of all: a look-up never finds half of a result.
//!
//! # Concurrency
//!
//! Each batch holds `gate` alone, looks again at what is pinned, forgets records, and renames trees into the collection's
//! own trash, where they are deleted after the gate is open again; others no longer count them then. A build pins before
//! it looks whether something is there (`lease`), so what it finds stays. A killed collection leaves work that the next build removes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fs;
use std::path::Path;

use crate::claim::open_lock_file;
use crate::digest::{CacheKey, DiffId, Digest};
use crate::disk::{Disk, DiskError, Item, Kind, Needs, Sizes, changed_ms, file_system};
use crate::io::{Attempt, IoError};
use crate::key::index::Keys;
use crate::lease::Lease;
use crate::root::StatePaths;
use crate::snapshot::contents;
use crate::sweep;
use crate::usage;

/// Items removed while the gate is held once.
const BATCH: usize = 64;

/// A benefit halves in this time without use.
const HALF_LIFE_MS: u64 = 7 * 86_400_000;

/// Memos go after this long without use.
const MEMO_AGE_MS: u64 = 60 * 86_400_000;

/// The largest share of a disk, and the most bytes, that a store has if nothing else is said.
const DEFAULT_SHARE: u64 = 10;
const DEFAULT_MOST: u64 = 50_000_000_000;

/// A store below this is never collected by itself: on a small disk a tenth would not hold one base image.
const DEFAULT_LEAST: u64 = 1_000_000_000;

/// What a collection takes.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Only as much as brings the store down to this many bytes; everything that may go if nothing is said.
    pub most_bytes: Option<u64>,
    /// Only until so many bytes are freed.
    pub frees_bytes: Option<u64>,
    /// Nothing that was of use since, in milliseconds since the Unix epoch.
    pub used_before_ms: Option<u64>,
    /// Only these kinds; all if empty.
    pub kinds: BTreeSet<Kind>,
    /// Only what has this in its name or id.
    pub name: Option<String>,
    /// Also stat caches of contexts: they cost a re-reading of the context.
    pub takes_contexts: bool,
}

/// What a collection did.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// What went, with the bytes that it freed.
    pub removed: Vec<Item>,
    /// Bytes of what killed builds had left, which went too.
    pub swept_bytes: u64,
    /// Bytes in the store afterwards, without what others are deleting.
    pub left_bytes: u64,
    /// What could not go, and why not.
    pub pinned: Vec<Item>,
}

impl Collected {
    /// Who needs how much of what could not go.
    pub fn holders(&self) -> BTreeMap<String, u64> {
        let mut holders: BTreeMap<String, u64> = BTreeMap::new();
        for item in &self.pinned {
            for pin in &item.pins {
                *holders.entry(pin.clone()).or_default() += item.bytes;
            }
        }
        holders
    }

    /// Bytes that were freed.
    pub fn freed_bytes(&self) -> u64 {
        self.swept_bytes + self.removed.iter().map(|item| item.bytes).sum::<u64>()
    }
}

/// The cap of a store if nothing else is said: the smaller of a tenth of its disk and 50 GB, but 1 GB at least.
pub fn default_cap(paths: &StatePaths) -> Result<u64, IoError> {
    let (all, _) = file_system(paths.root())?;
    Ok((all / DEFAULT_SHARE).clamp(DEFAULT_LEAST, DEFAULT_MOST))
}

/// Collects if the store may be above its cap. Costs two small reads while it is clearly below.
pub fn collect_above(
    paths: &StatePaths,
    keys: &Keys,
    cap: u64,
    now_ms: u64,
) -> Result<Option<Collected>, DiskError> {
    // The margin is for what others freed.
    if usage::most_bytes(paths)? < cap - cap / 10 {
        return Ok(None);
    }
    let policy = Policy {
        most_bytes: Some(cap),
        ..Policy::default()
    };
    collect(paths, keys, &policy, now_ms).map(Some)
}

/// Collects.
pub fn collect(
    paths: &StatePaths,
    keys: &Keys,
    policy: &Policy,
    now_ms: u64,
) -> Result<Collected, DiskError> {
    // Acquiring a lease sweeps: what that frees is counted.
    let swept_bytes = sweep::leftovers(paths, now_ms)?;
    let lease = Lease::for_upkeep(paths)?;
    let measuring = usage::begin(paths)?;
    let disk = Disk::survey(paths, keys, Some(&lease))?;
    let mut collected = Collected {
        left_bytes: disk.lasting_bytes(),
        swept_bytes,
        ..Collected::default()
    };
    let mut queue = Queue::new(&disk, policy, now_ms);
    let all = collected.left_bytes;
    let is_bound = policy.most_bytes.is_some() || policy.frees_bytes.is_some();
    let enough = |left: u64| {
        is_bound
            && policy.most_bytes.is_none_or(|most| left <= most)
            && policy.frees_bytes.is_none_or(|freed| left + freed <= all)
    };
    while !enough(collected.left_bytes) {
        let mut batch = Vec::new();
        let mut left = collected.left_bytes;
        while batch.len() < BATCH && !enough(left) {
            let Some(number) = queue.next() else { break };
            left = left.saturating_sub(disk.items[number].bytes);
            batch.push(number);
        }
        if batch.is_empty() {
            break;
        }
        for item in remove_batch(paths, keys, &disk, &batch, &lease, now_ms)? {
            collected.left_bytes = collected.left_bytes.saturating_sub(item.bytes);
            collected.removed.push(item);
        }
    }
    collected.pinned = disk
        .items
        .into_iter()
        .filter(|item| !item.pins.is_empty())
        .collect();
    drop(lease);
    measuring.end(paths, collected.left_bytes)?;
    Ok(collected)
}

/// Removes what a look at tags and leases, with the gate closed, still lets go; gives what went, with what that freed.
fn remove_batch(
    paths: &StatePaths,
    keys: &Keys,
    disk: &Disk,
    batch: &[usize],
    lease: &Lease,
    now_ms: u64,
) -> Result<Vec<Item>, DiskError> {
    let trash = lease.trash()?;
    let gate = open_lock_file(&paths.gate())?;
    rustix::fs::flock(&gate, rustix::fs::FlockOperation::LockExclusive)
        .attempt("lock", &paths.gate())?;
    let needs = Needs::of(paths, Some(lease))?;
    let items = batch.iter().filter_map(|number| disk.items.get(*number));
    let going: Vec<&Item> = items
        .filter(|item| !is_needed(paths, item, disk, &needs))
        .collect();
    let layers: BTreeSet<&str> = going
        .iter()
        .filter(|item| item.kind == Kind::Layer)
        .map(|item| item.name.as_str())
        .collect();
    let names_one = |layer: &DiffId| layers.contains(layer.0.as_str());
    // Looked up again: since the survey a build may have made one of these layers once more, recorded it and ended.
    let records = keys.uses()?.into_iter();
    let forgotten: Vec<CacheKey> = records
        .filter(|record| record.layers.iter().any(names_one))
        .map(|record| record.key)
        .collect();
    keys.forget_all(&forgotten, now_ms.saturating_sub(MEMO_AGE_MS))?;
    let mut gone = Vec::new();
    for item in going {
        let left_bytes = remove(paths, disk, item, &trash)?;
        gone.push(Item {
            bytes: item.bytes.saturating_sub(left_bytes),
            ..item.clone()
        });
    }
    drop(gate);
    lease.empty_trash();
    Ok(gone)
}

fn layer_of(item: &Item) -> Option<DiffId> {
    item.name.parse::<Digest>().ok().map(DiffId)
}

fn is_needed(paths: &StatePaths, item: &Item, disk: &Disk, needs: &Needs) -> bool {
    let needs_blob =
        |blob: &Digest| needs.blobs.contains_key(blob) || needs.pinned.blobs.contains(blob);
    match item.kind {
        Kind::Layer => layer_of(item).is_none_or(|layer| {
            let mut blobs = disk.layers.get(&layer).into_iter().flat_map(|c| &c.blobs);
            needs.layers.contains_key(&layer)
                || needs.pinned.layers.contains(&layer)
                || blobs.any(needs_blob)
        }),
        Kind::Blob | Kind::Image => item.name.parse().is_ok_and(|digest| {
            // It may have been written anew since the survey.
            needs_blob(&digest) || needs.is_young(changed_ms(&paths.blob(&digest)))
        }),
        Kind::Chunk | Kind::CacheMount | Kind::Context | Kind::Git | Kind::Log => false,
        Kind::Database | Kind::Work | Kind::Other => true,
    }
}

/// Removes an item; gives the bytes that are left of it.
fn remove(paths: &StatePaths, disk: &Disk, item: &Item, trash: &Path) -> Result<u64, DiskError> {
    let unlink = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).attempt("remove", path)
        }
        Ok(()) | Err(_) => Ok(()),
    };
    match item.kind {
        Kind::Layer => {
            if let Some(layer) = layer_of(item)
                && let Some(contents) = disk.layers.get(&layer)
            {
                contents::remove(paths, &layer, contents, trash)?;
            }
        }
        Kind::Blob | Kind::Image => {
            if let Ok(digest) = item.name.parse::<Digest>() {
                unlink(&paths.blob(&digest))?;
            }
        }
        Kind::Chunk => unlink(&paths.chunks().join(&item.name))?,
        Kind::Context => unlink(&paths.contexts().join(&item.name))?,
        Kind::Log => {
            let path = paths.logs().join(&item.name);
            match path.is_dir() {
                true => crate::log::discard(&path)?,
                false => unlink(&path)?,
            }
            // A build may have taken the name since the survey.
            return Ok(Sizes::default().of(&path));
        }
        Kind::CacheMount => {
            let folder = paths.cache_mounts().join(&item.name);
            crate::mounts::discard(&folder, trash)?;
            // Its locks stay, and what a step took since the survey.
            return Ok(Sizes::default().of(&folder));
        }
        Kind::Git => {
            let path = paths.git().join(&item.name);
            crate::mirror::discard(&path, trash)?;
            // A build may have begun to use it since the survey.
            return Ok(Sizes::default().of(&path));
        }
        Kind::Database | Kind::Work | Kind::Other => {}
    }
    Ok(0)
}

/// What may go, least benefit first, children before parents.
struct Queue<'a> {
    disk: &'a Disk,
    heap: BinaryHeap<Reverse<(u128, u64, usize)>>,
    /// Of each layer, how many records have it below their top one.
    above: BTreeMap<&'a DiffId, usize>,
    /// Records by their top layer.
    tops: BTreeMap<&'a DiffId, Vec<usize>>,
    numbers: BTreeMap<DiffId, usize>,
    candidates: BTreeSet<usize>,
    now_ms: u64,
}

impl<'a> Queue<'a> {
    fn new(disk: &'a Disk, policy: &Policy, now_ms: u64) -> Self {
        let mut queue = Self {
            disk,
            heap: BinaryHeap::new(),
            above: BTreeMap::new(),
            tops: BTreeMap::new(),
            numbers: BTreeMap::new(),
            candidates: BTreeSet::new(),
            now_ms,
        };
        for (number, record) in disk.records.iter().enumerate() {
            let Some((top, below)) = record.layers.split_last() else {
                continue;
            };
            queue.tops.entry(top).or_default().push(number);
            for layer in distinct(below, top) {
                *queue.above.entry(layer).or_default() += 1;
            }
        }
        for (number, item) in disk.items.iter().enumerate() {
            if !may_go(item, policy) {
                continue;
            }
            queue.candidates.insert(number);
            match layer_of(item).filter(|_| item.kind == Kind::Layer) {
                None => queue.push(number),
                Some(layer) => {
                    if queue.above.get(&layer).is_none_or(|count| *count == 0) {
                        queue.push(number);
                    }
                    queue.numbers.insert(layer, number);
                }
            }
        }
        queue
    }

    fn push(&mut self, number: usize) {
        if let Some(item) = self.disk.items.get(number) {
            let benefit = benefit(item, self.now_ms);
            self.heap.push(Reverse((benefit, item.used_ms, number)));
        }
    }

    /// The next to go. What only it was built on may go after it.
    fn next(&mut self) -> Option<usize> {
        let Reverse((_, _, number)) = self.heap.pop()?;
        let item = self.disk.items.get(number)?;
        let layer = layer_of(item).filter(|_| item.kind == Kind::Layer);
        let records = layer.and_then(|layer| self.tops.remove(&layer));
        for record in records.into_iter().flatten() {
            let layers = self.disk.records.get(record).map(|r| &r.layers);
            let Some((top, below)) = layers.and_then(|layers| layers.split_last()) else {
                continue;
            };
            for layer in distinct(below, top) {
                let count = self.above.entry(layer).or_default();
                *count = count.saturating_sub(1);
                if *count == 0
                    && let Some(parent) = self.numbers.get(layer).copied()
                    && self.candidates.contains(&parent)
                {
                    self.push(parent);
                }
            }
        }
        Some(number)
    }
}

fn distinct<'a>(below: &'a [DiffId], top: &DiffId) -> BTreeSet<&'a DiffId> {
    below.iter().filter(|layer| *layer != top).collect()
}

fn may_go(item: &Item, policy: &Policy) -> bool {
    let is_wanted = policy.kinds.is_empty() || policy.kinds.contains(&item.kind);
    let is_unused = policy
        .used_before_ms
        .is_none_or(|before| item.used_ms < before);
    let is_named = policy
        .name
        .as_ref()
        .is_none_or(|name| item.name.contains(name.as_str()));
    let is_kind = match item.kind {
        Kind::Layer
        | Kind::Blob
        | Kind::Image
        | Kind::Chunk
        | Kind::CacheMount
        | Kind::Git
        | Kind::Log => true,
        Kind::Context => policy.takes_contexts,
        Kind::Database | Kind::Work | Kind::Other => false,
    };
    is_wanted && is_unused && is_named && is_kind && item.pins.is_empty()
}

/// Milliseconds saved per gigabyte, halved for each week without use.
fn benefit(item: &Item, now_ms: u64) -> u128 {
    let weeks = now_ms.saturating_sub(item.used_ms) / HALF_LIFE_MS;
    let saved = u128::from(item.cost_ms) * 1_000_000_000 / u128::from(item.bytes.max(1));
    saved >> weeks.min(127)
}

#[cfg(test)]
#[path = "gc_tests.rs"]
mod tests;
