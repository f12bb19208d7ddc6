//! Contexts as sources: the build context, and named contexts that are directories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cache::checksum::stat_cache::StatCache;
use cache::root::StatePaths;
use frontend::ignore::IgnoreRules;

use super::copy::context_source::ContextSource;
use super::copy::source::SourceTree;
use super::error::StepError;
use crate::context::ignore_file::IgnoreFile;
use crate::context::walk::{ContextDir, ExcludeNothing, Excludes};
use crate::lock::locked;

/// A context.
pub enum LocalSource {
    /// A directory of the client.
    Directory {
        /// The directory.
        path: PathBuf,
        /// The ignore rules and the name of the file that has them.
        ignore: Option<(String, IgnoreRules)>,
    },
    /// What was fetched or unpacked; nothing of it is ignored.
    Tree(Arc<dyn SourceTree>),
}

impl std::fmt::Debug for LocalSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory { path, ignore: _ } => f.debug_tuple("Directory").field(path).finish(),
            Self::Tree(_) => f.write_str("Tree"),
        }
    }
}

/// The directories of a build, opened when first asked for.
pub struct Contexts {
    paths: StatePaths,
    sources: BTreeMap<String, LocalSource>,
    open: Mutex<BTreeMap<String, Arc<ContextDir>>>,
}

impl std::fmt::Debug for Contexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contexts").finish_non_exhaustive()
    }
}

impl Contexts {
    /// Takes the directories by name.
    pub fn new(paths: StatePaths, sources: BTreeMap<String, LocalSource>) -> Self {
        Self {
            paths,
            sources,
            open: Mutex::default(),
        }
    }

    /// The tree of a context.
    pub(super) fn tree(&self, name: &str) -> Result<Arc<dyn SourceTree>, StepError> {
        Ok(match self.source(name)? {
            LocalSource::Tree(tree) => Arc::clone(tree),
            LocalSource::Directory { path, ignore } => {
                Arc::new(self.open(name, path, ignore.as_ref())?)
            }
        })
    }

    /// The tree of a context, if it is a directory of the client.
    pub(super) fn directory(&self, name: &str) -> Result<Option<ContextSource>, StepError> {
        match self.source(name)? {
            LocalSource::Tree(_) => Ok(None),
            LocalSource::Directory { path, ignore } => {
                self.open(name, path, ignore.as_ref()).map(Some)
            }
        }
    }

    fn source(&self, name: &str) -> Result<&LocalSource, StepError> {
        self.sources.get(name).ok_or(StepError::Internal {
            what: "a context that was not given",
        })
    }

    fn open(
        &self,
        name: &str,
        path: &Path,
        ignore: Option<&(String, IgnoreRules)>,
    ) -> Result<ContextSource, StepError> {
        let mut open = locked(&self.open);
        if let Some(dir) = open.get(name) {
            return Ok(ContextSource::new(name, Arc::clone(dir)));
        }
        let cache = StatCache::load(&self.paths, path)?;
        let excludes: Box<dyn Excludes> = match ignore {
            Some((file, rules)) => Box::new(IgnoreFile::new(file, rules.clone())),
            None => Box::new(ExcludeNothing),
        };
        let dir = ContextDir::open(path, excludes, cache)?;
        let dir = Arc::new(dir);
        open.insert(name.to_owned(), Arc::clone(&dir));
        Ok(ContextSource::new(name, dir))
    }

    /// Keeps the digests of files for later builds.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn save(&self) -> Result<(), StepError> {
        let open = locked(&self.open);
        for dir in open.values() {
            dir.stat_cache().save()?;
        }
        Ok(())
    }
}
