//! Room for what a build is about to write: below the store's cap, and on its disk.
//!
//! Asked before big things are written ([`Room::reserve`]), and told of those whose size shows only when they are there
//! ([`Room::wrote`]). Where there is no room, what nobody needs is collected first; only if that does not help is there an
//! answer to fail with. A full disk is not told here: the write that meets it says so.
//!
//! # Cost
//!
//! A question costs a small file read and written (`usage`) as long as the store is clearly below its cap. Otherwise the
//! store is looked through, and collected to somewhat below the cap, so that the next question is cheap.
//!
//! # Concurrency
//!
//! What processes are about to write adds up before it is written, so together they stay below the cap as one does, but
//! for small files.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::Mutex;

use crate::disk::{DiskError, IMAGE, file_system_free};
use crate::gc::{self, Collected, Policy};
use crate::key::index::Keys;
use crate::lock::locked;
use crate::root::StatePaths;
use crate::size::shown;
use crate::usage;

/// What is smaller is not asked for: a build writes hundreds of small files.
const BIG_BYTES: u64 = 1 << 20;

/// The part of the cap that a collection leaves free beyond what is asked for.
const SLACK: u64 = 20;

/// How big a store may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cap {
    /// What fits the disk ([`gc::default_cap`]).
    #[default]
    Usual,
    /// So many bytes, by the user's wish.
    Bytes(u64),
    /// As big as the disk.
    Unlimited,
}

impl Cap {
    /// The cap in bytes, if there is one.
    pub fn bytes(self, paths: &StatePaths) -> Result<Option<u64>, DiskError> {
        Ok(match self {
            Self::Usual => Some(gc::default_cap(paths)?),
            Self::Bytes(bytes) => Some(bytes),
            Self::Unlimited => None,
        })
    }
}

/// Why there is no room.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// What cannot go and what is needed are more than the cap.
    #[error("{0}")]
    Cap(Shortage),
    /// The store could not be looked through.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that are to be written.
    pub need_bytes: u64,
    /// Bytes in the store that cannot go.
    pub kept_bytes: u64,
    /// The cap.
    pub cap_bytes: u64,
    /// Who needs how much of what cannot go: images by name, running builds.
    pub holders: BTreeMap<String, u64>,
}

impl Display for Shortage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [need, kept, cap] = [self.need_bytes, self.kept_bytes, self.cap_bytes].map(shown);
        write!(f, "the store may have {cap}, and has {kept} that cannot go")?;
        if self.need_bytes > 0 {
            write!(f, ", where {need} more are needed")?;
        }
        for (number, (holder, bytes)) in self.holders.iter().enumerate() {
            let before = if number == 0 { ": " } else { ", " };
            write!(f, "{before}{} for {holder}", shown(*bytes))?;
        }
        Ok(())
    }
}

/// The room that a build has.
#[derive(Debug)]
pub struct Room {
    paths: StatePaths,
    keys: Keys,
    cap: Cap,
    now_ms: u64,
    /// Whether the build goes on beyond the cap.
    goes_on: Mutex<bool>,
}

impl Room {
    /// The room of a build that begins now. Touches nothing.
    pub fn new(paths: &StatePaths, cap: Cap, now_ms: u64) -> Self {
        Self {
            paths: paths.clone(),
            keys: Keys::new(paths),
            cap,
            now_ms,
            goes_on: Mutex::default(),
        }
    }

    /// Makes room for what is about to be written.
    pub fn reserve(&self, bytes: u64) -> Result<(), RoomError> {
        if bytes < BIG_BYTES {
            return Ok(());
        }
        let free = file_system_free(self.paths.root()).map_err(DiskError::from)?;
        if bytes > free {
            let policy = Policy {
                frees_bytes: Some(bytes - free),
                ..Policy::default()
            };
            gc::collect(&self.paths, &self.keys, &policy, self.now_ms)?;
        }
        self.take(bytes)
    }

    /// Counts what has been written, and makes room if that was too much.
    pub fn wrote(&self, bytes: u64) -> Result<(), RoomError> {
        if bytes < BIG_BYTES || self.cap == Cap::Unlimited {
            return Ok(());
        }
        usage::add(&self.paths, bytes).map_err(DiskError::from)?;
        self.take(0)
    }

    /// Takes room for bytes below the cap. If there may be none, they must fit after a collection.
    fn take(&self, bytes: u64) -> Result<(), RoomError> {
        let Some(cap) = self.cap.bytes(&self.paths)? else {
            return Ok(());
        };
        // One at a time: a collection helps all who wait.
        let mut goes_on = locked(&self.goes_on);
        if *goes_on || usage::take(&self.paths, bytes, cap).map_err(DiskError::from)? {
            return Ok(());
        }
        let goal = cap.saturating_sub(bytes.max(cap / SLACK));
        let policy = Policy {
            most_bytes: Some(goal),
            ..Policy::default()
        };
        let collected = gc::collect(&self.paths, &self.keys, &policy, self.now_ms)?;
        let needed = collected.left_bytes.checked_add(bytes);
        if needed.is_none_or(|needed| needed > cap) {
            if !self.goes_on(&collected, bytes, cap) {
                return Err(RoomError::Cap(shortage(&collected, bytes, cap)));
            }
            *goes_on = true;
        }
        Ok(usage::add(&self.paths, bytes).map_err(DiskError::from)?)
    }

    /// Whether a build goes on beyond the cap: nobody has set it, and it is not tagged images that take the room. It is
    /// collected when it has ended.
    fn goes_on(&self, collected: &Collected, need_bytes: u64, cap: u64) -> bool {
        let is_image = |pin: &String| pin.starts_with(IMAGE);
        let tagged = collected
            .pinned
            .iter()
            .filter(|item| item.pins.iter().any(is_image));
        let tagged_bytes: u64 = tagged.map(|item| item.bytes).sum();
        let without = collected.left_bytes.saturating_sub(tagged_bytes);
        self.cap == Cap::Usual && without.saturating_add(need_bytes) > cap
    }
}

fn shortage(collected: &Collected, need_bytes: u64, cap_bytes: u64) -> Shortage {
    Shortage {
        need_bytes,
        kept_bytes: collected.left_bytes,
        cap_bytes,
        holders: collected.holders(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::{Item, Kind};
    use crate::lease::Lease;
    use crate::snapshot::store::LayerStore;
    use crate::snapshot::testing::{commit, has_tree};

    const NOW: u64 = 9_000_000_000_000;
    const MB: u64 = 1 << 20;

    fn room(paths: &StatePaths, cap: u64) -> Room {
        Room::new(paths, Cap::Bytes(cap), NOW)
    }

    #[test]
    fn what_nobody_needs_makes_room_and_what_is_needed_does_not() {
        crate::layer::require_root_in_tests();
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let store = LayerStore::unpinned(&paths).unwrap();
        let layer = commit(&store, &"x".repeat(4 << 20));
        room(&paths, 20 * MB).reserve(8 * MB).unwrap();
        assert!(has_tree(&store, &layer));
        let build = Lease::acquire(&paths).unwrap();
        build.pin(&layer).unwrap();
        let Err(RoomError::Cap(short)) = room(&paths, 10 * MB).reserve(8 * MB) else {
            panic!("there is no room");
        };
        assert_eq!((short.need_bytes, short.cap_bytes), (8 * MB, 10 * MB));
        assert!(short.kept_bytes > 4 * MB && short.kept_bytes < 5 * MB);
        assert!(short.holders["a running build"] > 4 * MB);
        assert!(has_tree(&store, &layer));
        drop(build);
        room(&paths, 10 * MB).reserve(8 * MB).unwrap();
        let store = LayerStore::unpinned(&paths).unwrap();
        assert!(!has_tree(&store, &layer));
    }

    #[test]
    fn what_is_being_deleted_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let collection = Lease::acquire(&paths).unwrap();
        let big = vec![1; 8 << 20];
        fs::write(collection.trash().unwrap().join("tree"), &big).unwrap();
        room(&paths, 10 * MB).reserve(8 * MB).unwrap();
        fs::write(collection.work().unwrap().join("half"), &big).unwrap();
        let refused = room(&paths, 10 * MB).reserve(8 * MB);
        assert!(matches!(refused, Err(RoomError::Cap(_))));
    }

    #[test]
    fn only_what_nobody_set_is_passed_and_not_for_tagged_images() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let item = |pin: &str| Item {
            kind: Kind::Layer,
            name: "layer".to_owned(),
            bytes: 8 * MB,
            used_ms: NOW,
            cost_ms: 1,
            pins: vec![pin.to_owned()],
            records: Vec::new(),
        };
        let collected = |pin| Collected {
            left_bytes: 8 * MB,
            pinned: vec![item(pin)],
            ..Collected::default()
        };
        let goes_on = |cap, pin| {
            let room = Room::new(&paths, cap, NOW);
            room.goes_on(&collected(pin), 4 * MB, 10 * MB)
        };
        assert!(goes_on(Cap::Usual, "a running build"));
        assert!(!goes_on(Cap::Bytes(10 * MB), "a running build"));
        assert!(!goes_on(Cap::Usual, "image app"));
    }

    #[test]
    fn a_shortage_names_need_cap_and_holders() {
        let holders = [("a running build", 3000), ("image app", 1000)];
        let short = Shortage {
            need_bytes: 2000,
            kept_bytes: 4000,
            cap_bytes: 5000,
            holders: holders.map(|(name, bytes)| (name.to_owned(), bytes)).into(),
        };
        let all = "the store may have 5.0kB, and has 4.0kB that cannot go, where 2.0kB more are needed: \
                   3.0kB for a running build, 1.0kB for image app";
        assert_eq!(short.to_string(), all);
    }

    #[test]
    fn what_was_written_counts() {
        crate::layer::require_root_in_tests();
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let room = room(&paths, 10 * MB);
        room.reserve(6 * MB).unwrap();
        fs::write(dir.path().join("big"), vec![1; 6 << 20]).unwrap();
        room.wrote(2 * MB).unwrap();
        assert!(matches!(room.reserve(6 * MB), Err(RoomError::Cap(_))));
        fs::write(dir.path().join("more"), vec![1; 6 << 20]).unwrap();
        assert!(matches!(room.wrote(6 * MB), Err(RoomError::Cap(_))));
        // Small things are not worth the question.
        room.reserve(1000).unwrap();
        Room::new(&paths, Cap::Unlimited, NOW).reserve(MB).unwrap();
    }
}
