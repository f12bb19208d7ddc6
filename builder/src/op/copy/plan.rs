//! The layer that an op will make, entry by entry. A pure value: nothing is written.

use std::ops::Range;
use std::sync::Arc;

use cache::checksum::stat_cache::FileStat;
use cache::digest::{CacheKey, ContentDigest};
use cache::key::builder::KeyBuilder;
use cache::layer::entry::{Entry, EntryKind};
use cache::layer::index::{LayerIndex, Node, Role};
use frontend::graph::InputIndex;

use super::error::WriteError;
use super::hashed_list::HashedList;
use super::planned::Origin;
use super::resolve::join;

/// The layer that an op will make. It becomes the layer's index when it is written, because of very many files there is
/// no room for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    /// What the layer has. Directories of the base that lie on the way are implied.
    pub(super) index: LayerIndex,
    /// One for each node of the index.
    origins: Vec<Origin>,
    key: CacheKey,
}

/// Something the layer will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEntry {
    /// Relative to the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: PlannedKind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whole seconds since the Unix epoch.
    pub mtime: i64,
    /// `security.capability`
    pub capability: Option<Vec<u8>>,
}

/// What a planned entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Size in bytes.
        size: u64,
        /// Digest of the bytes.
        content: ContentDigest,
        /// Where the bytes come from.
        bytes: Bytes,
        /// Names of one file have one number, from 1; 0 is none.
        group: u32,
    },
    /// A symbolic link with its text.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Where a file's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// Here.
    Inline(Box<[u8]>),
    /// A file of an input.
    Source {
        /// Where the copied tree, or the file alone, is.
        root: Arc<Place>,
        /// How many of the last bytes of the planned path are the file's path below it.
        below: usize,
        /// The version that was hashed, where files can change.
        version: Option<Version>,
    },
    /// A member of an archive.
    Archive {
        /// The archive.
        archive: Arc<Place>,
        /// Its number among the members of the archive, from 0.
        member: u64,
    },
}

/// A path of an input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which input.
    pub input: Option<InputIndex>,
    /// Where in it.
    pub path: Vec<u8>,
}

/// Tells a version of a file from others: a hash of its stat, of which nothing but equality is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version([u8; 16]);

impl From<&FileStat> for Version {
    fn from(stat: &FileStat) -> Self {
        let mut bytes = [0; 56];
        let numbers = [
            stat.device,
            stat.inode,
            stat.size,
            stat.mtime.0.cast_unsigned(),
            stat.ctime.0.cast_unsigned(),
            u64::from(stat.mtime.1) << 32 | u64::from(stat.ctime.1),
            u64::from(stat.mode),
        ];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let mut version = [0; 16];
        version.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
        Self(version)
    }
}

impl Place {
    /// The path below it that the last bytes of a planned path are.
    pub(super) fn below(&self, planned: &[u8], below: usize) -> Vec<u8> {
        let relative = &planned[planned.len().saturating_sub(below)..];
        join(&self.path, relative)
    }
}

impl Bytes {
    /// The same bytes for another path than the one they were planned for.
    pub(super) fn wherever(&self, planned: &[u8]) -> Self {
        match self {
            Self::Source {
                root,
                below,
                version,
            } => Self::Source {
                root: Arc::new(Place {
                    input: root.input,
                    path: root.below(planned, *below),
                }),
                below: 0,
                version: *version,
            },
            Self::Inline(_) | Self::Archive { .. } => self.clone(),
        }
    }
}

impl PlannedEntry {
    /// As a node of the layer's index, and what that does not have.
    pub(super) fn into_parts(self) -> (Node, Origin) {
        let mut origin = Origin::default();
        let kind = match self.kind {
            PlannedKind::Directory => EntryKind::Directory { is_opaque: false },
            PlannedKind::File {
                size,
                content,
                bytes,
                group,
            } => {
                origin = Origin::new(Some(bytes), group);
                EntryKind::File { size, content }
            }
            PlannedKind::Symlink(target) => EntryKind::Symlink { target },
            PlannedKind::CharDevice(major, minor) => EntryKind::CharDevice { major, minor },
            PlannedKind::BlockDevice(major, minor) => EntryKind::BlockDevice { major, minor },
            PlannedKind::Fifo => EntryKind::Fifo,
        };
        let entry = Entry {
            path: self.path,
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            capability: self.capability,
        };
        let role = Role::Entry;
        (Node { entry, role }, origin)
    }
}

impl CopyPlan {
    /// Takes nodes in layer order, the directories on the way among them.
    pub(super) fn new(
        nodes: Vec<Node>,
        origins: Vec<Origin>,
        key: CacheKey,
    ) -> Result<Self, WriteError> {
        let index = LayerIndex::of_nodes(nodes).map_err(WriteError::Index)?;
        Ok(Self {
            index,
            origins,
            key,
        })
    }

    /// Puts what is unpacked in the key. An archive of which anything changed is unpacked again, as by BuildKit: it is known
    /// by its bytes, so the times of its members count, other than those of files that are copied.
    pub(super) fn of_archives(mut self, archives: &[ContentDigest]) -> Self {
        if !archives.is_empty() {
            let mut key = KeyBuilder::new("copy layer of archives");
            key.key("layer", &self.key);
            for archive in archives {
                key.bytes("archive", &archive.0);
            }
            self.key = key.finish();
        }
        self
    }

    /// The layer key: everything of the layer but times and where bytes lie, and the bytes of archives.
    pub fn key(&self) -> CacheKey {
        self.key
    }

    /// The entries of the layer, in layer order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.index.entries()
    }

    /// Everything of the tree, with where the bytes of files come from.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Entry, Option<&Bytes>)> {
        self.nodes_in(0..self.index.nodes().len())
    }

    /// Some of it, by number.
    pub(super) fn nodes_in(
        &self,
        which: Range<usize>,
    ) -> impl Iterator<Item = (&Entry, Option<&Bytes>)> {
        let nodes = self.index.nodes().get(which.clone()).unwrap_or_default();
        let origins = self.origins.get(which).unwrap_or_default();
        let bytes = origins.iter().map(|origin| origin.bytes.as_ref());
        nodes.iter().map(|node| &node.entry).zip(bytes)
    }

    /// Bytes of all files, each link group once.
    pub fn bytes(&self) -> u64 {
        let sizes = self.index.entries().map(|entry| match &entry.kind {
            EntryKind::File { size, .. } => *size,
            EntryKind::Directory { .. }
            | EntryKind::HardLink { .. }
            | EntryKind::Symlink { .. }
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. }
            | EntryKind::Fifo
            | EntryKind::Whiteout => 0,
        });
        sizes.sum()
    }
}

/// The layer key of entries in layer order.
pub(super) fn layer_key<'a>(entries: impl Iterator<Item = &'a Entry>) -> CacheKey {
    let mut list = HashedList::default();
    for entry in entries {
        list.add(|bytes| encode(entry, bytes));
    }
    let mut key = KeyBuilder::new("copy layer");
    key.bytes("entries", list.finish().as_bytes());
    key.finish()
}

/// An entry in a fixed form, lengths in front. Changing it changes every layer key.
fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let mut framed = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    let device = |major: u32, minor: u32| {
        let mut numbers = [0; 8];
        numbers[..4].copy_from_slice(&major.to_le_bytes());
        numbers[4..].copy_from_slice(&minor.to_le_bytes());
        numbers
    };
    let numbers;
    let (tag, detail): (u8, &[u8]) = match &entry.kind {
        EntryKind::Directory { .. } => (b'd', b""),
        EntryKind::HardLink { target } => (b'h', target),
        EntryKind::File { content, .. } => (b'f', &content.0),
        EntryKind::Symlink { target } => (b'l', target),
        EntryKind::CharDevice { major, minor } => {
            numbers = device(*major, *minor);
            (b'c', &numbers)
        }
        EntryKind::BlockDevice { major, minor } => {
            numbers = device(*major, *minor);
            (b'b', &numbers)
        }
        EntryKind::Fifo => (b'p', b""),
        // No plan has one.
        EntryKind::Whiteout => (b'w', b""),
    };
    framed(&entry.path);
    framed(&[tag]);
    framed(detail);
    framed(
        &[entry.mode, entry.uid, entry.gid]
            .map(u32::to_le_bytes)
            .concat(),
    );
    framed(entry.capability.as_deref().unwrap_or_default());
}
