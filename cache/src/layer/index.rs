//! The index of one layer: its entries in layer-format order, and the directories its tree has besides.
//!
//! # Implied directories
//!
//! A directory that is no entry of the layer but has entries below it is *implied*: the tree has it physically, with
//! the metadata told here, and it changes nothing about a directory of the same path in a lower layer.
//!
//! # Invariants
//!
//! 1. Paths are in [`path::compare`] order and unique; the first is the root.
//! 2. The parent of every path is there too and is a directory.
//! 3. A hard link's target is an entry of this layer, earlier in order, and neither a directory, a link nor a whiteout.

use std::path::Path;

use super::entry::{Entry, EntryKind};
use super::error::LayerError;
use super::{index_file, path};

/// Whether a path is part of the layer or only of its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An entry.
    Entry,
    /// An implied directory.
    Implied,
}

/// An entry with its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The entry.
    pub entry: Entry,
    /// Its role.
    pub role: Role,
}

/// The index of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerIndex {
    nodes: Vec<Node>,
    has_opaque: bool,
}

impl LayerIndex {
    /// Makes an index of entries and implied directories in any order.
    ///
    /// Missing parents become implied directories (0755, 0:0, time 0). Hard links take over the metadata of their
    /// target.
    ///
    /// # Errors
    ///
    /// [`LayerError::Inconsistent`] if the entries contradict each other.
    pub fn new(entries: Vec<Entry>, implied: Vec<Entry>) -> Result<Self, LayerError> {
        let entries = entries.into_iter().map(|entry| Node {
            entry,
            role: Role::Entry,
        });
        let implied = implied.into_iter().map(|entry| Node {
            entry,
            role: Role::Implied,
        });
        Self::of_nodes(entries.chain(implied).collect())
    }

    /// As [`Self::new`], of nodes. Those in order already are taken as they lie: there may be very many.
    ///
    /// # Errors
    ///
    /// [`LayerError::Inconsistent`] if the nodes contradict each other.
    pub fn of_nodes(mut nodes: Vec<Node>) -> Result<Self, LayerError> {
        sort(&mut nodes);
        Self::from_sorted(nodes)
    }

    /// From nodes that are known to keep the invariants, but for those that this checks.
    pub(super) fn from_sorted(mut nodes: Vec<Node>) -> Result<Self, LayerError> {
        let missing = missing_parents(&nodes)?;
        if !missing.is_empty() {
            nodes.extend(missing);
            // Two runs, which sorting merges.
            sort(&mut nodes);
        }
        let is_opaque =
            |node: &Node| matches!(node.entry.kind, EntryKind::Directory { is_opaque: true });
        let mut index = Self {
            has_opaque: nodes.iter().any(is_opaque),
            nodes,
        };
        index.settle_links()?;
        Ok(index)
    }

    /// Checks links and gives them the metadata of their targets.
    fn settle_links(&mut self) -> Result<(), LayerError> {
        let links: Vec<usize> = (0..self.nodes.len())
            .filter(|i| self.nodes[*i].entry.link_target().is_some())
            .collect();
        for position in links {
            let Some(target) = self.nodes[position].entry.link_target() else {
                continue;
            };
            let inconsistent = |problem| LayerError::Inconsistent {
                entry: self.nodes[position].entry.path.clone(),
                problem,
            };
            let found = self
                .position(target)
                .ok_or_else(|| inconsistent("links to nothing"))?;
            let source = &self.nodes[found].entry;
            match source.kind {
                EntryKind::File { .. }
                | EntryKind::Symlink { .. }
                | EntryKind::CharDevice { .. }
                | EntryKind::BlockDevice { .. }
                | EntryKind::Fifo => {}
                EntryKind::Directory { .. } | EntryKind::HardLink { .. } | EntryKind::Whiteout => {
                    return Err(inconsistent("links to something that cannot have links"));
                }
            }
            if found > position {
                return Err(inconsistent("links to a later entry"));
            }
            let metadata = source.clone();
            let link = &mut self.nodes[position].entry;
            (link.mode, link.uid, link.gid, link.mtime) =
                (metadata.mode, metadata.uid, metadata.gid, metadata.mtime);
            link.capability = metadata.capability;
        }
        Ok(())
    }

    /// The entries in layer-format order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.nodes
            .iter()
            .filter(|node| node.role == Role::Entry)
            .map(|node| &node.entry)
    }

    /// The implied directories in order; without entries above it, the root is one of them.
    pub fn implied(&self) -> impl Iterator<Item = &Entry> {
        self.nodes
            .iter()
            .filter(|node| node.role == Role::Implied)
            .map(|node| &node.entry)
    }

    /// Everything the tree has, and the whiteouts, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }

    /// What the layer's tree has at a path, implied directories too.
    pub fn node(&self, wanted: &[u8]) -> Option<&Node> {
        self.position(wanted).map(|position| &self.nodes[position])
    }

    /// The entry at a path.
    pub fn lookup(&self, wanted: &[u8]) -> Option<&Entry> {
        let node = self.node(wanted)?;
        (node.role == Role::Entry).then_some(&node.entry)
    }

    /// The entry that holds the bytes: the target of a hard link, else the entry itself.
    pub fn inode<'a>(&'a self, entry: &'a Entry) -> &'a Entry {
        // Invariant 3 makes the look-up succeed for entries of this index.
        let target = entry.link_target().and_then(|target| self.lookup(target));
        target.unwrap_or(entry)
    }

    /// What a directory of the layer's tree holds directly, in order; whiteouts and implied directories too.
    pub fn children<'a>(&'a self, dir: &'a [u8]) -> impl Iterator<Item = &'a Node> {
        let mut next = match self.position(dir) {
            Some(position) => position + 1,
            None => self.nodes.len(),
        };
        std::iter::from_fn(move || {
            let node = self.nodes.get(next)?;
            if !path::is_below(dir, &node.entry.path) {
                return None;
            }
            next += 1;
            next += self.nodes[next..]
                .partition_point(|n| path::is_below(&node.entry.path, &n.entry.path));
            Some(node)
        })
    }

    /// Everything below a directory, in order.
    pub fn subtree<'a>(&'a self, dir: &'a [u8]) -> &'a [Node] {
        let Some(position) = self.position(dir) else {
            return &[];
        };
        let below = &self.nodes[position + 1..];
        &below[..below.partition_point(|node| path::is_below(dir, &node.entry.path))]
    }

    /// Whether some directory is opaque.
    pub fn has_opaque(&self) -> bool {
        self.has_opaque
    }

    pub(super) fn position(&self, wanted: &[u8]) -> Option<usize> {
        self.search(wanted).ok()
    }

    /// Where a path is, or where it would be.
    pub(super) fn search(&self, wanted: &[u8]) -> Result<usize, usize> {
        position_in(&self.nodes, wanted)
    }

    /// Writes the index to a file, by a temporary name beside it.
    pub fn save(&self, file: &Path) -> Result<(), LayerError> {
        index_file::save(self, file)
    }

    /// Reads an index that [`Self::save`] wrote.
    pub fn load(file: &Path) -> Result<Self, LayerError> {
        index_file::load(file)
    }
}

fn sort(nodes: &mut [Node]) {
    nodes.sort_by(|left, right| path::compare(&left.entry.path, &right.entry.path));
}

fn implied_directory(path: &[u8]) -> Node {
    Node {
        entry: Entry::default_directory(path.to_vec()),
        role: Role::Implied,
    }
}

fn position_in(nodes: &[Node], wanted: &[u8]) -> Result<usize, usize> {
    nodes.binary_search_by(|node| path::compare(&node.entry.path, wanted))
}

/// Checks the first two invariants; gives the parents that are missing, in order.
fn missing_parents(nodes: &[Node]) -> Result<Vec<Node>, LayerError> {
    let mut missing: Vec<Node> = Vec::new();
    let mut previous: Option<&[u8]> = None;
    for (position, node) in nodes.iter().enumerate() {
        let at = node.entry.path.as_slice();
        let inconsistent = |problem| LayerError::Inconsistent {
            entry: at.to_vec(),
            problem,
        };
        if node.role == Role::Implied && !node.entry.is_directory() {
            return Err(inconsistent("is implied but not a directory"));
        }
        if previous.is_some_and(|previous| path::compare(previous, at).is_ge()) {
            return Err(inconsistent("appears twice or out of order"));
        }
        // The parent of a sibling was looked for already.
        let parent_of = |at| path::split(at).map(|(parent, _)| parent);
        let has_sibling = previous.is_some() && previous.and_then(parent_of) == parent_of(at);
        previous = Some(at);
        if has_sibling {
            continue;
        }
        let known = missing.len();
        for parent in path::ancestors(at) {
            if let Ok(above) = position_in(&nodes[..position], parent) {
                if nodes[above].entry.is_directory() {
                    break;
                }
                return Err(inconsistent("lies below something that is not a directory"));
            }
            if position_in(&missing[..known], parent).is_ok() {
                break;
            }
            missing.push(implied_directory(parent));
        }
        // Outermost first.
        missing[known..].reverse();
    }
    if nodes.is_empty() {
        missing.push(implied_directory(b""));
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::*;
    use super::*;

    #[test]
    fn lookups_and_children() {
        let index = LayerIndex::new(
            vec![
                file("usr/lib/b", b"1"),
                whiteout("usr/lib/a"),
                link("usr/z", "usr/lib/b"),
                file("a-b", b""),
            ],
            vec![directory("usr", 0o711)],
        )
        .unwrap();
        let order: Vec<_> = index
            .nodes()
            .iter()
            .map(|n| (text(&n.entry.path), n.role))
            .collect();
        let expected = [
            ("", Role::Implied),
            ("a-b", Role::Entry),
            ("usr", Role::Implied),
            ("usr/lib", Role::Implied),
            ("usr/lib/a", Role::Entry),
            ("usr/lib/b", Role::Entry),
            ("usr/z", Role::Entry),
        ];
        assert_eq!(order, expected.map(|(p, r)| (p.to_owned(), r)));
        let names = |dir: &str| -> Vec<String> {
            index
                .children(dir.as_bytes())
                .map(|n| text(&n.entry.path))
                .collect()
        };
        assert_eq!(names(""), ["a-b", "usr"]);
        assert_eq!(names("usr"), ["usr/lib", "usr/z"]);
        assert_eq!(names("usr/lib"), ["usr/lib/a", "usr/lib/b"]);
        assert!(names("usr/lib/b").is_empty() && names("none").is_empty());
        assert_eq!(index.subtree(b"usr/lib").len(), 2);
        assert_eq!(index.lookup(b"usr"), None);
        assert_eq!(index.node(b"usr").unwrap().entry.mode, 0o711);
        let linked = index.lookup(b"usr/z").unwrap();
        assert_eq!(index.inode(linked).path, b"usr/lib/b");
    }

    #[test]
    fn contradictions_are_refused() {
        let cases = [
            (
                vec![file("a", b""), file("a", b"")],
                "appears twice or out of order",
            ),
            (
                vec![file("a", b""), file("a/b", b"")],
                "lies below something that is not a directory",
            ),
            (
                vec![link("a", "b"), file("b", b"")],
                "links to a later entry",
            ),
            (vec![link("a", "b")], "links to nothing"),
            (
                vec![directory("a", 0o755), link("b", "a")],
                "links to something that cannot have links",
            ),
        ];
        for (entries, expected) in cases {
            let error = LayerIndex::new(entries, Vec::new()).unwrap_err();
            let LayerError::Inconsistent { problem, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(problem, expected);
        }
    }
}
