//! Tests of `store`.

use std::path::Path;

use super::*;
use crate::layer::freeze::{FreezeOptions, freeze};
use crate::layer::pack::pack;
use crate::layer::sink::{Plain, nowhere};
use crate::layer::stack::LayerStack;

const NATIVE: TreeFormat = TreeFormat::Native;

fn commit(store: &LayerStore, text: &str) -> (Arc<Layer>, Vec<u8>) {
    let active = store.new_tree().unwrap();
    fs::write(active.upper().join("file"), text).unwrap();
    let options = FreezeOptions {
        xattrs: NATIVE.xattrs(),
        clamp_mtime: Some(0),
    };
    let frozen = freeze(
        active.upper(),
        &LayerStack::default(),
        &mut nowhere(),
        options,
    )
    .unwrap();
    let mut tar = Vec::new();
    pack(&frozen.index, active.upper(), &mut Plain(&mut tar)).unwrap();
    let (diff_id, size) = (frozen.diff_id, frozen.size);
    (
        store
            .commit(active, frozen.index, &diff_id, size, &NATIVE)
            .unwrap(),
        tar,
    )
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn committing_twice_keeps_one_tree() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let store = LayerStore::unpinned(&paths).unwrap();
    let (first, _) = commit(&store, "one");
    let (again, _) = commit(&LayerStore::unpinned(&paths).unwrap(), "one");
    assert_eq!(first.diff_id(), again.diff_id());
    let tree = first.tree(&NATIVE).unwrap();
    assert_eq!(again.tree(&NATIVE), Some(tree.clone()));
    assert!(tree.as_str().len() <= 8);
    assert_eq!(
        names(&paths.trees()),
        [tree.to_string(), format!("{tree}.id")]
    );
    assert!(names(&paths.work()).is_empty(), "nothing is left behind");
    assert_eq!(
        fs::read_to_string(store.tree_path(&tree).join("file")).unwrap(),
        "one"
    );

    let fresh = LayerStore::unpinned(&paths).unwrap();
    let found = fresh.layer(first.diff_id()).unwrap().unwrap();
    assert_eq!(
        (found.size(), found.tree(&NATIVE)),
        (first.size(), Some(tree.clone()))
    );
    assert_eq!(*found.index().unwrap(), *first.index().unwrap());
    assert!(
        fresh
            .layer(&DiffId(Digest::of(b"other")))
            .unwrap()
            .is_none()
    );

    fs::remove_dir_all(store.tree_path(&tree)).unwrap();
    let found = LayerStore::unpinned(&paths)
        .unwrap()
        .layer(first.diff_id())
        .unwrap()
        .unwrap();
    assert_eq!(found.tree(&NATIVE), None, "a tree that is gone is not told");
}

#[test]
fn a_taken_name_is_passed_over() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = commit(
        &LayerStore::unpinned(&StatePaths::new(dir.path())).unwrap(),
        "one",
    );
    let other = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(other.path());
    let store = LayerStore::unpinned(&paths).unwrap();
    let taken = first.tree(&NATIVE).unwrap();
    fs::write(
        paths.trees().join(format!("{taken}.id")),
        "native sha256:other\n",
    )
    .unwrap();
    let (second, _) = commit(&store, "one");
    assert_ne!(second.tree(&NATIVE).unwrap(), taken);
    assert_eq!(second.diff_id(), first.diff_id());
}

#[test]
fn trees_are_made_from_tars() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let (layer, tar) = commit(
        &LayerStore::unpinned(&StatePaths::new(dir.path())).unwrap(),
        "x",
    );
    let other = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(other.path());
    let store = LayerStore::unpinned(&paths).unwrap();
    let index = (*layer.index().unwrap()).clone();
    let registered = store
        .register(layer.diff_id(), index, layer.size())
        .unwrap();
    assert_eq!(registered.tree(&NATIVE), None);

    let wrong = store.ensure_tree(layer.diff_id(), &NATIVE, || Ok(&[0_u8; 1024][..]));
    assert!(matches!(wrong, Err(SnapshotError::Mismatch { .. })));
    assert!(names(&paths.trees()).is_empty() && names(&paths.work()).is_empty());

    let made = store
        .ensure_tree(layer.diff_id(), &NATIVE, || Ok(tar.as_slice()))
        .unwrap();
    let tree = store.tree_path(&made.tree(&NATIVE).unwrap());
    assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "x");
    assert_eq!(registered.tree(&NATIVE), made.tree(&NATIVE));
    let unused = || -> io::Result<&[u8]> { panic!("the tree is there") };
    store.ensure_tree(layer.diff_id(), &NATIVE, unused).unwrap();

    let mapped = TreeFormat::IdMap("u100000-65536".into());
    let both = store
        .ensure_tree(layer.diff_id(), &mapped, || Ok(tar.as_slice()))
        .unwrap();
    assert_ne!(both.tree(&mapped), both.tree(&NATIVE));
}

#[test]
fn all_trees_of_a_layer_have_the_implied_directories_of_its_index() {
    crate::layer::require_root_in_tests();
    use crate::layer::tests_support::{directory, file};
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = LayerStore::unpinned(&StatePaths::new(dir.path())).unwrap();
    let frozen =
        |mode| LayerIndex::new(vec![file("d/f", b"f")], vec![directory("d", mode)]).unwrap();
    let id = {
        let active = store.new_tree().unwrap();
        fs::create_dir(active.upper().join("d")).unwrap();
        fs::write(active.upper().join("d/f"), "f").unwrap();
        pack(&frozen(0o700), active.upper(), &mut nowhere())
            .unwrap()
            .diff_id
    };
    store.register(&id, frozen(0o700), 1).unwrap();
    let active = store.new_tree().unwrap();
    fs::create_dir(active.upper().join("d")).unwrap();
    let layer = store
        .commit(active, frozen(0o711), &id, 1, &NATIVE)
        .unwrap();
    assert_eq!(*layer.index().unwrap(), frozen(0o700));
    let tree = store.tree_path(&layer.tree(&NATIVE).unwrap());
    let mode = fs::metadata(tree.join("d")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn many_at_once_meet_at_one_tree() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    std::thread::scope(|scope| {
        for number in 0..16 {
            let paths = &paths;
            scope.spawn(move || {
                let store = LayerStore::unpinned(paths).unwrap();
                for text in ["one", "two", "three"] {
                    let (layer, tar) = commit(&store, text);
                    let mapped = TreeFormat::IdMap(format!("m{}", number % 2));
                    store
                        .ensure_tree(layer.diff_id(), &mapped, || Ok(tar.as_slice()))
                        .unwrap();
                }
            });
        }
    });
    assert!(names(&paths.work()).is_empty());
    // Three layers in three formats, each with its marker.
    assert_eq!(names(&paths.trees()).len(), 18);
    assert_eq!(names(&paths.layers()).len(), 3);
    for hex in names(&paths.layers()) {
        let diff_id = DiffId(format!("sha256:{hex}").parse().unwrap());
        let layer = LayerStore::unpinned(&paths)
            .unwrap()
            .layer(&diff_id)
            .unwrap()
            .unwrap();
        let formats = [
            NATIVE,
            TreeFormat::IdMap("m0".into()),
            TreeFormat::IdMap("m1".into()),
        ];
        assert!(formats.iter().all(|format| layer.tree(format).is_some()));
        assert_eq!(names(&paths.layers().join(hex)), ["index", "layer.json"]);
    }
}

#[test]
fn blobs_are_recorded_and_damage_is_a_missing_layer() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let store = LayerStore::unpinned(&paths).unwrap();
    let (layer, _) = commit(&store, "y");
    let blob = Descriptor {
        media_type: "m".into(),
        digest: Digest::of(b"b"),
        size: 1,
    };
    store.record_blob(&layer, "gzip", blob.clone()).unwrap();
    let found = LayerStore::unpinned(&paths)
        .unwrap()
        .layer(layer.diff_id())
        .unwrap()
        .unwrap();
    assert_eq!(found.blobs(), [("gzip".to_owned(), blob)].into());
    assert!(found.tree(&NATIVE).is_some());

    fs::write(paths.layer(layer.diff_id()).join("layer.json"), "").unwrap();
    let fresh = LayerStore::unpinned(&paths).unwrap();
    assert!(fresh.layer(layer.diff_id()).unwrap().is_none());
    let (again, _) = commit(&fresh, "y");
    assert_eq!(again.tree(&NATIVE), layer.tree(&NATIVE));
}
