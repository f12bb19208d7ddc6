//! Whether a frozen tree still is the layer that its index tells: every entry, every byte.
//!
//! Bytes are compared by the digests in the index, which has a checksum of its own: a pulled layer's tar cannot be made
//! again from its tree, and so not compared with the diff id.
//!
//! Not here: when to ask (after a reboot, and when a person asks: `snapshot::store`, `fsck`).

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::entry::{Entry, EntryKind, normalise_capability};
use super::index::LayerIndex;
use super::path as layer_path;
use super::tree::{CAPABILITY, OverlayXattrs};
use crate::digest::ContentDigest;

/// Longest value of an attribute that is compared.
const MOST_XATTR: usize = 4096;

/// Times that every file system keeps; others become the nearest that it does. Tars have them from the index.
const KEPT_TIMES: RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;

/// Whether the tree has exactly the entries of the index, with their bytes. What cannot be read has not. Trees for user
/// namespaces need no devices: unpacking leaves them out (`apply`).
pub fn is_intact(index: &LayerIndex, tree: &Path, xattrs: OverlayXattrs) -> bool {
    let has_entries = index
        .nodes()
        .iter()
        .all(|node| is_there(index, tree, xattrs, &node.entry).unwrap_or(false));
    has_entries && has_nothing_else(index, tree, b"").unwrap_or(false)
}

fn place(tree: &Path, at: &[u8]) -> PathBuf {
    match at {
        b"" => tree.to_owned(),
        at => tree.join(OsStr::from_bytes(at)),
    }
}

fn is_there(
    index: &LayerIndex,
    tree: &Path,
    xattrs: OverlayXattrs,
    entry: &Entry,
) -> io::Result<bool> {
    let path = place(tree, &entry.path);
    let found = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_device = matches!(
                index.inode(entry).kind,
                EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. }
            );
            return Ok(is_device && xattrs == OverlayXattrs::User);
        }
        found => found?,
    };
    let device = (
        rustix::fs::major(found.rdev()),
        rustix::fs::minor(found.rdev()),
    );
    let kind = found.file_type();
    let is_kind = match &entry.kind {
        EntryKind::Directory { is_opaque } => {
            kind.is_dir() && (attribute(&path, xattrs.opaque())?.is_some() == *is_opaque)
        }
        EntryKind::File { size, content } => {
            let capability = attribute(&path, CAPABILITY)?;
            kind.is_file()
                && found.len() == *size
                && capability.and_then(|value| normalise_capability(&value)) == entry.capability
                && has_bytes(&path, content)?
        }
        EntryKind::HardLink { target } => {
            let target = fs::symlink_metadata(place(tree, target))?;
            (target.dev(), target.ino()) == (found.dev(), found.ino())
        }
        EntryKind::Symlink { target } => {
            kind.is_symlink() && fs::read_link(&path)?.as_os_str().as_bytes() == target
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
    Ok(is_kind && has_metadata(index.inode(entry), &found))
}

fn has_bytes(path: &Path, content: &ContentDigest) -> io::Result<bool> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().as_bytes() == &content.0)
}

fn has_metadata(entry: &Entry, found: &Metadata) -> bool {
    let is_link = found.file_type().is_symlink();
    (entry.uid, entry.gid) == (found.uid(), found.gid())
        && (is_link || entry.mode == found.mode() & 0o7777)
        && (entry.mtime == found.mtime() || !KEPT_TIMES.contains(&entry.mtime))
}

fn attribute(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; MOST_XATTR];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the index knows every name of the tree. The root itself need not be an entry.
fn has_nothing_else(index: &LayerIndex, tree: &Path, at: &[u8]) -> io::Result<bool> {
    for item in fs::read_dir(place(tree, at))? {
        let item = item?;
        let path = layer_path::join(at, item.file_name().as_bytes());
        if index.node(&path).is_none() {
            return Ok(false);
        }
        if item.file_type()?.is_dir() && !has_nothing_else(index, tree, &path)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
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
}
