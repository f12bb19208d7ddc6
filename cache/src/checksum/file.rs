//! Hashes files by descriptor-relative name.
//!
//! A symlink is never followed, and a file that changed while it was read is read again: the digest belongs to the stat
//! that comes with it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};

use super::stat_cache::{FileStat, StatCache, clock};
use crate::digest::ContentDigest;
use crate::lock::locked;

/// How often a file that keeps changing is read before giving up.
const ATTEMPTS: u32 = 4;

/// Sizes of the reading buffer: for small files and for big ones. Clearing 256 KiB takes longer than hashing a small file.
const LEAST_BUFFER: u64 = 4 * 1024;
const MOST_BUFFER: u64 = 256 * 1024;

/// Why a file could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The file system said no.
    #[error("cannot read the file")]
    Io(#[from] io::Error),
    /// It is no regular file (any more).
    #[error("it is not a regular file any more")]
    NotAFile,
    /// Somebody writes to it all the time.
    #[error("it keeps changing while it is read")]
    KeepsChanging,
}

/// The digest of a file in a directory, from the cache if the file's stat says that it is still right.
pub fn hash_file(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    cache: &StatCache,
) -> Result<(ContentDigest, FileStat), HashError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || {
        let opened = openat(directory, name, flags, Mode::empty());
        opened.map(File::from).map_err(io::Error::from)
    };
    hash_opened(open, cache)
}

/// As [`hash_file`], for callers who open the file in their own way. `open` is called again when the file has changed
/// meanwhile; it must neither follow a symlink at the end nor wait for a fifo's writer.
pub fn hash_opened(
    open: impl Fn() -> io::Result<File>,
    cache: &StatCache,
) -> Result<(ContentDigest, FileStat), HashError> {
    hash_opened_while(open, cache, &|| true)
}

/// As [`hash_opened`], as long as `is_wanted` says so: else an error.
pub fn hash_opened_while(
    open: impl Fn() -> io::Result<File>,
    cache: &StatCache,
    is_wanted: &dyn Fn() -> bool,
) -> Result<(ContentDigest, FileStat), HashError> {
    for _ in 0..ATTEMPTS {
        let file = open()?;
        let before = regular(&fstat(&file).map_err(io::Error::from)?)?;
        if let Some(digest) = cache.get(&before) {
            return Ok((digest, before));
        }
        let begun = clock();
        let wanted = Wanted {
            inner: &file,
            is_wanted,
        };
        let digest = hash_reader(wanted, before.size)?;
        let after = regular(&fstat(&file).map_err(io::Error::from)?)?;
        if before == after {
            cache.put(&before, digest, begun, &file);
            return Ok((digest, before));
        }
    }
    Err(HashError::KeepsChanging)
}

/// A reader that fails when it is no longer wanted.
struct Wanted<'a, R> {
    inner: R,
    is_wanted: &'a dyn Fn() -> bool,
}

impl<R: Read> Read for Wanted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.is_wanted)() {
            true => self.inner.read(buffer),
            false => Err(io::Error::other("it is not wanted any more")),
        }
    }
}

fn regular(stat: &Stat) -> Result<FileStat, HashError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(FileStat::from(stat)),
        FileType::Directory
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(HashError::NotAFile),
    }
}

/// The digest of everything a reader gives; about so many bytes are expected.
pub fn hash_reader(mut reader: impl Read, expected: u64) -> io::Result<ContentDigest> {
    let mut hasher = blake3::Hasher::new();
    let length = expected.saturating_add(1).clamp(LEAST_BUFFER, MOST_BUFFER);
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(ContentDigest(*hasher.finalize().as_bytes())),
            Ok(length) => {
                hasher.update(&buffer[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Does `work` on every item, on at most `threads` threads. After an error no further block of items is begun. Blocks are
/// begun in order and the ones begun are finished, so the error returned is that of the first item that fails, whatever
/// the threads do.
pub fn in_parallel<T: Send, E: Send>(
    items: &mut [T],
    threads: usize,
    work: impl Fn(&mut T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    /// Fewer items than this are not worth a thread: starting one costs as much as hashing ten small files.
    const WORTH_A_THREAD: usize = 16;
    let threads = threads.min(items.len().div_ceil(WORTH_A_THREAD)).max(1);
    if threads == 1 {
        return items.iter_mut().try_for_each(work);
    }
    // Neighbours go to one thread: they often lie in one directory, whose lock two threads would fight for.
    let block = (items.len() / (threads * 8)).clamp(1, 64);
    let blocks = Mutex::new(items.chunks_mut(block).enumerate());
    let failed: Mutex<Option<(usize, E)>> = Mutex::new(None);
    let next = || match locked(&failed).is_some() {
        true => None,
        false => locked(&blocks).next(),
    };
    let run = || {
        while let Some((number, block)) = next() {
            if let Err(error) = block.iter_mut().try_for_each(&work) {
                let mut failed = locked(&failed);
                if failed.as_ref().is_none_or(|(first, _)| number < *first) {
                    *failed = Some((number, error));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // Where one is not to be had the others do its part.
        let begin = |_| std::thread::Builder::new().spawn_scoped(scope, run).ok();
        let others: Vec<_> = (1..threads).map_while(begin).collect();
        run();
        for thread in others {
            // Not dropped: a thread that ends while it is detached ends the process (glibc bug 19951).
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn digests_are_of_content_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"alpha").unwrap();
        std::fs::write(dir.path().join("big"), vec![7; 1_000_000]).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let cache = StatCache::in_memory();
        let fd = File::open(dir.path()).unwrap();
        let hash = |name: &str| hash_file(fd.as_fd(), OsStr::new(name), &cache);
        assert_eq!(hash("a").unwrap().0.0, *blake3::hash(b"alpha").as_bytes());
        let big = blake3::hash(&vec![7; 1_000_000]);
        let (digest, stat) = hash("big").unwrap();
        assert_eq!((digest.0, stat.size), (*big.as_bytes(), 1_000_000));
        assert!(matches!(hash("link"), Err(HashError::Io(_))));
        assert!(matches!(hash("none"), Err(HashError::Io(_))));
    }

    #[test]
    fn parallel_work_keeps_order_and_reports_the_first_error() {
        let mut items: Vec<u32> = (0..1000).collect();
        let double = |n: &mut u32| {
            *n *= 2;
            Ok::<_, ()>(())
        };
        in_parallel(&mut items, 4, double).unwrap();
        assert_eq!(items, (0..1000).map(|n| n * 2).collect::<Vec<_>>());
        let failed = in_parallel(&mut items, 4, |n| if *n >= 10 { Err(*n) } else { Ok(()) });
        assert_eq!(failed, Err(10));
    }
}
