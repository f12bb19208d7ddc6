//! Copies the bytes of one file to another.
//!
//! They are shared with the source where the file system can (reflink); else small files are copied by hand, large ones
//! inside the kernel where it can. Holes of large files stay holes: the image of a disk takes no more room than it did.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{copy_file_range, ioctl_ficlone};
use rustix::io::Errno;

/// What `st_blocks` counts, whatever the file system's blocks are.
const STAT_BLOCK: u64 = 512;

/// Size of the buffer for copying by hand.
const BUFFER: usize = 256 * 1024;

/// Copies files to one file system.
#[derive(Default)]
pub(super) struct Copier {
    /// Set when the file system turns out not to share blocks: asking again for every file costs a call each.
    cannot_share: AtomicBool,
}

impl Copier {
    /// Copies a whole file; gives the number of bytes, and the bytes if they were few. `expected` is only a hint.
    pub(super) fn copy(
        &self,
        source: &File,
        target: &mut File,
        expected: u64,
        at_hand: &mut Option<Vec<u8>>,
    ) -> io::Result<u64> {
        if expected > 0 && !self.cannot_share.load(Ordering::Relaxed) {
            match ioctl_ficlone(target.as_fd(), source.as_fd()) {
                Ok(()) => return Ok(target.metadata()?.len()),
                Err(_) => self.cannot_share.store(true, Ordering::Relaxed),
            }
        }
        if let Ok(small @ ..=BUFFER) = usize::try_from(expected) {
            let bytes = at_hand.insert(copy_small(source, target, small)?);
            return Ok(bytes.len() as u64);
        }
        let found = source.metadata()?;
        let copied = match found.blocks().saturating_mul(STAT_BLOCK) < found.len() {
            true => copy_extents(source, target, expected.min(found.len()))?,
            false => copy_in_kernel(source, target, expected),
        };
        // What is left: all of it where the kernel does not copy between these file systems, else growth, of which one byte
        // tells enough.
        let left = (expected - copied).saturating_add(1);
        Ok(copied + copy_by_hand(source.take(left), target)?)
    }
}

/// Copies so many bytes of a file that may have holes, which stay holes; both files stand behind them afterwards.
fn copy_extents(mut source: &File, target: &mut File, length: u64) -> io::Result<u64> {
    use rustix::fs::{SeekFrom as Kernel, seek};
    let mut at = 0;
    while at < length {
        let data = match seek(source, Kernel::Data(at)) {
            Ok(found) => found.min(length),
            // Nothing but a hole follows.
            Err(Errno::NXIO) => length,
            // Not every file system tells.
            Err(_) => at,
        };
        let end = match data < length {
            true => seek(source, Kernel::Hole(data)).map_or(length, |found| found.min(length)),
            false => length,
        };
        source.seek(SeekFrom::Start(data))?;
        target.seek(SeekFrom::Start(data))?;
        let copied = copy_in_kernel(source, target, end - data);
        copy_by_hand(source.take(end - data - copied), target)?;
        at = end;
    }
    target.set_len(length)?;
    source.seek(SeekFrom::Start(length))?;
    target.seek(SeekFrom::Start(length))
}

/// Copies so many bytes from where both files stand to where they then stand, or fewer.
fn copy_in_kernel(source: &File, target: &File, length: u64) -> u64 {
    let mut copied = 0;
    while copied < length {
        let left = usize::try_from(length - copied).unwrap_or(usize::MAX);
        match copy_file_range(source, None, target, None, left) {
            Ok(0) | Err(_) => break,
            Ok(length) => copied += length as u64,
        }
    }
    copied
}

/// Copies a file at once, and a byte more of one that grew: on ext4 an eighth faster than having the kernel copy it, for
/// files of 10 kB with all that it takes to open and create them.
fn copy_small(source: &File, target: &mut File, expected: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(expected + 1);
    source.take(expected as u64 + 1).read_to_end(&mut bytes)?;
    target.write_all(&bytes)?;
    Ok(bytes)
}

fn copy_by_hand(mut source: impl Read, target: &mut File) -> io::Result<u64> {
    let mut buffer = Vec::new();
    let mut copied = 0;
    loop {
        if buffer.is_empty() {
            // Most files have been copied whole by now: one byte is enough to see the end.
            buffer = vec![0; 1];
        }
        match source.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(length) => {
                target.write_all(&buffer[..length])?;
                copied += length as u64;
                buffer.resize(BUFFER, 0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A file with bytes at some places and holes between.
    fn file(length: u64, data: &[u64]) -> File {
        let file = tempfile::tempfile().unwrap();
        for at in data {
            file.write_all_at(b"data", *at).unwrap();
        }
        file.set_len(length).unwrap();
        file
    }

    fn bytes(file: &mut File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn holes_stay_holes() {
        for (length, data) in [
            (4 * MIB, &[][..]),
            (4 * MIB, &[0]),
            (4 * MIB + 7, &[4 * MIB + 3]),
            (8 * MIB, &[MIB + 1, 3 * MIB, 6 * MIB - 2]),
        ] {
            let (mut source, mut target) = (file(length, data), tempfile::tempfile().unwrap());
            let copied = Copier::default().copy(&source, &mut target, length, &mut None);
            assert_eq!(copied.unwrap(), length, "{data:?}");
            assert_eq!(bytes(&mut source), bytes(&mut target), "{data:?}");
            let room = target.metadata().unwrap().blocks() * STAT_BLOCK;
            assert!(room < MIB, "{room} bytes for {data:?}");
        }
    }

    #[test]
    fn what_grew_shows_by_a_byte_and_what_shrank_by_its_length() {
        let copied = |length, expected| {
            let (source, mut target) = (file(length, &[]), tempfile::tempfile().unwrap());
            let copied = Copier::default().copy(&source, &mut target, expected, &mut None);
            assert_eq!(copied.unwrap(), target.metadata().unwrap().len());
            target.metadata().unwrap().len()
        };
        assert_eq!(copied(9 * MIB, 4 * MIB), 4 * MIB + 1);
        assert_eq!(copied(2 * MIB, 4 * MIB), 2 * MIB);
    }
}
