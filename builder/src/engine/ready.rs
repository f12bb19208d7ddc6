//! Everything before the first step of a build: whether steps can be run, the context, the Dockerfile lowered, and the steps
//! themselves.
//!
//! Not here: what is done with them (`build`, `explain`).

use std::collections::BTreeMap;
use std::sync::Arc;

use cache::key::index::Keys;
use cache::lease::Lease;
use cache::root::StateRoot;
use frontend::lower::Lowered;
use frontend::platform::Platform;
use frontend::source::SourceFile;

use super::checks::Audience;
use super::isolation::{self, Question, Verdict};
use super::stop::StopOnInterrupt;
use super::{Engine, clients, context, failure, input, open_root, policy_of};
use crate::cli::request::BuildRequest;
use crate::op::image::{KnownImage, Resolver, ResolverParts};
use crate::op::layers::{LayerParts, Layers};
use crate::op::local::{Contexts, LocalSource};
use crate::op::remote::Remotes;
use crate::op::runner::Runner;
use crate::op::steps::{self, ImageLayers, StepSettings, Steps, StepsParts};
use crate::op::threads::Threads;
use crate::outcome::Failure;
use crate::progress::event::Event;
use crate::registry::client::Client;

/// A build that has what every build needs, and not yet its context.
pub(super) struct Begun {
    pub(super) target: Platform,
    pub(super) root: StateRoot,
    pub(super) lease: Arc<Lease>,
    pub(super) client: Client,
    pub(super) stop: StopOnInterrupt,
    /// What runs commands.
    sandbox: Arc<Runner>,
}

/// What is to be done with the steps.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Build,
    /// Nothing runs and nothing is fetched.
    Explain,
}

/// Everything before the first step.
pub(super) struct Prelude {
    pub(super) ready: Ready,
    /// What goes wrong later is told of it.
    pub(super) dockerfile: Arc<SourceFile>,
    /// Whether commands can be run.
    pub(super) isolation: Verdict,
}

/// The steps, and what they stand on.
pub(super) struct Ready {
    pub(super) steps: Arc<Steps>,
    pub(super) lowered: Lowered,
    pub(super) begun: Begun,
}

impl Engine {
    /// Everything before the first step.
    pub(super) async fn prepare(
        &self,
        request: &BuildRequest,
        purpose: Purpose,
    ) -> Result<Prelude, Failure> {
        let begun = self.begin(request)?;
        let mut isolation = self.ask_isolation(&begun)?;
        let stop = begun.stop.flag.clone();
        let prepared = async {
            let found = context::prepare(self, request, &begun).await?;
            let dockerfile = Arc::clone(&found.dockerfile);
            let ready = self.ready(request, found, begun, purpose).await;
            let ready = ready.map_err(|failure| failure.in_file(&dockerfile))?;
            Ok((ready, dockerfile))
        };
        tokio::pin!(prepared);
        let prepared = tokio::select! {
            answer = isolation.get() => match answer {
                Ok(()) => prepared.await,
                // Nobody waits for a context, or for a registry, that will be of no use.
                Err(failure) => {
                    stop.set();
                    return Err(isolation.before(failure, failure::interrupted()));
                }
            },
            prepared = &mut prepared => prepared,
        };
        match prepared {
            Ok((ready, dockerfile)) => Ok(Prelude {
                ready,
                dockerfile,
                isolation,
            }),
            Err(first) => Err(isolation.or(first).await),
        }
    }

    /// Finds out whether steps can be run here.
    fn ask_isolation(&self, begun: &Begun) -> Result<Verdict, Failure> {
        let rung = self.surroundings.rung;
        let vertex = self.announce(&isolation::title(rung));
        let question = Question::new(rung, begun.root.paths());
        let is_settled = question.is_settled();
        if !matches!(is_settled, Ok(false)) {
            self.conclude(vertex, &is_settled);
            return is_settled.map(|_| Verdict::known());
        }
        let engine = self.clone();
        let (lease, sandbox) = (Arc::clone(&begun.lease), Arc::clone(&begun.sandbox));
        let task = tokio::task::spawn_blocking(move || {
            let settled = question.settle(&lease, &sandbox);
            engine.conclude(vertex, &settled);
            settled
        });
        Ok(Verdict::of(task, &self.interrupt))
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
            sandbox: Arc::new(Runner::new(
                self.surroundings.rung,
                tokio::runtime::Handle::current(),
            )),
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
            sandbox,
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
            Arc::clone(sandbox),
        );
        Ok(Ready {
            steps: Arc::new(steps?),
            lowered,
            begun,
        })
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
        sandbox: Arc<Runner>,
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
            sandbox,
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
