//! A whole build: from a request to exported results.
//!
//! ```text
//! BuildRequest ─► input (ignore rules, contexts) ─► frontend (parse, lower; images resolved on the way)
//!              ─► solve (op::steps performs) ─► image::config::assemble ─► outputs (exporters)
//! ```
//!
//! Everything that a build needs from outside comes in as a value: the request, the sink for events, the clock, the flag
//! that interrupts. Nothing here prints or reads the environment.

mod blobs;
mod build;
mod checks;
mod context;
pub(crate) mod debug;
mod early;
mod explain;
mod failure;
mod flat;
mod input;
mod inquiry;
mod isolation;
pub(crate) mod logs;
mod outputs;
mod push;
mod push_image;
mod ready;
mod stop;
pub(crate) mod store;
mod surroundings;
pub(crate) mod upkeep;
mod verified;

use std::path::Path;
use std::sync::Arc;

use cache::digest::Digest;
use cache::durable;
use cache::room::{Cap, Room};
use cache::root::{RootOptions, StateRoot};
use frontend::platform::Platform;

use crate::cancel::CancelFlag;
use crate::cli::PlannedStep;
use crate::cli::environment::Environment;
use crate::cli::request::{BuildRequest, Network, PullPolicy};
use crate::clock::Clock;
use crate::export::spec::{self, OutputFlags, OutputSpec, Shorthand, StdoutKind};
use crate::outcome::{Failure, FailureKind, Outcome};
use crate::progress::event::{Event, VertexRef};
use crate::progress::sink::EventSink;
use crate::registry::client::Client;
use crate::registry::config::RegistryConfig;

use self::build::Build;
use self::ready::{Prelude, Purpose};
pub use self::surroundings::Surroundings;

/// What a build has to work with, beside the request.
#[derive(Clone)]
pub struct Engine {
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// The clock.
    pub clock: Clock,
    /// Set when the user gives up.
    pub interrupt: CancelFlag,
    /// What standard output is.
    pub stdout: StdoutKind,
    /// What the machine is like.
    pub surroundings: Surroundings,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Builds what is asked.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong; nothing is under way then, and nothing half written.
    pub async fn build(&self, request: &BuildRequest) -> Result<Outcome, Failure> {
        let outputs = parse_outputs(request, self.stdout)?;
        outputs::check(&outputs, &request.registries.environment)?;
        let Prelude {
            ready,
            dockerfile,
            isolation,
        } = self.prepare(request, Purpose::Build).await?;
        let built = async {
            let build = Build {
                engine: self,
                request,
                steps: &ready.steps,
                lowered: &ready.lowered,
                client: &ready.begun.client,
                stop: &ready.begun.stop.flag,
            };
            let outcome = build.finish(&outputs, isolation).await;
            // Also after a failure: what was made stays.
            let made = ready.steps.layers().made();
            let (paths, boot) = (ready.begun.root.paths(), &self.surroundings.boot);
            let noted = durable::note(paths, boot, ready.begun.lease.name(), &made);
            // Why the build failed comes before what could not be noted about it.
            outcome.and_then(|outcome| noted.map(|()| outcome).map_err(failure::store))
        };
        built
            .await
            .map_err(|failure: Failure| failure.in_file(&dockerfile))
    }

    /// What a build would do.
    ///
    /// # Errors
    ///
    /// What is wrong with the Dockerfile, or what it needs and is not to be had.
    pub async fn explain(&self, request: &BuildRequest) -> Result<Vec<PlannedStep>, Failure> {
        let Prelude {
            ready,
            dockerfile,
            mut isolation,
        } = self.prepare(request, Purpose::Explain).await?;
        isolation.get().await?;
        let told = async {
            let plan = match ready.lowered.output {
                Some(goal) => explain::plan(&ready.steps, goal).await,
                None => Ok(Vec::new()),
            };
            let contexts = ready.steps.contexts();
            contexts.save().map_err(failure::step_environment)?;
            plan
        };
        told.await
            .map_err(|failure: Failure| failure.in_file(&dockerfile))
    }

    /// Does some work as a vertex of its own.
    fn internal<T>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let vertex = self.announce(name);
        let outcome = work();
        self.conclude(vertex, &outcome);
        outcome
    }

    /// Tells that some work begins, as a vertex of its own.
    fn announce(&self, name: &str) -> VertexRef {
        let vertex = VertexRef(Digest::of(name.as_bytes()).to_string().into());
        self.events.emit(Event::VertexAdded {
            vertex: vertex.clone(),
            name: name.to_owned(),
            inputs: Vec::new(),
        });
        self.events.emit(Event::Started {
            vertex: vertex.clone(),
        });
        vertex
    }

    /// Tells how it ended.
    fn conclude<T>(&self, vertex: VertexRef, outcome: &Result<T, Failure>) {
        self.events.emit(match outcome {
            Ok(_) => Event::Completed { vertex },
            Err(failure) => Event::Failed {
                vertex,
                message: failure.to_string(),
            },
        });
    }

    /// The room that a build has which begins now.
    fn room(&self, paths: &cache::root::StatePaths, cap: Cap) -> Room {
        let now_ms = self.clock.now().as_millis();
        Room::new(paths, cap, u64::try_from(now_ms).unwrap_or(u64::MAX))
    }

    fn platform(&self, request: &BuildRequest) -> Result<Platform, Failure> {
        let host = self.surroundings.platform();
        match &request.options.platform {
            None => Ok(host),
            Some(text) => Platform::parse(text, &host.architecture)
                .map_err(|error| Failure::new(FailureKind::Usage, error.to_string())),
        }
    }
}

fn parse_outputs(request: &BuildRequest, stdout: StdoutKind) -> Result<Vec<OutputSpec>, Failure> {
    let output = &request.output;
    let mut shorthands = Vec::new();
    if output.push {
        shorthands.push(Shorthand::Push);
    }
    if output.load {
        shorthands.push(Shorthand::Load);
    }
    let flags = OutputFlags {
        outputs: output.outputs.clone(),
        tags: output.tags.clone(),
        annotations: output.annotations.clone(),
        shorthands,
    };
    spec::resolve(&flags, stdout)
        .map_err(|error| Failure::new(FailureKind::Usage, crate::text::chain(&error)))
}

fn open_root(path: &Path) -> Result<StateRoot, Failure> {
    StateRoot::open(path, &RootOptions::default())
        .map_err(|error| Failure::new(FailureKind::Environment, crate::text::chain(&error)))
}

fn client(environment: &Environment) -> Client {
    Client::new(RegistryConfig::from_env(&|name| environment.text(name)))
}

/// Who speaks to registries: for outputs, to learn what names mean, and to fetch layers.
fn clients(request: &BuildRequest, purpose: Purpose) -> (Client, Client, Client) {
    let environment = &request.registries.environment;
    let mut config = RegistryConfig::from_env(&|name| environment.text(name));
    config.is_offline = request.registries.network == Network::Offline;
    let client = Client::new(config.clone());
    config.is_offline = true;
    let offline = Client::new(config);
    let pulls = match policy_of(request) {
        PullPolicy::Never => &offline,
        PullPolicy::Default | PullPolicy::Always | PullPolicy::Missing | PullPolicy::Age(_) => {
            &client
        }
    };
    let fetches = match purpose {
        Purpose::Build => pulls,
        Purpose::Explain => &offline,
    };
    let (pulls, fetches) = (pulls.clone(), fetches.clone());
    (client, pulls, fetches)
}

fn policy_of(request: &BuildRequest) -> PullPolicy {
    match request.registries.network {
        Network::Offline => PullPolicy::Never,
        Network::Online => request.registries.pull,
    }
}

/// `SOURCE_DATE_EPOCH` in seconds.
fn epoch_of(request: &BuildRequest) -> Option<i64> {
    request
        .options
        .build_args
        .get("SOURCE_DATE_EPOCH")
        .and_then(|text| text.trim().parse().ok())
}
