//! Tar headers of layer format v1 (see the parent module): the same bytes for the same entry, everywhere.

use super::draft::{OPAQUE_NAME, WHITEOUT_PREFIX};
use super::entry::{Entry, EntryKind};
use super::{numeric, path, pax};

/// Size of a block: headers and content are padded to it.
pub(super) const BLOCK: usize = 512;

/// Two zero blocks end a tar.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Names longer than the field go to a PAX record.
const NAME_FIELD: usize = 100;

/// The largest id of seven octal digits.
const MOST_ID: u32 = 0o7_777_777;

/// The largest size and time of eleven octal digits.
const MOST_LONG: u64 = 0o77_777_777_777;

/// What a header says, after the rules for paths.
struct Fields<'a> {
    name: Vec<u8>,
    link: &'a [u8],
    kind: u8,
    size: u64,
    device: (u32, u32),
    capability: Option<&'a [u8]>,
}

/// Everything before the content of an entry.
pub(super) fn header(entry: &Entry) -> Vec<u8> {
    Fields::of(entry).headers(entry)
}

/// The member that makes a directory opaque.
pub(super) fn opaque_marker(dir: &[u8]) -> Vec<u8> {
    let fields = Fields {
        name: path::join(dir, OPAQUE_NAME),
        ..Fields::bare(b'0')
    };
    fields.headers(&Entry::whiteout(Vec::new()))
}

impl<'a> Fields<'a> {
    fn bare(kind: u8) -> Self {
        Self {
            name: Vec::new(),
            link: b"",
            kind,
            size: 0,
            device: (0, 0),
            capability: None,
        }
    }

    fn of(entry: &'a Entry) -> Self {
        let name = entry.path.clone();
        match &entry.kind {
            EntryKind::Directory { .. } => {
                let name = if name.is_empty() {
                    b"./".to_vec()
                } else {
                    [&name[..], b"/"].concat()
                };
                Self {
                    name,
                    ..Self::bare(b'5')
                }
            }
            EntryKind::File { size, .. } => Self {
                name,
                size: *size,
                capability: entry.capability.as_deref(),
                ..Self::bare(b'0')
            },
            EntryKind::HardLink { target } => Self {
                name,
                link: target,
                ..Self::bare(b'1')
            },
            EntryKind::Symlink { target } => Self {
                name,
                link: target,
                ..Self::bare(b'2')
            },
            EntryKind::CharDevice { major, minor } => Self {
                name,
                device: (*major, *minor),
                ..Self::bare(b'3')
            },
            EntryKind::BlockDevice { major, minor } => Self {
                name,
                device: (*major, *minor),
                ..Self::bare(b'4')
            },
            EntryKind::Fifo => Self {
                name,
                ..Self::bare(b'6')
            },
            EntryKind::Whiteout => {
                let (dir, last) = path::split(&entry.path).unwrap_or((b"", b""));
                let name = path::join(dir, &[WHITEOUT_PREFIX, last].concat());
                Self {
                    name,
                    ..Self::bare(b'0')
                }
            }
        }
    }

    /// The block, and before it a PAX header if that is needed.
    fn headers(&self, entry: &Entry) -> Vec<u8> {
        let mut out = Vec::with_capacity(3 * BLOCK);
        let records = self.records(entry);
        if !records.is_empty() {
            let name = b"././@PaxHeader".to_vec();
            let pax = Self {
                name,
                size: records.len() as u64,
                ..Fields::bare(b'x')
            };
            let plain = Entry {
                mode: 0o644,
                ..Entry::whiteout(Vec::new())
            };
            out.extend_from_slice(&pax.block(&plain));
            out.extend_from_slice(&records);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        out.extend_from_slice(&self.block(entry));
        out
    }

    /// PAX records for what the block cannot hold, keys sorted.
    fn records(&self, entry: &Entry) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(capability) = self.capability {
            pax::write(&mut out, b"SCHILY.xattr.security.capability", capability);
        }
        if entry.gid > MOST_ID {
            pax::write(&mut out, b"gid", entry.gid.to_string().as_bytes());
        }
        if self.link.len() > NAME_FIELD {
            pax::write(&mut out, b"linkpath", self.link);
        }
        if fitting_time(entry.mtime).is_none() {
            pax::write(&mut out, b"mtime", entry.mtime.to_string().as_bytes());
        }
        if self.name.len() > NAME_FIELD {
            pax::write(&mut out, b"path", &self.name);
        }
        if self.size > MOST_LONG {
            pax::write(&mut out, b"size", self.size.to_string().as_bytes());
        }
        if entry.uid > MOST_ID {
            pax::write(&mut out, b"uid", entry.uid.to_string().as_bytes());
        }
        out
    }

    /// The ustar block. What does not fit is cut (text) or 0 (numbers): the PAX record tells it.
    fn block(&self, entry: &Entry) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let id = |id: u32| if id > MOST_ID { 0 } else { u64::from(id) };
        put(&mut block[0..100], &self.name);
        numeric::write_octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
        numeric::write_octal(&mut block[108..116], id(entry.uid));
        numeric::write_octal(&mut block[116..124], id(entry.gid));
        let size = if self.size > MOST_LONG { 0 } else { self.size };
        numeric::write_octal(&mut block[124..136], size);
        numeric::write_octal(&mut block[136..148], fitting_time(entry.mtime).unwrap_or(0));
        block[156] = self.kind;
        put(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        numeric::write_octal(&mut block[329..337], u64::from(self.device.0));
        numeric::write_octal(&mut block[337..345], u64::from(self.device.1));
        set_checksum(&mut block);
        block
    }
}

fn fitting_time(mtime: i64) -> Option<u64> {
    u64::try_from(mtime).ok().filter(|time| *time <= MOST_LONG)
}

fn put(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Six digits, a NUL and a blank, as POSIX and all writers have it.
fn set_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    numeric::write_octal(&mut block[148..155], sum);
}
