//! Tests of checks beside builds and collections. What is found in a damaged store is tested in `tests/`.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::*;
use crate::blob::BlobStore as _;
use crate::gc::{Policy, collect};
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
