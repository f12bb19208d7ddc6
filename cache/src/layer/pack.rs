//! The canonical tar of an index and its tree: layer format v1 (see the parent module).

use std::io::Read;
use std::path::Path;

use super::entry::{Entry, EntryKind};
use super::error::LayerError;
use super::header;
use super::index::LayerIndex;
use super::sink::{Hashing, TarSink};
use super::tree::Tree;

pub use super::sink::Packed;

/// Copied at once.
const BUFFER: usize = 256 * 1024;

/// Gives the bytes of a file, if they are at hand; else the tree has them when this returns. Asked for each regular file in
/// the order of the index.
pub type AtHand<'a> = &'a mut dyn FnMut(&Entry) -> Result<Option<Vec<u8>>, LayerError>;

/// Writes a layer's tar; the tree gives files' bytes and nothing else.
///
/// The caller compares the digest with the layer's diff id.
///
/// # Errors
///
/// [`LayerError::Changed`] if a file of the tree is not as long as the index says.
pub fn pack(
    index: &LayerIndex,
    tree_dir: &Path,
    sink: &mut dyn TarSink,
) -> Result<Packed, LayerError> {
    pack_at_hand(index, tree_dir, sink, &mut |_| Ok(None))
}

/// As [`pack`], for a tree that is being made: what is at hand is not read from it.
///
/// # Errors
///
/// Those of `at_hand`, too.
pub fn pack_at_hand(
    index: &LayerIndex,
    tree_dir: &Path,
    sink: &mut dyn TarSink,
    at_hand: AtHand<'_>,
) -> Result<Packed, LayerError> {
    let mut tree = Tree::open(tree_dir)?;
    let mut tar = TarWriter::new(sink);
    for entry in index.entries() {
        let EntryKind::File { .. } = entry.kind else {
            tar.entry(entry)?;
            continue;
        };
        let bytes = at_hand(entry)?;
        let shown = tree.shown(&entry.path);
        match bytes {
            Some(bytes) => tar.file(entry, &*bytes, &shown, &mut |_| {})?,
            None => tar.file(entry, tree.open_file(&entry.path)?, &shown, &mut |_| {})?,
        }
    }
    tar.finish()
}

/// Writes entries in canonical form, hashing on the way.
pub(super) struct TarWriter<'a> {
    tar: Hashing<'a>,
    buffer: Vec<u8>,
}

impl<'a> TarWriter<'a> {
    pub(super) fn new(sink: &'a mut dyn TarSink) -> Self {
        Self {
            tar: Hashing::new(sink),
            buffer: vec![0; BUFFER],
        }
    }

    /// Writes an entry that has no content.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        self.tar
            .boundary(&entry.path, 0)
            .map_err(LayerError::Write)?;
        self.tar
            .write(&header::header(entry))
            .map_err(LayerError::Write)?;
        if let EntryKind::Directory { is_opaque: true } = entry.kind {
            self.tar
                .write(&header::opaque_marker(&entry.path))
                .map_err(LayerError::Write)?;
        }
        Ok(())
    }

    /// Writes a file with the size that its entry tells; `see` is shown the bytes.
    pub(super) fn file(
        &mut self,
        entry: &Entry,
        mut file: impl Read,
        shown: &Path,
        see: &mut dyn FnMut(&[u8]),
    ) -> Result<(), LayerError> {
        let EntryKind::File { size, .. } = entry.kind else {
            return self.entry(entry);
        };
        self.tar
            .boundary(&entry.path, size)
            .map_err(LayerError::Write)?;
        self.tar
            .write(&header::header(entry))
            .map_err(LayerError::Write)?;
        let changed = |problem| LayerError::Changed {
            path: shown.to_owned(),
            problem,
        };
        let mut rest = size;
        loop {
            // One byte more than is left, to notice a file that is longer.
            let most = usize::try_from(rest.saturating_add(1)).unwrap_or(usize::MAX);
            let most = most.min(self.buffer.len());
            let count = match file.read(&mut self.buffer[..most]) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(LayerError::io("read", shown)(error)),
            };
            if count == 0 {
                break;
            }
            rest = rest
                .checked_sub(count as u64)
                .ok_or_else(|| changed("it is longer"))?;
            see(&self.buffer[..count]);
            self.tar
                .write(&self.buffer[..count])
                .map_err(LayerError::Write)?;
        }
        if rest != 0 {
            return Err(changed("it is shorter"));
        }
        let padding =
            usize::try_from(size.next_multiple_of(header::BLOCK as u64) - size).unwrap_or(0);
        self.tar
            .write(&header::END[..padding])
            .map_err(LayerError::Write)
    }

    /// Ends the tar.
    pub(super) fn finish(mut self) -> Result<Packed, LayerError> {
        self.tar.write(&header::END).map_err(LayerError::Write)?;
        Ok(self.tar.finish())
    }
}
