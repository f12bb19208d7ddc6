//! Bytes of files of a stack: the indexes tell where they are, the trees hold them.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::entry::EntryKind;
use super::error::LayerError;
use super::stack::{Found, LayerStack};
use super::tree::Tree;

/// A stack of layers with their trees.
#[derive(Clone, Debug)]
pub struct StackView {
    stack: LayerStack,
    trees: Vec<PathBuf>,
}

/// Opens files of a view; keeps directories open between calls. Each thread has its own.
#[derive(Debug)]
pub struct StackFiles<'a> {
    view: &'a StackView,
    open: Vec<Option<Tree>>,
}

impl StackView {
    /// Takes a stack and the tree of each of its layers, both bottom first. A layer of which no file is read needs no
    /// tree: give any path.
    pub fn new(stack: LayerStack, trees: Vec<PathBuf>) -> Self {
        Self { stack, trees }
    }

    /// The stack.
    pub fn stack(&self) -> &LayerStack {
        &self.stack
    }

    /// Opens files.
    pub fn files(&self) -> StackFiles<'_> {
        StackFiles {
            view: self,
            open: Vec::new(),
        }
    }

    /// Opens the regular file at a path, which is not resolved: see [`LayerStack::resolve`]. `None` if there is none.
    pub fn open(&self, path: &[u8]) -> Result<Option<File>, LayerError> {
        match self.stack.lookup(path) {
            Some(found) => self.files().open(&found),
            None => Ok(None),
        }
    }
}

impl StackFiles<'_> {
    /// Opens what a look-up in this view's stack found; `None` if it is no regular file. Follows no links.
    pub fn open(&mut self, found: &Found<'_>) -> Result<Option<File>, LayerError> {
        let EntryKind::File { .. } = found.inode.kind else {
            return Ok(None);
        };
        let Some(place) = self.view.trees.get(found.layer) else {
            return Ok(None);
        };
        if self.open.len() <= found.layer {
            self.open.resize_with(found.layer + 1, || None);
        }
        let slot = &mut self.open[found.layer];
        let tree = match slot {
            Some(tree) => tree,
            None => slot.insert(Tree::open(place)?),
        };
        tree.open_file(&found.inode.path).map(Some)
    }
}

/// Opens a regular file of a tree by a path that an index gave. Follows no links.
///
/// # Errors
///
/// [`LayerError`] if the tree does not have it, or has something else there.
pub fn open_in_tree(tree: &Path, path: &[u8]) -> Result<File, LayerError> {
    Tree::open(tree)?.open_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use super::super::index::LayerIndex;
    use super::super::tests_support::*;
    use super::*;

    #[test]
    fn files_come_from_their_layer_and_never_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let (low, high) = (dir.path().join("low"), dir.path().join("high"));
        std::fs::create_dir_all(low.join("d")).unwrap();
        std::fs::create_dir_all(&high).unwrap();
        std::fs::write(low.join("d/a"), "low").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        // The tree was tampered with: the index says a directory and a file.
        std::os::unix::fs::symlink("..", high.join("d")).unwrap();
        std::os::unix::fs::symlink("../secret", high.join("b")).unwrap();

        let lower = vec![file("d/a", b"low"), link("d/b", "d/a"), symlink("l", "d/a")];
        let lower = Arc::new(LayerIndex::new(lower, Vec::new()).unwrap());
        let upper = vec![file("d/secret", b"secret"), file("b", b"secret")];
        let upper = Arc::new(LayerIndex::new(upper, Vec::new()).unwrap());
        let view = StackView::new(LayerStack::new(vec![lower, upper]), vec![low, high]);
        for path in ["d/a", "d/b"] {
            let mut text = String::new();
            view.open(path.as_bytes())
                .unwrap()
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "low", "{path}");
        }
        for path in ["l", "d", "none"] {
            assert!(view.open(path.as_bytes()).unwrap().is_none(), "{path}");
        }
        for path in ["d/secret", "b"] {
            assert!(
                matches!(view.open(path.as_bytes()), Err(LayerError::Io { .. })),
                "{path}"
            );
        }
    }
}
