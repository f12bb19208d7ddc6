//! The files that a source means, kept small: there may be very many of them.
//!
//! They lie in blocks, so that lists of several threads are put together without copying, with the paths of a block one
//! behind the other. What only few files have is apart. The stat of a file is kept until the file is hashed, as a hash
//! of it is all that is asked of it then.

use cache::checksum::stat_cache::FileStat;
use cache::digest::ContentDigest;

use super::plan::Version;
use super::selection::Reason;
use super::source::{Hashed, LinkIdentity, SourceEntry, SourceKind};

/// Nodes in a block: enough that what is kept of a block itself does not count.
const BLOCK: usize = 256;

/// Something to be copied.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    /// Relative to the pick; empty for the pick itself.
    pub(super) relative: &'a [u8],
    /// Without its stamp.
    pub(super) entry: SourceEntry,
    pub(super) reason: Reason,
    /// The version of a hashed file, where files can change.
    pub(super) version: Option<Version>,
}

/// A list of nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    blocks: Vec<Block>,
    count: usize,
}

#[derive(Clone, Debug, Default)]
struct Block {
    paths: Vec<u8>,
    nodes: Vec<Kept>,
}

/// A node in a block. Its path ends where the next one begins.
#[derive(Clone, Debug)]
struct Kept {
    path_at: usize,
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    reason: Reason,
    rare: Option<Box<Rare>>,
}

/// What few nodes have.
#[derive(Clone, Debug)]
struct Rare {
    capability: Option<Vec<u8>>,
    link: Option<LinkIdentity>,
}

#[derive(Clone, Debug)]
enum Kind {
    Unread(FileStat),
    File {
        size: u64,
        content: ContentDigest,
        version: Option<Version>,
    },
    Directory,
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Socket,
}

impl Kind {
    fn of(kind: SourceKind, stamp: Option<FileStat>) -> Self {
        match kind {
            SourceKind::File {
                size,
                content: Some(content),
            } => Self::File {
                size,
                content,
                version: stamp.as_ref().map(Version::from),
            },
            SourceKind::File {
                size,
                content: None,
            } => Self::Unread(FileStat {
                size,
                ..stamp.unwrap_or_default()
            }),
            SourceKind::Directory => Self::Directory,
            SourceKind::Symlink(target) => Self::Symlink(target),
            SourceKind::CharDevice(major, minor) => Self::CharDevice(major, minor),
            SourceKind::BlockDevice(major, minor) => Self::BlockDevice(major, minor),
            SourceKind::Fifo => Self::Fifo,
            SourceKind::Socket => Self::Socket,
        }
    }

    fn shown(&self) -> SourceKind {
        match self {
            Self::File { size, content, .. } => SourceKind::File {
                size: *size,
                content: Some(*content),
            },
            Self::Unread(stat) => SourceKind::File {
                size: stat.size,
                content: None,
            },
            Self::Directory => SourceKind::Directory,
            Self::Symlink(target) => SourceKind::Symlink(target.clone()),
            Self::CharDevice(major, minor) => SourceKind::CharDevice(*major, *minor),
            Self::BlockDevice(major, minor) => SourceKind::BlockDevice(*major, *minor),
            Self::Fifo => SourceKind::Fifo,
            Self::Socket => SourceKind::Socket,
        }
    }
}

impl Kept {
    fn entry(&self) -> SourceEntry {
        let rare = self.rare.as_deref();
        SourceEntry {
            kind: self.kind.shown(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            capability: rare.and_then(|rare| rare.capability.clone()),
            link: rare.and_then(|rare| rare.link.clone()),
            stamp: None,
        }
    }
}

/// A file that was not hashed yet.
pub(super) struct Unread<'a> {
    /// As in [`Node`].
    pub(super) relative: &'a [u8],
    kept: &'a mut Kept,
}

impl Unread<'_> {
    /// What the source said, with its stamp.
    pub(super) fn entry(&self) -> SourceEntry {
        let stamp = match &self.kept.kind {
            Kind::Unread(stat) => Some(*stat),
            _ => None,
        };
        SourceEntry {
            stamp,
            ..self.kept.entry()
        }
    }

    /// Takes over what hashing found out.
    pub(super) fn set_hashed(&mut self, hashed: Hashed) {
        self.kept.kind = Kind::File {
            size: hashed.size,
            content: hashed.content,
            version: hashed.stamp.as_ref().map(Version::from),
        };
    }
}

impl Block {
    fn path(&self, at: usize) -> &[u8] {
        let next = self.nodes.get(at + 1);
        let end = next.map_or(self.paths.len(), |next| next.path_at);
        &self.paths[self.nodes[at].path_at..end]
    }

    fn node(&self, at: usize) -> Node<'_> {
        let kept = &self.nodes[at];
        Node {
            relative: self.path(at),
            entry: kept.entry(),
            reason: kept.reason,
            version: match kept.kind {
                Kind::File { version, .. } => version,
                _ => None,
            },
        }
    }
}

impl Nodes {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// All of them in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Node<'_>> {
        let blocks = self.blocks.iter();
        blocks.flat_map(|block| (0..block.nodes.len()).map(|at| block.node(at)))
    }

    /// The same in parts, for who lets go of each when it was seen.
    pub(super) fn into_blocks(self) -> impl Iterator<Item = Self> {
        self.blocks.into_iter().map(|block| Self {
            count: block.nodes.len(),
            blocks: vec![block],
        })
    }

    /// The first, which is the source itself.
    pub(super) fn first(&self) -> Option<Node<'_>> {
        self.iter().next()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let kept = self.blocks.iter().flat_map(|block| &block.nodes);
        kept.map(|kept| match &kept.kind {
            Kind::Unread(stat) => stat.size,
            Kind::File { size, .. } => *size,
            Kind::Directory
            | Kind::Symlink(_)
            | Kind::CharDevice(..)
            | Kind::BlockDevice(..)
            | Kind::Fifo
            | Kind::Socket => 0,
        })
        .sum()
    }

    /// Appends a node.
    pub(super) fn push(&mut self, relative: &[u8], entry: SourceEntry, reason: Reason) {
        if let Some(full) = self.blocks.last_mut().filter(|b| b.nodes.len() == BLOCK) {
            full.paths.shrink_to_fit();
            self.blocks.push(Block::default());
        } else if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        let Some(block) = self.blocks.last_mut() else {
            return;
        };
        let rare = match (entry.capability, entry.link) {
            (None, None) => None,
            (capability, link) => Some(Box::new(Rare { capability, link })),
        };
        block.nodes.push(Kept {
            path_at: block.paths.len(),
            kind: Kind::of(entry.kind, entry.stamp),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            reason,
            rare,
        });
        block.paths.extend_from_slice(relative);
        self.count += 1;
    }

    /// Appends a list.
    pub(super) fn append(&mut self, other: Self) {
        self.count += other.count;
        self.blocks.extend(other.blocks);
    }

    /// The files that were not hashed yet, in order.
    pub(super) fn unread(&mut self) -> impl Iterator<Item = Unread<'_>> {
        self.blocks.iter_mut().flat_map(|block| {
            let paths = block.paths.as_slice();
            let ends: Vec<usize> = block
                .nodes
                .iter()
                .skip(1)
                .map(|kept| kept.path_at)
                .collect();
            let ends = ends.into_iter().chain([paths.len()]);
            let unread = |kept: &Kept| matches!(kept.kind, Kind::Unread(_));
            let nodes = block.nodes.iter_mut().zip(ends);
            nodes
                .filter(move |(kept, _)| unread(kept))
                .map(move |(kept, end)| Unread {
                    relative: &paths[kept.path_at..end],
                    kept,
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: SourceKind, mtime: i64) -> SourceEntry {
        SourceEntry {
            kind,
            mode: 0o640,
            uid: 1,
            gid: 2,
            mtime,
            capability: (mtime % 7 == 0).then(|| vec![7]),
            link: (mtime % 11 == 0).then(|| LinkIdentity(vec![11])),
            stamp: None,
        }
    }

    #[test]
    fn what_was_put_in_comes_out() {
        let kinds = [
            SourceKind::Directory,
            SourceKind::File {
                size: 9,
                content: Some(ContentDigest([3; 32])),
            },
            SourceKind::Symlink(b"there".to_vec()),
            SourceKind::CharDevice(1, 3),
            SourceKind::BlockDevice(4, 5),
            SourceKind::Fifo,
            SourceKind::Socket,
        ];
        let mut all: Vec<(Vec<u8>, SourceEntry)> = Vec::new();
        let mut nodes = Nodes::default();
        for part in 0..3 {
            let mut list = Nodes::default();
            for (number, kind) in (0..700).zip(kinds.iter().cycle()) {
                let relative = format!("{part}/{}", "x".repeat(number % 30)).into_bytes();
                let entry = entry(kind.clone(), i64::try_from(number).unwrap());
                list.push(&relative, entry.clone(), Reason::Meant);
                all.push((relative, entry));
            }
            nodes.append(list);
        }
        assert_eq!((nodes.len(), nodes.bytes()), (2_100, 2_700));
        let found = nodes
            .iter()
            .map(|node| (node.relative.to_vec(), node.entry));
        assert_eq!(found.collect::<Vec<_>>(), all);
        assert_eq!(nodes.unread().count(), 0);
        let parts: Vec<Nodes> = nodes.into_blocks().collect();
        assert_eq!(parts.iter().map(Nodes::len).max(), Some(BLOCK));
        let found = parts.iter().flat_map(Nodes::iter).map(|node| node.entry);
        assert!(found.eq(all.into_iter().map(|(_, entry)| entry)));
    }

    #[test]
    fn files_are_unread_until_they_are_hashed() {
        let stat = FileStat {
            inode: 5,
            size: 8,
            ..FileStat::default()
        };
        let mut nodes = Nodes::default();
        for number in 0..600 {
            let kind = match number % 2 {
                0 => SourceKind::Directory,
                _ => SourceKind::File {
                    size: 8,
                    content: None,
                },
            };
            let stamp = Some(stat);
            let entry = SourceEntry {
                stamp,
                ..entry(kind, number)
            };
            nodes.push(number.to_string().as_bytes(), entry, Reason::Meant);
        }
        for (at, mut unread) in nodes.unread().enumerate() {
            assert_eq!(unread.relative, (2 * at + 1).to_string().as_bytes());
            assert_eq!(unread.entry().stamp, Some(stat));
            unread.set_hashed(Hashed {
                size: 9,
                content: ContentDigest([1; 32]),
                stamp: Some(stat),
            });
        }
        assert_eq!(nodes.bytes(), 2_700);
        let last = nodes.iter().last().unwrap();
        assert_eq!(last.relative, b"599");
        assert_eq!(last.version, Some(Version::from(&stat)));
        assert_eq!(nodes.first().unwrap().version, None);
    }
}
