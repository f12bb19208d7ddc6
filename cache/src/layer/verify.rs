//! Whether a frozen tree still is the layer that its index tells: every entry, every byte.
//!
//! Bytes are compared by the digests in the index, which has a checksum of its own: a pulled layer's tar cannot be made
//! again from its tree, and so not compared with the diff id.
//!
//! Not here: when to ask (after a reboot, and when a person asks: `snapshot::store`, `fsck`).

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;

use super::entry::{Entry, EntryKind, normalise_capability};
use super::error::LayerError;
use super::index::LayerIndex;
use super::path as layer_path;
use super::tree::{self, CAPABILITY, OverlayXattrs, Tree};
use crate::digest::ContentDigest;

/// Times that every file system keeps; others become the nearest that it does. Tars have them from the index.
const KEPT_TIMES: RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;

/// Whether the tree has exactly the entries of the index, with their bytes. What cannot be read has not. Trees for user
/// namespaces need no devices: unpacking leaves them out (`apply`).
pub fn is_intact(index: &LayerIndex, tree: &Path, xattrs: OverlayXattrs) -> bool {
    let Ok(tree) = Tree::open(tree) else {
        return false;
    };
    let mut checking = Checking {
        index,
        tree,
        xattrs,
    };
    let has_entries = index
        .nodes()
        .iter()
        .all(|node| checking.is_there(&node.entry).unwrap_or(false));
    // The root need not be an entry.
    has_entries && (index.node(b"").is_some() || checking.has_root().unwrap_or(false))
}

/// A tree beside its index. Every place is reached from directory to directory: a whole path may be longer than the kernel
/// takes at once.
struct Checking<'a> {
    index: &'a LayerIndex,
    tree: Tree,
    xattrs: OverlayXattrs,
}

impl Checking<'_> {
    fn is_there(&mut self, entry: &Entry) -> Result<bool, LayerError> {
        let shown = self.tree.shown(&entry.path);
        let failed = |error: Errno| LayerError::os("check", &shown)(error);
        let inode = self.index.inode(entry);
        let is_device = matches!(
            inode.kind,
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. }
        );
        let (dir, name) = self.tree.parent(&entry.path)?;
        let found = match tree::stat(dir, name) {
            Err(Errno::NOENT) => return Ok(is_device && self.xattrs == OverlayXattrs::User),
            found => found.map_err(failed)?,
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        let device = (fs::major(found.st_rdev), fs::minor(found.st_rdev));
        let is_kind = match &entry.kind {
            EntryKind::Directory { is_opaque } => {
                kind.is_dir() && {
                    let fd = tree::open_dir(dir, name).map_err(failed)?;
                    let mark = tree::xattr(fd.as_fd(), self.xattrs.opaque()).map_err(failed)?;
                    mark.is_some() == *is_opaque
                        && knows_all(self.index, &entry.path, fd.as_fd()).map_err(failed)?
                }
            }
            EntryKind::File { size, content } => {
                kind.is_file() && u64::try_from(found.st_size) == Ok(*size) && {
                    let fd = tree::open_regular(dir, name).map_err(failed)?;
                    let capability = tree::xattr(fd.as_fd(), CAPABILITY).map_err(failed)?;
                    capability.and_then(|value| normalise_capability(&value)) == entry.capability
                        && has_bytes(fd.into(), content).map_err(LayerError::io("read", &shown))?
                }
            }
            EntryKind::HardLink { target } => {
                let (dir, name) = self.tree.parent(target)?;
                let target = tree::stat(dir, name).map_err(failed)?;
                (target.st_dev, target.st_ino) == (found.st_dev, found.st_ino)
            }
            EntryKind::Symlink { target } => {
                kind.is_symlink()
                    && fs::readlinkat(dir, name, Vec::new())
                        .map_err(failed)?
                        .as_bytes()
                        == target
            }
            EntryKind::CharDevice { major, minor } => {
                kind.is_char_device() && device == (*major, *minor)
            }
            EntryKind::BlockDevice { major, minor } => {
                kind.is_block_device() && device == (*major, *minor)
            }
            EntryKind::Fifo => kind.is_fifo(),
            EntryKind::Whiteout => return Ok(kind.is_char_device() && device == (0, 0)),
        };
        Ok(is_kind && has_metadata(inode, &found))
    }

    fn has_root(&mut self) -> Result<bool, LayerError> {
        let shown = self.tree.shown(b"");
        let root = self.tree.dir(b"")?;
        knows_all(self.index, b"", root).map_err(LayerError::os("read", shown))
    }
}

fn has_bytes(mut file: File, content: &ContentDigest) -> io::Result<bool> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finalize().as_bytes() == &content.0)
}

fn has_metadata(entry: &Entry, found: &Stat) -> bool {
    let is_link = FileType::from_raw_mode(found.st_mode).is_symlink();
    (entry.uid, entry.gid) == (found.st_uid, found.st_gid)
        && (is_link || entry.mode == found.st_mode & 0o7777)
        && (entry.mtime == found.st_mtime || !KEPT_TIMES.contains(&entry.mtime))
}

/// Whether the index knows every name in a directory of the tree.
fn knows_all(index: &LayerIndex, at: &[u8], dir: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let names = tree::names(dir)?;
    Ok(names
        .iter()
        .all(|name| index.node(&layer_path::join(at, name)).is_some()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::layer::freeze::{FreezeOptions, freeze};
    use crate::layer::sink::nowhere;
    use crate::layer::stack::LayerStack;

    #[test]
    fn every_damage_shows() {
        crate::layer::require_root_in_tests();
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 9] = [
            ("truncated", |t| fs::write(t.join("d/file"), "by").unwrap()),
            ("other bytes", |t| {
                let time = fs::metadata(t.join("d/file")).unwrap().modified().unwrap();
                fs::write(t.join("d/file"), "bytez").unwrap();
                let file = fs::File::options().write(true).open(t.join("d/file"));
                file.unwrap().set_modified(time).unwrap();
            }),
            ("gone", |t| fs::remove_file(t.join("d/link")).unwrap()),
            ("retargeted", |t| {
                fs::remove_file(t.join("d/link")).unwrap();
                symlink("elsewhere", t.join("d/link")).unwrap();
            }),
            ("new", |t| fs::write(t.join("stranger"), "").unwrap()),
            ("mode", |t| {
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(t.join("d/file"), mode).unwrap();
            }),
            ("owner", |t| {
                std::os::unix::fs::chown(t.join("d"), Some(7), None).unwrap();
            }),
            ("empty directory gone", |t| {
                fs::remove_dir(t.join("empty")).unwrap();
            }),
            ("unlinked", |t| {
                fs::remove_file(t.join("same")).unwrap();
                fs::copy(t.join("d/file"), t.join("same")).unwrap();
            }),
        ];
        for (name, damage) in damages {
            let dir = tempfile::tempdir().unwrap();
            let tree = dir.path().join("tree");
            fs::create_dir_all(tree.join("d")).unwrap();
            fs::create_dir(tree.join("empty")).unwrap();
            fs::write(tree.join("d/file"), "bytes").unwrap();
            fs::hard_link(tree.join("d/file"), tree.join("same")).unwrap();
            symlink("file", tree.join("d/link")).unwrap();
            let options = FreezeOptions {
                xattrs: OverlayXattrs::Trusted,
                clamp_mtime: Some(1),
            };
            let frozen = freeze(&tree, &LayerStack::default(), &mut nowhere(), options).unwrap();
            let intact = || is_intact(&frozen.index, &tree, OverlayXattrs::Trusted);
            assert!(intact(), "{name}: before");
            damage(&tree);
            assert!(!intact(), "{name}");
        }
    }

    #[test]
    fn paths_may_be_as_long_as_layers_allow() {
        crate::layer::require_root_in_tests();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        let name = "n".repeat(255);
        let mut deepest = tree::open_dir(rustix::fs::CWD, root.as_os_str().as_bytes()).unwrap();
        for _ in 0..15 {
            rustix::fs::mkdirat(&deepest, name.as_str(), 0o755.into()).unwrap();
            deepest = tree::open_dir(deepest.as_fd(), name.as_bytes()).unwrap();
        }
        let last = |kind: &str| format!("{kind:x<250}");
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let file = rustix::fs::openat(&deepest, last("file"), flags, 0o644.into()).unwrap();
        rustix::io::write(&file, b"bytes").unwrap();
        rustix::fs::symlinkat("target", &deepest, last("link")).unwrap();
        rustix::fs::mknodat(&deepest, last("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
        let options = FreezeOptions {
            xattrs: OverlayXattrs::Trusted,
            clamp_mtime: None,
        };
        let frozen = freeze(&root, &LayerStack::default(), &mut nowhere(), options).unwrap();
        let lengths = frozen
            .index
            .nodes()
            .iter()
            .map(|node| node.entry.path.len());
        let longest = lengths.max().unwrap();
        assert!(longest <= 4095 && longest + root.as_os_str().len() > 4096);
        let intact = || is_intact(&frozen.index, &root, OverlayXattrs::Trusted);
        assert!(intact());
        rustix::io::write(&file, b"!").unwrap();
        assert!(!intact());
    }
}
