//! Looking after the store: how big it is, what may go, what is damaged, what is on disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cache::disk::{Disk, Item, Kind};
use cache::durable::{self, BootId};
use cache::gc::{self, Collected, Policy};
use cache::key::index::{Keys, USE_GRAIN_MS};
use cache::room::Cap;
use cache::root::StatePaths;
use cache::size::shown as size;
use cache::snapshot::format::TreeFormat;
use cache::snapshot::store::Reader;

use crate::cli::{DiskForm, PruneOptions, UpkeepCommand};
use crate::clock::Clock;
use crate::outcome::{Failure, FailureKind};

/// What looking after a store needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Upkeep {
    /// The running boot of the machine.
    pub(crate) boot: BootId,
    /// The clock.
    pub(crate) clock: Clock,
    /// The format of trees that this process can read.
    pub(crate) format: TreeFormat,
}

fn environment(error: &dyn std::error::Error) -> Failure {
    Failure::new(FailureKind::Environment, crate::text::chain(error))
}

impl Upkeep {
    /// Does what is asked; gives what goes to standard output.
    pub(crate) fn perform(
        &self,
        paths: &StatePaths,
        command: &UpkeepCommand,
    ) -> Result<String, Failure> {
        match command {
            UpkeepCommand::Settle { cap } => self.settle(paths, *cap),
            UpkeepCommand::DiskUsage(form) => self.disk_usage(paths, *form),
            UpkeepCommand::Prune(options) => self.prune(paths, options),
            UpkeepCommand::Check => self.check(paths),
        }
    }

    fn now_ms(&self) -> u64 {
        millis(self.clock.now())
    }

    /// What a build leaves for later: waiting for the disk, and a collection if the store is above its cap.
    fn settle(&self, paths: &StatePaths, cap: Cap) -> Result<String, Failure> {
        durable::settle(paths, &self.boot).map_err(|error| environment(&error))?;
        // Waiting for the disk takes its time: a store that was deleted meanwhile stays deleted.
        if !paths.format().exists() {
            return Ok(String::new());
        }
        if let Some(cap) = cap.bytes(paths).map_err(|error| environment(&error))? {
            gc::collect_above(paths, &Keys::new(paths), cap, self.now_ms())
                .map_err(|error| environment(&error))?;
        }
        Ok(String::new())
    }

    fn disk_usage(&self, paths: &StatePaths, form: DiskForm) -> Result<String, Failure> {
        let disk =
            Disk::survey(paths, &Keys::new(paths), None).map_err(|error| environment(&error))?;
        match form {
            DiskForm::Summary => Ok(summary(&disk)),
            DiskForm::Verbose => Ok(verbose(&disk, self.now_ms())),
            DiskForm::Json => json(&disk),
        }
    }

    fn prune(&self, paths: &StatePaths, options: &PruneOptions) -> Result<String, Failure> {
        let now = self.now_ms();
        let policy = Policy {
            most_bytes: options.most_bytes,
            frees_bytes: None,
            used_before_ms: options.keep.map(|keep| used_before(now, keep)),
            kinds: options.kinds.clone(),
            name: options.name.clone(),
            takes_contexts: options.takes_all,
        };
        let collected = gc::collect(paths, &Keys::new(paths), &policy, now)
            .map_err(|error| environment(&error))?;
        Ok(pruned(&collected, options))
    }

    fn check(&self, paths: &StatePaths) -> Result<String, Failure> {
        let reader = Reader {
            boot: self.boot.clone(),
            format: self.format.clone(),
        };
        let keys = Keys::new(paths);
        let checked =
            cache::fsck::check(paths, &keys, &reader).map_err(|error| environment(&error))?;
        let mut text = String::new();
        if let Some(path) = keys.take_set_aside() {
            text.push_str(&format!("{}\n", set_aside(&path)));
        }
        for problem in &checked.problems {
            text.push_str(&format!("{} {}\n", problem.what, problem.finding));
        }
        text.push_str(&format!(
            "{} blobs, {} layers and {} records checked: {}\n",
            checked.blobs,
            checked.layers,
            checked.records,
            match checked.problems.len() {
                0 => "all well".to_owned(),
                1 => "1 problem".to_owned(),
                count => format!("{count} problems"),
            }
        ));
        Ok(text)
    }
}

/// When something must have been of use last to go, if what was of use within a time is to stay. Times of use are written
/// down only so often, so what may have been of use within it stays, too.
fn used_before(now_ms: u64, keep: Duration) -> u64 {
    match millis(keep) {
        0 => now_ms,
        keep => now_ms.saturating_sub(keep + USE_GRAIN_MS),
    }
}

/// What is told of a database that could not be used.
pub(super) fn set_aside(path: &Path) -> String {
    format!(
        "the cache database was damaged or of another version: moved to `{}`, what it knew is made again",
        path.display()
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Layer => "layers",
        Kind::Image => "images",
        Kind::Blob => "blobs",
        Kind::Chunk => "chunks",
        Kind::CacheMount => "cache-mounts",
        Kind::Context => "contexts",
        Kind::Git => "git",
        Kind::Log => "logs",
        Kind::Database => "database",
        Kind::Work => "work",
        Kind::Other => "other",
    }
}

/// Whether a collection would take it.
fn is_free(item: &Item) -> bool {
    item.pins.is_empty()
        && !matches!(
            item.kind,
            Kind::Database | Kind::Work | Kind::Other | Kind::Context
        )
}

fn summary(disk: &Disk) -> String {
    let mut kinds: BTreeMap<Kind, (usize, u64, u64)> = BTreeMap::new();
    for item in &disk.items {
        let row = kinds.entry(item.kind).or_default();
        row.0 += 1;
        row.1 += item.bytes;
        row.2 += if is_free(item) { item.bytes } else { 0 };
    }
    let mut text = format!(
        "{:<14}{:>8}{:>12}{:>14}\n",
        "KIND", "ITEMS", "SIZE", "RECLAIMABLE"
    );
    let mut total = (0, 0, 0);
    for (kind, (items, bytes, free)) in kinds {
        total = (total.0 + items, total.1 + bytes, total.2 + free);
        text.push_str(&row(label(kind), items, bytes, free));
    }
    text.push_str(&row("total", total.0, total.1, total.2));
    text
}

fn row(name: &str, items: usize, bytes: u64, free: u64) -> String {
    format!(
        "{name:<14}{items:>8}{:>12}{:>14}\n",
        size(bytes),
        size(free)
    )
}

fn verbose(disk: &Disk, now_ms: u64) -> String {
    let mut items: Vec<&Item> = disk.items.iter().collect();
    items.sort_by(|a, b| {
        (a.kind, std::cmp::Reverse(a.bytes)).cmp(&(b.kind, std::cmp::Reverse(b.bytes)))
    });
    let mut text = String::new();
    for item in items {
        text.push_str(&format!(
            "{:<13} {:>10}  {}\n",
            label(item.kind),
            size(item.bytes),
            item.name
        ));
        text.push_str(&format!(
            "{:<13} {:>10}  last used {} ago\n",
            "",
            "",
            crate::op::image::age(now_ms.saturating_sub(item.used_ms))
        ));
        for pin in &item.pins {
            text.push_str(&format!("{:<13} {:>10}  needed by {pin}\n", "", ""));
        }
        for record in &item.records {
            text.push_str(&format!("{:<13} {:>10}  part of {record}\n", "", ""));
        }
    }
    text.push('\n');
    text + &summary(disk)
}

fn json(disk: &Disk) -> Result<String, Failure> {
    let items: Vec<serde_json::Value> = disk
        .items
        .iter()
        .map(|item| {
            serde_json::json!({
                "kind": item.kind, "name": item.name, "bytes": item.bytes, "usedMs": item.used_ms,
                "costMs": item.cost_ms, "neededBy": item.pins, "records": item.records,
                "reclaimable": is_free(item),
            })
        })
        .collect();
    let value = serde_json::json!({ "version": 1, "bytes": disk.bytes(), "items": items });
    serde_json::to_string_pretty(&value)
        .map(|text| text + "\n")
        .map_err(|error| environment(&error))
}

fn pruned(collected: &Collected, options: &PruneOptions) -> String {
    let mut text = String::new();
    for item in &collected.removed {
        if options.is_verbose || item.kind == Kind::Layer {
            let (kind, bytes) = (label(item.kind), size(item.bytes));
            text.push_str(&format!("{kind:<13} {bytes:>10}  {}\n", item.name));
        }
    }
    let is_above = options
        .most_bytes
        .is_some_and(|most| collected.left_bytes > most);
    if is_above {
        for (holder, bytes) in collected.holders() {
            text.push_str(&format!("kept: {} needed by {holder}\n", size(bytes)));
        }
    }
    text.push_str(&format!(
        "freed {}, {} left\n",
        size(collected.freed_bytes()),
        size(collected.left_bytes)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_within_the_time_to_keep_stays() {
        let hour = Duration::from_secs(3600);
        assert_eq!(
            used_before(10_000_000, hour),
            10_000_000 - 3_600_000 - USE_GRAIN_MS
        );
        assert_eq!(used_before(10_000_000, Duration::ZERO), 10_000_000);
        assert_eq!(used_before(5, hour), 0);
    }
}
