//! Tests of checks beside builds and collections. What is found in a damaged store is tested in `tests/`.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::*;
use crate::blob::BlobStore as _;
use crate::digest::CacheKey;
use crate::gc::{Policy, collect};
use crate::key::builder::Parts;
use crate::key::record::Record;
use crate::room::{Cap, Room};
use crate::snapshot::testing::commit;

/// Later than every file the tests make.
const NOW: u64 = 9_000_000_000_000;

const MB: u64 = 1 << 20;

/// A layer that comes last, whose index is a pipe: who reads it waits.
struct Obstacle {
    index: std::path::PathBuf,
}

impl Obstacle {
    fn new(paths: &StatePaths) -> Self {
        let folder = paths.layers().join("f".repeat(64));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("layer.json"), "{\"size\":1}").unwrap();
        let index = folder.join("index");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, &index, FileType::Fifo, mode, 0).unwrap();
        Self { index }
    }

    /// Waits for the reader, who is kept while the pipe is open.
    fn reached(&self) -> File {
        let mut options = OpenOptions::new();
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let options = options.write(true).custom_flags(flags);
        loop {
            match options.open(&self.index) {
                Ok(pipe) => return pipe,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
    }
}

fn blob(paths: &StatePaths, bytes: &[u8]) -> Digest {
    let mut writer = DirStore::new(paths).writer().unwrap();
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    writer.commit(None).unwrap().0
}

/// Checks, and does something else while the check has looked at everything but the last layer.
fn check_beside(paths: &StatePaths, work: impl FnOnce()) -> Checked {
    let obstacle = Obstacle::new(paths);
    std::thread::scope(|scope| {
        let check = || check(paths, &Keys::new(paths), &Reader::default());
        let checking = scope.spawn(check);
        let pipe = obstacle.reached();
        work();
        // Looked at once more, it would not end.
        fs::remove_file(&obstacle.index).ok();
        drop(pipe);
        checking.join().unwrap().unwrap()
    })
}

#[test]
fn a_check_leaves_room_to_builds() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let layer = commit(&LayerStore::unpinned(&paths).unwrap(), &"x".repeat(4 << 20));
    let old = blob(&paths, &vec![1; 4 << 20]);
    let checked = check_beside(&paths, || {
        let young = blob(&paths, &vec![2; 4 << 20]);
        let room = Room::new(&paths, Cap::Bytes(9 * MB), NOW);
        room.reserve(8 * MB).unwrap();
        assert!(!paths.layer(&layer).exists());
        assert!(!paths.blob(&old).exists() && !paths.blob(&young).exists());
    });
    assert_eq!((checked.layers, checked.blobs), (1, 1), "{checked:?}");
}

#[test]
fn what_goes_while_it_is_looked_at_is_no_problem() {
    crate::layer::require_root_in_tests();
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let checked = check_beside(&paths, || {
        let all = Policy::default();
        collect(&paths, &Keys::new(&paths), &all, NOW).unwrap();
        assert!(names_in(&paths.layers()).unwrap().is_empty());
    });
    assert_eq!(checked.problems, []);
}

#[test]
fn a_layer_that_is_about_to_be_made_is_no_problem() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let store = LayerStore::unpinned(&paths).unwrap();
    let layer = DiffId(Digest::of(b"layer"));
    assert_eq!(store.check(&layer).unwrap(), None);
    fs::create_dir_all(paths.layer(&layer)).unwrap();
    assert_eq!(store.check(&layer).unwrap(), None);
}

fn record(keys: &Keys, layer: &DiffId) -> CacheKey {
    let key = CacheKey([1; 32]);
    let record = Record {
        layers: vec![layer.clone()],
        output: None,
        name: "step".to_owned(),
        created_ms: 1,
        cost_ms: 1,
        parts: Parts::default(),
    };
    keys.record(&key, &record).unwrap();
    key
}

#[test]
fn a_record_that_a_build_forgets_meanwhile_is_no_problem() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let keys = Keys::new(&paths);
    let key = record(&keys, &DiffId(Digest::of(b"gone")));
    let whole = Whole {
        paths: &paths,
        sources: Sources::new(&paths),
        bad: BTreeSet::new(),
    };
    let records = keys.uses().unwrap();
    keys.forget(&key).unwrap();
    let mut checked = Checked::default();
    check_records(&keys, records, &whole, &mut checked).unwrap();
    assert_eq!((checked.records, checked.problems), (0, Vec::new()));
}

#[test]
fn a_bad_layer_that_a_build_makes_again_is_whole() {
    crate::layer::require_root_in_tests();
    for is_made_again in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let keys = Keys::new(&paths);
        let store = LayerStore::unpinned(&paths).unwrap();
        let layer = commit(&store, "text");
        let key = record(&keys, &layer);
        let tree = store.layer(&layer).unwrap().unwrap();
        let tree = tree.tree(&crate::snapshot::format::TreeFormat::Native);
        let file = store.tree_path(&tree.unwrap()).join("file");
        fs::write(file, "torn").unwrap();
        let checked = check_beside(&paths, || {
            if is_made_again {
                commit(&LayerStore::unpinned(&paths).unwrap(), "text");
            }
        });
        let whats = checked.problems.iter().map(|problem| problem.what.as_str());
        let is_told = whats.clone().any(|what| what == "record of step");
        assert!(whats.clone().any(|what| what == format!("layer {layer}")));
        assert_eq!(is_told, !is_made_again, "{checked:?}");
        assert_eq!(keys.peek(&key).unwrap().is_some(), is_made_again);
    }
}
