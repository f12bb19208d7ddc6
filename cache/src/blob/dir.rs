//! Blobs as files named by their digest.
//!
//! # Failure
//!
//! Blobs are not synced one by one. After a power cut a file system may have kept a name and lost the bytes; such a file
//! is empty, and an empty file is a blob only under the digest of nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use super::writer::{FileWriter, UnhashedWriter};
use super::{BlobError, BlobStore, BlobWriter, ReadSeek};
use crate::digest::Digest;
use crate::io::remove_same;
use crate::root::StatePaths;

/// Digest of no bytes.
const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The blobs of a state directory.
#[derive(Clone, Debug)]
pub struct DirStore {
    directory: PathBuf,
}

impl DirStore {
    /// The store of a state directory. Touches nothing.
    pub fn new(paths: &StatePaths) -> Self {
        Self {
            directory: paths.blobs(),
        }
    }

    /// Size of a blob in bytes, if it is there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let path = self.directory.join(digest.hex());
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(is_whole(digest, metadata.len()).then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Io {
                attempt: "open",
                path,
                source,
            }),
        }
    }

    /// Starts a new blob whose digest the caller computes of what it writes: hashing it here would be the second time.
    pub fn unhashed_writer(&self) -> Result<UnhashedWriter, BlobError> {
        UnhashedWriter::create(&self.directory)
    }

    /// Starts a new blob.
    pub(super) fn file_writer(&self) -> Result<FileWriter, BlobError> {
        FileWriter::create(&self.directory)
    }

    /// The file that a digest names now, whole or not.
    pub fn find(&self, digest: &Digest) -> Result<Option<FoundBlob>, BlobError> {
        let path = self.directory.join(digest.hex());
        match File::open(&path) {
            Ok(file) => Ok(Some(FoundBlob {
                digest: digest.clone(),
                path,
                file,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Io {
                attempt: "open",
                path,
                source,
            }),
        }
    }
}

/// A blob as it was found: others may remove it meanwhile, and put another file in its place.
#[derive(Debug)]
pub struct FoundBlob {
    digest: Digest,
    path: PathBuf,
    file: File,
}

impl FoundBlob {
    /// Whether its bytes are those of its digest. Read to the end, once.
    pub fn is_intact(&mut self) -> Result<bool, BlobError> {
        let mut hasher = sha2::Sha256::default();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let length = self
                .file
                .read(&mut buffer)
                .map_err(|source| BlobError::Io {
                    attempt: "read",
                    path: self.path.clone(),
                    source,
                })?;
            if length == 0 {
                break;
            }
            sha2::Digest::update(&mut hasher, &buffer[..length]);
        }
        let found = sha2::Digest::finalize(hasher);
        Ok(Digest::from_hash(found.into()) == self.digest)
    }

    /// Removes it, and tells whether it did: what others have published in its place stays.
    pub fn remove(&self) -> Result<bool, BlobError> {
        Ok(remove_same(&self.path, &self.file)?)
    }
}

fn is_whole(digest: &Digest, size: u64) -> bool {
    size > 0 || digest.as_str() == EMPTY
}

impl BlobStore for DirStore {
    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.size(digest)?.is_some())
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn ReadSeek>>, BlobError> {
        let path = self.directory.join(digest.hex());
        let fail = |attempt, source| {
            let path = path.clone();
            BlobError::Io {
                attempt,
                path,
                source,
            }
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(fail("open", source)),
        };
        let size = file
            .metadata()
            .map_err(|source| fail("examine", source))?
            .len();
        Ok(is_whole(digest, size).then(|| Box::new(file) as Box<dyn ReadSeek>))
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        Ok(Box::new(self.file_writer()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[test]
    fn keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::new(&StatePaths::new(dir.path()));
        contract::all(&store);
        let left = crate::io::names_in(&dir.path().join("blobs/sha256")).unwrap();
        assert!(left.iter().all(|name| name.len() == 64), "{left:?}");
        let all = fs::read_dir(dir.path().join("blobs/sha256"))
            .unwrap()
            .count();
        assert_eq!(all, left.len(), "temporary files are gone");
    }

    #[test]
    fn a_blob_that_was_hashed_by_its_writer_is_one_like_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::new(&StatePaths::new(dir.path()));
        let digest = Digest::of(b"text");
        for _ in 0..2 {
            let mut writer = store.unhashed_writer().unwrap();
            io::Write::write_all(&mut writer, b"text").unwrap();
            assert_eq!(writer.commit(&digest).unwrap(), 4);
            assert!(store.find(&digest).unwrap().unwrap().is_intact().unwrap());
        }
        drop(store.unhashed_writer().unwrap());
        let all = fs::read_dir(dir.path().join("blobs/sha256")).unwrap();
        assert_eq!(all.count(), 1, "temporary files are gone");
        assert_eq!(contract::put(&store, b"text"), digest);
    }

    #[test]
    fn who_finds_a_blob_damaged_removes_that_file_and_not_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let store = DirStore::new(&paths);
        let digest = contract::put(&store, b"text");
        fs::write(paths.blob(&digest), b"tex!").unwrap();
        let found = || store.find(&digest).unwrap();
        let (mut first, mut second) = (found().unwrap(), found().unwrap());
        assert!(!first.is_intact().unwrap() && first.remove().unwrap());
        assert!(found().is_none());
        contract::put(&store, b"text");
        assert!(!second.is_intact().unwrap() && !second.remove().unwrap());
        assert!(found().unwrap().is_intact().unwrap());
    }

    #[test]
    fn a_file_that_lost_its_bytes_is_no_blob_and_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::new(&StatePaths::new(dir.path()));
        let digest = contract::put(&store, b"text");
        fs::write(dir.path().join("blobs/sha256").join(digest.hex()), b"").unwrap();
        assert!(!store.contains(&digest).unwrap());
        assert!(store.open(&digest).unwrap().is_none());
        assert_eq!(contract::put(&store, b"text"), digest);
        assert_eq!(store.size(&digest).unwrap(), Some(4));
    }
}
