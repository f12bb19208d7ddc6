//! What the command line asks of an engine: the seam between reading words and doing work.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use frontend::source::SourceFile;

use super::answer::Answer;
use super::push::PushRequest;
use super::request::{BuildRequest, Inquiry, Isolation, Registries};
use crate::doctor::report::Report;
use crate::outcome::{Failure, Outcome};
use crate::progress::sink::EventSink;

/// What does the work. Implementations print nothing.
pub trait Engine {
    /// Makes this process one that can build in a state directory, before anything of a build is read: it may be replaced
    /// by the same program in a user namespace.
    ///
    /// # Errors
    ///
    /// What the machine lacks.
    fn prepare(&self, _isolation: Isolation, _state_root: &Path) -> Result<(), Failure> {
        Ok(())
    }

    /// Builds. Events may be emitted until it returns.
    ///
    /// # Errors
    ///
    /// The one cause, after everything else was given up.
    fn build(&self, request: &BuildRequest, events: Arc<dyn EventSink>)
    -> Result<Outcome, Failure>;

    /// Answers a question about a Dockerfile. Events may be emitted until it returns.
    ///
    /// # Errors
    ///
    /// If the answer cannot be found out.
    fn inquire(
        &self,
        request: &BuildRequest,
        inquiry: Inquiry,
        events: Arc<dyn EventSink>,
    ) -> Result<Answer, Failure>;

    /// Tells what a build would do, and does nothing. Events may be emitted until it returns.
    ///
    /// # Errors
    ///
    /// What would keep a build from beginning.
    fn explain(
        &self,
        request: &BuildRequest,
        events: Arc<dyn EventSink>,
    ) -> Result<Vec<PlannedStep>, Failure>;

    /// Does something with the images of the store: what goes to standard output.
    ///
    /// # Errors
    ///
    /// If it could not be done.
    fn store(&self, request: &StoreRequest) -> Result<String, Failure>;

    /// Pushes an image of the store: its name with the manifest's digest. Events may be emitted until it returns.
    ///
    /// # Errors
    ///
    /// There is no such image, or the registry does not take it.
    fn push(&self, request: &PushRequest, events: Arc<dyn EventSink>) -> Result<String, Failure>;

    /// Writes what steps of earlier builds wrote.
    ///
    /// # Errors
    ///
    /// If there is no such step, or it cannot be read or written.
    fn logs(&self, request: &LogRequest, output: &mut dyn Write) -> Result<(), Failure>;

    /// Examines what builds need of this machine, with that state directory.
    fn doctor(&self, state_root: &Path) -> Report;

    /// Shows what is made of a Dockerfile: what goes to standard output.
    ///
    /// # Errors
    ///
    /// What is wrong with the Dockerfile.
    fn debug(&self, view: DebugView, source: &SourceFile) -> Result<String, Failure>;
}

/// What would become of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// As shown to the user.
    pub name: String,
    /// What would become of it.
    pub state: PlanState,
    /// Why, where there is something to tell.
    pub reason: Option<String>,
}

/// What would become of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanState {
    /// Its result is in the store.
    Cached,
    /// It would run.
    Runs,
    /// Whether it would run shows only when others have run, or something was fetched.
    Depends,
    /// Nobody needs it: what is built on it is in the store.
    Unneeded,
    /// An image that is in the store.
    Present,
    /// An image of which layers would be pulled.
    Pulled {
        /// How many.
        layers: usize,
        /// How big their blobs are.
        bytes: u64,
    },
}

/// What to do with the images of the store.
#[derive(Clone, Debug)]
pub struct StoreRequest {
    /// What.
    pub command: StoreCommand,
    /// The state directory.
    pub state_root: PathBuf,
    /// How registries are reached.
    pub registries: Registries,
}

/// What to do with the images of the store. Names are as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCommand {
    /// List them.
    Images {
        /// Ids only.
        is_quiet: bool,
    },
    /// Give one another name.
    Tag {
        /// Name or id.
        source: String,
        /// The new name.
        target: String,
    },
    /// Show one's config.
    Inspect {
        /// Name or id.
        name: String,
    },
    /// Look after the store.
    Upkeep(UpkeepCommand),
    /// Remove some.
    Remove {
        /// Names or ids.
        names: Vec<String>,
    },
}

/// Whose output to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// Number or a part of the name; the list of all if absent.
    pub step: Option<String>,
    /// The last that ran a command if absent.
    pub build: Option<u64>,
    /// The state directory.
    pub state_root: PathBuf,
}

/// How the store is looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpkeepCommand {
    /// Wait for the disk and collect if need be.
    Settle {
        /// How big the store may be.
        cap: cache::room::Cap,
    },
    /// Tell what is there.
    DiskUsage(DiskForm),
    /// Remove what nothing needs.
    Prune(PruneOptions),
    /// Verify everything.
    Check,
}

/// How disk usage is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskForm {
    /// One line a kind.
    Summary,
    /// Every item.
    Verbose,
    /// Every item, for programs.
    Json,
}

/// What is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Only down to this many bytes.
    pub most_bytes: Option<u64>,
    /// Nothing that was used within this time.
    pub keep: Option<Duration>,
    /// Only these kinds; all if empty.
    pub kinds: BTreeSet<cache::disk::Kind>,
    /// Only what has this in its name.
    pub name: Option<String>,
    /// `--all`
    pub takes_all: bool,
    /// `--verbose`
    pub is_verbose: bool,
}

/// A view of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugView {
    /// The step graph.
    Graph(GraphFormat),
    /// The instructions.
    Parse(ParseFormat),
}

/// How a step graph is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GraphFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For graphviz.
    Dot,
}

/// How instructions are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ParseFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}
