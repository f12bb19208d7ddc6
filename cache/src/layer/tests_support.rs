//! Short ways to write entries in tests.

use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::entry::{Entry, EntryKind};
use crate::digest::ContentDigest;

/// Unmounts what a test has mounted. A process that another test has just started may for a moment hold what this one had
/// open there: who starts one goes on before the kernel has closed the descriptors.
pub(crate) fn unmount(at: &Path) -> rustix::io::Result<()> {
    let mut tries = 500;
    loop {
        match rustix::mount::unmount(at, UnmountFlags::empty()) {
            Err(Errno::BUSY) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

pub(crate) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn entry(path: &str, kind: EntryKind, mode: u32) -> Entry {
    Entry {
        kind,
        mode,
        ..Entry::default_directory(path.as_bytes().to_vec())
    }
}

pub(crate) fn directory(path: &str, mode: u32) -> Entry {
    entry(path, EntryKind::Directory { is_opaque: false }, mode)
}

pub(crate) fn opaque(path: &str) -> Entry {
    entry(path, EntryKind::Directory { is_opaque: true }, 0o755)
}

pub(crate) fn file(path: &str, bytes: &[u8]) -> Entry {
    let content = ContentDigest(*blake3::hash(bytes).as_bytes());
    entry(
        path,
        EntryKind::File {
            size: bytes.len() as u64,
            content,
        },
        0o644,
    )
}

pub(crate) fn link(path: &str, target: &str) -> Entry {
    entry(
        path,
        EntryKind::HardLink {
            target: target.as_bytes().to_vec(),
        },
        0o644,
    )
}

pub(crate) fn symlink(path: &str, target: &str) -> Entry {
    entry(
        path,
        EntryKind::Symlink {
            target: target.as_bytes().to_vec(),
        },
        0o777,
    )
}

pub(crate) fn whiteout(path: &str) -> Entry {
    Entry::whiteout(path.as_bytes().to_vec())
}

/// Fails with what to do if the tests don't run as root: they make device nodes and change owners.
pub(crate) fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes device nodes and changes owners; run `sudo -E cargo test -p cache`"
    );
}
