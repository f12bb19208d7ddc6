//! Standard input as a context: an archive or a bare Dockerfile, told by the first bytes.

use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use cache::layer::compress::Codec;
use cache::layer::compress::decompress::sniff as sniff_codec;

use crate::lock::locked;

/// As much as is looked at: a tar header and a bit.
const HEAD: u64 = 1024;

/// Bytes that the client sends once.
#[derive(Clone)]
pub struct ClientStream(Arc<Mutex<Option<Box<dyn Read + Send>>>>);

impl ClientStream {
    /// Takes where they come from.
    pub fn new(bytes: Box<dyn Read + Send>) -> Self {
        Self(Arc::new(Mutex::new(Some(bytes))))
    }

    /// The bytes, for the first who asks.
    pub fn take(&self) -> Option<Box<dyn Read + Send>> {
        locked(&self.0).take()
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientStream")
    }
}

/// What standard input turns out to be.
pub(super) enum Sniffed {
    /// A tar, plain or compressed.
    Archive(ClientStream),
    /// Anything else.
    Text(Box<dyn Read + Send>),
}

/// Looks at the first bytes.
pub(super) fn sniff(mut stdin: Box<dyn Read + Send>) -> io::Result<Sniffed> {
    let mut head = Vec::new();
    (&mut stdin).take(HEAD).read_to_end(&mut head)?;
    let is_archive = is_archive(&head);
    let whole: Box<dyn Read + Send> = Box::new(io::Cursor::new(head).chain(stdin));
    Ok(match is_archive {
        true => Sniffed::Archive(ClientStream::new(whole)),
        false => Sniffed::Text(whole),
    })
}

/// Whether bytes begin like gzip, zstd, bzip2, xz or a tar.
fn is_archive(head: &[u8]) -> bool {
    let magics: [&[u8]; 2] = [b"BZh", &[0xfd, b'7', b'z', b'X', b'Z', 0]];
    sniff_codec(head) != Codec::None
        || magics.iter().any(|magic| head.starts_with(magic))
        || is_tar_header(head)
}

/// Every tar header has the sum of its bytes, its own eight counted as blanks (POSIX.1-2001 `pax`).
fn is_tar_header(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else {
        return false;
    };
    let (before, rest) = header.split_at(148);
    let (written, after) = rest.split_at(8);
    let digits: String = written
        .iter()
        .map(|byte| char::from(*byte))
        .filter(char::is_ascii_digit)
        .collect();
    let sum: u32 = before
        .iter()
        .chain(after)
        .map(|byte| u32::from(*byte))
        .sum();
    u32::from_str_radix(&digits, 8) == Ok(sum + 8 * u32::from(b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_by_their_first_bytes() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_old();
        header.set_size(0);
        header.set_mode(0o644);
        tar.append_data(&mut header, "a", io::empty()).unwrap();
        let tar = tar.into_inner().unwrap();
        for (bytes, want) in [
            (&tar[..], true),
            (&tar[..511], false),
            (b"\x1f\x8b\x08 rest", true),
            (b"BZh9", true),
            (b"\xfd7zXZ\0", true),
            (b"\x28\xb5\x2f\xfd", true),
            (b"\x50\x2a\x4d\x18", true),
            (b"FROM scratch\n", false),
            (b"", false),
            (&[0; 1024], false),
        ] {
            let bytes = bytes.to_vec();
            let sniffed = sniff(Box::new(io::Cursor::new(bytes.clone()))).unwrap();
            let mut whole = Vec::new();
            let is_archive = match sniffed {
                Sniffed::Archive(stream) => {
                    stream.take().unwrap().read_to_end(&mut whole).unwrap();
                    assert!(stream.take().is_none());
                    true
                }
                Sniffed::Text(mut text) => {
                    text.read_to_end(&mut whole).unwrap();
                    false
                }
            };
            assert_eq!((is_archive, &whole), (want, &bytes), "{bytes:?}");
        }
    }
}
