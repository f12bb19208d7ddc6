//! The destination as it will be: what is planned over what is there.

use std::collections::{BTreeMap, BTreeSet};

use cache::layer::path;
use frontend::graph::InputIndex;

use super::error::{CopyError, SourceError, shown};
use super::owner::Ids;
use super::place::Ground;
use super::plan::{CopyPlan, ImpliedDirectory, PlannedEntry, PlannedKind};
use super::resolve::{Step, resolve};
use super::source::{Destination, DestinationEntry, SourceEntry, resolved};

/// A path ordered as layers are: with NUL, which no name holds, for the slash, plain byte order puts what is in a
/// directory right behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LayerPath(Vec<u8>);

impl LayerPath {
    fn of(path: &[u8]) -> Self {
        let swap = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        Self(path.iter().map(swap).collect())
    }

    /// Whether it is this path or one below it; those follow each other.
    fn is_in(&self, above: &Self) -> bool {
        let rest = self.0.strip_prefix(above.0.as_slice());
        rest.is_some_and(|rest| above.0.is_empty() || matches!(rest.first(), None | Some(0)))
    }

    fn path(&self) -> Vec<u8> {
        let swap = |byte: &u8| if *byte == 0 { b'/' } else { *byte };
        self.0.iter().map(swap).collect()
    }
}

/// Time of what is made without a source, whatever `SOURCE_DATE_EPOCH` says: the time is no part of keys, so a layer must be
/// the same for every epoch.
pub(super) const CREATED_MTIME: i64 = 0;

/// `S_ISGID`
const SET_GROUP_ID: u32 = 0o2000;

/// The destination as it will be.
pub(super) struct Target<'a> {
    base: Option<&'a dyn Destination>,
    planned: BTreeMap<LayerPath, PlannedEntry>,
    /// Paths below which the base shows no more.
    replaced: BTreeSet<Vec<u8>>,
    /// Under which number the base will be among the sources.
    base_input: Option<InputIndex>,
    /// How many bytes archives may still unpack to.
    room_bytes: u64,
    /// About as many bytes as all that was planned takes in memory.
    held_bytes: usize,
    /// What the names of a link group have in common, as the last of them to be planned has it.
    shared: BTreeMap<u32, Shared>,
}

/// What a file has once, however many names it has.
struct Shared {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    capability: Option<Vec<u8>>,
}

impl<'a> Target<'a> {
    pub(super) fn new(ground: &Ground<'a>) -> Self {
        Self {
            base: ground.base,
            planned: BTreeMap::new(),
            replaced: BTreeSet::new(),
            base_input: ground.base_input,
            room_bytes: ground.room_bytes,
            held_bytes: 0,
            shared: BTreeMap::new(),
        }
    }

    /// Takes room for what an archive unpacks to; false if there is not enough.
    pub(super) fn take_room(&mut self, bytes: u64) -> bool {
        let left = self.room_bytes.checked_sub(bytes);
        self.room_bytes = left.unwrap_or(0);
        left.is_some()
    }

    /// About as many bytes as all that was planned takes in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// A file of the base, as something to copy.
    pub(super) fn file_of_base(
        &self,
        wanted: &[u8],
    ) -> Result<Option<(InputIndex, SourceEntry)>, SourceError> {
        let (Some(base), Some(input)) = (self.base, self.base_input) else {
            return Ok(None);
        };
        Ok(base.file(wanted)?.map(|entry| (input, entry)))
    }

    pub(super) fn base(&self) -> Option<&'a dyn Destination> {
        self.base
    }

    /// What is at a path, links not followed. The root is always a directory.
    pub(super) fn lookup(&self, wanted: &[u8]) -> Result<Option<DestinationEntry>, SourceError> {
        if let Some(entry) = self.planned.get(&LayerPath::of(wanted)) {
            return Ok(Some(entry.as_destination()));
        }
        let is_hidden = !self.replaced.is_empty()
            && path::ancestors(wanted).any(|above| self.replaced.contains(above));
        let found = match self.base {
            Some(base) if !is_hidden => base.lookup(wanted)?,
            Some(_) | None => None,
        };
        let root = || DestinationEntry {
            kind: Step::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
        };
        Ok(found.or_else(|| wanted.is_empty().then(root)))
    }

    /// Where a path leads.
    pub(super) fn resolve(&self, wanted: &[u8]) -> Result<Vec<u8>, CopyError> {
        let step = |path: &[u8]| Ok(self.lookup(path)?.map(|entry| entry.kind));
        Ok(resolved(wanted, resolve(wanted, step))?.path)
    }

    /// Makes what is missing of a directory and its parents. The path has no links in it.
    ///
    /// As `mkdir` does it: in a directory with the set-group-ID bit a new one gets the bit too, and unless an owner is
    /// given, the group.
    pub(super) fn make_directories(
        &mut self,
        wanted: &[u8],
        mode: u32,
        owner: Option<Ids>,
    ) -> Result<(), CopyError> {
        let ends = (0..wanted.len()).filter(|at| wanted[*at] == b'/');
        let mut above = self.lookup(b"")?;
        for end in ends.chain([wanted.len()]) {
            let prefix = &wanted[..end];
            let mut found = self.lookup(prefix)?;
            match found.as_ref().map(|entry| &entry.kind) {
                Some(Step::Directory) => {}
                Some(Step::Link(_) | Step::Other) => {
                    let path = shown(prefix);
                    return Err(CopyError::ParentNotDirectory { path });
                }
                None => {
                    let inherited = above.filter(|above| above.mode & SET_GROUP_ID != 0);
                    let usual = Ids {
                        uid: 0,
                        gid: inherited.as_ref().map_or(0, |above| above.gid),
                    };
                    let ids = owner.unwrap_or(usual);
                    let made = PlannedEntry {
                        path: prefix.to_vec(),
                        kind: PlannedKind::Directory,
                        mode: mode | inherited.map_or(0, |_| SET_GROUP_ID),
                        uid: ids.uid,
                        gid: ids.gid,
                        mtime: CREATED_MTIME,
                        capability: None,
                    };
                    found = Some(made.as_destination());
                    self.put(made);
                }
            }
            above = found;
        }
        Ok(())
    }

    /// Plans an entry, in place of one planned for its path. A further name of a file changes the file: its owner, mode and
    /// time, and its capability if it brings one.
    pub(super) fn put(&mut self, entry: PlannedEntry) {
        if let PlannedKind::File {
            group: Some(group), ..
        } = entry.kind
        {
            let before = self.shared.remove(&group);
            let kept = before.and_then(|before| before.capability);
            let shared = Shared {
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                mtime: entry.mtime,
                capability: entry.capability.clone().or(kept),
            };
            self.shared.insert(group, shared);
        }
        // The path is held twice, as the key and in the entry.
        self.held_bytes += size_of::<PlannedEntry>() + 2 * entry.path.len();
        if let PlannedKind::Symlink(target) = &entry.kind {
            self.held_bytes += target.len();
        }
        self.planned.insert(LayerPath::of(&entry.path), entry);
    }

    /// Forgets what is planned at and below a path and hides what the base has there, because something of another type
    /// comes in its place.
    pub(super) fn replace(&mut self, wanted: &[u8]) {
        let at = LayerPath::of(wanted);
        let below = self.planned.range(at.clone()..);
        let inside: Vec<LayerPath> = below
            .map_while(|(path, _)| path.is_in(&at).then(|| path.clone()))
            .collect();
        for path in inside {
            self.planned.remove(&path);
        }
        self.replaced.insert(wanted.to_vec());
    }

    /// What is planned at a path.
    pub(super) fn planned(&self, wanted: &[u8]) -> Option<&PlannedEntry> {
        self.planned.get(&LayerPath::of(wanted))
    }

    /// The plan: entries in layer order, the first of each link group as the file, and the directories passed through.
    pub(super) fn finish(self) -> Result<CopyPlan, CopyError> {
        // Every tree has a root, one of a copy of nothing too.
        let root = LayerPath(Vec::new());
        let mut implied = BTreeSet::new();
        if !self.planned.contains_key(&root) {
            implied.insert(root);
        }
        for entry in self.planned.values() {
            for above in path::ancestors(&entry.path) {
                let above = LayerPath::of(above);
                // What lies above something planned is added when its turn comes.
                if self.planned.contains_key(&above) || !implied.insert(above) {
                    break;
                }
            }
        }
        let mut directories = Vec::new();
        for path in implied.iter().map(LayerPath::path) {
            let found = self.lookup(&path)?;
            directories.push(ImpliedDirectory {
                mode: found.as_ref().map_or(0o755, |entry| entry.mode),
                uid: found.as_ref().map_or(0, |entry| entry.uid),
                gid: found.as_ref().map_or(0, |entry| entry.gid),
                mtime: found.as_ref().map_or(0, |entry| entry.mtime),
                path,
            });
        }
        let mut firsts: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut entries: Vec<PlannedEntry> = self.planned.into_values().collect();
        for entry in &mut entries {
            let PlannedKind::File {
                group: Some(group),
                link_to,
                ..
            } = &mut entry.kind
            else {
                continue;
            };
            match firsts.get(group) {
                Some(first) => *link_to = Some(first.clone()),
                None => drop(firsts.insert(*group, entry.path.clone())),
            }
            if let Some(shared) = self.shared.get(group) {
                (entry.mode, entry.uid, entry.gid) = (shared.mode, shared.uid, shared.gid);
                entry.mtime = shared.mtime;
                entry.capability.clone_from(&shared.capability);
            }
        }
        Ok(CopyPlan {
            entries,
            implied: directories,
        })
    }
}
