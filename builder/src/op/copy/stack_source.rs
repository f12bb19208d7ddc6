//! A stack of layers as a source and as a destination.
//!
//! All questions are answered by the layers' indexes; only bytes need the layers' trees.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use cache::layer::entry::{Entry, EntryKind};
use cache::layer::index::LayerIndex;
use cache::layer::stack::{Found, LayerStack};
use cache::layer::view::open_in_tree;

use super::error::{SourceError, shown};
use super::resolve::Step;
use super::source::{
    Destination, DestinationEntry, Hashed, LinkIdentity, Origin, SourceEntry, SourceKind,
    SourceTree,
};

/// Gives the tree of a layer, making it if need be. Layers are numbered from the bottom.
pub type TreeOf = Arc<dyn Fn(usize) -> io::Result<PathBuf> + Send + Sync>;

/// A stack of layers with its files, whose trees are made when a byte of them is asked for.
pub struct StackSource {
    name: String,
    stack: LayerStack,
    tree_of: TreeOf,
    /// Of each layer, the files that have further names; found out when first asked for.
    linked: Vec<OnceLock<BTreeSet<Vec<u8>>>>,
}

impl fmt::Debug for StackSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackSource")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl StackSource {
    /// Takes the name that a stack has in messages, its indexes, and how to get at its trees.
    pub fn new(name: impl Into<String>, stack: LayerStack, tree_of: TreeOf) -> Self {
        Self {
            name: name.into(),
            linked: vec![OnceLock::new(); stack.layers().len()],
            stack,
            tree_of,
        }
    }

    /// Whether a file has further names in its layer. Few have; the others need no identity.
    fn is_linked(&self, found: &Found<'_>) -> bool {
        let layer = self.stack.layers().get(found.layer);
        let known = layer.zip(self.linked.get(found.layer));
        known.is_some_and(|(layer, linked)| {
            let linked = linked.get_or_init(|| link_targets(layer));
            linked.contains(&found.inode.path)
        })
    }

    fn entry(&self, found: &Found<'_>) -> Option<SourceEntry> {
        let inode = found.inode;
        let is_file = matches!(inode.kind, EntryKind::File { .. });
        let kind = match &inode.kind {
            EntryKind::Directory { .. } => SourceKind::Directory,
            EntryKind::File { size, content } => SourceKind::File {
                size: *size,
                content: Some(*content),
            },
            EntryKind::Symlink { target } => SourceKind::Symlink(target.clone()),
            EntryKind::CharDevice { major, minor } => SourceKind::CharDevice(*major, *minor),
            EntryKind::BlockDevice { major, minor } => SourceKind::BlockDevice(*major, *minor),
            EntryKind::Fifo => SourceKind::Fifo,
            // An inode is no link, and look-ups never give whiteouts.
            EntryKind::HardLink { .. } | EntryKind::Whiteout => return None,
        };
        let identity = || {
            let layer = found.layer.to_string();
            LinkIdentity([layer.as_bytes(), b"/", &inode.path].concat())
        };
        Some(SourceEntry {
            kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            capability: inode.capability.clone(),
            link: (is_file && self.is_linked(found)).then(identity),
            stamp: None,
        })
    }

    fn fail(&self, path: &[u8]) -> impl FnOnce(io::Error) -> SourceError {
        let (path, source_name) = (shown(path), self.name.clone());
        move |source| SourceError::Layer {
            path,
            source_name,
            source,
        }
    }
}

fn link_targets(layer: &LayerIndex) -> BTreeSet<Vec<u8>> {
    let targets = layer.entries().filter_map(Entry::link_target);
    targets.map(<[u8]>::to_vec).collect()
}

impl SourceTree for StackSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn origin(&self) -> Origin {
        Origin::Layers
    }

    fn lookup(&self, path: &[u8]) -> Result<Option<SourceEntry>, SourceError> {
        let found = self.stack.lookup(path);
        Ok(found.and_then(|found| self.entry(&found)))
    }

    fn children(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, SourceEntry)>, SourceError> {
        let children = self.stack.children(path).into_iter();
        Ok(children
            .filter_map(|(name, found)| Some((name, self.entry(&found)?)))
            .collect())
    }

    fn digest(&self, path: &[u8], entry: &SourceEntry) -> Result<Hashed, SourceError> {
        match entry.kind {
            SourceKind::File {
                size,
                content: Some(content),
            } => Ok(Hashed {
                size,
                content,
                stamp: None,
            }),
            SourceKind::File { content: None, .. }
            | SourceKind::Directory
            | SourceKind::Symlink(_)
            | SourceKind::CharDevice(..)
            | SourceKind::BlockDevice(..)
            | SourceKind::Fifo
            | SourceKind::Socket => Err(self.fail(path)(io::ErrorKind::InvalidInput.into())),
        }
    }

    fn open(&self, path: &[u8]) -> Result<File, SourceError> {
        let missing = || self.fail(path)(io::ErrorKind::NotFound.into());
        let found = self.stack.lookup(path).ok_or_else(missing)?;
        let EntryKind::File { .. } = found.inode.kind else {
            return Err(self.fail(path)(io::ErrorKind::InvalidInput.into()));
        };
        let tree = (self.tree_of)(found.layer).map_err(self.fail(path))?;
        open_in_tree(&tree, &found.inode.path).map_err(|source| SourceError::Tree {
            path: shown(path),
            source_name: self.name.clone(),
            source,
        })
    }

    fn why_missing(&self, _path: &[u8]) -> Option<String> {
        None
    }
}

impl Destination for StackSource {
    fn lookup(&self, path: &[u8]) -> Result<Option<DestinationEntry>, SourceError> {
        Ok(self.stack.lookup(path).map(|found| DestinationEntry {
            kind: Step::from(&found.inode.kind),
            mode: found.inode.mode,
            uid: found.inode.uid,
            gid: found.inode.gid,
            mtime: found.inode.mtime,
        }))
    }

    fn file(&self, path: &[u8]) -> Result<Option<SourceEntry>, SourceError> {
        let found = SourceTree::lookup(self, path)?;
        Ok(found.filter(|entry| matches!(entry.kind, SourceKind::File { .. })))
    }

    fn read(&self, path: &[u8]) -> Result<Vec<u8>, SourceError> {
        let mut bytes = Vec::new();
        SourceTree::open(self, path)?
            .read_to_end(&mut bytes)
            .map_err(self.fail(path))?;
        Ok(bytes)
    }
}
