//! The destination as it will be: what is planned over what is there.

use std::collections::{BTreeMap, BTreeSet};

use cache::layer::entry::{Entry, EntryKind};
use cache::layer::index::{Node, Role};
use cache::layer::path;
use frontend::graph::InputIndex;

use super::error::{CopyError, SourceError, shown};
use super::owner::Ids;
use super::place::Ground;
use super::plan::{CopyPlan, PlannedEntry, PlannedKind, layer_key};
use super::planned::{LayerPath, Origin, Planned};
use super::resolve::{Step, resolve};
use super::source::{Destination, DestinationEntry, SourceEntry, resolved};

/// Time of what is made without a source, whatever `SOURCE_DATE_EPOCH` says: the time is no part of keys, so a layer must be
/// the same for every epoch.
pub(super) const CREATED_MTIME: i64 = 0;

/// `S_ISGID`
const SET_GROUP_ID: u32 = 0o2000;

/// The destination as it will be.
pub(super) struct Target<'a> {
    base: Option<&'a dyn Destination>,
    planned: Planned,
    /// Paths below which the base shows no more.
    replaced: BTreeSet<Vec<u8>>,
    /// Under which number the base will be among the sources.
    base_input: Option<InputIndex>,
    /// How many bytes archives may still unpack to.
    room_bytes: u64,
    /// About as many bytes as all that was planned takes in memory.
    held_bytes: usize,
    /// What the names of a link group have in common, as the last of them to be planned has it; only of groups of which
    /// more than one name was planned.
    shared: BTreeMap<u32, Shared>,
    /// Of each link group, whether a name was planned.
    has_name: Vec<bool>,
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
            planned: Planned::default(),
            replaced: BTreeSet::new(),
            base_input: ground.base_input,
            room_bytes: ground.room_bytes,
            held_bytes: 0,
            shared: BTreeMap::new(),
            has_name: Vec::new(),
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
        if let Some((node, _)) = self.planned.get(wanted) {
            return Ok(Some(as_destination(&node.entry)));
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
                    self.put(made);
                    found = self.lookup(prefix)?;
                }
            }
            above = found;
        }
        Ok(())
    }

    /// Whether a file of a link group was planned before.
    fn is_further_name(&mut self, group: u32) -> bool {
        // Groups are numbered from 1 as they come.
        let Some(at) = usize::try_from(group).ok().and_then(|at| at.checked_sub(1)) else {
            return false;
        };
        if self.has_name.len() <= at {
            self.has_name.resize(at + 1, false);
        }
        std::mem::replace(&mut self.has_name[at], true)
    }

    /// Plans an entry, in place of one planned for its path. A further name of a file changes the file: its owner, mode and
    /// time, and its capability, which is lost if the name brings none, as a change of owner takes it away.
    pub(super) fn put(&mut self, entry: PlannedEntry) {
        if let PlannedKind::File { group, .. } = entry.kind
            && self.is_further_name(group)
        {
            let shared = Shared {
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                mtime: entry.mtime,
                capability: entry.capability.clone(),
            };
            self.shared.insert(group, shared);
        }
        self.held_bytes += size_of::<Node>() + size_of::<Origin>() + entry.path.len();
        if let PlannedKind::Symlink(target) = &entry.kind {
            self.held_bytes += target.len();
        }
        let (node, origin) = entry.into_parts();
        self.planned.put(node, origin);
    }

    /// Forgets what is planned at and below a path and hides what the base has there, because something of another type
    /// comes in its place.
    pub(super) fn replace(&mut self, wanted: &[u8]) {
        self.planned.remove(wanted);
        self.replaced.insert(wanted.to_vec());
    }

    /// What is planned at a path.
    pub(super) fn planned(&self, wanted: &[u8]) -> Option<PlannedEntry> {
        let (node, origin) = self.planned.get(wanted)?;
        let entry = node.entry.clone();
        Some(PlannedEntry {
            kind: kind_of(&entry, origin)?,
            path: entry.path,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            capability: entry.capability,
        })
    }

    /// The plan: entries in layer order, the first of each link group as the file, and the directories passed through.
    pub(super) fn finish(mut self) -> Result<CopyPlan, CopyError> {
        let implied = self.implied()?;
        let (nodes, origins) = self.planned.in_order();
        link_groups(nodes, origins, &self.shared);
        let key = layer_key(nodes.iter().map(|node| &node.entry));
        for entry in implied {
            let role = Role::Implied;
            self.planned.put(Node { entry, role }, Origin::default());
        }
        let (nodes, origins) = self.planned.into_parts();
        Ok(CopyPlan::new(nodes, origins, key)?)
    }

    /// The directories passed through, with the metadata that they have in the base.
    fn implied(&mut self) -> Result<Vec<Entry>, CopyError> {
        let mut found = BTreeSet::new();
        // Every tree has a root, one of a copy of nothing too.
        if self.planned.get(b"").is_none() {
            found.insert(LayerPath::of(b""));
        }
        self.planned.in_order();
        let mut last_parent: Option<&[u8]> = None;
        for node in self.planned.nodes() {
            let parent = path::split(&node.entry.path).map(|(parent, _)| parent);
            if parent.is_none() || parent == last_parent {
                continue;
            }
            last_parent = parent;
            for above in path::ancestors(&node.entry.path) {
                // What lies above something planned is added when its turn comes.
                if self.planned.get(above).is_some() || !found.insert(LayerPath::of(above)) {
                    break;
                }
            }
        }
        let directory = |path: &LayerPath| {
            let plain = Entry::default_directory(path.path());
            Ok(match self.lookup(&plain.path)? {
                None => plain,
                Some(found) => Entry {
                    mode: found.mode,
                    uid: found.uid,
                    gid: found.gid,
                    mtime: found.mtime,
                    ..plain
                },
            })
        };
        found.iter().map(directory).collect()
    }
}

/// Makes all but the first name of each file a link to that, and gives all of them what they share.
fn link_groups(nodes: &mut [Node], origins: &mut [Origin], shared: &BTreeMap<u32, Shared>) {
    let mut firsts: BTreeMap<u32, usize> = BTreeMap::new();
    for at in 0..nodes.len() {
        let origin = &mut origins[at];
        if origin.group == 0 {
            continue;
        }
        let first = *firsts.entry(origin.group).or_insert(at);
        if first != at {
            origin.bytes = None;
            let target = nodes[first].entry.path.clone();
            nodes[at].entry.kind = EntryKind::HardLink { target };
        }
        if let Some(shared) = shared.get(&origin.group) {
            let entry = &mut nodes[at].entry;
            (entry.mode, entry.uid, entry.gid) = (shared.mode, shared.uid, shared.gid);
            entry.mtime = shared.mtime;
            entry.capability.clone_from(&shared.capability);
        }
    }
}

fn as_destination(entry: &Entry) -> DestinationEntry {
    DestinationEntry {
        kind: Step::from(&entry.kind),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
    }
}

/// What was planned as an entry, to be planned again, perhaps at another path.
fn kind_of(entry: &Entry, origin: &Origin) -> Option<PlannedKind> {
    Some(match &entry.kind {
        EntryKind::Directory { .. } => PlannedKind::Directory,
        EntryKind::File { size, content } => PlannedKind::File {
            size: *size,
            content: *content,
            bytes: origin.bytes.as_ref()?.wherever(&entry.path),
            group: origin.group,
        },
        EntryKind::Symlink { target } => PlannedKind::Symlink(target.clone()),
        EntryKind::CharDevice { major, minor } => PlannedKind::CharDevice(*major, *minor),
        EntryKind::BlockDevice { major, minor } => PlannedKind::BlockDevice(*major, *minor),
        EntryKind::Fifo => PlannedKind::Fifo,
        // Links are made when all is planned; nothing is deleted.
        EntryKind::HardLink { .. } | EntryKind::Whiteout => return None,
    })
}
