//! An index as a file.
//!
//! ```text
//! magic "layer index 1\n"
//! number of nodes
//! per node: kind (low 4 bits) | implied 0x10 | capability 0x20
//!           bytes shared with the previous path, further bytes (length, bytes)
//!           mode, uid, gid, mtime (zigzag), [capability], then what the kind needs
//! BLAKE3 of all before (32 bytes)
//! ```
//!
//! Numbers are LEB128. Changing this breaks stored state: it needs another magic.

use std::fs;
use std::path::Path;

use super::entry::{Entry, EntryKind};
use super::error::LayerError;
use super::index::{LayerIndex, Node, Role};
use crate::digest::ContentDigest;
use crate::summed::{self, SummedFile};

const MAGIC: &[u8] = b"layer index 1\n";
const IMPLIED: u8 = 0x10;
const CAPABLE: u8 = 0x20;

pub(super) fn save(index: &LayerIndex, file: &Path) -> Result<(), LayerError> {
    let mut out = SummedFile::create(file, MAGIC)?;
    out.add(|out| put(out, index.nodes().len() as u64))?;
    let mut previous: &[u8] = b"";
    for node in index.nodes() {
        out.add(|out| encode(node, previous, out))?;
        previous = &node.entry.path;
    }
    Ok(out.finish()?)
}

pub(super) fn load(file: &Path) -> Result<LayerIndex, LayerError> {
    let bytes = fs::read(file).map_err(LayerError::io("read", file))?;
    let damaged = |problem| LayerError::Index {
        path: file.to_owned(),
        problem,
    };
    let body = summed::body(&bytes).ok_or_else(|| damaged("not whole"))?;
    let nodes = Decoder {
        rest: body,
        path: Vec::new(),
    }
    .index()
    .ok_or_else(|| damaged("unexpected end or unknown format"))?;
    LayerIndex::from_sorted(nodes)
}

/// Appends a node that comes behind the one of the previous path.
fn encode(node: &Node, previous: &[u8], out: &mut Vec<u8>) {
    let entry = &node.entry;
    let capable = entry.capability.as_ref().map_or(0, |_| CAPABLE);
    let implied = if node.role == Role::Implied {
        IMPLIED
    } else {
        0
    };
    out.push(kind_byte(&entry.kind) | implied | capable);
    let shared = previous
        .iter()
        .zip(&entry.path)
        .take_while(|(l, r)| l == r)
        .count();
    put(out, shared as u64);
    put_bytes(out, &entry.path[shared..]);
    for number in [entry.mode, entry.uid, entry.gid] {
        put(out, number.into());
    }
    put(
        out,
        ((entry.mtime << 1) ^ (entry.mtime >> 63)).cast_unsigned(),
    );
    if let Some(capability) = &entry.capability {
        put_bytes(out, capability);
    }
    put_kind(out, &entry.kind);
}

fn kind_byte(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::Directory { is_opaque: false } => 0,
        EntryKind::Directory { is_opaque: true } => 1,
        EntryKind::File { .. } => 2,
        EntryKind::HardLink { .. } => 3,
        EntryKind::Symlink { .. } => 4,
        EntryKind::CharDevice { .. } => 5,
        EntryKind::BlockDevice { .. } => 6,
        EntryKind::Fifo => 7,
        EntryKind::Whiteout => 8,
    }
}

fn put_kind(out: &mut Vec<u8>, kind: &EntryKind) {
    match kind {
        EntryKind::Directory { .. } | EntryKind::Fifo | EntryKind::Whiteout => {}
        EntryKind::File { size, content } => {
            put(out, *size);
            out.extend_from_slice(&content.0);
        }
        EntryKind::HardLink { target } | EntryKind::Symlink { target } => put_bytes(out, target),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            put(out, (*major).into());
            put(out, (*minor).into());
        }
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Decoder<'a> {
    rest: &'a [u8],
    path: Vec<u8>,
}

impl<'a> Decoder<'a> {
    fn index(mut self) -> Option<Vec<Node>> {
        self.rest = self.rest.strip_prefix(MAGIC)?;
        let count = self.length()?;
        // Each node takes six bytes at least; the sum of a damaged count must not be allocated.
        let mut nodes = Vec::with_capacity(count.min(self.rest.len() / 6));
        for _ in 0..count {
            nodes.push(self.node()?);
        }
        self.rest.is_empty().then_some(nodes)
    }

    fn node(&mut self) -> Option<Node> {
        let head = self.take(1)?[0];
        let shared = self.length()?;
        if shared > self.path.len() {
            return None;
        }
        self.path.truncate(shared);
        let further = self.bytes()?;
        self.path.extend_from_slice(further);
        let mode = self.number32()?;
        let uid = self.number32()?;
        let gid = self.number32()?;
        let zigzag = self.number()?;
        let mtime = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
        let capability = match head & CAPABLE {
            0 => None,
            _ => Some(self.bytes()?.to_vec()),
        };
        let kind = self.kind(head & 0x0f)?;
        let role = if head & IMPLIED == 0 {
            Role::Entry
        } else {
            Role::Implied
        };
        let path = self.path.clone();
        Some(Node {
            entry: Entry {
                path,
                kind,
                mode,
                uid,
                gid,
                mtime,
                capability,
            },
            role,
        })
    }

    fn kind(&mut self, byte: u8) -> Option<EntryKind> {
        Some(match byte {
            0 => EntryKind::Directory { is_opaque: false },
            1 => EntryKind::Directory { is_opaque: true },
            2 => EntryKind::File {
                size: self.number()?,
                content: ContentDigest(self.take(32)?.try_into().ok()?),
            },
            3 => EntryKind::HardLink {
                target: self.bytes()?.to_vec(),
            },
            4 => EntryKind::Symlink {
                target: self.bytes()?.to_vec(),
            },
            5 => EntryKind::CharDevice {
                major: self.number32()?,
                minor: self.number32()?,
            },
            6 => EntryKind::BlockDevice {
                major: self.number32()?,
                minor: self.number32()?,
            },
            7 => EntryKind::Fifo,
            8 => EntryKind::Whiteout,
            _ => return None,
        })
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn number32(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn length(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::*;
    use super::*;

    #[test]
    fn an_index_reads_back_and_damage_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("index");
        let mut late = file("usr/bin/x", b"content");
        (late.mtime, late.uid) = (-86_400, u32::MAX);
        late.capability = Some(vec![10; 20]);
        let index = LayerIndex::new(
            vec![
                late,
                link("usr/bin/y", "usr/bin/x"),
                symlink("usr/l", "../x"),
                whiteout("gone"),
                opaque("o"),
            ],
            vec![directory("usr", 0o700)],
        )
        .unwrap();
        index.save(&at).unwrap();
        assert_eq!(LayerIndex::load(&at).unwrap(), index);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );

        let good = fs::read(&at).unwrap();
        for length in [0, 10, good.len() - 1] {
            fs::write(&at, &good[..length]).unwrap();
            assert!(
                matches!(LayerIndex::load(&at), Err(LayerError::Index { .. })),
                "{length}"
            );
        }
        // Truncated bodies with a right checksum: the decoder must refuse, not panic.
        for length in 0..good.len() - 32 {
            let mut bytes = good[..length].to_vec();
            bytes.extend_from_slice(blake3::hash(&good[..length]).as_bytes());
            fs::write(&at, &bytes).unwrap();
            assert!(LayerIndex::load(&at).is_err(), "{length}");
        }
    }
}
