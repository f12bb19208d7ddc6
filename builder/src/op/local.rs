//! Local directories as sources: the build context and named contexts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cache::checksum::stat_cache::StatCache;
use cache::root::StatePaths;
use frontend::ignore::IgnoreRules;

use super::copy::context_source::ContextSource;
use super::copy::source::SourceTree;
use super::error::StepError;
use crate::context::ignore_file::IgnoreFile;
use crate::context::walk::{ContextDir, ExcludeNothing, Excludes};

/// Where a directory is and what in it is ignored.
#[derive(Debug)]
pub struct LocalSource {
    /// The directory.
    pub path: PathBuf,
    /// The ignore rules and the name of the file that has them.
    pub ignore: Option<(String, IgnoreRules)>,
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

    /// The tree of a directory.
    pub(super) fn tree(&self, name: &str) -> Result<Arc<dyn SourceTree>, StepError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = open.get(name) {
            return Ok(Arc::new(ContextSource::new(name, Arc::clone(dir))));
        }
        let source = self.sources.get(name).ok_or(StepError::Internal {
            what: "a context that was not given",
        })?;
        let cache = StatCache::load(&self.paths, &source.path)?;
        let excludes: Box<dyn Excludes> = match &source.ignore {
            Some((file, rules)) => Box::new(IgnoreFile::new(file, rules.clone())),
            None => Box::new(ExcludeNothing),
        };
        let dir = ContextDir::open(&source.path, excludes, cache)?;
        let dir = Arc::new(dir);
        open.insert(name.to_owned(), Arc::clone(&dir));
        Ok(Arc::new(ContextSource::new(name, dir)))
    }

    /// Keeps the digests of files for later builds.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn save(&self) -> Result<(), StepError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for dir in open.values() {
            dir.stat_cache().save()?;
        }
        Ok(())
    }
}
