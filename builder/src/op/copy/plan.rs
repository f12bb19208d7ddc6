//! The layer that an op will make, entry by entry. A pure value: nothing is written.

use cache::checksum::stat_cache::FileStat;
use cache::digest::{CacheKey, ContentDigest};
use cache::key::builder::KeyBuilder;
use cache::layer::entry::{Entry, EntryKind};
use cache::layer::index::LayerIndex;
use frontend::graph::InputIndex;

use super::error::WriteError;
use super::hashed_list::HashedList;
use super::resolve::Step;
use super::source::DestinationEntry;

/// The layer that an op will make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    /// What the layer has, in layer order.
    pub entries: Vec<PlannedEntry>,
    /// Directories of the base that lie on the way, in layer order. No part of the layer's identity.
    pub implied: Vec<ImpliedDirectory>,
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
        /// Names of one file have one number.
        group: Option<u32>,
        /// The first name of its group, unless it is the first.
        link_to: Option<Vec<u8>>,
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
    Inline(Vec<u8>),
    /// A file of an input.
    Source {
        /// Which input.
        input: Option<InputIndex>,
        /// Where in it.
        path: Vec<u8>,
        /// The version that was hashed, where files can change.
        stamp: Option<FileStat>,
    },
    /// A member of an archive in an input.
    Archive {
        /// Which input.
        input: Option<InputIndex>,
        /// The archive.
        path: Vec<u8>,
        /// Its number among the members of the archive, from 0.
        member: u64,
    },
}

/// A directory of the base that lies on the way, with the base's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpliedDirectory {
    /// Relative to the root; empty for the root.
    pub path: Vec<u8>,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whole seconds since the Unix epoch.
    pub mtime: i64,
}

impl PlannedEntry {
    /// As the destination sees it.
    pub(super) fn as_destination(&self) -> DestinationEntry {
        DestinationEntry {
            kind: match &self.kind {
                PlannedKind::Directory => Step::Directory,
                PlannedKind::Symlink(target) => Step::Link(target.clone()),
                PlannedKind::File { .. }
                | PlannedKind::CharDevice(..)
                | PlannedKind::BlockDevice(..)
                | PlannedKind::Fifo => Step::Other,
            },
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
        }
    }

    fn as_layer_entry(&self) -> Entry {
        let kind = match &self.kind {
            PlannedKind::Directory => EntryKind::Directory { is_opaque: false },
            PlannedKind::File {
                link_to: Some(first),
                ..
            } => EntryKind::HardLink {
                target: first.clone(),
            },
            PlannedKind::File { size, content, .. } => EntryKind::File {
                size: *size,
                content: *content,
            },
            PlannedKind::Symlink(target) => EntryKind::Symlink {
                target: target.clone(),
            },
            PlannedKind::CharDevice(major, minor) => EntryKind::CharDevice {
                major: *major,
                minor: *minor,
            },
            PlannedKind::BlockDevice(major, minor) => EntryKind::BlockDevice {
                major: *major,
                minor: *minor,
            },
            PlannedKind::Fifo => EntryKind::Fifo,
        };
        Entry {
            path: self.path.clone(),
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            capability: self.capability.clone(),
        }
    }
}

impl CopyPlan {
    /// The layer key: everything of the layer but times and where bytes lie.
    pub fn key(&self) -> CacheKey {
        let mut entries = HashedList::default();
        for entry in &self.entries {
            entries.add(|bytes| encode(entry, bytes));
        }
        let mut key = KeyBuilder::new("copy layer");
        key.bytes("entries", entries.finish().as_bytes());
        key.finish()
    }

    /// Bytes of all files, each link group once.
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match &entry.kind {
            PlannedKind::File {
                size,
                link_to: None,
                ..
            } => *size,
            PlannedKind::File { .. }
            | PlannedKind::Directory
            | PlannedKind::Symlink(_)
            | PlannedKind::CharDevice(..)
            | PlannedKind::BlockDevice(..)
            | PlannedKind::Fifo => 0,
        });
        sizes.sum()
    }

    /// The index of the layer.
    pub fn index(&self) -> Result<LayerIndex, WriteError> {
        let entries = self.entries.iter().map(PlannedEntry::as_layer_entry);
        let implied = self.implied.iter().map(|directory| Entry {
            mode: directory.mode,
            uid: directory.uid,
            gid: directory.gid,
            mtime: directory.mtime,
            ..Entry::default_directory(directory.path.clone())
        });
        LayerIndex::new(entries.collect(), implied.collect()).map_err(WriteError::Index)
    }
}

/// An entry in a fixed form, lengths in front. Changing it changes every layer key.
fn encode(entry: &PlannedEntry, out: &mut Vec<u8>) {
    let mut framed = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    let device = |major: u32, minor: u32| [major.to_le_bytes(), minor.to_le_bytes()].concat();
    let (tag, detail): (u8, Vec<u8>) = match &entry.kind {
        PlannedKind::Directory => (b'd', Vec::new()),
        PlannedKind::File {
            link_to: Some(first),
            ..
        } => (b'h', first.clone()),
        PlannedKind::File { content, .. } => (b'f', content.0.to_vec()),
        PlannedKind::Symlink(target) => (b'l', target.clone()),
        PlannedKind::CharDevice(major, minor) => (b'c', device(*major, *minor)),
        PlannedKind::BlockDevice(major, minor) => (b'b', device(*major, *minor)),
        PlannedKind::Fifo => (b'p', Vec::new()),
    };
    framed(&entry.path);
    framed(&[tag]);
    framed(&detail);
    framed(
        &[entry.mode, entry.uid, entry.gid]
            .map(u32::to_le_bytes)
            .concat(),
    );
    framed(entry.capability.as_deref().unwrap_or_default());
}
