//! The file system of the result, all layers applied, for exports of files.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use cache::digest::DiffId;
use cache::layer::entry::EntryKind;
use cache::layer::stack::{Found, LayerStack};
use cache::layer::view::open_in_tree;

use crate::export::{Failure, FlatEntries, FlatEntry, FlatKind, FlatTree};
use crate::op::steps::Steps;

use super::verified::Verified;

/// A stack of layers as one tree.
pub(super) struct Flat {
    pub(super) steps: Arc<Steps>,
    pub(super) layers: Vec<DiffId>,
}

impl Flat {
    fn stack(&self) -> Result<LayerStack, Failure> {
        Ok(self.steps.layers().stack(&self.layers)?)
    }
}

/// A hard link's file as it is told apart from others: its layer and its path there.
type Inode = (usize, Vec<u8>);

fn collect(
    stack: &LayerStack,
    directory: &[u8],
    firsts: &mut BTreeMap<Inode, Vec<u8>>,
    entries: &mut Vec<FlatEntry>,
) {
    for (name, found) in stack.children(directory) {
        let path = cache::layer::path::join(directory, &name);
        let inode: Inode = (found.layer, found.inode.path.clone());
        let kind = match (firsts.get(&inode), kind_of(&found)) {
            (_, None) => continue,
            (Some(first), Some(FlatKind::File { .. })) => FlatKind::HardLink {
                target: first.clone(),
            },
            (_, Some(kind)) => kind,
        };
        firsts.entry(inode).or_insert_with(|| path.clone());
        let is_directory = kind == FlatKind::Directory;
        entries.push(FlatEntry {
            path: path.clone(),
            kind,
            mode: found.entry.mode,
            uid: found.entry.uid,
            gid: found.entry.gid,
            mtime: found.entry.mtime,
            capability: found.inode.capability.clone(),
        });
        if is_directory {
            collect(stack, &path, firsts, entries);
        }
    }
}

fn kind_of(found: &Found<'_>) -> Option<FlatKind> {
    Some(match &found.inode.kind {
        EntryKind::Directory { .. } => FlatKind::Directory,
        EntryKind::File { size, .. } => FlatKind::File { size: *size },
        EntryKind::Symlink { target } => FlatKind::Symlink {
            target: target.clone(),
        },
        EntryKind::CharDevice { major, minor } => FlatKind::CharDevice {
            major: *major,
            minor: *minor,
        },
        EntryKind::BlockDevice { major, minor } => FlatKind::BlockDevice {
            major: *major,
            minor: *minor,
        },
        EntryKind::Fifo => FlatKind::Fifo,
        // Neither comes out of a stack.
        EntryKind::HardLink { .. } | EntryKind::Whiteout => return None,
    })
}

impl FlatTree for Flat {
    fn entries(&self) -> Result<FlatEntries<'_>, Failure> {
        let stack = self.stack()?;
        let mut entries = Vec::new();
        collect(&stack, b"", &mut BTreeMap::new(), &mut entries);
        Ok(Box::new(entries.into_iter().map(Ok)))
    }

    fn open(&self, path: &[u8]) -> Result<Box<dyn Read + Send>, Failure> {
        let stack = self.stack()?;
        let found = stack.lookup(path).ok_or("the file is gone")?;
        let layer = self.layers.get(found.layer).ok_or("the layer is gone")?;
        let tree = self.steps.layers().tree(layer)?;
        let file = open_in_tree(&tree, &found.inode.path)?;
        let EntryKind::File { size, content } = found.inode.kind else {
            return Err("it is no file".into());
        };
        let (steps, layer) = (Arc::clone(&self.steps), layer.clone());
        let on_damage = move || {
            // What cannot be dropped is found again.
            steps.layers().drops_damaged(&layer).ok();
        };
        Ok(Box::new(Verified::new(file, size, content, on_damage)))
    }
}
