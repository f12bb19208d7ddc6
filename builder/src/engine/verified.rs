//! A file of a layer that is hashed while it is read: what is not the file that the layer had when it was made is not
//! handed out whole.

use std::io::{self, Read};

use cache::digest::ContentDigest;

/// Reads a file and fails at its end if its bytes are not those expected.
pub(super) struct Verified<R, F> {
    inner: R,
    hasher: blake3::Hasher,
    left: u64,
    expected: ContentDigest,
    /// Called when they are not.
    on_damage: F,
}

impl<R: Read, F: FnMut()> Verified<R, F> {
    /// A file of `size` bytes.
    pub(super) fn new(inner: R, size: u64, expected: ContentDigest, on_damage: F) -> Self {
        Self {
            inner,
            hasher: blake3::Hasher::new(),
            left: size,
            expected,
            on_damage,
        }
    }
}

impl<R: Read, F: FnMut()> Read for Verified<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        let has_more = self.left > 0;
        self.left = self.left.saturating_sub(count as u64);
        let is_end = self.left == 0 && (has_more || count > 0) || count == 0 && !buffer.is_empty();
        if is_end && self.hasher.finalize().as_bytes() != &self.expected.0 {
            (self.on_damage)();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file in the store was damaged; its layer was removed, and so will be what was built on it: build again",
            ));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much is read before it ends or fails, a few bytes at a time.
    fn read(bytes: &[u8], size: u64, expected: &[u8]) -> (usize, bool, usize) {
        let digest = ContentDigest(*blake3::hash(expected).as_bytes());
        let mut damages = 0;
        let mut reader = Verified::new(bytes, size, digest, || damages += 1);
        let (mut total, mut buffer) = (0, [0; 3]);
        let is_good = loop {
            match reader.read(&mut buffer) {
                Ok(0) => break true,
                Ok(count) => total += count,
                Err(_) => break false,
            }
        };
        (total, is_good, damages)
    }

    #[test]
    fn only_the_bytes_expected_come_to_an_end() {
        assert_eq!(read(b"hello", 5, b"hello"), (5, true, 0));
        assert_eq!(read(b"", 0, b""), (0, true, 0));
        assert_eq!(read(b"hellO", 5, b"hello"), (3, false, 1));
        assert!(!read(b"hell", 5, b"hello").1);
        assert!(!read(b"hello!", 5, b"hello").1);
    }
}
