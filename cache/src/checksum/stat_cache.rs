//! Remembers the digests of files by what `stat` says, so that unchanged files are not read again.
//!
//! # When an entry is trusted
//!
//! A file's digest is kept only if both its mtime and its ctime are at least two seconds older than the moment its
//! hashing began: a later write within the same tick of the clock would not show in the stat. Local file systems stamp
//! files with the kernel's coarse clock, which is the one compared with. The clock of a network file system cannot be
//! read without writing to it: files there are always read.
//!
//! # Format
//!
//! One file per context, replaced by rename, not synced: a file that is not whole is ignored. Changing any of this needs
//! another magic.
//!
//! ```text
//! magic   8 bytes    "statcch1"
//! entries 88 bytes each, little endian, sorted by (device, inode):
//!         device 8, inode 8, size 8, mtime s 8, ctime s 8, mtime ns 4, ctime ns 4, mode 4, zero 4, BLAKE3 32
//! check   32 bytes   BLAKE3 of all before
//! ```
//!
//! Loading is one read; entries are searched where they lie.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Stat, fstatfs};
use rustix::time::{ClockId, clock_gettime};

use crate::digest::{ContentDigest, hex};
use crate::io::{IoError, read_if_present};
use crate::lock::locked;
use crate::root::StatePaths;
use crate::summed::{self, SummedFile};
use fresh::Fresh;

mod fresh;

const MAGIC: &[u8; 8] = b"statcch1";
const ENTRY: usize = 88;

/// How much older than its hashing a file must be, in seconds. Coarse ticks are 1–10 ms; some file systems keep whole
/// seconds, FAT two.
const SETTLED_SECONDS: i64 = 2;

/// Entries kept that the last build did not ask for, so that deleted files don't pile up: this many and as many again as
/// it did ask for.
const UNUSED_KEPT: usize = 10_000;

/// A time of a file: seconds and nanoseconds.
pub type FileTime = (i64, u32);

/// What identifies a version of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStat {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last change of the bytes.
    pub mtime: FileTime,
    /// Last change of bytes or inode.
    pub ctime: FileTime,
}

impl From<&Stat> for FileStat {
    fn from(stat: &Stat) -> Self {
        let nanoseconds = |n: u64| u32::try_from(n).unwrap_or_default();
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            mode: stat.st_mode,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mtime: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            ctime: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        }
    }
}

impl FileStat {
    fn encode(&self, digest: &ContentDigest) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&self.device.to_le_bytes());
        entry[8..16].copy_from_slice(&self.inode.to_le_bytes());
        entry[16..24].copy_from_slice(&self.size.to_le_bytes());
        entry[24..32].copy_from_slice(&self.mtime.0.to_le_bytes());
        entry[32..40].copy_from_slice(&self.ctime.0.to_le_bytes());
        entry[40..44].copy_from_slice(&self.mtime.1.to_le_bytes());
        entry[44..48].copy_from_slice(&self.ctime.1.to_le_bytes());
        entry[48..52].copy_from_slice(&self.mode.to_le_bytes());
        entry[56..].copy_from_slice(&digest.0);
        entry
    }
}

/// The moment by the clock that stamps files.
pub(super) fn clock() -> FileTime {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Digests by stat. Shared by threads.
#[derive(Debug)]
pub struct StatCache {
    path: Option<PathBuf>,
    /// The entries of the file, as they lie in it.
    loaded: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Entries made since loading.
    fresh: Fresh,
    /// Indexes of loaded entries that were asked for.
    used: Vec<bool>,
    /// Whether a device is on this machine.
    local: BTreeMap<u64, bool>,
}

impl State {
    fn keeps(&mut self, stat: &FileStat, begun: FileTime, file: impl AsFd) -> bool {
        let limit = (begun.0 - SETTLED_SECONDS, begun.1);
        let is_settled = stat.mtime <= limit && stat.ctime <= limit;
        let local = &mut self.local;
        is_settled && *local.entry(stat.device).or_insert_with(|| is_local(file))
    }
}

impl StatCache {
    /// A cache that is never saved.
    pub fn in_memory() -> Self {
        Self::with(None, Vec::new())
    }

    /// Loads the cache of a context, empty if there is none or it is not whole. The name tells contexts apart: their
    /// absolute path.
    pub fn load(paths: &StatePaths, context: &Path) -> Result<Self, IoError> {
        let name = hex(&blake3::hash(context.as_os_str().as_encoded_bytes()).as_bytes()[..16]);
        let path = paths.contexts().join(name);
        let entries = read_if_present(&path)?.and_then(entries_of);
        Ok(Self::with(Some(path), entries.unwrap_or_default()))
    }

    fn with(path: Option<PathBuf>, loaded: Vec<u8>) -> Self {
        let state = State {
            used: vec![false; loaded.len() / ENTRY],
            ..State::default()
        };
        Self {
            path,
            loaded,
            state: Mutex::new(state),
        }
    }

    /// The digest of a file that has not changed since it was hashed.
    pub fn get(&self, stat: &FileStat) -> Option<ContentDigest> {
        let wanted = stat.encode(&ContentDigest([0; 32]));
        let matches = |entry: &[u8]| entry[..56] == wanted[..56];
        let digest = |entry: &[u8]| entry[56..].try_into().ok().map(ContentDigest);
        let found = self.position(stat.device, stat.inode);
        let mut state = locked(&self.state);
        if let Some(entry) = state.fresh.get(stat.device, stat.inode) {
            return matches(entry).then(|| digest(entry)).flatten();
        }
        let at = found?;
        let entry = self.entry(at);
        if !matches(entry) {
            return None;
        }
        state.used[at] = true;
        digest(entry)
    }

    /// Keeps a digest, if it can be trusted. `begun` is when hashing began, `file` any file of that file system.
    pub(super) fn put(
        &self,
        stat: &FileStat,
        digest: ContentDigest,
        begun: FileTime,
        file: impl AsFd,
    ) {
        let mut state = locked(&self.state);
        if state.keeps(stat, begun, file) {
            let entry = stat.encode(&digest);
            state.fresh.put(stat.device, stat.inode, entry);
        }
    }

    /// Whether the digest of this version of a file would be kept if it were hashed now. `file` is any file of its file
    /// system.
    pub fn keeps(&self, stat: &FileStat, file: impl AsFd) -> bool {
        locked(&self.state).keeps(stat, clock(), file)
    }

    /// Saves the cache if it learned something.
    pub fn save(&self) -> Result<(), IoError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let state = locked(&self.state);
        if state.fresh.len() == 0 {
            return Ok(());
        }
        let used = state.used.iter().filter(|used| **used).count() + state.fresh.len();
        let mut spare = used + UNUSED_KEPT;
        let kept = state.used.iter().enumerate().filter_map(|(at, is_used)| {
            if !is_used {
                spare = spare.checked_sub(1)?;
            }
            Some(self.entry(at))
        });
        let mut out = SummedFile::create(path, MAGIC)?;
        let mut kept = kept.peekable();
        for entry in state.fresh.sorted() {
            while let Some(older) = kept.next_if(|older| identity(older) < identity(entry)) {
                out.add(|out| out.extend_from_slice(older))?;
            }
            // What is known anew of a file stands in place of what was.
            kept.next_if(|older| identity(older) == identity(entry));
            out.add(|out| out.extend_from_slice(entry))?;
        }
        kept.try_for_each(|older| out.add(|out| out.extend_from_slice(older)))?;
        out.finish()
    }

    fn entry(&self, at: usize) -> &[u8] {
        &self.loaded[at * ENTRY..(at + 1) * ENTRY]
    }

    fn position(&self, device: u64, inode: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.loaded.len() / ENTRY);
        while low < high {
            let middle = usize::midpoint(low, high);
            match identity(self.entry(middle)).cmp(&(device, inode)) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

fn identity(entry: &[u8]) -> (u64, u64) {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&entry[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    (number(0), number(8))
}

/// The entries of a file's bytes, if it is whole.
fn entries_of(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let body = summed::body(&bytes)?;
    let entries = body.strip_prefix(MAGIC)?;
    if !entries.len().is_multiple_of(ENTRY) {
        return None;
    }
    let body = body.len();
    bytes.truncate(body);
    bytes.drain(..MAGIC.len());
    Some(bytes)
}

/// Whether files are stamped by this machine's clock.
fn is_local(file: impl AsFd) -> bool {
    /// `statfs` magics: NFS, SMB, CIFS, SMB2, 9p, FUSE, Ceph, AFS, Coda, OCFS2, GFS2.
    const REMOTE: [u64; 11] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x0102_1997,
        0x6573_5546,
        0x00c3_6400,
        0x5346_414f,
        0x7375_7245,
        0x7461_636f,
        0x0116_1970,
    ];
    fstatfs(file).is_ok_and(|found| {
        u64::try_from(found.f_type).is_ok_and(|magic| !REMOTE.contains(&(magic & 0xffff_ffff)))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::super::file::hash_file;
    use super::*;

    const OLD: FileTime = (1_000, 5);

    fn stat(inode: u64) -> FileStat {
        FileStat {
            device: 1,
            inode,
            mode: 0o100_644,
            size: 3,
            mtime: OLD,
            ctime: OLD,
        }
    }

    fn put(cache: &StatCache, stat: &FileStat, byte: u8, begun: FileTime) {
        cache.put(
            stat,
            ContentDigest([byte; 32]),
            begun,
            File::open("/").unwrap(),
        );
    }

    #[test]
    fn an_entry_answers_only_for_the_very_same_stat() {
        let cache = StatCache::in_memory();
        put(&cache, &stat(7), 1, (1_002, 5));
        assert_eq!(cache.get(&stat(7)), Some(ContentDigest([1; 32])));
        type Change = fn(&mut FileStat);
        let changes: [Change; 8] = [
            |s| s.device += 1,
            |s| s.inode += 1,
            |s| s.mode |= 0o111,
            |s| s.size += 1,
            |s| s.mtime.0 += 1,
            |s| s.mtime.1 += 1,
            |s| s.ctime.0 += 1,
            |s| s.ctime.1 += 1,
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut changed = stat(7);
            change(&mut changed);
            assert_eq!(cache.get(&changed), None, "change {at}");
        }
    }

    #[test]
    fn a_file_changed_less_than_two_seconds_before_is_not_kept() {
        let cases = [
            (OLD, OLD, (1_002, 5), true),
            (OLD, OLD, (1_002, 4), false),
            (OLD, OLD, (900, 0), false),
            ((1_001, 0), OLD, (1_002, 9), false),
            (OLD, (1_001, 0), (1_002, 9), false),
        ];
        for (mtime, ctime, begun, is_kept) in cases {
            let cache = StatCache::in_memory();
            let stat = FileStat {
                mtime,
                ctime,
                ..stat(1)
            };
            put(&cache, &stat, 1, begun);
            assert_eq!(
                cache.get(&stat).is_some(),
                is_kept,
                "{mtime:?} {ctime:?} {begun:?}"
            );
        }
    }

    #[test]
    fn it_is_saved_loaded_and_ignored_when_torn() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let context = Path::new("/src");
        let cache = StatCache::load(&paths, context).unwrap();
        for inode in 0..500 {
            put(
                &cache,
                &stat(inode * 3),
                u8::try_from(inode % 251).unwrap(),
                (2_000, 0),
            );
        }
        cache.save().unwrap();
        let cache = StatCache::load(&paths, context).unwrap();
        for inode in 0..500 {
            let digest = ContentDigest([u8::try_from(inode % 251).unwrap(); 32]);
            assert_eq!(cache.get(&stat(inode * 3)), Some(digest));
            assert_eq!(cache.get(&stat(inode * 3 + 1)), None);
        }
        // One of those loaded, one between two of them, one behind all.
        for inode in [1_600, 3, 4] {
            put(&cache, &stat(inode), 99, (2_000, 0));
        }
        cache.save().unwrap();
        let cache = StatCache::load(&paths, context).unwrap();
        assert_eq!(cache.loaded.len() / ENTRY, 502);
        for inode in [1_600, 3, 4] {
            assert_eq!(cache.get(&stat(inode)), Some(ContentDigest([99; 32])));
        }
        assert_eq!(cache.get(&stat(6)), Some(ContentDigest([2; 32])));
        assert_eq!(
            StatCache::load(&paths, Path::new("/other"))
                .unwrap()
                .get(&stat(3)),
            None
        );

        let file = fs::read_dir(paths.contexts())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let whole = fs::read(&file).unwrap();
        for cut in [0, 7, 40, whole.len() - 1] {
            fs::write(&file, &whole[..cut]).unwrap();
            assert_eq!(
                StatCache::load(&paths, context).unwrap().get(&stat(3)),
                None
            );
        }
    }

    #[test]
    fn a_settled_file_is_not_read_again_and_an_edited_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"one").unwrap();
        let directory = File::open(dir.path()).unwrap();
        let cache = StatCache::in_memory();
        let hash = || hash_file(directory.as_fd(), OsStr::new("f"), &cache).unwrap();
        let (first, _) = hash();
        // Just written: nothing is kept, so an edit in the same tick is seen.
        fs::write(&path, b"two").unwrap();
        let (second, stat) = hash();
        assert_ne!(first, second);
        assert_eq!(cache.get(&stat), None);
        // A backdated mtime alone does not help: the ctime is young.
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        let (_, stat) = hash();
        assert_eq!(stat.mtime, (1_000, 0));
        assert_eq!(cache.get(&stat), None);
    }
}
