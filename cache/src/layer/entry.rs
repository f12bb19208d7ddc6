//! One entry of a layer: what a tar header says about it, with a digest in place of its bytes.

use crate::digest::ContentDigest;

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, without leading or trailing slash; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// The twelve permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in whole seconds since the Unix epoch.
    pub mtime: i64,
    /// The value of `security.capability`, normalised to version 2; only regular files have one.
    pub capability: Option<Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory {
        /// Whether it hides everything that lower layers have below it.
        is_opaque: bool,
    },
    /// A regular file.
    File {
        /// Size in bytes.
        size: u64,
        /// Digest of the bytes.
        content: ContentDigest,
    },
    /// Another name of an entry of the same layer; it carries that entry's metadata.
    HardLink {
        /// The path of that entry, which is neither a directory nor a link itself and comes earlier in the layer.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Its text, as written.
        target: Vec<u8>,
    },
    /// A character device, never 0/0: that is a whiteout.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A deletion of what lower layers have under this path.
    Whiteout,
}

impl Entry {
    /// A plain directory, as made where a tar leaves out a parent: 0755, owned by 0:0, time 0.
    pub fn default_directory(path: Vec<u8>) -> Self {
        Self {
            path,
            kind: EntryKind::Directory { is_opaque: false },
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            capability: None,
        }
    }

    /// A deletion of a path.
    pub fn whiteout(path: Vec<u8>) -> Self {
        Self {
            path,
            kind: EntryKind::Whiteout,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            capability: None,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, EntryKind::Directory { .. })
    }

    /// The path of the file that it is another name of, if it is a hard link.
    pub fn link_target(&self) -> Option<&[u8]> {
        match &self.kind {
            EntryKind::HardLink { target } => Some(target),
            EntryKind::Directory { .. }
            | EntryKind::File { .. }
            | EntryKind::Symlink { .. }
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. }
            | EntryKind::Fifo
            | EntryKind::Whiteout => None,
        }
    }

    /// Whether two entries have the same mode, owner, time and capability.
    pub fn has_metadata_of(&self, other: &Self) -> bool {
        self.has_owner_of(other) && self.mtime == other.mtime && self.capability == other.capability
    }

    /// Whether two entries have the same mode and owner.
    pub fn has_owner_of(&self, other: &Self) -> bool {
        (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
    }
}

/// Turns a `security.capability` value into version 2, without the root id of version 3
/// (`linux/capability.h`, `struct vfs_cap_data`); `None` if it is no such value.
pub fn normalise_capability(value: &[u8]) -> Option<Vec<u8>> {
    const EFFECTIVE: u32 = 1;
    let (magic, sets) = value.split_first_chunk::<4>()?;
    let magic = u32::from_le_bytes(*magic);
    let sets_length = match (magic >> 24, sets.len()) {
        (1, 8) => 8,
        (2, 16) | (3, 20) => 16,
        _ => return None,
    };
    let mut normal = (0x0200_0000 | (magic & EFFECTIVE)).to_le_bytes().to_vec();
    normal.extend_from_slice(&sets[..sets_length]);
    normal.resize(20, 0);
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_become_version_2() {
        let sets: Vec<u8> = (1..=16).collect();
        let v2 = [&[1, 0, 0, 2][..], &sets].concat();
        let v3 = [&[1, 0, 0, 3][..], &sets, &[0xe8, 3, 0, 0]].concat();
        let v1 = [&[0, 0, 0, 1][..], &sets[..8]].concat();
        assert_eq!(normalise_capability(&v2).unwrap(), v2);
        assert_eq!(normalise_capability(&v3).unwrap(), v2);
        let from_v1 = [&[0, 0, 0, 2][..], &sets[..8], &[0; 8]].concat();
        assert_eq!(normalise_capability(&v1).unwrap(), from_v1);
        for bad in [&b""[..], &v2[..19], &v3[..23], &[0; 20]] {
            assert_eq!(normalise_capability(bad), None, "{bad:?}");
        }
    }
}
