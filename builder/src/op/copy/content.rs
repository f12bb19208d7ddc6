//! Copies the bytes of one file to another.
//!
//! They are shared with the source where the file system can (reflink); else small files are copied by hand, large ones
//! inside the kernel where it can.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{copy_file_range, ioctl_ficlone};

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
        let copied = copy_in_kernel(source, target, expected);
        // What is left: all of it where the kernel does not copy between these file systems, else growth, of which one byte
        // tells enough.
        let left = (expected - copied).saturating_add(1);
        Ok(copied + copy_by_hand(source.take(left), target)?)
    }
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
