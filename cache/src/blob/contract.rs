//! What every blob store must do, run on each of them.

use std::io::{Read, Seek, SeekFrom, Write};

use super::{BlobError, BlobStore};
use crate::digest::Digest;

/// Writes a blob and gives its digest.
pub(super) fn put(store: &dyn BlobStore, bytes: &[u8]) -> Digest {
    let mut writer = store.writer().unwrap();
    writer.write_all(bytes).unwrap();
    let (digest, size) = writer.commit(None).unwrap();
    assert_eq!(size, bytes.len() as u64);
    digest
}

fn read(store: &dyn BlobStore, digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = store.open(digest).unwrap().unwrap();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Runs the whole contract on an empty store; leaves three blobs.
pub(super) fn all(store: &dyn BlobStore) {
    let long: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    for bytes in [b"".as_slice(), b"hello", &long] {
        let digest = Digest::of(bytes);
        assert!(!store.contains(&digest).unwrap());
        assert!(store.open(&digest).unwrap().is_none());

        let mut dropped = store.writer().unwrap();
        dropped.write_all(bytes).unwrap();
        drop(dropped);
        assert!(!store.contains(&digest).unwrap(), "dropped leaves nothing");

        let mut wrong = store.writer().unwrap();
        wrong.write_all(bytes).unwrap();
        let expected = Digest::of(b"something else");
        match wrong.commit(Some(&expected)).unwrap_err() {
            BlobError::Mismatch { expected: e, found } => {
                assert_eq!((e, found), (expected, digest.clone()));
            }
            BlobError::Io { .. } => panic!("expected a mismatch"),
        }
        assert!(!store.contains(&digest).unwrap(), "mismatch leaves nothing");

        assert_eq!(put(store, bytes), digest);
        assert_eq!(put(store, bytes), digest, "again is success");
        assert!(store.contains(&digest).unwrap());
        assert_eq!(read(store, &digest), bytes);
        let mut reader = store.open(&digest).unwrap().unwrap();
        assert_eq!(
            reader.seek(SeekFrom::End(0)).unwrap(),
            bytes.len() as u64,
            "seeks"
        );
    }
}
