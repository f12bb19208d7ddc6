//! How big the store is at most, as far as is known without looking through it.
//!
//! ```text
//! usage                   what it was when it was last measured, and what was written since, as far as that was told
//! ```
//!
//! Two bounds are kept, and the larger one holds: what processes told ([`take`]) and what the disk has gained since then.
//! The first misses small files, the second what others freed on that disk meanwhile. Whatever they say, the store is not
//! bigger than all that is in use on its disk.
//!
//! The file is changed in place under its own lock. One that a crash tore counts as none: then the store is measured.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::claim::open_lock_file;
use crate::disk::file_system;
use crate::io::{Attempt, IoError, read_if_present};
use crate::root::StatePaths;

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Usage {
    /// Bytes when it was measured.
    bytes: u64,
    /// Bytes in use on its disk then.
    used_on_disk: u64,
    /// Bytes that were told to be written since.
    #[serde(default)]
    added: u64,
}

impl Usage {
    fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    fn most_bytes(known: Option<&Self>, used_on_disk: u64) -> u64 {
        let Some(known) = known else {
            return used_on_disk;
        };
        let gained = used_on_disk.saturating_sub(known.used_on_disk);
        let most = known.bytes.saturating_add(gained.max(known.added));
        most.min(used_on_disk)
    }
}

/// How many bytes the store may have at most.
pub(crate) fn most_bytes(paths: &StatePaths) -> Result<u64, IoError> {
    let (_, used) = file_system(paths.root())?;
    let text = read_if_present(&paths.usage())?.unwrap_or_default();
    Ok(Usage::most_bytes(Usage::parse(&text).as_ref(), used))
}

/// Takes room for bytes that are about to be written, if the store certainly stays below a cap with them; tells whether it
/// does. What several processes take at once adds up.
pub(crate) fn take(paths: &StatePaths, bytes: u64, cap: u64) -> Result<bool, IoError> {
    let (_, used) = file_system(paths.root())?;
    update(paths, |known| {
        let most = Usage::most_bytes(known.as_ref(), used);
        let fits = most.checked_add(bytes).is_some_and(|sum| sum <= cap);
        let taken = known.filter(|_| fits).map(|known| Usage {
            added: known.added.saturating_add(bytes),
            ..known
        });
        (taken, fits)
    })
}

/// Counts bytes that are written already, or for which room was made.
pub(crate) fn add(paths: &StatePaths, bytes: u64) -> Result<(), IoError> {
    update(paths, |known| {
        let added = known.map(|known| Usage {
            added: known.added.saturating_add(bytes),
            ..known
        });
        (added, ())
    })
}

/// A measurement under way.
#[derive(Debug)]
pub(crate) struct Measuring {
    added_before: u64,
}

/// Begins to measure: what is told to be written from now on may be missed, and still counts afterwards.
pub(crate) fn begin(paths: &StatePaths) -> Result<Measuring, IoError> {
    let text = read_if_present(&paths.usage())?.unwrap_or_default();
    let known = Usage::parse(&text).unwrap_or_default();
    Ok(Measuring {
        added_before: known.added,
    })
}

impl Measuring {
    /// Notes what was found.
    pub(crate) fn end(self, paths: &StatePaths, bytes: u64) -> Result<(), IoError> {
        let (_, used_on_disk) = file_system(paths.root())?;
        update(paths, |known| {
            let added = known.unwrap_or_default().added;
            let found = Usage {
                bytes,
                used_on_disk,
                added: added.saturating_sub(self.added_before),
            };
            (Some(found), ())
        })
    }
}

/// Changes what is known; `None` leaves it as it is.
fn update<T>(
    paths: &StatePaths,
    change: impl FnOnce(Option<Usage>) -> (Option<Usage>, T),
) -> Result<T, IoError> {
    let path = paths.usage();
    let mut file = open_lock_file(&path)?;
    flock(&file, FlockOperation::LockExclusive).attempt("lock", &path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).attempt("read", &path)?;
    let (changed, answer) = change(Usage::parse(&text));
    if let Some(changed) = changed {
        let text = serde_json::to_vec(&changed).unwrap_or_default();
        write(&mut file, &text).attempt("write", &path)?;
    }
    Ok(answer)
}

fn write(file: &mut File, text: &[u8]) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_bound_holds() {
        let known = |added| Usage {
            bytes: 100,
            used_on_disk: 1000,
            added,
        };
        let most = |known: &Usage, used| Usage::most_bytes(Some(known), used);
        assert_eq!(most(&known(0), 1000), 100);
        assert_eq!(most(&known(0), 1050), 150);
        assert_eq!(most(&known(70), 1050), 170);
        assert_eq!(most(&known(70), 500), 170, "others freed something");
        assert_eq!(most(&known(70), 120), 120, "never more than all");
        assert_eq!(Usage::most_bytes(None, 1000), 1000);
    }

    #[test]
    fn what_is_taken_is_gone_for_all_until_it_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        begin(&paths).unwrap().end(&paths, 0).unwrap();
        let taken = std::thread::scope(|scope| {
            // So big that what others write on this disk meanwhile makes no difference.
            let take = || take(&paths, 100 << 20, 350 << 20).unwrap();
            let all = [(); 8].map(|()| scope.spawn(take));
            all.map(|one| one.join().unwrap())
        });
        assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 3);
        let measuring = begin(&paths).unwrap();
        add(&paths, 7).unwrap();
        measuring.end(&paths, 3).unwrap();
        let text = std::fs::read(paths.usage()).unwrap();
        let known = Usage::parse(&text).unwrap();
        assert_eq!((known.bytes, known.added), (3, 7));
        std::fs::write(paths.usage(), "{\"bytes\":1").unwrap();
        assert!(!take(&paths, 0, 10).unwrap(), "torn");
    }
}
