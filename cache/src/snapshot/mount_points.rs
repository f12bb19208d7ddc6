//! What a stack lacks for files to be mounted in it, as a lower directory of its own that no layer is made of.
//!
//! A file can be mounted only over a file. Made in the upper directory, it would be there for the command's time alone and
//! yet cost every step a directory copied up, and inodes made and deleted. Stacked above the layers, it is made once for all
//! steps whose layers show the same directory around it, and an upper directory knows nothing of it.
//!
//! Not here: places in directories that the stack does not have, or that a symlink leads to. They are made in the root as it
//! is mounted, and taken back.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::active::ActiveTree;
use super::error::SnapshotError;
use super::store::LayerStore;
use crate::layer::apply::{make_directories, set_directories};
use crate::layer::entry::Entry;
use crate::layer::path as layer_path;
use crate::layer::stack::LayerStack;

/// Files that a stack lacks, and the directories that they are in as the stack shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoints {
    directories: Vec<Entry>,
    files: Vec<Vec<u8>>,
}

impl MountPoints {
    /// Those of these paths (absolute) that are not in the stack though their directory is; `None` if there is none.
    pub fn missing(stack: &LayerStack, paths: &[&str]) -> Option<Self> {
        let mut missing = Self {
            directories: Vec::new(),
            files: Vec::new(),
        };
        for path in paths {
            let path = path.trim_start_matches('/').as_bytes();
            let parents: Option<Vec<Entry>> = layer_path::ancestors(path)
                .map(|parent| {
                    let found = stack.lookup(parent)?.entry;
                    found.is_directory().then(|| found.clone())
                })
                .collect();
            let Some(parents) = parents.filter(|_| stack.lookup(path).is_none()) else {
                continue;
            };
            for parent in parents {
                if !missing.directories.contains(&parent) {
                    missing.directories.push(parent);
                }
            }
            missing.files.push(path.to_owned());
        }
        (!missing.files.is_empty()).then_some(missing)
    }

    /// Makes them.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn make(&self, store: &LayerStore) -> Result<ActiveTree, SnapshotError> {
        let tree = store.new_tree()?;
        make_directories(tree.upper(), &self.directories)?;
        for file in &self.files {
            let path = tree
                .upper()
                .join(Path::new(std::ffi::OsStr::from_bytes(file)));
            drop(File::create_new(&path).map_err(SnapshotError::io("make", path))?);
        }
        set_directories(tree.upper(), &self.directories)?;
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    use super::*;
    use crate::layer::index::LayerIndex;
    use crate::layer::tests_support::{directory, file, symlink, whiteout};
    use crate::root::StatePaths;

    const PATHS: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

    fn missing(layers: Vec<Vec<Entry>>) -> Option<MountPoints> {
        let index = |entries| Arc::new(LayerIndex::new(entries, Vec::new()).unwrap());
        MountPoints::missing(
            &LayerStack::new(layers.into_iter().map(index).collect()),
            &PATHS,
        )
    }

    fn files(found: Option<MountPoints>) -> Vec<String> {
        let files = found.map(|found| found.files).unwrap_or_default();
        let text = |file: Vec<u8>| String::from_utf8(file).unwrap();
        files.into_iter().map(text).collect()
    }

    #[test]
    fn only_what_lacks_in_a_directory_that_is_there() {
        let both = ["etc/hosts", "etc/resolv.conf"];
        assert_eq!(files(missing(vec![vec![directory("etc", 0o755)]])), both);
        let has_one = vec![directory("etc", 0o755), file("etc/hosts", b"")];
        assert_eq!(files(missing(vec![has_one.clone()])), ["etc/resolv.conf"]);
        let deleted = vec![whiteout("etc/hosts")];
        assert_eq!(files(missing(vec![has_one.clone(), deleted])), both);
        let dangling = symlink("etc/resolv.conf", "../run/resolv.conf");
        assert_eq!(missing(vec![has_one, vec![dangling]]), None);
        for entry in [symlink("etc", "elsewhere"), file("etc", b"")] {
            assert_eq!(missing(vec![vec![entry]]), None);
        }
        assert_eq!(missing(Vec::new()), None);
    }

    #[test]
    fn the_directory_looks_as_the_stack_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::unpinned(&StatePaths::new(dir.path())).unwrap();
        let lower = Entry {
            mtime: 1_500_000_000,
            ..directory("etc", 0o750)
        };
        let owner = std::fs::metadata(dir.path()).unwrap();
        let upper = Entry {
            uid: owner.uid(),
            gid: owner.gid(),
            mtime: 1_600_000_000,
            ..directory("etc", 0o711)
        };
        let tree = missing(vec![vec![lower], vec![upper]]).unwrap();
        let tree = tree.make(&store).unwrap();
        let etc = std::fs::metadata(tree.upper().join("etc")).unwrap();
        assert_eq!((etc.mode() & 0o7777, etc.mtime()), (0o711, 1_600_000_000));
        for path in PATHS {
            let made = std::fs::metadata(tree.upper().join(&path[1..])).unwrap();
            assert!(made.is_file() && made.len() == 0);
        }
    }
}
