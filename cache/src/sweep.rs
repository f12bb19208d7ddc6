//! What crashes left behind: nobody refers to it, so a collection takes it away once it is old enough.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::disk::{DiskError, Sizes};
use crate::io::{STAGED_PREFIX, names_in};
use crate::lease::{self, Lease};
use crate::root::StatePaths;
use crate::snapshot::orphans;

/// What nobody refers to may be half of something that is being made; after this long it is not.
const YOUNG_MS: u64 = 3_600_000;

/// Removes what crashes left: leases of the dead, temporary files, trees without a layer, layers without a record. Gives
/// the bytes that this freed.
pub(crate) fn leftovers(paths: &StatePaths, now_ms: u64) -> Result<u64, DiskError> {
    let size = |path: &Path| Sizes::default().of(path);
    let work_bytes = size(&paths.work());
    lease::sweep(paths)?;
    let mut freed_bytes = work_bytes.saturating_sub(size(&paths.work()));
    let is_old = |path: &Path| named_ms(path).is_some_and(|named| named + YOUNG_MS < now_ms);
    let folders = [
        paths.root().to_owned(),
        paths.blobs(),
        paths.tags(),
        paths.references(),
        paths.sources(),
        paths.chunks(),
        paths.contexts(),
    ];
    for folder in folders {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_chunk = folder == paths.chunks();
            let is_staged = name
                .as_encoded_bytes()
                .starts_with(STAGED_PREFIX.as_bytes())
                || (is_chunk && name.as_encoded_bytes().starts_with(b"."));
            if is_staged && is_old(&entry.path()) {
                freed_bytes += size(&entry.path());
                fs::remove_file(entry.path()).ok();
            }
        }
    }
    let lease = Lease::for_upkeep(paths)?;
    let trash = lease.trash()?;
    orphans::take(paths, &is_old, &trash)?;
    let taken = names_in(&trash)?.into_iter();
    freed_bytes += taken.map(|name| size(&trash.join(name))).sum::<u64>();
    lease.empty_trash();
    Ok(freed_bytes)
}

/// When a file or directory got its name or was last touched, in milliseconds since the Unix epoch. Not its modification
/// time: that of a tree is part of the layer, and may be of any age in a tree that was placed a moment ago.
fn named_ms(path: &Path) -> Option<u64> {
    let changed = fs::symlink_metadata(path).ok()?.ctime();
    u64::try_from(changed).ok()?.checked_mul(1000)
}
