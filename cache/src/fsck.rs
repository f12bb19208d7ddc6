//! Checks everything in the store against the digests it is filed under, and drops what is not what it says.
//!
//! Dropping is always safe: what is gone is made or fetched again. Only an image whose documents are damaged is lost, and
//! is told so.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use crate::blob::BlobError;
use crate::blob::dir::DirStore;
use crate::digest::{DiffId, Digest};
use crate::disk::{DiskError, Needs};
use crate::io::{Attempt, names_in};
use crate::key::index::{Examined, Keys, RecordUse};
use crate::lease::{self, Lease};
use crate::root::StatePaths;
use crate::snapshot::contents;
use crate::snapshot::store::{LayerStore, Reader};
use crate::tag::Sources;

/// Something that was not what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is: `blob sha256:…`, `layer sha256:…`.
    pub what: String,
    /// What is wrong, and what was done about it.
    pub finding: &'static str,
}

/// What a check came to.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Blobs looked at.
    pub blobs: usize,
    /// Layers looked at.
    pub layers: usize,
    /// Records looked at.
    pub records: usize,
    /// What was wrong.
    pub problems: Vec<Problem>,
}

/// Checks a store. Running builds are not disturbed unless they use what is damaged. Nothing that is whole is pinned: a
/// build that needs room may have it meanwhile, and what collections and builds take away and make is no problem.
pub fn check(paths: &StatePaths, keys: &Keys, reader: &Reader) -> Result<Checked, DiskError> {
    let lease = Arc::new(Lease::for_upkeep(paths)?);
    let mut checked = Checked::default();
    check_blobs(paths, &mut checked)?;
    let store = LayerStore::open(paths, lease, reader.clone())?;
    let mut bad = BTreeSet::new();
    for layer in contents::all(paths)?.into_keys() {
        let Some((is_of_use, findings)) = store.check(&layer)? else {
            continue;
        };
        checked.layers += 1;
        if !is_of_use {
            bad.insert(layer.clone());
        }
        checked
            .problems
            .extend(findings.into_iter().map(|finding| Problem {
                what: format!("layer {layer}"),
                finding,
            }));
    }
    // From here on no collection takes away anything.
    let _gate = lease::pass_gate(&paths.gate())?;
    let whole = Whole {
        paths,
        sources: Sources::new(paths),
        bad,
    };
    check_records(keys, keys.uses()?, &whole, &mut checked)?;
    check_tags(&whole, &Needs::of(paths, None)?, &mut checked)?;
    Ok(checked)
}

fn check_blobs(paths: &StatePaths, checked: &mut Checked) -> Result<(), DiskError> {
    let blobs = DirStore::new(paths);
    for name in names_in(&paths.blobs())? {
        let name = name.to_string_lossy();
        let digest = format!("sha256:{name}").parse::<Digest>();
        let finding = match digest {
            Ok(digest) => check_blob(&blobs, &digest, checked)?,
            Err(_) => {
                let path = paths.blobs().join(&*name);
                fs::remove_file(&path).attempt("remove", &path)?;
                Some(OTHER_BYTES)
            }
        };
        checked.problems.extend(finding.map(|finding| Problem {
            what: format!("blob sha256:{name}"),
            finding,
        }));
    }
    Ok(())
}

const OTHER_BYTES: &str = "has other bytes than its digest says: removed";

/// What is wrong with a blob that is here, which is removed then.
fn check_blob(
    blobs: &DirStore,
    digest: &Digest,
    checked: &mut Checked,
) -> Result<Option<&'static str>, BlobError> {
    let Some(mut blob) = blobs.find(digest)? else {
        return Ok(None);
    };
    checked.blobs += 1;
    let finding = match blob.is_intact() {
        Ok(true) => return Ok(None),
        Ok(false) => OTHER_BYTES,
        // What the disk does not give back is as good as gone.
        Err(error) => {
            tracing::debug!(%error, "blob cannot be read");
            "cannot be read: removed"
        }
    };
    // A build that came upon it may have removed it, and made it again.
    Ok(blob.remove()?.then_some(finding))
}

/// Which layers are of use.
struct Whole<'a> {
    paths: &'a StatePaths,
    sources: Sources,
    /// Of which nothing was left when they were looked at.
    bad: BTreeSet<DiffId>,
}

impl Whole<'_> {
    /// Whether a layer can still be had, at this moment: builds make layers before the records and tags that name them, so
    /// who asks has looked at those before.
    fn has(&self, layer: &DiffId) -> Result<bool, DiskError> {
        let contents = contents::of(self.paths, layer)?;
        // One that was bad may have been made again.
        let is_here = contents.is_some_and(|has| {
            !(self.bad.contains(layer) && has.trees.is_empty() && has.blobs.is_empty())
        });
        Ok(is_here || !self.sources.of(layer)?.is_empty())
    }
}

fn check_records(
    keys: &Keys,
    records: Vec<RecordUse>,
    whole: &Whole<'_>,
    checked: &mut Checked,
) -> Result<(), DiskError> {
    for RecordUse { key, name, .. } in records {
        let finding = match keys.examine(&key)? {
            // A build came upon it, and found it of no use.
            None => continue,
            Some(Examined::Damaged) => "is damaged: removed",
            // A pulled base may be in an OCI layout that only the next build names; what the step made may not.
            Some(Examined::Whole(record)) => match record.layers.last() {
                Some(top) if !whole.has(top)? => "names a layer that is gone: removed",
                Some(_) | None => {
                    checked.records += 1;
                    continue;
                }
            },
        };
        checked.records += 1;
        // At once: a build may make it again.
        keys.forget(&key)?;
        checked.problems.push(Problem {
            what: format!("record of {name}"),
            finding,
        });
    }
    Ok(())
}

fn check_tags(whole: &Whole<'_>, needs: &Needs, checked: &mut Checked) -> Result<(), DiskError> {
    let blobs = DirStore::new(whole.paths);
    for (digest, tags) in &needs.blobs {
        if blobs.size(digest)?.is_none() {
            for tag in tags {
                checked.problems.push(Problem {
                    what: format!("image {tag}"),
                    finding: "lacks a blob; build or pull it again",
                });
            }
        }
    }
    for (layer, tags) in &needs.layers {
        if !whole.has(layer)? {
            for tag in tags {
                checked.problems.push(Problem {
                    what: format!("image {tag}"),
                    finding: "lacks a layer; build it again",
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "fsck_tests.rs"]
mod tests;
