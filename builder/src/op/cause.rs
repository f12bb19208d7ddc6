//! Which earlier run a missed step is compared with, and what an earlier step's change means for it.
//!
//! A step is known again by its text in its stage, else by its place: a line that moved is the same step, and so is a
//! line that was edited. Of its last runs the nearest is compared with, so that who goes back and forth between two branches
//! is told what is new in this one. The cause of a step whose own parts are the same is that of the first step below it that has
//! one.

use cache::digest::CacheKey;
use cache::key::builder::{KeyBuilder, Part, Parts};
use frontend::graph::{Op, VertexId};

use super::error::StepError;
use super::miss::{self, Differences};
use super::steps::Steps;
use crate::progress::event::Event;

/// What is said of a copy of the same files in the same way.
const OTHER_GROUND: &str = "what it is copied onto, or its result in the store, is not what it was";

/// How many runs of a step are remembered to be compared with.
const COMPARED: usize = 4;

/// Why a vertex is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// One line.
    text: String,
    /// The step that it is about, as written; none for the step itself.
    step: Option<String>,
}

impl Cause {
    /// As told of the step itself.
    fn line(&self) -> String {
        match &self.step {
            Some(step) => format!("{} ({step})", self.text),
            None => self.text.clone(),
        }
    }
}

/// What stands behind the numbers in a vertex's name.
fn instruction(name: &str) -> &str {
    match name
        .strip_prefix('[')
        .and_then(|name| name.split_once("] "))
    {
        Some((_, instruction)) => instruction,
        None => name,
    }
}

impl Steps {
    /// The names that a step is known by later: its text, its place, and its text in whatever Dockerfile, for a context
    /// that is somewhere else each time.
    fn step_names(&self, id: VertexId) -> [CacheKey; 3] {
        let vertex = self.vertex(id);
        let origin = vertex.origin.as_ref();
        let stage = origin.and_then(|origin| origin.stage.as_deref());
        let place = vertex.name.split(['/', ']']).next().unwrap_or_default();
        let text = instruction(&vertex.name);
        let own = &self.settings.dockerfile;
        [
            ("text", text, own.as_str()),
            ("place", place, own),
            ("text", text, ""),
        ]
        .map(|(kind, name, dockerfile)| {
            let mut key = KeyBuilder::new("last run of a step");
            key.text("dockerfile", dockerfile)
                .text("platform", &self.settings.platform)
                .text("stage", stage.unwrap_or_default())
                // What is fetched bears the name of the step that it is fetched for.
                .text("op", vertex.op.kind())
                .text(kind, name);
            key.finish()
        })
    }

    /// The step whose result a step works on, as it is shown.
    pub(super) fn after(&self, id: VertexId) -> Option<Part> {
        let vertex = self.vertex(id);
        let below = match &vertex.op {
            Op::Exec(op) => op.root?,
            Op::File(op) => op.base?,
            Op::Merge(op) => op.base?,
            Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => return None,
        };
        let below = self.vertex(*vertex.inputs.get(below.0)?);
        let name = instruction(&below.name);
        Some(Part {
            name: miss::AFTER.to_owned(),
            value: name.split("@sha256:").next().unwrap_or_default().to_owned(),
        })
    }

    /// Notes that a step's last result is filed under a key.
    pub(super) fn remember_step(&self, id: VertexId, key: &CacheKey) -> Result<(), StepError> {
        for name in self.step_names(id) {
            let mut runs = self.runs_of(&name)?;
            if runs.first() == Some(key) {
                continue;
            }
            runs.retain(|run| run != key);
            runs.insert(0, *key);
            runs.truncate(COMPARED);
            let bytes: Vec<u8> = runs.iter().flat_map(|run| run.0).collect();
            self.keys.remember(&name, &bytes, self.now_ms())?;
        }
        Ok(())
    }

    /// The keys of a step's last results, the last first.
    fn runs_of(&self, name: &CacheKey) -> Result<Vec<CacheKey>, StepError> {
        let memo = self.keys.memo(name)?.unwrap_or_default();
        let keys = memo.chunks_exact(32).filter_map(|key| key.try_into().ok());
        Ok(keys.map(CacheKey).collect())
    }

    /// How a step differs from the nearest of its last runs under a name; `None` if none of them is in the store.
    fn nearest(&self, runs: &[CacheKey], parts: &Parts) -> Result<Option<Differences>, StepError> {
        let mut nearest: Option<Differences> = None;
        for run in runs {
            let Some(record) = self.keys.peek(run)? else {
                continue;
            };
            let found = miss::differences(parts, &record.parts, &self.settings.args);
            let is_nearer = |known: &Differences| found.distance < known.distance;
            if nearest.as_ref().is_none_or(is_nearer) {
                nearest = Some(found);
            }
        }
        Ok(nearest)
    }

    /// Says why a vertex must run: what changed since the same step last ran.
    pub(super) fn explain_miss(
        &self,
        id: VertexId,
        key: &CacheKey,
        parts: &Parts,
    ) -> Result<(), StepError> {
        let cause = self.cause_of_miss(id, key, parts)?;
        self.events.emit(Event::CacheMiss {
            vertex: self.reference(id),
            reason: cause.line(),
        });
        self.keep_cause(id, cause);
        Ok(())
    }

    /// Notes why a step whose layer was there already is not what it was: what comes after it may have to run for that.
    pub(super) fn note_cause(
        &self,
        id: VertexId,
        key: &CacheKey,
        parts: &Parts,
    ) -> Result<(), StepError> {
        let cause = self.cause_of_miss(id, key, parts)?;
        if cause.text != OTHER_GROUND {
            self.keep_cause(id, cause);
        }
        Ok(())
    }

    fn cause_of_miss(
        &self,
        id: VertexId,
        key: &CacheKey,
        parts: &Parts,
    ) -> Result<Cause, StepError> {
        let own = |text: &str| Cause {
            text: text.to_owned(),
            step: None,
        };
        if self.ignores_cache(id) {
            return Ok(own("the cache is ignored for it (--no-cache)"));
        }
        let mut is_known = false;
        for name in self.step_names(id) {
            let runs = self.runs_of(&name)?;
            is_known |= !runs.is_empty();
            if runs.contains(key) {
                break;
            }
            if let Some(found) = self.nearest(&runs, parts)? {
                return Ok(self.cause_of_differences(id, &found));
            }
        }
        if !is_known {
            return Ok(own("it has not run before"));
        }
        let below = self.cause_below(id);
        Ok(below.unwrap_or_else(|| own("its result is no longer in the store")))
    }

    /// Why a step would run whatever the steps below it make; `None` if only those tell.
    pub(crate) fn preview(&self, id: VertexId) -> Result<Option<String>, StepError> {
        let parts = match &self.vertex(id).op {
            Op::File(op) => super::file::preview(self, id, op)?,
            Op::Exec(op) if op.mounts.is_empty() => super::exec_key::exec_key(op, None, &[]).1,
            Op::Exec(_) | Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) | Op::Merge(_) => {
                return Ok(None);
            }
        };
        if self.ignores_cache(id) {
            return Ok(Some("the cache is ignored for it (--no-cache)".to_owned()));
        }
        for name in self.step_names(id) {
            let runs = self.runs_of(&name)?;
            if runs.is_empty() {
                continue;
            }
            return Ok(match self.nearest(&runs, &parts)? {
                Some(found) => found.line(),
                None => Some("its result is no longer in the store".to_owned()),
            });
        }
        Ok(Some("it has not run before".to_owned()))
    }

    fn cause_of_differences(&self, id: VertexId, found: &Differences) -> Cause {
        let below = || self.cause_below(id);
        let own = |text: String| Cause { text, step: None };
        match (found.line(), found.has_other_base) {
            (Some(line), _) => own(line),
            (None, has_other_base) => below().unwrap_or_else(|| {
                own(match (&found.moved, has_other_base) {
                    (Some((before, now)), _) => {
                        format!("it comes after {now} now, and came after {before}")
                    }
                    (None, true) => "an earlier step has another result".to_owned(),
                    (None, false) => OTHER_GROUND.to_owned(),
                })
            }),
        }
    }

    /// The cause of the nearest step below that has one.
    fn cause_below(&self, id: VertexId) -> Option<Cause> {
        let inputs = &self.vertex(id).inputs;
        inputs.iter().find_map(|input| {
            let cause = self.cause(*input);
            cause.map(|cause| Cause {
                step: cause
                    .step
                    .or_else(|| Some(instruction(&self.vertex(*input).name).to_owned())),
                ..cause
            })
        })
    }

    fn cause(&self, id: VertexId) -> Option<Cause> {
        self.kept_cause(id).or_else(|| self.cause_below(id))
    }

    /// What was found out about a vertex, as one line.
    pub(crate) fn reason(&self, id: VertexId) -> Option<String> {
        self.kept_cause(id).map(|cause| cause.line())
    }

    /// Tells that an image is another than the last time this Dockerfile was built.
    pub(super) fn explain_image(&self, id: VertexId) -> Result<(), StepError> {
        let Op::Image(op) = &self.vertex(id).op else {
            return Ok(());
        };
        let mut name = KeyBuilder::new("last manifest of an image");
        name.text("dockerfile", &self.settings.dockerfile)
            .text("reference", &op.reference)
            .text("platform", &op.platform.to_string());
        let name = name.finish();
        let before = self.keys.memo(&name)?;
        if before.as_deref() == Some(op.manifest.as_bytes()) {
            return Ok(());
        }
        self.keys
            .remember(&name, op.manifest.as_bytes(), self.now_ms())?;
        let Some(before) = before else {
            return Ok(());
        };
        let short = |digest: &str| digest.chars().take(19).collect::<String>();
        let before = short(&String::from_utf8_lossy(&before));
        let text = format!("tag moved {before}… → {}…", short(&op.manifest));
        self.events.emit(Event::CacheMiss {
            vertex: self.reference(id),
            reason: text.clone(),
        });
        self.keep_cause(id, Cause { text, step: None });
        Ok(())
    }
}
