//! Headers of tar members: ustar, with a PAX header before it for what does not fit; no user or group names.
//!
//! The same choices as for layers (DESIGN D4): no prefix splitting, keys of a PAX header sorted.

/// A member of a tar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: MemberKind<'a>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) capability: Option<&'a [u8]>,
}

impl Member<'_> {
    /// To be completed: owner 0, time 0.
    pub(super) const NOTHING: Self = Self {
        path: b"",
        kind: MemberKind::Fifo,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        capability: None,
    };
}

/// What a member is.
#[derive(Clone, Copy, Debug)]
pub(super) enum MemberKind<'a> {
    Directory,
    File { size: u64 },
    HardLink { target: &'a [u8] },
    Symlink { target: &'a [u8] },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
}

/// Members begin at multiples of this.
pub(super) const BLOCK: usize = 512;

/// Two blocks of zeros end a tar.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The zeros that follow `size` bytes.
pub(super) fn padding(size: u64) -> &'static [u8] {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    &END[..(BLOCK - over) % BLOCK]
}

/// The blocks before a member's bytes.
pub(super) fn blocks(member: &Member<'_>) -> Vec<u8> {
    let (size, link, device) = match member.kind {
        MemberKind::Directory | MemberKind::Fifo => (0, &b""[..], (0, 0)),
        MemberKind::File { size } => (size, &b""[..], (0, 0)),
        MemberKind::HardLink { target } | MemberKind::Symlink { target } => (0, target, (0, 0)),
        MemberKind::CharDevice { major, minor } | MemberKind::BlockDevice { major, minor } => {
            (0, &b""[..], (major, minor))
        }
    };
    let mut path = member.path.to_vec();
    if matches!(member.kind, MemberKind::Directory) {
        path.push(b'/');
    }
    let pax = pax_records(member, &path, link, size);
    let mut out = Vec::new();
    if !pax.is_empty() {
        let base = Fields {
            path: b"PaxHeaders.0",
            link: b"",
            typeflag: b'x',
            mode: 0,
            uid: 0,
            gid: 0,
            size: pax.len() as u64,
            mtime: 0,
            device: (0, 0),
        };
        out.extend(ustar(&base));
        out.extend_from_slice(&pax);
        out.extend_from_slice(padding(pax.len() as u64));
    }
    out.extend(ustar(&Fields {
        path: &path,
        link,
        typeflag: typeflag(member.kind),
        mode: member.mode & 0o7777,
        uid: member.uid,
        gid: member.gid,
        size,
        mtime: member.mtime,
        device,
    }));
    out
}

fn typeflag(kind: MemberKind<'_>) -> u8 {
    match kind {
        MemberKind::File { .. } => b'0',
        MemberKind::HardLink { .. } => b'1',
        MemberKind::Symlink { .. } => b'2',
        MemberKind::CharDevice { .. } => b'3',
        MemberKind::BlockDevice { .. } => b'4',
        MemberKind::Directory => b'5',
        MemberKind::Fifo => b'6',
    }
}

/// 7 octal digits.
const MAX_ID: u32 = 0o7_777_777;
/// 11 octal digits.
const MAX_SIZE: u64 = 0o77_777_777_777;
const MAX_NAME: usize = 100;

fn pax_records(member: &Member<'_>, path: &[u8], link: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &str, value: &[u8]| records.extend(pax_record(key, value));
    if let Some(capability) = member.capability {
        add("SCHILY.xattr.security.capability", capability);
    }
    if member.gid > MAX_ID {
        add("gid", member.gid.to_string().as_bytes());
    }
    if link.len() > MAX_NAME || !link.is_ascii() {
        add("linkpath", link);
    }
    if u64::try_from(member.mtime).map_or(true, |mtime| mtime > MAX_SIZE) {
        add("mtime", member.mtime.to_string().as_bytes());
    }
    if path.len() > MAX_NAME || !path.is_ascii() {
        add("path", path);
    }
    if size > MAX_SIZE {
        add("size", size.to_string().as_bytes());
    }
    if member.uid > MAX_ID {
        add("uid", member.uid.to_string().as_bytes());
    }
    records
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

struct Fields<'a> {
    path: &'a [u8],
    link: &'a [u8],
    typeflag: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    device: (u32, u32),
}

/// POSIX.1-1988 ustar. What does not fit is cut or zero: a PAX record says it then.
fn ustar(fields: &Fields<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let id = |id: u32| u64::from(if id > MAX_ID { 0 } else { id });
    let size = if fields.size > MAX_SIZE {
        0
    } else {
        fields.size
    };
    let mtime = u64::try_from(fields.mtime)
        .ok()
        .filter(|mtime| *mtime <= MAX_SIZE)
        .unwrap_or(0);
    text(&mut block[0..100], fields.path);
    octal(&mut block[100..108], fields.mode.into());
    octal(&mut block[108..116], id(fields.uid));
    octal(&mut block[116..124], id(fields.gid));
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], mtime);
    block[148..156].fill(b' ');
    block[156] = fields.typeflag;
    text(&mut block[157..257], fields.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], fields.device.0.into());
    octal(&mut block[337..345], fields.device.1.into());
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
    block
}

fn text(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Octal digits, as many as fit, and a NUL.
fn octal(field: &mut [u8], mut value: u64) {
    let Some((last, digits)) = field.split_last_mut() else {
        return;
    };
    *last = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value & 7).to_le_bytes()[0];
        value >>= 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_records_count_themselves() {
        assert_eq!(pax_record("a", b"b"), b"6 a=b\n");
        // One digit more makes the record longer, which needs one digit more.
        let record = pax_record("path", &[b'x'; 91]);
        assert_eq!((record.len(), &record[..9]), (101, &b"101 path="[..]));
        let record = pax_record("path", &[b'x'; 90]);
        assert_eq!((record.len(), &record[..8]), (99, &b"99 path="[..]));
    }

    #[test]
    fn a_header_has_the_bytes_that_go_writes() {
        let block = blocks(&Member {
            path: b"oci-layout",
            kind: MemberKind::File { size: 30 },
            mode: 0o444,
            ..Member::NOTHING
        });
        assert_eq!(block.len(), BLOCK);
        assert_eq!(&block[..11], b"oci-layout\0");
        let fields = b"0000444\x000000000\x000000000\x0000000000036\x0000000000000\x00";
        assert_eq!(&block[100..148], fields);
        assert_eq!(&block[156..157], b"0");
        assert_eq!(&block[257..265], b"ustar\x0000");
        assert_eq!(&block[329..345], b"0000000\x000000000\x00");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        let own: u32 = block[148..156].iter().map(|b| u32::from(*b)).sum();
        let expected = format!("{:06o}", sum - own + 8 * 32);
        assert_eq!(&block[148..156], [expected.as_bytes(), b"\0 "].concat());
    }

    #[test]
    fn large_files_have_their_size_in_a_record() {
        let blocks = blocks(&Member {
            path: b"f",
            kind: MemberKind::File { size: 8 << 30 },
            ..Member::NOTHING
        });
        assert_eq!(blocks.len(), 3 * BLOCK);
        assert_eq!(&blocks[BLOCK..BLOCK + 19], b"19 size=8589934592\n");
        assert_eq!(padding(1).len(), 511);
        assert_eq!(padding(512).len(), 0);
        assert_eq!(padding(0).len(), 0);
    }
}
