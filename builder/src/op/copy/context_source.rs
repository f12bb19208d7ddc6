//! A directory of the client as a source.

use std::fs::File;
use std::sync::Arc;

use cache::checksum::stat_cache::FileStat;
use cache::digest::ContentDigest;

use super::error::SourceError;
use super::source::{Hashed, LinkIdentity, Origin, SourceEntry, SourceKind, SourceTree};
use crate::cancel::CancelFlag;
use crate::context::walk::{ContextDir, ContextEntry, ContextKind};

/// A directory of the client as a source.
#[derive(Debug)]
pub struct ContextSource {
    name: String,
    directory: Arc<ContextDir>,
}

impl ContextSource {
    /// Takes a directory and the name it has in messages.
    pub fn new(name: impl Into<String>, directory: Arc<ContextDir>) -> Self {
        Self {
            name: name.into(),
            directory,
        }
    }
}

/// A context of which the files are hashed ahead: what it says of them is of no use, what is remembered for
/// [`ContextSource`] is. Once it is told to stop it has no files that can be read.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    context: ContextSource,
    stop: CancelFlag,
}

impl ReadAhead {
    /// Takes the context and the flag that stops it.
    pub(crate) fn new(context: ContextSource, stop: CancelFlag) -> Self {
        Self { context, stop }
    }
}

impl SourceTree for ReadAhead {
    fn name(&self) -> &str {
        self.context.name()
    }

    fn origin(&self) -> Origin {
        self.context.origin()
    }

    fn lookup(&self, path: &[u8]) -> Result<Option<SourceEntry>, SourceError> {
        self.context.lookup(path)
    }

    fn children(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, SourceEntry)>, SourceError> {
        match self.stop.is_set() {
            false => self.context.children(path),
            true => Ok(Vec::new()),
        }
    }

    fn digest(&self, path: &[u8], entry: &SourceEntry) -> Result<Hashed, SourceError> {
        let stat = entry.stamp.unwrap_or_default();
        let is_wanted = || !self.stop.is_set();
        let context = &self.context.directory;
        context.digest_ahead(path, &stat, &is_wanted)?;
        Ok(Hashed {
            size: stat.size,
            content: ContentDigest([0; 32]),
            stamp: None,
        })
    }

    fn open(&self, path: &[u8]) -> Result<File, SourceError> {
        self.context.open(path)
    }

    fn why_missing(&self, path: &[u8]) -> Option<String> {
        self.context.why_missing(path)
    }
}

fn entry(found: ContextEntry) -> SourceEntry {
    let size = found.stat.size;
    let kind = match found.kind {
        ContextKind::Directory => SourceKind::Directory,
        ContextKind::File => SourceKind::File {
            size,
            content: None,
        },
        ContextKind::Symlink(target) => SourceKind::Symlink(target),
        ContextKind::CharDevice(major, minor) => SourceKind::CharDevice(major, minor),
        ContextKind::BlockDevice(major, minor) => SourceKind::BlockDevice(major, minor),
        ContextKind::Fifo => SourceKind::Fifo,
        ContextKind::Socket => SourceKind::Socket,
    };
    let identity = || {
        let numbers = [found.stat.device, found.stat.inode];
        LinkIdentity(numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
    };
    SourceEntry {
        kind,
        mode: found.mode,
        uid: 0,
        gid: 0,
        mtime: found.stat.mtime.0,
        capability: None,
        link: found.has_other_names.then(identity),
        stamp: Some(found.stat),
    }
}

impl SourceTree for ContextSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn origin(&self) -> Origin {
        Origin::Client
    }

    fn lookup(&self, path: &[u8]) -> Result<Option<SourceEntry>, SourceError> {
        Ok(self.directory.lookup(path)?.map(entry))
    }

    fn children(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, SourceEntry)>, SourceError> {
        let children = self.directory.children(path)?.into_iter();
        Ok(children.map(|(name, found)| (name, entry(found))).collect())
    }

    fn digest(&self, path: &[u8], entry: &SourceEntry) -> Result<Hashed, SourceError> {
        // Entries of contexts always have a stamp; the default one matches no file and is never remembered.
        let stat = entry.stamp.unwrap_or_default();
        let hashed = self.directory.digest(path, &stat)?;
        // A stat that tells nothing is replaced by one that no file has: then the copy's bytes are compared.
        let stamp = if hashed.is_settled {
            hashed.stat
        } else {
            FileStat::default()
        };
        Ok(Hashed {
            size: hashed.stat.size,
            content: hashed.content,
            stamp: Some(stamp),
        })
    }

    fn open(&self, path: &[u8]) -> Result<File, SourceError> {
        Ok(self.directory.open_file(path)?)
    }

    fn why_missing(&self, path: &[u8]) -> Option<String> {
        self.directory.why_excluded(path)
    }
}
