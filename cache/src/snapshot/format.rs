//! Formats of trees: the same layer has other owners and attributes on disk for another user namespace.

use std::fmt;

use crate::digest::{DiffId, hex};
use crate::layer::tree::OverlayXattrs;

/// How a tree's owners and overlayfs attributes are to be read. Part of the tree's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TreeFormat {
    /// Made and mounted by root of the initial user namespace.
    Native,
    /// Made and mounted inside a user namespace with exactly this id map (such as `u100000-65536`).
    IdMap(String),
}

impl TreeFormat {
    /// The names of overlayfs's attributes in such trees.
    pub fn xattrs(&self) -> OverlayXattrs {
        match self {
            Self::Native => OverlayXattrs::Trusted,
            Self::IdMap(_) => OverlayXattrs::User,
        }
    }

    /// The format of a name in records.
    pub fn from_name(name: &str) -> Self {
        match name {
            "native" => Self::Native,
            map => Self::IdMap(map.to_owned()),
        }
    }

    /// Its name in records.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Native => "native",
            Self::IdMap(map) => map,
        }
    }
}

impl fmt::Display for TreeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a tree: 8 characters, because some fifty of them must fit in the options of one mount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeId(pub(super) String);

impl TreeId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name to try as number `attempt`: derived, so that processes making the same tree meet.
    pub(super) fn candidate(diff_id: &DiffId, format: &TreeFormat, attempt: u32) -> Self {
        let hash = blake3::hash(format!("tree {format} {diff_id} {attempt}").as_bytes());
        Self(hex(&hash.as_bytes()[..4]))
    }
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
