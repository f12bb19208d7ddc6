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
use tokio::task::JoinHandle;

use super::checks::Audience;
use super::isolation::{self, Question};
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
use crate::outcome::{Failure, FailureKind};
use crate::progress::event::Event;
use crate::registry::client::Client;

/// A build that has what every build needs, and not yet its context.
pub(super) struct Begun {
    pub(super) target: Platform,
    pub(super) root: StateRoot,
    pub(super) lease: Arc<Lease>,
    pub(super) client: Client,
    pub(super) stop: StopOnInterrupt,
}

/// What is to be done with the steps.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Build,
    /// Nothing runs and nothing is fetched.
    Explain,
}

/// Everything that is known before the first step.
pub(super) struct Ready {
    pub(super) steps: Arc<Steps>,
    pub(super) lowered: Lowered,
    pub(super) begun: Begun,
}

impl Engine {
    /// Everything before the first step; with the Dockerfile, which what goes wrong later is told of.
    pub(super) async fn prepare(
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
