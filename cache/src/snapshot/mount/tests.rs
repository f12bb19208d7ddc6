//! Plans as data, and what mounting them shows.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::mount::MountFlags;

use super::*;
use crate::layer::freeze::{FreezeOptions, freeze};
use crate::layer::index::LayerIndex;
use crate::layer::require_root_in_tests;
use crate::layer::sink::nowhere;
use crate::layer::tests_support::{directory, file, whiteout};
use crate::root::StatePaths;

const NATIVE: TreeFormat = TreeFormat::Native;

fn stack(layers: Vec<(Vec<Entry>, Vec<Entry>)>) -> LayerStack {
    let index = |(entries, implied)| Arc::new(LayerIndex::new(entries, implied).unwrap());
    LayerStack::new(layers.into_iter().map(index).collect())
}

#[test]
fn skeletons_restore_what_implied_directories_would_change() {
    let base = vec![
        directory("d", 0o700),
        directory("d/e", 0o711),
        directory("same", 0o755),
    ];
    let copied = vec![file("d/e/f", b""), file("same/f", b""), file("own/f", b"")];
    let needed = skeletons(&stack(vec![(base.clone(), vec![]), (copied, vec![])]));
    let told: Vec<_> = needed[0]
        .directories
        .iter()
        .map(|e| (e.path.clone(), e.mode))
        .collect();
    assert_eq!(
        told,
        [
            (vec![], 0o755),
            (b"d".to_vec(), 0o700),
            (b"d/e".to_vec(), 0o711)
        ]
    );
    assert_eq!((needed.len(), needed[0].above), (1, 1));

    let right = vec![directory("d", 0o700), directory("d/e", 0o711)];
    let copied = vec![file("d/e/f", b"")];
    assert!(
        skeletons(&stack(vec![
            (base.clone(), vec![]),
            (copied.clone(), right)
        ]))
        .is_empty()
    );
    let deleted = vec![whiteout("d")];
    let three = stack(vec![(base, vec![]), (deleted, vec![]), (copied, vec![])]);
    assert!(
        skeletons(&three).is_empty(),
        "a new directory has its own metadata"
    );
}

fn commit(store: &LayerStore, make: impl FnOnce(&Path), below: &[Arc<Layer>]) -> Arc<Layer> {
    let active = store.new_tree().unwrap();
    make(active.upper());
    let indexes = below.iter().map(|layer| layer.index().unwrap()).collect();
    let options = FreezeOptions {
        xattrs: NATIVE.xattrs(),
        clamp_mtime: Some(100),
    };
    let lower = LayerStack::new(indexes);
    let frozen = freeze(active.upper(), &lower, &mut nowhere(), options).unwrap();
    store
        .commit(active, frozen.index, &frozen.diff_id, frozen.size, &NATIVE)
        .unwrap()
}

/// Mounts as the sandbox does, but with absolute names.
fn with_mounted(plan: &MountPlan, at: &Path, look: impl FnOnce(&Path)) {
    fs::create_dir_all(at).unwrap();
    match plan {
        MountPlan::Bind { source } => return look(source),
        MountPlan::Overlay(overlay) => {
            let lower = |path: &PathBuf| overlay.dir.join(path).to_str().unwrap().to_owned();
            let lowers: Vec<String> = overlay.lowers.iter().map(lower).collect();
            let mut text = format!("lowerdir={}", lowers.join(":"));
            for (key, value) in overlay.options() {
                text.push_str(&format!(",{key}"));
                text.extend(value.map(|value| format!("={}", value.to_str().unwrap())));
            }
            let data = CString::new(text).unwrap();
            rustix::mount::mount(
                "overlay",
                at,
                "overlay",
                MountFlags::empty(),
                data.as_c_str(),
            )
            .expect("these tests mount overlays: run `sudo -E cargo test -p cache`");
        }
    }
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(at)));
    crate::layer::tests_support::unmount(at).unwrap();
    looked.unwrap();
}

/// Gives a directory a time that frozen trees can have, as who only passes through it leaves it.
fn set_whole_second(dir: &Path) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(dir).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_copied_layer_keeps_the_metadata_of_another_base() {
    require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let store = LayerStore::unpinned(&StatePaths::new(dir.path().join("state"))).unwrap();
    let base = |mode, owner| {
        move |root: &Path| {
            fs::create_dir(root.join("d")).unwrap();
            fs::write(root.join("d/old"), "old").unwrap();
            chown(root.join("d"), Some(owner), Some(owner)).unwrap();
            fs::set_permissions(root.join("d"), fs::Permissions::from_mode(mode)).unwrap();
            set_whole_second(&root.join("d"));
        }
    };
    let first = commit(&store, base(0o755, 0), &[]);
    let copied = commit(
        &store,
        |root| {
            base(0o755, 0)(root);
            fs::remove_file(root.join("d/old")).unwrap();
            fs::write(root.join("d/new"), "new").unwrap();
            set_whole_second(&root.join("d"));
        },
        &[Arc::clone(&first)],
    );
    let paths: Vec<_> = copied
        .index()
        .unwrap()
        .entries()
        .map(|e| e.path.clone())
        .collect();
    assert_eq!(paths, [b"d/new".to_vec()], "the directory is implied");

    let second = commit(&store, base(0o700, 7), &[]);
    for access in ["read", "write"] {
        let layers = [Arc::clone(&second), Arc::clone(&copied)];
        let active = store.new_tree().unwrap();
        let indexes = layers.iter().map(|layer| layer.index().unwrap()).collect();
        active.take_root_of(&LayerStack::new(indexes)).unwrap();
        let wanted = if access == "read" {
            Access::ReadOnly
        } else {
            Access::Writable(&active)
        };
        let planned = plan(&store, &layers, &NATIVE, wanted).unwrap();
        assert_eq!(planned.skeletons.len(), 1);
        with_mounted(&planned.plan, &dir.path().join("at"), |root| {
            let shown = fs::metadata(root.join("d")).unwrap();
            assert_eq!((shown.mode() & 0o7777, shown.uid()), (0o700, 7), "{access}");
            assert_eq!(fs::read_to_string(root.join("d/new")).unwrap(), "new");
            assert_eq!(fs::read_to_string(root.join("d/old")).unwrap(), "old");
        });
    }
    let planned = plan(&store, &[first, copied], &NATIVE, Access::ReadOnly).unwrap();
    assert!(planned.skeletons.is_empty());
}

#[test]
fn plans() {
    require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let store = LayerStore::unpinned(&StatePaths::new(dir.path())).unwrap();
    let base = commit(&store, |root| fs::write(root.join("a"), "a").unwrap(), &[]);
    let marks = {
        let active = store.new_tree().unwrap();
        let index = LayerIndex::new(vec![whiteout("a")], vec![]).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            active.upper().join("a"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
        .unwrap();
        let id = crate::digest::DiffId(crate::digest::Digest::of(b"marks"));
        store.commit(active, index, &id, 1, &NATIVE).unwrap()
    };
    let id = |layer: &Layer| PathBuf::from(layer.tree(&NATIVE).unwrap().as_str());

    let planned = plan(&store, &[Arc::clone(&base)], &NATIVE, Access::ReadOnly).unwrap();
    assert_eq!(
        planned.plan,
        MountPlan::Bind {
            source: store.trees().join(id(&base))
        }
    );

    let planned = plan(&store, &[Arc::clone(&marks)], &NATIVE, Access::ReadOnly).unwrap();
    with_mounted(&planned.plan, &dir.path().join("at"), |root| {
        assert_eq!(
            fs::read_dir(root).unwrap().count(),
            0,
            "a whiteout does not show"
        );
    });

    let active = store.new_tree().unwrap();
    let layers = [Arc::clone(&base), Arc::clone(&marks)];
    let planned = plan(&store, &layers, &NATIVE, Access::Writable(&active)).unwrap();
    let MountPlan::Overlay(overlay) = &planned.plan else {
        panic!("an overlay")
    };
    assert_eq!(overlay.lowers, [id(&marks), id(&base)], "top first");
    assert_eq!(
        (overlay.dir.clone(), overlay.userxattr),
        (store.trees(), false)
    );
    let keys: Vec<_> = overlay.options().into_iter().map(|(key, _)| key).collect();
    let expected = [
        "index",
        "metacopy",
        "redirect_dir",
        "upperdir",
        "workdir",
        "volatile",
    ];
    assert_eq!(keys, expected);

    let active = store.new_tree().unwrap();
    let planned = plan(&store, &[], &NATIVE, Access::Writable(&active)).unwrap();
    with_mounted(&planned.plan, &dir.path().join("at"), |root| {
        fs::write(root.join("x"), "x").unwrap();
    });
    assert!(active.upper().join("x").exists());

    let mapped = TreeFormat::IdMap("u1-2".into());
    let missing = plan(&store, &layers, &mapped, Access::ReadOnly).unwrap_err();
    let expected = format!("layer {} has no tree of format `u1-2`", base.diff_id());
    assert_eq!(missing.to_string(), expected);
}
