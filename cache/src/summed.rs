//! Files that end with the BLAKE3 sum of all before: one that is not whole is known by it.

use std::path::Path;

use crate::io::{Attempt, IoError, Staged};

/// Bytes of the sum at the end.
const SUM: usize = 32;

/// Bytes written at once.
const WRITTEN_AT_ONCE: usize = 256 * 1024;

/// Such a file being written, a part at a time: the whole of a large one is never in memory. It appears under its name when
/// it is finished, in place of what had it; dropped before, it leaves nothing. Not synced.
pub(crate) struct SummedFile<'a> {
    target: &'a Path,
    staged: Staged,
    hasher: blake3::Hasher,
    waiting: Vec<u8>,
}

impl<'a> SummedFile<'a> {
    /// Begins a file with these bytes; makes its directory, if it is missing.
    pub(crate) fn create(target: &'a Path, magic: &[u8]) -> Result<Self, IoError> {
        Ok(Self {
            target,
            staged: Staged::create(target.parent().unwrap_or(Path::new("/")))?,
            hasher: blake3::Hasher::new(),
            waiting: magic.to_vec(),
        })
    }

    /// Adds what `append` puts behind the bytes it is given.
    pub(crate) fn add(&mut self, append: impl FnOnce(&mut Vec<u8>)) -> Result<(), IoError> {
        append(&mut self.waiting);
        match self.waiting.len() {
            ..WRITTEN_AT_ONCE => Ok(()),
            _ => self.write(),
        }
    }

    fn write(&mut self) -> Result<(), IoError> {
        self.hasher.update(&self.waiting);
        let written = self.staged.write(&self.waiting);
        self.waiting.clear();
        written.attempt("write", self.target)
    }

    /// Ends the file and gives it its name.
    pub(crate) fn finish(mut self) -> Result<(), IoError> {
        self.hasher.update(&self.waiting);
        self.waiting
            .extend_from_slice(self.hasher.finalize().as_bytes());
        let written = self.staged.write(&self.waiting);
        written.attempt("write", self.target)?;
        self.staged.publish(self.target)
    }
}

/// What is before the sum of a file's bytes, if they are whole.
pub(crate) fn body(bytes: &[u8]) -> Option<&[u8]> {
    let (body, sum) = bytes.split_last_chunk::<SUM>()?;
    (blake3::hash(body).as_bytes() == sum).then_some(body)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_whole_or_not_taken_and_parts_do_not_show() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("name");
        let part = vec![7; WRITTEN_AT_ONCE / 2 + 1];
        let mut file = SummedFile::create(&target, b"magic").unwrap();
        for _ in 0..3 {
            file.add(|out| out.extend_from_slice(&part)).unwrap();
        }
        assert!(!target.exists(), "it has no name before it is whole");
        file.finish().unwrap();
        let mut bytes = fs::read(&target).unwrap();
        let expected = [&b"magic"[..], &part, &part, &part].concat();
        assert_eq!(body(&bytes), Some(&expected[..]));
        assert_eq!(body(&bytes[..bytes.len() - 1]), None);
        assert_eq!(body(&bytes[..20]), None);
        bytes[10] ^= 1;
        assert_eq!(body(&bytes), None);
        drop(SummedFile::create(&target, b"half").unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
