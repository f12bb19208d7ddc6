//! An archive as a file system of its own: contexts that come as a tar.
//!
//! Members are treated as those of ADD (`copy::archive`): no name and no link leads outside, everything belongs to 0:0.
//! Other than there, names that mean deletions in layers are refused: a context is no layer.

use std::path::Path;
use std::sync::Arc;

use cache::checksum::stat_cache::StatCache;
use cache::digest::DiffId;
use cache::layer::sink::nowhere;
use frontend::graph::{CopyAction, FileAction, InputIndex, Owner, Unpack};

use super::copy::apply::apply_packed;
use super::copy::archive::check;
use super::copy::context_source::ContextSource;
use super::copy::error::CopyError;
use super::copy::place::{Ground, plan_on};
use super::copy::select::{Sources, select};
use super::copy::source::SourceTree;
use super::copy::unpacking::refuse_deletions;
use super::error::StepError;
use super::layers::Layers;
use crate::context::walk::{ContextDir, ExcludeNothing};

/// The name that an archive has in the directory it is unpacked from.
pub(crate) const ARCHIVE: &str = "context";

/// The directory itself, as a source of this name.
pub(crate) fn directory(name: &str, path: &Path) -> Result<Arc<dyn SourceTree>, StepError> {
    let dir = ContextDir::open(path, Box::new(ExcludeNothing), StatCache::in_memory())?;
    Ok(Arc::new(ContextSource::new(name, Arc::new(dir))))
}

/// Unpacks the file [`ARCHIVE`] of a tree into a layer.
pub(crate) fn unpack(
    layers: &Layers,
    tree: &dyn SourceTree,
    threads: usize,
) -> Result<DiffId, StepError> {
    const INPUT: InputIndex = InputIndex(0);
    check(tree.open(ARCHIVE.as_bytes()).map_err(CopyError::from)?).map_err(|source| {
        CopyError::Archive {
            path: format!("/{ARCHIVE}"),
            source,
        }
    })?;
    let root = Owner {
        user: "0".to_owned(),
        group: Some("0".to_owned()),
    };
    let actions = [FileAction::Copy(CopyAction {
        input: Some(INPUT),
        sources: vec![ARCHIVE.to_owned()],
        destination: "/".to_owned(),
        owner: Some(root),
        mode: None,
        keeps_parents: false,
        exclude: Vec::new(),
        unpack: Unpack::Archives,
        keeps_owner: false,
    })];
    let sources = Sources::from([(INPUT, tree)]);
    let selection = select(&actions, &sources, threads)?;
    let ground = Ground {
        base: None,
        base_input: None,
        room_bytes: layers.free_bytes(),
    };
    let plan = plan_on(selection, &sources, &ground)?;
    refuse_deletions(&plan)?;
    let made = layers.new_tree()?;
    let (index, packed) =
        apply_packed::<StepError>(plan, &sources, made.upper(), threads, &mut nowhere())?;
    layers.publish(made, index, packed)
}
