//! Tests of collection: what is removed first, what is never removed, and what counts as use. Collection of a whole store by processes is in `tests/`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::claim::starting::start;
use crate::digest::CacheKey;
use crate::io::names_in;
use crate::key::builder::Parts;
use crate::key::record::Record;
use crate::snapshot::store::{LayerStore, Reader};
use crate::snapshot::testing::{commit, has_tree};
use crate::tag::{Images, Tag};

/// Later than every file the tests make.
const NOW: u64 = 9_000_000_000_000;

struct Place {
    _dir: tempfile::TempDir,
    paths: StatePaths,
    keys: Keys,
}

impl Place {
    fn new() -> Self {
        crate::layer::require_root_in_tests();
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        Self {
            keys: Keys::new(&paths),
            paths,
            _dir: dir,
        }
    }

    /// A layer with a file of so many kilobytes.
    fn layer(&self, name: &str, kilobytes: usize) -> DiffId {
        let store = LayerStore::unpinned(&self.paths).unwrap();
        commit(&store, &name.repeat(kilobytes * 1024 / name.len()))
    }

    fn record(&self, name: &str, layers: &[&DiffId], cost_ms: u64, used_ms: u64) -> CacheKey {
        let key = CacheKey(*blake3::hash(name.as_bytes()).as_bytes());
        let record = Record {
            layers: layers.iter().map(|layer| (*layer).clone()).collect(),
            output: None,
            name: name.to_owned(),
            created_ms: used_ms,
            cost_ms,
            parts: Parts::default(),
        };
        self.keys.record(&key, &record).unwrap();
        key
    }

    fn tag(&self, layers: &[&DiffId]) {
        use crate::blob::BlobStore as _;
        let config = serde_json::json!({ "rootfs": { "diff_ids": layers } }).to_string();
        let blobs = crate::blob::dir::DirStore::new(&self.paths);
        let mut writer = blobs.writer().unwrap();
        std::io::Write::write_all(&mut writer, config.as_bytes()).unwrap();
        let (config, _) = writer.commit(None).unwrap();
        let tag = Tag {
            name: "app:1".into(),
            config,
            manifest: None,
            tagged_ms: 0,
        };
        Images::new(&self.paths).tag(&tag).unwrap();
    }

    fn has(&self, layer: &DiffId) -> bool {
        has_tree(&LayerStore::unpinned(&self.paths).unwrap(), layer)
    }

    fn prune(&self, policy: &Policy) -> Collected {
        collect(&self.paths, &self.keys, policy, NOW).unwrap()
    }

    fn survey(&self) -> Disk {
        Disk::survey(&self.paths, &self.keys, None).unwrap()
    }

    fn bytes(&self) -> u64 {
        self.survey().bytes()
    }
}

#[test]
fn a_survey_accounts_for_what_du_counts() {
    let place = Place::new();
    let layer = place.layer("a", 700);
    place.record("a", &[&layer], 5, 7);
    fs::create_dir_all(place.paths.chunks()).unwrap();
    fs::write(place.paths.chunks().join("ab"), vec![1; 300_000]).unwrap();
    let mut command = Command::new("du");
    command.args(["-s", "-B1"]).arg(place.paths.root());
    let counted = start(command.stdout(Stdio::piped()));
    let counted = counted.wait_with_output().unwrap();
    let counted = String::from_utf8(counted.stdout).unwrap();
    let counted: u64 = counted.split_whitespace().next().unwrap().parse().unwrap();
    let ours = place.bytes();
    assert!(ours.abs_diff(counted) * 100 <= counted, "{ours} {counted}");
}

#[test]
fn tagged_and_pinned_layers_stay_and_all_else_goes() {
    let place = Place::new();
    let (tagged, pinned, free) = (
        place.layer("t", 8),
        place.layer("p", 8),
        place.layer("f", 8),
    );
    let kept = place.record("tagged", &[&tagged], 1, 1);
    let gone = place.record("free", &[&free], 1000, 1);
    place.tag(&[&tagged]);
    let build = Lease::acquire(&place.paths).unwrap();
    build.pin(&pinned).unwrap();
    let collected = place.prune(&Policy::default());
    assert!(place.has(&tagged) && place.has(&pinned) && !place.has(&free));
    assert!(place.keys.lookup(&kept).unwrap().is_some());
    assert!(place.keys.lookup(&gone).unwrap().is_none());
    assert!(collected.freed_bytes() > 8192);
    let pins: Vec<&String> = collected
        .pinned
        .iter()
        .flat_map(|item| &item.pins)
        .collect();
    assert!(pins.iter().any(|pin| *pin == "image app:1"), "{pins:?}");
    assert!(pins.iter().any(|pin| *pin == "a running build"), "{pins:?}");
    let trees = names_in(&place.paths.trees()).unwrap();
    assert_eq!(trees.len(), 4, "two trees with their markers: {trees:?}");
    // What the collection itself wrote is not in its figure.
    assert!(collected.left_bytes.abs_diff(place.bytes()) <= 32_768);
}

#[test]
fn what_a_build_has_found_stays_until_it_ends() {
    let place = Place::new();
    let (found, free) = (place.layer("a", 8), place.layer("b", 8));
    let lease = Arc::new(Lease::acquire(&place.paths).unwrap());
    let build = LayerStore::open(&place.paths, lease, Reader::default()).unwrap();
    assert!(has_tree(&build, &found));
    let collected = place.prune(&Policy::default());
    assert!(place.has(&found) && !place.has(&free), "{collected:?}");
    let layer = build.layer(&found).unwrap().unwrap();
    assert!(layer.index().is_ok());
    // What it makes is as safe as what it finds.
    let made = commit(&build, "c");
    place.prune(&Policy::default());
    assert!(place.has(&found) && place.has(&made));
    drop(build);
    place.prune(&Policy::default());
    assert!(!place.has(&found) && !place.has(&made));
}

#[test]
fn children_go_before_parents_and_least_benefit_first() {
    let place = Place::new();
    let base = place.layer("b", 4);
    let cheap = place.layer("c", 64);
    let dear = place.layer("d", 64);
    place.record("base", &[&base], 0, NOW);
    place.record("cheap", &[&base, &cheap], 10, NOW);
    place.record("dear", &[&base, &dear], 60_000, NOW);
    let policy = |most_bytes| Policy {
        most_bytes: Some(most_bytes),
        ..Policy::default()
    };
    // The base saves nothing, but others stand on it.
    let collected = place.prune(&policy(place.bytes() - 1));
    let removed: Vec<&str> = collected.removed.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(removed, [cheap.to_string()]);
    let collected = place.prune(&policy(0));
    let removed: Vec<&str> = collected.removed.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(removed, [dear.to_string(), base.to_string()]);
    assert!(place.keys.uses().unwrap().is_empty());
}

#[test]
fn what_was_used_lately_is_kept() {
    let place = Place::new();
    let (old, new) = (place.layer("o", 4), place.layer("n", 4));
    place.record("old", &[&old], 9, 1_000);
    place.record("new", &[&new], 9, 9_000);
    place.prune(&Policy {
        used_before_ms: Some(5_000),
        ..Policy::default()
    });
    assert!(!place.has(&old) && place.has(&new));
}

#[test]
fn leftovers_of_crashes_go_when_they_are_old() {
    let place = Place::new();
    for folder in [place.paths.blobs(), place.paths.trees()] {
        fs::create_dir_all(folder).unwrap();
    }
    let staged = place.paths.blobs().join(".tmp-77-0");
    let orphan = place.paths.trees().join("0badcafe");
    let nameless = place.paths.layer(&DiffId(Digest::of(b"x")));
    fs::write(&staged, "half").unwrap();
    fs::create_dir(&orphan).unwrap();
    fs::create_dir_all(&nameless).unwrap();
    // Trees have the times of their layers: this one was placed just now by a build that has not said so yet.
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let tree = fs::File::open(&orphan).unwrap();
    tree.set_modified(long_ago).unwrap();
    let named = u64::try_from(fs::metadata(&orphan).unwrap().ctime()).unwrap() * 1000;
    sweep::leftovers(&place.paths, named + 60_000).unwrap();
    assert!(staged.exists() && orphan.exists() && nameless.exists());
    sweep::leftovers(&place.paths, NOW).unwrap();
    assert!(!staged.exists() && !orphan.exists() && !nameless.exists());
}

#[test]
fn a_cache_mount_in_use_stays() {
    use crate::claim::Wait;
    use crate::mounts::{MountRequest, Sharing, Start, acquire};
    let place = Place::new();
    let request = |identity: &str| MountRequest {
        identity: identity.to_owned(),
        sharing: Sharing::Shared,
        start: Start::Kept,
    };
    let mount = |identity| {
        let mut taken = acquire(&place.paths, &[request(identity)], Wait::Never)
            .unwrap()
            .unwrap();
        let mut directory = taken.directories.remove(0);
        fs::write(directory.path().join("f"), "x").unwrap();
        directory.ready().unwrap();
        directory
    };
    let used = mount("used");
    let (used_file, idle_file) = (used.path().join("f"), mount("idle").path().join("f"));
    assert!(used_file.exists() && idle_file.exists());
    place.prune(&Policy::default());
    assert!(used_file.exists() && !idle_file.exists());
    drop(used);
    place.prune(&Policy::default());
    assert!(!used_file.exists());
}

#[test]
fn an_emptied_cache_mount_frees_what_was_in_it_and_is_no_item_any_more() {
    use crate::claim::Wait;
    use crate::mounts::{MountRequest, Sharing, Start, acquire};
    let place = Place::new();
    let request = MountRequest {
        identity: "m".to_owned(),
        sharing: Sharing::Shared,
        start: Start::Kept,
    };
    let mut taken = acquire(&place.paths, &[request], Wait::Never)
        .unwrap()
        .unwrap();
    let mut directory = taken.directories.remove(0);
    fs::write(directory.path().join("f"), vec![1; 1 << 20]).unwrap();
    directory.ready().unwrap();
    drop(directory);
    let before = place.bytes();
    let collected = place.prune(&Policy::default());
    // What the collection wrote down itself is not part of what it freed.
    let difference = before - place.bytes();
    assert!(collected.freed_bytes().abs_diff(difference) <= 32_768);
    let items = place.survey().items;
    assert!(items.iter().all(|item| item.kind != Kind::CacheMount));
}

#[test]
fn a_fresh_blob_goes_unless_a_build_runs_that_may_want_it() {
    use crate::blob::BlobStore as _;
    let place = Place::new();
    let blobs = crate::blob::dir::DirStore::new(&place.paths);
    let mut writer = blobs.writer().unwrap();
    std::io::Write::write_all(&mut writer, b"blob").unwrap();
    let (blob, _) = writer.commit(None).unwrap();
    let build = Lease::acquire(&place.paths).unwrap();
    // As if it had been written after the build began.
    let path = place.paths.blob(&blob);
    let later =
        fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(5);
    fs::File::open(&path).unwrap().set_modified(later).unwrap();
    place.prune(&Policy::default());
    assert!(blobs.contains(&blob).unwrap());
    let item = place.survey().items;
    let item = item.iter().find(|item| item.kind == Kind::Blob);
    assert_eq!(item.unwrap().pins, ["a running build"]);
    drop(build);
    place.prune(&Policy::default());
    assert!(!blobs.contains(&blob).unwrap());
}

#[test]
fn what_a_killed_build_left_counts_as_freed() {
    let place = Place::new();
    place.layer("l", 4);
    fs::create_dir_all(place.paths.leases()).unwrap();
    fs::create_dir_all(place.paths.work().join("77-0")).unwrap();
    fs::write(place.paths.work().join("77-0/f"), vec![1; 1 << 20]).unwrap();
    fs::write(place.paths.leases().join("77-0"), "").unwrap();
    let before = place.bytes();
    let collected = place.prune(&Policy::default());
    let difference = before - place.bytes();
    assert!(collected.freed_bytes().abs_diff(difference) <= 32_768);
    assert!(collected.swept_bytes >= 1 << 20);
}

#[test]
fn a_store_clearly_below_its_cap_is_not_looked_at() {
    let place = Place::new();
    let layer = place.layer("l", 4);
    let above = |cap| collect_above(&place.paths, &place.keys, cap, NOW).unwrap();
    assert!(above(u64::MAX).is_none());
    assert!(!place.paths.usage().exists());
    assert!(above(1).is_some());
    assert!(!place.has(&layer) && place.paths.usage().exists());
}
