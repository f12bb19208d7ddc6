//! Same bytes whatever the threads, one member, little recompressed.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use super::cache::{ChunkCache, ChunkKey, DirChunkCache};
use super::decompress::{decompress, decompress_ahead, sniff};
use super::*;

/// A tar-like stream: entries with their boundaries.
fn entries() -> Vec<(String, Vec<u8>)> {
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut entries: Vec<(String, Vec<u8>)> = (0..900)
        .map(|number| {
            let words = (0..next() % 900).map(|_| format!("word{} ", next() % 500));
            (
                format!("dir/file{number}"),
                words.collect::<String>().into_bytes(),
            )
        })
        .collect();
    // Incompressible, and larger than a chunk.
    let noise = (0..700_000).flat_map(|_| next().to_le_bytes()).collect();
    entries.insert(450, ("dir/noise".into(), noise));
    entries
}

fn compress(
    entries: &[(String, Vec<u8>)],
    codec: Codec,
    threads: usize,
    cache: Option<Arc<dyn ChunkCache>>,
) -> (Compressed, Vec<u8>) {
    let options = CompressOptions { threads, cache };
    let mut compressor = Compressor::new(Vec::new(), codec, options).unwrap();
    for (path, content) in entries {
        compressor
            .boundary(Boundary::new(path.as_bytes(), content.len() as u64))
            .unwrap();
        compressor.write_all(content).unwrap();
    }
    compressor.finish().unwrap()
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let entries = entries();
    let plain: Vec<u8> = entries
        .iter()
        .flat_map(|(_, content)| content.clone())
        .collect();
    for codec in [Codec::None, Codec::GZIP, Codec::ZSTD] {
        let (first, blob) = compress(&entries, codec, 1, None);
        assert_eq!(first.digest, Digest::of(&blob));
        assert_eq!(first.size, blob.len() as u64);
        for threads in [0, 2, 3, 5, 64] {
            assert_eq!(
                compress(&entries, codec, threads, None).0,
                first,
                "{codec:?} {threads}"
            );
        }
        let mut back = Vec::new();
        decompress(blob.as_slice())
            .unwrap()
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == plain, "{codec:?}");
        let mut ahead = Vec::new();
        decompress_ahead(io::Cursor::new(blob))
            .unwrap()
            .read_to_end(&mut ahead)
            .unwrap();
        assert!(ahead == plain, "{codec:?}");
    }
}

#[test]
fn a_reader_that_is_ahead_tells_what_is_wrong_and_ends_with_who_reads() {
    let (_, blob) = compress(&entries(), Codec::GZIP, 1, None);
    let cut = blob[..blob.len() / 2].to_vec();
    let mut plain = Vec::new();
    let error = decompress_ahead(io::Cursor::new(cut))
        .unwrap()
        .read_to_end(&mut plain)
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    /// Says when it is dropped.
    struct Told<R>(R, std::sync::mpsc::Sender<()>);
    impl<R: Read> Read for Told<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl<R> Drop for Told<R> {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
        }
    }
    let (sender, dropped) = std::sync::mpsc::channel();
    let mut reader = decompress_ahead(Told(io::Cursor::new(blob), sender)).unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    drop(reader);
    dropped.try_recv().expect("nobody reads the blob any more");
}

#[test]
fn gzip_is_one_member_and_stores_noise() {
    let entries = entries();
    let plain: Vec<u8> = entries
        .iter()
        .flat_map(|(_, content)| content.clone())
        .collect();
    let (compressed, blob) = compress(&entries, Codec::GZIP, 2, None);
    assert_eq!(&blob[..10], &GZIP_HEADER);
    // A reader of a single member reads everything.
    let mut member = flate2::bufread::GzDecoder::new(blob.as_slice());
    let mut back = Vec::new();
    member.read_to_end(&mut back).unwrap();
    assert!(back == plain);
    assert!(member.into_inner().is_empty(), "nothing follows the member");

    let text: usize = entries
        .iter()
        .filter(|(p, _)| p != "dir/noise")
        .map(|(_, c)| c.len())
        .sum();
    let noise = plain.len() - text;
    assert!(
        compressed.size < (noise + text / 2) as u64,
        "{}",
        compressed.size
    );
    // Level 6 in one piece is what the size is measured by.
    let mut whole = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    whole.write_all(&plain).unwrap();
    let whole = whole.finish().unwrap().len() as u64;
    assert!(
        compressed.size * 100 <= whole * 105,
        "{} against {whole}",
        compressed.size
    );
}

#[test]
fn an_empty_blob() {
    let (compressed, blob) = compress(&[], Codec::GZIP, 2, None);
    assert_eq!(compressed.chunks, 0);
    let mut back = Vec::new();
    decompress(blob.as_slice())
        .unwrap()
        .read_to_end(&mut back)
        .unwrap();
    assert!(back.is_empty());
}

#[derive(Default)]
struct Memory(Mutex<BTreeMap<ChunkKey, Vec<u8>>>);

impl ChunkCache for Memory {
    fn get(&self, key: &ChunkKey) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn put(&self, key: &ChunkKey, bytes: &[u8]) {
        let former = self.0.lock().unwrap().insert(*key, bytes.to_vec());
        assert_eq!(former, None, "nothing is compressed twice");
    }
}

#[test]
fn what_does_not_shrink_is_not_kept_a_second_time() {
    let cache = Arc::new(Memory::default());
    let kept: Arc<dyn ChunkCache> = Arc::<Memory>::clone(&cache);
    compress(&entries(), Codec::GZIP, 2, Some(kept));
    let total: usize = cache.0.lock().unwrap().values().map(Vec::len).sum();
    assert!(
        total < 5_000_000,
        "{total} bytes kept, 5.6 MB of them noise"
    );
    assert!(total > 0);
}

#[test]
fn an_edit_recompresses_one_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let directory: Arc<dyn ChunkCache> = Arc::new(DirChunkCache::new(dir.path().join("chunks")));
    for cache in [directory, Arc::new(Memory::default())] {
        for codec in [Codec::GZIP, Codec::ZSTD] {
            let mut entries = entries();
            entries.retain(|(path, _)| path != "dir/noise");
            let (cold, blob) = compress(&entries, codec, 2, Some(Arc::clone(&cache)));
            assert_eq!(cold.reused, 0);
            assert!(cold.chunks >= 4, "{}", cold.chunks);
            let (warm, again) = compress(&entries, codec, 2, Some(Arc::clone(&cache)));
            assert_eq!((warm.reused, warm.chunks), (cold.chunks, cold.chunks));
            assert!(again == blob);

            entries[100].1.extend_from_slice(b"one more line");
            let (edited, blob) = compress(&entries, codec, 2, Some(Arc::clone(&cache)));
            assert_eq!(edited.reused + 1, edited.chunks);
            assert_eq!(
                compress(&entries, codec, 3, None).1,
                blob,
                "the cache changes no bytes"
            );

            entries.remove(30);
            let (removed, _) = compress(&entries, codec, 2, Some(Arc::clone(&cache)));
            assert!(removed.reused + 2 >= removed.chunks, "{removed:?}");
        }
    }
}

#[test]
fn a_damaged_chunk_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DirChunkCache::new(dir.path().join("chunks"));
    let key = ChunkKey([7; 32]);
    cache.put(&key, b"chunk");
    assert_eq!(cache.get(&key).unwrap(), b"chunk");
    let file = dir.path().join("chunks").join(crate::digest::hex(&key.0));
    for damaged in [&b""[..], &[0; 37], b"short"] {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(cache.get(&key), None);
    }
    let nowhere = DirChunkCache::new("/proc/none/chunks");
    nowhere.put(&key, b"chunk");
    assert_eq!(nowhere.get(&key), None);
}

#[test]
fn several_members_and_frames_are_read() {
    let (_, first) = compress(&[("a".into(), b"one ".to_vec())], Codec::GZIP, 1, None);
    let (_, second) = compress(&[("b".into(), b"two".to_vec())], Codec::GZIP, 1, None);
    let mut text = String::new();
    decompress(&*[first, second].concat())
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "one two");
    assert_eq!(sniff(b"\x50\x2a\x4d\x18"), Codec::ZSTD);
    assert_eq!(sniff(b"\x1f\x8b"), Codec::None);
}

#[test]
fn a_layer_becomes_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "content").unwrap();
    let entry = crate::layer::tests_support::file("a", b"content");
    let index = LayerIndex::new(vec![entry], Vec::new()).unwrap();
    let options = CompressOptions {
        threads: 2,
        cache: None,
    };
    let (packed, compressed, blob) =
        compress_layer(&index, dir.path(), Vec::new(), Codec::ZSTD, options).unwrap();
    assert_eq!(compressed.digest, Digest::of(&blob));
    let mut tar = Vec::new();
    decompress(blob.as_slice())
        .unwrap()
        .read_to_end(&mut tar)
        .unwrap();
    assert_eq!(
        (Digest::of(&tar), tar.len() as u64),
        (packed.diff_id.0, packed.size)
    );
}
