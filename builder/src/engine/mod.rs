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
mod stop;
pub(crate) mod store;
mod surroundings;
pub(crate) mod upkeep;
mod verified;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cache::digest::Digest;
use cache::durable;
use cache::key::index::Keys;
use cache::lease::Lease;
use cache::room::{Cap, Room};
use cache::root::{RootOptions, StateRoot};
use frontend::lower::Lowered;
use frontend::platform::Platform;
use frontend::source::SourceFile;
use tokio::task::JoinHandle;

use crate::cancel::CancelFlag;
use crate::cli::PlannedStep;
use crate::cli::environment::Environment;
use crate::cli::request::{BuildRequest, Network, PullPolicy};
use crate::clock::Clock;
use crate::export::spec::{self, OutputFlags, OutputSpec, Shorthand, StdoutKind};
use crate::op::image::{KnownImage, Resolver, ResolverParts};
use crate::op::layers::{LayerParts, Layers};
use crate::op::local::{Contexts, LocalSource};
use crate::op::remote::Remotes;
use crate::op::runner::Runner;
use crate::op::steps::{self, ImageLayers, StepSettings, Steps, StepsParts};
use crate::op::threads::Threads;
use crate::outcome::{Failure, FailureKind, Outcome};
use crate::progress::event::{Event, VertexRef};
use crate::progress::sink::EventSink;
use crate::registry::client::Client;
use crate::registry::config::RegistryConfig;

use self::build::Build;
use self::checks::Audience;
use self::isolation::Question;
use self::stop::StopOnInterrupt;
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

/// A build that has what every build needs, and not yet its context.
struct Begun {
    target: Platform,
    root: StateRoot,
    lease: Arc<Lease>,
    client: Client,
    stop: StopOnInterrupt,
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
        let (ready, dockerfile) = self.prepare(request, Purpose::Build).await?;
        let built = async {
            let build = Build {
                engine: self,
                request,
                steps: &ready.steps,
                lowered: &ready.lowered,
                client: &ready.begun.client,
                stop: &ready.begun.stop.flag,
            };
            let outcome = build.finish(&outputs).await;
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
        let (ready, dockerfile) = self.prepare(request, Purpose::Explain).await?;
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

    /// Everything before the first step; with the Dockerfile, which what goes wrong later is told of.
    async fn prepare(
        &self,
        request: &BuildRequest,
        purpose: Purpose,
    ) -> Result<(Ready, Arc<SourceFile>), Failure> {
        let begun = self.begin(request)?;
        let isolation = self.ask_isolation(&begun)?;
        let stop = begun.stop.flag.clone();
        let isolation = async {
            match isolation {
                None => Ok(()),
                Some(answer) => match answer.await {
                    Ok(answer) => answer,
                    Err(ended) => std::panic::resume_unwind(ended.into_panic()),
                },
            }
        };
        let prepared = async {
            let found = context::prepare(self, request, &begun).await?;
            let dockerfile = Arc::clone(&found.dockerfile);
            let ready = self.ready(request, found, begun, purpose).await;
            let ready = ready.map_err(|failure| failure.in_file(&dockerfile))?;
            Ok((ready, dockerfile))
        };
        tokio::pin!(isolation, prepared);
        tokio::select! {
            answer = &mut isolation => match answer {
                Ok(()) => prepared.await,
                // Nobody waits for a context, or for a registry, that will be of no use.
                Err(failure) => {
                    stop.set();
                    Err(failure)
                }
            },
            prepared = &mut prepared => match (prepared, isolation.await) {
                (Ok(_), Err(failure)) => Err(failure),
                // Where no step can be run, that comes before what else is wrong.
                (Err(first), Err(failure)) if first.kind() != FailureKind::Interrupted => Err(failure),
                (prepared, _) => prepared,
            },
        }
    }

    /// Finds out whether steps can be run here; `None` if that is known. It takes longer than reading a Dockerfile, and
    /// about as long as asking a registry what a name means: it is done beside them.
    fn ask_isolation(
        &self,
        begun: &Begun,
    ) -> Result<Option<JoinHandle<Result<(), Failure>>>, Failure> {
        let rung = self.surroundings.rung;
        let vertex = self.announce(&isolation::title(rung));
        let question = Question::new(rung, begun.root.paths());
        let is_settled = question.is_settled();
        if !matches!(is_settled, Ok(false)) {
            self.conclude(vertex, &is_settled);
            return is_settled.map(|_| None);
        }
        let (engine, lease) = (self.clone(), Arc::clone(&begun.lease));
        Ok(Some(tokio::task::spawn_blocking(move || {
            let settled = question.settle(&lease);
            engine.conclude(vertex, &settled);
            settled
        })))
    }

    /// What every build needs, and not yet its context.
    fn begin(&self, request: &BuildRequest) -> Result<Begun, Failure> {
        let stop = StopOnInterrupt::new(&self.interrupt);
        let target = self.platform(request)?;
        let root = open_root(&request.state_root)?;
        let lease = Arc::new(Lease::acquire(root.paths()).map_err(failure::store)?);
        Ok(Begun {
            target,
            root,
            lease,
            client: clients(request, Purpose::Build).0,
            stop,
        })
    }

    /// Everything before the first step, when the Dockerfile and the context are here.
    async fn ready(
        &self,
        request: &BuildRequest,
        found: context::Prepared,
        begun: Begun,
        purpose: Purpose,
    ) -> Result<Ready, Failure> {
        let Begun {
            target,
            root,
            lease,
            client,
            stop,
        } = &begun;
        let context::Prepared {
            dockerfile,
            context,
        } = found;
        let definition = self.load_definition(&dockerfile, request, Audience::Progress)?;
        let ignore = self.internal("[internal] load .dockerignore", || {
            input::ignore_rules(request)
        })?;
        let context = match context {
            context::Files::Directory(path) => LocalSource::Directory {
                path,
                ignore: ignore.clone(),
            },
            context::Files::Tree(tree) => LocalSource::Tree(tree),
        };
        let (_, pulls, fetches) = clients(request, purpose);
        let resolver = Arc::new(Resolver::new(ResolverParts {
            client: pulls,
            paths: root.paths(),
            lease,
            handle: tokio::runtime::Handle::current(),
            events: Arc::clone(&self.events),
            clock: self.clock.clone(),
            policy: policy_of(request),
        }));
        let options = request.lower_options(target.clone(), self.surroundings.platform());
        let lowered = self
            .lower(&dockerfile, definition, options, (&resolver, &ignore))
            .await?;
        let images = Arc::into_inner(resolver)
            .map(Resolver::into_images)
            .unwrap_or_default();
        let paths = root.paths().clone();
        let layers = Layers::open(LayerParts {
            paths: &paths,
            client: fetches.clone(),
            handle: tokio::runtime::Handle::current(),
            lease: Arc::clone(lease),
            images: &images,
            format: crate::machine::tree_format(self.surroundings.rung),
            stop: stop.flag.clone(),
            boot: self.surroundings.boot.clone(),
            room: self.room(&paths, request.execution.cap),
        })
        .map_err(failure::step_environment)?;
        let reach = match purpose {
            Purpose::Build => client,
            Purpose::Explain => &fetches,
        };
        let steps = self.steps(
            request,
            lowered.graph.clone(),
            &paths,
            layers,
            &images,
            (context, &dockerfile),
            target,
            reach,
        );
        Ok(Ready {
            steps: Arc::new(steps?),
            lowered,
            begun,
        })
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

    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of the steps, named where they are used"
    )]
    fn steps(
        &self,
        request: &BuildRequest,
        graph: frontend::graph::Graph,
        paths: &cache::root::StatePaths,
        layers: Layers,
        images: &BTreeMap<String, KnownImage>,
        (context, dockerfile): (LocalSource, &SourceFile),
        target: &Platform,
        client: &Client,
    ) -> Result<Steps, Failure> {
        let added = graph.vertices().map(|(_, vertex)| {
            let inputs = vertex.inputs.iter();
            Event::VertexAdded {
                vertex: steps::reference_of(vertex),
                name: vertex.name.clone(),
                inputs: inputs
                    .map(|input| steps::reference_of(graph.vertex(*input)))
                    .collect(),
            }
        });
        self.events.emit_all(added.collect());
        let locals = input::local_sources(request, context)?;
        let image_layers = images.iter().map(|(digest, image)| {
            (
                digest.clone(),
                ImageLayers {
                    diff_ids: image.diff_ids.clone(),
                },
            )
        });
        Ok(Steps::new(StepsParts {
            paths: paths.clone(),
            layers,
            keys: Keys::new(paths),
            contexts: Contexts::new(paths.clone(), locals),
            remotes: Remotes::new(input::reach(request, client)),
            sandbox: Runner::new(self.surroundings.rung, tokio::runtime::Handle::current()),
            events: Arc::clone(&self.events),
            settings: StepSettings {
                resolv_conf: self.surroundings.resolv_conf.clone(),
                secrets: Box::new(input::RequestSecrets::new(request)),
                agents: Box::new(input::RequestAgents::new(request)),
                threads: self.surroundings.threads,
                strictness: request.execution.strictness,
                platform: target.to_string(),
                dockerfile: input::dockerfile_identity(request, dockerfile),
                args: input::declared_args(dockerfile),
                machine: self.surroundings.platform(),
                resources: request.execution.resources.clone(),
            },
            clock: self.clock.clone(),
            images: image_layers.collect(),
            threads: Threads::new(request.execution.jobs.get()).map_err(failure::threads)?,
            graph,
        }))
    }
}

/// What is to be done with the steps.
#[derive(Clone, Copy)]
enum Purpose {
    Build,
    /// Nothing runs and nothing is fetched.
    Explain,
}

/// Everything that is known before the first step.
struct Ready {
    steps: Arc<Steps>,
    lowered: Lowered,
    begun: Begun,
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
