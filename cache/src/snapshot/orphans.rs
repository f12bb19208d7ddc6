//! Trees that no layer has, and folders of layers without a record: what crashes left of layers that were being made.
//!
//! # Concurrency
//!
//! A build may be making such a layer again, under the same names. Whoever takes something away has the lock of the
//! layer's folder, which publishing holds, and looks again under it; what is locked is in use, and stays. A tree's marker
//! names its layer. A tree without one belongs to nobody, and gets an empty one, so that nobody takes the name meanwhile.
//! Since markers that name no layer have no such lock, one process at a time does all this (flock on `trees`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::error::SnapshotError;
use super::record;
use crate::claim::{LockMode, Wait, lock};
use crate::digest::{DiffId, Digest};
use crate::io::names_in;
use crate::root::StatePaths;

/// What ends the name of a tree's marker.
const MARKER: &str = ".id";

/// Takes away what no layer has and what is old, into the directory `trash`.
pub(crate) fn take(
    paths: &StatePaths,
    is_old: &dyn Fn(&Path) -> bool,
    trash: &Path,
) -> Result<(), SnapshotError> {
    let Ok(trees) = File::open(paths.trees()) else {
        return Ok(());
    };
    if !lock(&trees, &paths.trees(), LockMode::Exclusive, Wait::Never)? {
        return Ok(());
    }
    let sweep = Sweep {
        paths,
        is_old,
        trash,
    };
    let layers = super::contents::all(paths)?;
    let known = layers.values().flat_map(|layer| &layer.trees);
    let known: BTreeSet<&str> = known.map(String::as_str).collect();
    let mut ids = BTreeSet::new();
    for name in names_in(&paths.trees())? {
        let name = name.to_string_lossy().into_owned();
        ids.insert(name.strip_suffix(MARKER).unwrap_or(&name).to_owned());
    }
    for id in &ids {
        if !known.contains(id.as_str()) && sweep.is_tree_old(id) {
            told(id, sweep.take_tree(id));
        }
    }
    for name in names_in(&paths.layers())? {
        let folder = paths.layers().join(&name);
        let digest = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>();
        let is_known = digest.is_ok_and(|digest| layers.contains_key(&DiffId(digest)));
        if !is_known && is_old(&folder) {
            told(&name.to_string_lossy(), sweep.take_folder(&folder));
        }
    }
    Ok(())
}

/// What cannot be taken away now stays for the next time.
fn told(name: &str, taken: Result<(), SnapshotError>) {
    if let Err(error) = taken {
        tracing::debug!(name, %error, "what a crash left stays");
    }
}

struct Sweep<'a> {
    paths: &'a StatePaths,
    is_old: &'a dyn Fn(&Path) -> bool,
    trash: &'a Path,
}

impl Sweep<'_> {
    /// Of a tree, or of a marker that has none.
    fn is_tree_old(&self, id: &str) -> bool {
        let tree = self.paths.trees().join(id);
        match tree.symlink_metadata() {
            Ok(_) => (self.is_old)(&tree),
            Err(_) => (self.is_old)(&self.marker(id)),
        }
    }

    fn marker(&self, id: &str) -> std::path::PathBuf {
        self.paths.trees().join(format!("{id}{MARKER}"))
    }

    fn take_tree(&self, id: &str) -> Result<(), SnapshotError> {
        let marker = self.marker(id);
        let owner = match fs::read_to_string(&marker) {
            Ok(text) => owner_of(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !self.claim(id)? {
                    return Ok(());
                }
                None
            }
            // One that the disk has lost names nobody.
            Err(_) => None,
        };
        let Some(layer) = owner else {
            return self.remove_tree(id);
        };
        let folder = self.paths.layer(&layer);
        fs::create_dir_all(&folder).map_err(SnapshotError::io("make directory", &folder))?;
        let Some(_locked) = record::try_lock(&folder)? else {
            return Ok(());
        };
        let record = read(&folder)?;
        let names_it = |record: &record::Record| record.trees.values().any(|tree| tree == id);
        if !record.as_ref().is_some_and(names_it) && self.is_tree_old(id) {
            self.remove_tree(id)?;
        }
        if record.is_none() {
            // Made above, if there is nothing in it.
            fs::remove_dir(&folder).ok();
        }
        Ok(())
    }

    /// Takes the name of a tree without a marker; tells whether it was free.
    fn claim(&self, id: &str) -> Result<bool, SnapshotError> {
        let marker = self.marker(id);
        match File::create_new(&marker) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(SnapshotError::io("write", marker)(error)),
        }
    }

    /// Takes a tree away, then its marker: until then, nobody else has the name.
    fn remove_tree(&self, id: &str) -> Result<(), SnapshotError> {
        self.remove(&self.paths.trees().join(id))?;
        let marker = self.marker(id);
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SnapshotError::io("remove", marker)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn take_folder(&self, folder: &Path) -> Result<(), SnapshotError> {
        let _locked = match record::try_lock(folder) {
            Ok(Some(locked)) => locked,
            Ok(None) => return Ok(()),
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error),
        };
        match read(folder)? {
            None if (self.is_old)(folder) => self.remove(folder),
            None | Some(_) => Ok(()),
        }
    }

    fn remove(&self, path: &Path) -> Result<(), SnapshotError> {
        let name = path.file_name().unwrap_or_default();
        match fs::rename(path, self.trash.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SnapshotError::io("remove", path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The layer that a marker names.
fn owner_of(marker: &str) -> Option<DiffId> {
    let (_, layer) = marker.strip_suffix('\n')?.rsplit_once(' ')?;
    layer.parse().ok().map(DiffId)
}

/// A record that can be read.
fn read(folder: &Path) -> Result<Option<record::Record>, SnapshotError> {
    match record::read(folder) {
        Err(SnapshotError::Record { .. }) => Ok(None),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;

    use super::*;
    use crate::snapshot::store::LayerStore;
    use crate::snapshot::testing::{commit, has_tree};

    struct Place {
        _dir: tempfile::TempDir,
        paths: StatePaths,
        trash: PathBuf,
        layer: DiffId,
    }

    impl Place {
        /// A store with one layer, whose record a crash has lost.
        fn new(loses_marker: bool) -> Self {
            crate::layer::require_root_in_tests();
            let dir = tempfile::tempdir().unwrap();
            let paths = StatePaths::new(dir.path());
            let trash = dir.path().join("trash");
            fs::create_dir(&trash).unwrap();
            let store = LayerStore::unpinned(&paths).unwrap();
            let layer = commit(&store, "text");
            fs::remove_file(paths.layer(&layer).join("layer.json")).unwrap();
            for name in names_in(&paths.trees()).unwrap() {
                if loses_marker && Path::new(&name).extension().is_some() {
                    fs::remove_file(paths.trees().join(name)).unwrap();
                }
            }
            Self {
                _dir: dir,
                paths,
                trash,
                layer,
            }
        }

        fn take(&self, is_old: &dyn Fn(&Path) -> bool) {
            take(&self.paths, is_old, &self.trash).unwrap();
        }

        fn is_empty(&self) -> bool {
            let folders = [self.paths.trees(), self.paths.layers()];
            folders
                .iter()
                .all(|folder| names_in(folder).unwrap().is_empty())
        }

        fn has_tree(&self) -> bool {
            has_tree(&LayerStore::unpinned(&self.paths).unwrap(), &self.layer)
        }
    }

    #[test]
    fn what_a_build_makes_again_while_it_is_looked_at_stays() {
        for loses_marker in [false, true] {
            for is_made_at in 0..6 {
                let place = Place::new(loses_marker);
                let folder = place.paths.layer(&place.layer);
                let (looks, is_made) = (Cell::new(0), Cell::new(false));
                place.take(&|_| {
                    // Under the lock of its folder nobody makes it.
                    let is_locked = record::try_lock(&folder).is_ok_and(|lock| lock.is_none());
                    if looks.get() == is_made_at && !is_locked {
                        commit(&LayerStore::unpinned(&place.paths).unwrap(), "text");
                        is_made.set(true);
                    }
                    looks.set(looks.get() + 1);
                    true
                });
                assert!(is_made_at > 0 || is_made.get());
                if is_made.get() {
                    assert!(place.has_tree(), "{loses_marker} {is_made_at}");
                }
            }
        }
    }

    #[test]
    fn what_is_locked_stays_and_all_else_goes() {
        for loses_marker in [false, true] {
            let place = Place::new(loses_marker);
            place.take(&|_| false);
            assert!(!place.is_empty());
            let folder = place.paths.layer(&place.layer);
            let locked = record::lock(&folder).unwrap();
            place.take(&|_| true);
            assert!(folder.exists());
            let trees = names_in(&place.paths.trees()).unwrap();
            assert_eq!(trees.len(), if loses_marker { 0 } else { 2 });
            drop(locked);
            place.take(&|_| true);
            assert!(place.is_empty());
        }
    }

    #[test]
    fn a_tree_of_a_layer_without_a_folder_goes() {
        let place = Place::new(false);
        fs::remove_dir_all(place.paths.layer(&place.layer)).unwrap();
        place.take(&|_| true);
        assert!(place.is_empty());
    }
}
