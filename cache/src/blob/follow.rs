//! A blob that is read while it is written.
//!
//! Who reads it sees bytes that nobody has verified, and learns of their end only when the blob is in the store. What is made
//! of them must not be used before that.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::dir::DirStore;
use super::writer::FileWriter;
use super::{BlobError, BlobStore, BlobWriter, ReadSeek};
use crate::digest::Digest;
use crate::lock::locked;

/// A store whose first new blob is followed.
#[derive(Debug)]
pub struct FollowedStore {
    store: DirStore,
    /// Who follows must not wait for a blob that is not written any more.
    told: Told,
}

/// Reads what was written so far and waits for more. It ends when the blob is in the store; if the blob is given up, with an
/// error.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    /// Bytes that were read.
    at: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Where they are written.
    file: Option<Arc<File>>,
    /// Bytes that were written.
    written: u64,
    ending: Option<Ending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Published,
    GivenUp,
}

impl DirStore {
    /// This store, and who follows the first blob that is written to it.
    #[must_use]
    pub fn followed(&self) -> (FollowedStore, Follower) {
        let shared = Arc::<Shared>::default();
        let followed = FollowedStore {
            store: self.clone(),
            told: Told(Arc::clone(&shared)),
        };
        (followed, Follower { shared, at: 0 })
    }
}

/// Tells that the blob was given up when it is dropped, unless another end was told before.
#[derive(Debug)]
struct Told(Arc<Shared>);

impl Told {
    /// The first end that is told counts.
    fn end(&self, ending: Ending) {
        locked(&self.0.state).ending.get_or_insert(ending);
        self.0.changed.notify_all();
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.end(Ending::GivenUp);
    }
}

impl BlobStore for FollowedStore {
    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.store.contains(digest)
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn ReadSeek>>, BlobError> {
        self.store.open(digest)
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        let writer = self.store.file_writer()?;
        let mut state = locked(&self.told.0.state);
        if state.file.is_some() {
            return Ok(Box::new(writer));
        }
        let Ok(file) = writer.another_handle() else {
            drop(state);
            self.told.end(Ending::GivenUp);
            return Ok(Box::new(writer));
        };
        state.file = Some(Arc::new(file));
        drop(state);
        Ok(Box::new(FollowedWriter {
            writer,
            told: Told(Arc::clone(&self.told.0)),
        }))
    }
}

/// Writes the blob that is followed.
struct FollowedWriter {
    writer: FileWriter,
    told: Told,
}

impl Write for FollowedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        locked(&self.told.0.state).written += count as u64;
        self.told.0.changed.notify_all();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for FollowedWriter {
    fn commit(self: Box<Self>, expected: Option<&Digest>) -> Result<(Digest, u64), BlobError> {
        let Self { writer, told } = *self;
        let committed = Box::new(writer).commit(expected)?;
        told.end(Ending::Published);
        Ok(committed)
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = locked(&self.shared.state);
        let (file, there) = loop {
            match (&state.file, state.ending) {
                (_, Some(Ending::GivenUp)) => {
                    return Err(io::Error::other("the blob that is followed was given up"));
                }
                (Some(file), _) if self.at < state.written => {
                    break (Arc::clone(file), state.written - self.at);
                }
                (_, Some(Ending::Published)) => return Ok(0),
                (_, None) => {}
            }
            let waited = self.shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        let count = usize::try_from(there).map_or(buffer.len(), |there| there.min(buffer.len()));
        let count = file.read_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;
    use crate::root::StatePaths;

    fn store() -> (tempfile::TempDir, DirStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::new(&StatePaths::new(dir.path()));
        (dir, store)
    }

    /// Reads to the end on another thread.
    fn read_all(mut follower: Follower) -> std::thread::JoinHandle<io::Result<Vec<u8>>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            follower.read_to_end(&mut bytes).map(|_| bytes)
        })
    }

    #[test]
    fn what_was_written_is_read_at_once_and_the_end_when_it_is_published() {
        let (_dir, store) = store();
        let (followed, mut follower) = store.followed();
        let mut writer = followed.writer().unwrap();
        let mut buffer = [0; 16];
        for part in [&b"first"[..], b"second"] {
            writer.write_all(part).unwrap();
            let count = follower.read(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], part);
        }
        let rest = read_all(follower);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!rest.is_finished(), "it ended before the blob was there");
        let (digest, _) = writer.commit(None).unwrap();
        assert_eq!(digest, Digest::of(b"firstsecond"));
        assert_eq!(rest.join().unwrap().unwrap(), b"");
        assert!(store.contains(&digest).unwrap());
    }

    #[test]
    fn keeps_the_contract() {
        let (_dir, store) = store();
        contract::all(&store.followed().0);
    }

    #[test]
    fn what_is_given_up_has_no_end() {
        let (_dir, store) = store();
        let wrong = Digest::of(b"something else");
        for is_committed in [true, false] {
            let (followed, follower) = store.followed();
            let reading = read_all(follower);
            let mut writer = followed.writer().unwrap();
            writer.write_all(b"part").unwrap();
            match is_committed {
                true => drop(writer.commit(Some(&wrong)).unwrap_err()),
                false => drop(writer),
            }
            assert!(reading.join().unwrap().is_err());
            // Another try is not followed, and as good as any.
            let mut writer = followed.writer().unwrap();
            writer.write_all(b"whole").unwrap();
            writer.commit(Some(&Digest::of(b"whole"))).unwrap();
        }
        let (followed, follower) = store.followed();
        let reading = read_all(follower);
        drop(followed);
        assert!(reading.join().unwrap().is_err(), "nothing was written");
    }
}
