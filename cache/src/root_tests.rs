//! Which directories become stores, who may hold them, and where on the disk their files go.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::*;
use crate::claim::{LockMode, Wait, lock};
use crate::lease::Lease;
use crate::snapshot::store::{LayerStore, Reader};

fn open(path: &Path) -> Result<StateRoot, RootError> {
    StateRoot::open(path, &RootOptions::default())
}

#[test]
fn a_missing_directory_is_made_private_and_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let root = open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(
        fs::metadata(dir.path().join("a")).unwrap().mode() & 0o7777,
        0o700
    );
    let second = open(&path).unwrap();
    assert_eq!(root.paths().root(), second.paths().root());
    assert_eq!(names_in(&path).unwrap(), ["format", "lock"]);
}

/// What a file system knows of this, the root and the directory for work get; one that does not know it is used as it is.
#[test]
fn what_is_made_in_the_root_and_by_each_build_is_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let flags = |path: &Path| ioctl_getflags(File::open(path).unwrap()).unwrap_or(IFlags::empty());
    let plain = dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    let handle = File::open(&plain).unwrap();
    ioctl_setflags(&handle, flags(&plain) | IFlags::TOPDIR).ok();
    let expected = flags(&plain) & IFlags::TOPDIR;

    let root = open(&dir.path().join("root")).unwrap();
    let paths = root.paths();
    let lease = Arc::new(Lease::acquire(paths).unwrap());
    let layers = LayerStore::open(paths, Arc::clone(&lease), Reader::default()).unwrap();
    assert!(!paths.work().exists(), "who makes nothing needs no place");
    let _made = layers.new_tree().unwrap();
    for path in [paths.root(), &paths.work()] {
        assert_eq!(flags(path) & IFlags::TOPDIR, expected, "{}", path.display());
    }
    let inner = lease.work().unwrap();
    assert!(
        !flags(&inner).contains(IFlags::TOPDIR),
        "a build's files stay together"
    );
}

#[test]
fn what_a_deleted_store_leaves_behind_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["db.sqlite-wal", "db.sqlite-shm", "gate", "usage"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn what_is_no_private_store_of_this_format_is_refused() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &str); 4] = [
        (
            "group",
            |p| fs::set_permissions(p, fs::Permissions::from_mode(0o770)).unwrap(),
            "can be written by others (mode 0770); run `chmod go-w ",
        ),
        (
            "format",
            |p| fs::write(p.join("format"), "build-store 7\n").unwrap(),
            "has format `build-store 7`, this program knows `build-store 1`",
        ),
        (
            "stranger",
            |p| {
                fs::remove_file(p.join("format")).unwrap();
                fs::write(p.join("notes.txt"), "x").unwrap();
            },
            "is not a state directory: it has files (`notes.txt`) but no `format`",
        ),
        (
            "file",
            |p| {
                fs::remove_dir_all(p).unwrap();
                fs::write(p, "x").unwrap();
            },
            "is not a directory; set BUILD_ROOT",
        ),
    ];
    for (name, spoil, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        drop(open(&path).unwrap());
        spoil(&path);
        let message = open(&path).unwrap_err().to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn an_exclusive_lock_excludes() {
    let dir = tempfile::tempdir().unwrap();
    let root = open(dir.path()).unwrap();
    let path = root.paths().lock();
    let file = File::open(&path).unwrap();
    let is_free = |mode| lock(&file, &path, mode, Wait::Never).unwrap();
    assert!(!is_free(LockMode::Exclusive));
    assert!(is_free(LockMode::Shared));
    drop(root);
    assert!(is_free(LockMode::Exclusive));
}
