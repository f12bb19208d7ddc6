//! What a reboot leaves of layers: what was waited for is trusted, the rest verified.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::format::TreeFormat;
use super::store::{LayerStore, Reader};
use super::testing::{commit, has_tree};
use crate::digest::DiffId;
use crate::durable::{self, BootId};
use crate::lease::Lease;
use crate::root::StatePaths;

fn open(paths: &StatePaths, boot: &str) -> LayerStore {
    let reader = Reader {
        boot: BootId(boot.to_owned()),
        format: TreeFormat::Native,
    };
    let lease = Arc::new(Lease::acquire(paths).unwrap());
    LayerStore::open(paths, lease, reader).unwrap()
}

fn truncate(paths: &StatePaths) {
    for entry in fs::read_dir(paths.trees()).unwrap() {
        let file = entry.unwrap().path().join("file");
        if file.exists() {
            fs::write(file, "").unwrap();
        }
    }
}

fn settled(paths: &StatePaths, boot: &str, layers: &[DiffId]) {
    durable::note(paths, &BootId(boot.into()), "build", layers).unwrap();
    assert!(durable::is_due(paths));
    durable::settle(paths, &BootId(boot.into())).unwrap();
    assert!(!durable::is_due(paths));
}

fn record_text(paths: &StatePaths, layer: &DiffId) -> String {
    fs::read_to_string(paths.layer(layer).join("layer.json")).unwrap()
}

#[test]
fn an_unsynced_tree_is_verified_after_a_reboot_and_kept_if_whole() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let layer = commit(&open(&paths, "one"), "text");
    assert!(record_text(&paths, &layer).contains("unsynced"));
    assert!(has_tree(&open(&paths, "two"), &layer));
    let text = record_text(&paths, &layer);
    assert!(!text.contains("unsynced"), "verified is known: {text}");
}

#[test]
fn a_torn_tree_goes_with_the_reboot_and_not_before() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let layer = commit(&open(&paths, "one"), "text");
    truncate(&paths);
    assert!(has_tree(&open(&paths, "one"), &layer), "same boot: trusted");
    assert!(!has_tree(&open(&paths, "two"), &layer));
    assert!(names(&paths.trees()).iter().all(|n| n.ends_with(".id")));
    let again = commit(&open(&paths, "two"), "text");
    assert_eq!(again, layer);
    assert!(has_tree(&open(&paths, "two"), &layer));
}

#[test]
fn a_torn_tree_is_replaced_even_if_its_record_was_lost() {
    crate::layer::require_root_in_tests();
    for loses_record in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let layer = commit(&open(&paths, "one"), "text");
        truncate(&paths);
        if loses_record {
            fs::remove_dir_all(paths.layer(&layer)).unwrap();
        }
        commit(&open(&paths, "two"), "text");
        let trees = fs::read_dir(paths.trees()).unwrap();
        let files = trees.map(|entry| entry.unwrap().path().join("file"));
        let texts: Vec<String> = files.flat_map(fs::read_to_string).collect();
        assert_eq!(texts, ["text"], "record lost: {loses_record}");
    }
}

#[test]
fn what_was_waited_for_is_trusted() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let layer = commit(&open(&paths, "one"), "text");
    settled(&paths, "one", std::slice::from_ref(&layer));
    assert!(!record_text(&paths, &layer).contains("unsynced"));
    // Nobody looks again: that is what waiting for the disk buys.
    truncate(&paths);
    assert!(has_tree(&open(&paths, "two"), &layer));
}

#[test]
fn a_list_of_an_earlier_boot_marks_nothing() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let layer = commit(&open(&paths, "one"), "text");
    durable::note(&paths, &BootId("one".into()), "build", [&layer]).unwrap();
    durable::settle(&paths, &BootId("two".into())).unwrap();
    assert!(!durable::is_due(&paths));
    assert!(record_text(&paths, &layer).contains("unsynced"));
}

#[test]
fn a_torn_index_makes_the_layer_missing() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let layer = commit(&open(&paths, "one"), "text");
    let index = paths.layer(&layer).join("index");
    fs::write(&index, &fs::read(&index).unwrap()[..40]).unwrap();
    assert!(open(&paths, "two").layer(&layer).unwrap().is_none());
    commit(&open(&paths, "two"), "text");
    assert!(has_tree(&open(&paths, "two"), &layer));
}

fn names(dir: &Path) -> Vec<String> {
    let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    fs::read_dir(dir).unwrap().map(name).collect()
}
