//! History of an image: the base's entries, then one for each instruction, then what makes it match the layers.
//!
//! The rules are BuildKit's (features.md 5.4, 5.5): entries that make no layer take the time of the entry before, the
//! first of the new ones that of the first new layer; a layer without entry gets a filler. Fillers stand where their layer
//! stands, so that entry and layer always correspond.

use std::time::Duration;

use cache::digest::DiffId;
use frontend::config::DraftHistory;
use frontend::graph::VertexId;
use serde::Serialize;
use serde_json::Value;

use super::time::Timestamp;

/// `comment` of the entries of instructions.
const INSTRUCTION_COMMENT: &str = "buildkit.dockerfile.v0";
/// `comment` of entries for layers that no entry accounts for.
const FILLER_COMMENT: &str = "buildkit.exporter.image.v0";

/// A layer of the image to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// Which.
    pub diff_id: DiffId,
    /// Where it comes from.
    pub origin: LayerOrigin,
}

/// Where a layer of an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerOrigin {
    /// The base image.
    Base,
    /// A step of this build.
    Step {
        /// The vertex that made it.
        vertex: VertexId,
        /// When it was made, since the Unix epoch: the record's time, so that a cached build gives the same config.
        created: Duration,
        /// What progress calls it: told where no instruction accounts for the layer.
        name: String,
    },
}

/// A history entry, in the order that Go writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// By which instruction.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What wrote the entry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Makes the history: `base` is the `history` member of the base's config, `base_created` its `created`.
pub(super) fn assemble(
    base: Option<&Value>,
    base_created: Option<&Timestamp>,
    draft: &[DraftHistory],
    layers: &[ImageLayer],
    epoch: Option<&Timestamp>,
) -> Vec<HistoryEntry> {
    let base_layers = layers
        .iter()
        .filter(|layer| layer.origin == LayerOrigin::Base)
        .count();
    let mut history = base_entries(base, base_created, base_layers);
    let known = history.len();
    history.extend(new_entries(draft, layers));
    fill_times(&mut history, known);
    if let Some(epoch) = epoch {
        for entry in history.iter_mut().skip(known) {
            entry.created = Some(match entry.created.take() {
                Some(created) => created.min(epoch),
                None => epoch.clone(),
            });
        }
    }
    history
}

/// The base's entries, made to account for exactly its layers.
fn base_entries(
    base: Option<&Value>,
    base_created: Option<&Timestamp>,
    layers: usize,
) -> Vec<HistoryEntry> {
    let mut history: Vec<_> = base
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(base_entry)
        .collect();
    let mut accounted = 0;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        // A config that claims more layers than there are: as BuildKit, the surplus counts as empty.
        entry.empty_layer = accounted == layers;
        accounted += usize::from(!entry.empty_layer);
    }
    let time = history
        .iter()
        .rev()
        .find_map(|entry| entry.created.clone())
        .or_else(|| base_created.cloned());
    history.resize_with(history.len() + layers - accounted, || HistoryEntry {
        created: time.clone(),
        comment: FILLER_COMMENT.to_owned(),
        ..HistoryEntry::default()
    });
    history
}

fn base_entry(entry: &Value) -> HistoryEntry {
    let text = |name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    HistoryEntry {
        created: Timestamp::parse(&text("created")),
        created_by: text("created_by"),
        author: text("author"),
        comment: text("comment"),
        empty_layer: entry.get("empty_layer") == Some(&Value::Bool(true)),
    }
}

/// Entries of this build in the order of the draft. If steps made layers that no entry names, entries of the topmost
/// layers' steps follow for them, as many as are missing (BuildKit's `normalizeLayersAndHistory`).
fn new_entries(draft: &[DraftHistory], layers: &[ImageLayer]) -> Vec<HistoryEntry> {
    let made = layers.iter().filter_map(|layer| match &layer.origin {
        LayerOrigin::Base => None,
        LayerOrigin::Step {
            vertex,
            created,
            name,
        } => Some((*vertex, *created, name)),
    });
    let all: Vec<_> = made.collect();
    let mut steps = all.iter().map(|(vertex, created, _)| (*vertex, *created));
    let mut missing = 0;
    let mut entries = Vec::new();
    for entry in draft {
        let made = entry.vertex.filter(|wanted| {
            let mut rest = steps.clone();
            rest.any(|(vertex, _)| vertex == *wanted)
        });
        let mut created = None;
        while let Some(wanted) = made
            && created.is_none()
            && let Some((vertex, time)) = steps.next()
        {
            if vertex == wanted {
                created = Some(Timestamp::from_clock(time));
            } else {
                missing += 1;
            }
        }
        entries.push(HistoryEntry {
            empty_layer: created.is_none(),
            created,
            created_by: entry.created_by.clone(),
            author: String::new(),
            comment: INSTRUCTION_COMMENT.to_owned(),
        });
    }
    missing += steps.count();
    entries.extend(
        all[all.len() - missing..]
            .iter()
            .map(|(_, created, name)| HistoryEntry {
                created: Some(Timestamp::from_clock(*created)),
                created_by: (*name).clone(),
                comment: FILLER_COMMENT.to_owned(),
                ..HistoryEntry::default()
            }),
    );
    entries
}

/// Gives a time to entries without one: that of the entry before; before the first new layer, that layer's; without new
/// layers, the last time of the base.
fn fill_times(history: &mut [HistoryEntry], known: usize) {
    let (base, new) = history.split_at_mut(known);
    let mut time = new
        .iter()
        .find_map(|entry| entry.created.clone())
        .or_else(|| base.iter().rev().find_map(|entry| entry.created.clone()));
    for entry in new {
        match &entry.created {
            Some(created) => time = Some(created.clone()),
            None => entry.created.clone_from(&time),
        }
    }
}
