//! What must hold for every store, whatever happened to the builds that used it.

use std::fs;
use std::path::{Path, PathBuf};

/// Asserts that each blob has the content that its name says, and that no build's work is left.
pub(crate) fn assert_sound(root: &Path) {
    for blob in files(&root.join("blobs/sha256")) {
        let name = blob.file_name().unwrap().to_str().unwrap();
        let digest = super::image::sha256(&fs::read(&blob).unwrap());
        assert_eq!(digest, format!("sha256:{name}"), "{}", blob.display());
    }
}

/// Asserts that a build which ended by itself has taken its temporary files with it.
pub(crate) fn assert_tidy(root: &Path) {
    settled(root);
    let work = names(&root.join("work"));
    assert!(work.is_empty(), "left in work/: {work:?}");
    let mut dirs = vec![
        root.to_owned(),
        root.join("blobs/sha256"),
        root.join("trees"),
    ];
    dirs.extend([root.join("layers"), root.join("tags"), root.join("chunks")]);
    let names = dirs
        .iter()
        .flat_map(|dir| names(dir).into_iter().map(move |name| dir.join(name)));
    let left: Vec<PathBuf> = names
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(".tmp-")
        })
        .collect();
    assert!(left.is_empty(), "half-written: {left:?}");
}

/// Waits until the processes that wait for the disk after builds have ended.
pub(crate) fn settled(root: &Path) {
    let since = std::time::Instant::now();
    while !names(&root.join("unsynced")).is_empty() {
        assert!(since.elapsed().as_secs() < 60, "never settled");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let lock = fs::File::open(root.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
}

/// Whether the store has this blob.
pub(crate) fn has_blob(root: &Path, digest: &str) -> bool {
    root.join("blobs").join(digest.replace(':', "/")).exists()
}

/// Adds all files below a directory, if there is one, to those found.
pub(crate) fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    // A file under a temporary name is not yet a blob.
    let names = names(dir).into_iter().filter(|name| !name.starts_with('.'));
    names.map(|name| dir.join(name)).collect()
}
