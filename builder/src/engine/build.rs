//! A build whose steps are known: solving, sending what is made on the way, and the image that comes of it.
//!
//! Not here: finding the steps (`Engine`), and what becomes of the image (`outputs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cache::digest::DiffId;
use frontend::graph::Op;
use frontend::lower::Lowered;

use super::blobs::{Blobs, BlobsParts, Wanted};
use super::early::{self, EarlyPush};
use super::isolation::Verdict;
use super::push::Pushing;
use super::{Engine, epoch_of, failure, outputs, upkeep};
use crate::cancel::CancelFlag;
use crate::cli::request::BuildRequest;
use crate::export::LayerSource;
use crate::export::registry::Pusher;
use crate::export::spec::{ImageForm, OutputSpec};
use crate::image::Image;
use crate::image::config::assemble;
use crate::image::history::{ImageLayer, LayerOrigin};
use crate::op::steps::Steps;
use crate::outcome::{Failure, FailureKind, Outcome};
use crate::progress::event::Event;
use crate::registry::client::Client;
use crate::solve::scheduler::{self, SolveFailure};

/// A build whose steps are known.
pub(super) struct Build<'a> {
    pub(super) engine: &'a Engine,
    pub(super) request: &'a BuildRequest,
    pub(super) steps: &'a Arc<Steps>,
    pub(super) lowered: &'a Lowered,
    pub(super) client: &'a Client,
    /// Ends steps, transfers and compression.
    pub(super) stop: &'a CancelFlag,
}

impl Build<'_> {
    /// Does it; `isolation` tells whether commands can be run.
    pub(super) async fn finish(
        &self,
        specs: &[OutputSpec],
        mut isolation: Verdict,
    ) -> Result<Outcome, Failure> {
        let compressed = self.blobs();
        if let Some(wanted) = self.wanted(specs, &compressed) {
            self.steps.pack_early(Arc::new(wanted));
        }
        let blobs: Arc<dyn LayerSource> = compressed;
        let pushers = match self.pushers(specs, &blobs) {
            Ok(pushers) => pushers,
            Err(first) => return Err(isolation.or(first).await),
        };
        let early = self.early_push(specs, &pushers);
        if let Some(watcher) = early.watcher() {
            self.steps.watch(watcher);
        }
        let finished = self
            .solve_and_export(specs, isolation, &blobs, &pushers, &early)
            .await;
        if finished.is_err() {
            self.stop.set();
        }
        tokio::task::block_in_place(|| early.end());
        if finished.is_err() {
            early.cancel();
        }
        finished
    }

    async fn solve_and_export(
        &self,
        specs: &[OutputSpec],
        mut isolation: Verdict,
        blobs: &Arc<dyn LayerSource>,
        pushers: &BTreeMap<usize, Arc<Pusher>>,
        early: &EarlyPush,
    ) -> Result<Outcome, Failure> {
        let solved = match self.lowered.output {
            Some(goal) => {
                let solved = self.solve(goal);
                isolation
                    .beside(solved, || early.release(), self.stop)
                    .await
            }
            None => isolation.get().await,
        };
        // What was learnt and made stays, also when the build failed.
        let kept = self.keep_what_was_learnt();
        if let Some(path) = self.steps.keys().take_set_aside() {
            self.engine.events.emit(Event::Warning {
                vertex: None,
                message: upkeep::set_aside(&path),
            });
        }
        early.close();
        solved?;
        kept?;
        let image = self.image()?;
        let outputs = outputs::Outputs {
            engine: self.engine,
            request: self.request,
            steps: self.steps,
            lowered: self.lowered,
            image: &image,
            blobs,
            pushers,
            early,
        };
        outputs.export(specs).await
    }

    /// The layers that the first output with blobs of its own will have, if that is known: not where it changes them.
    fn wanted(&self, specs: &[OutputSpec], blobs: &Arc<Blobs>) -> Option<Wanted> {
        let has_blobs = |spec: &&OutputSpec| match spec {
            OutputSpec::Image(image) => image.push.is_some(),
            OutputSpec::Oci(..) | OutputSpec::Docker(..) | OutputSpec::Load(_) => true,
            OutputSpec::Tar(_) | OutputSpec::Local(_) | OutputSpec::CacheOnly => false,
        };
        let keeps_layers = |form: &&ImageForm| outputs::clamps_at(form, self.request).is_none();
        let mut forms = specs.iter().filter(has_blobs).filter_map(OutputSpec::form);
        let form = forms.find(keeps_layers)?;
        Some(Wanted {
            blobs: Arc::clone(blobs),
            chain: early::chain(&self.lowered.graph, self.lowered.output?),
            codec: form.encoding.codec,
        })
    }

    fn blobs(&self) -> Arc<Blobs> {
        Arc::new(Blobs::new(BlobsParts {
            layers: Arc::clone(self.steps.layers()),
            keys: Arc::clone(self.steps.keys()),
            paths: self.steps.paths().clone(),
            clock: self.engine.clock.clone(),
            threads: self.engine.surroundings.threads,
            stop: self.stop.clone(),
        }))
    }

    fn pushers(
        &self,
        specs: &[OutputSpec],
        blobs: &Arc<dyn LayerSource>,
    ) -> Result<BTreeMap<usize, Arc<Pusher>>, Failure> {
        let pushing = Pushing {
            client: self.client,
            environment: &self.request.registries.environment,
            handle: &tokio::runtime::Handle::current(),
            stop: self.stop,
            blobs,
        };
        pushing.of_outputs(specs, |spec| {
            outputs::resolved_form(&spec.form, self.lowered)
        })
    }

    /// Pushes of layers as the steps make them; others are known only at the end.
    fn early_push(
        &self,
        specs: &[OutputSpec],
        pushers: &BTreeMap<usize, Arc<Pusher>>,
    ) -> EarlyPush {
        let keeps_layers = |number: &usize| {
            let form = specs.get(*number).and_then(OutputSpec::form);
            form.is_some_and(|form| outputs::clamps_at(form, self.request).is_none())
        };
        let pushers = pushers.iter().filter(|(number, _)| keeps_layers(number));
        EarlyPush::new(
            pushers
                .map(|(n, pusher)| (*n, Arc::clone(pusher)))
                .collect(),
            &self.lowered.graph,
            self.lowered.output,
            Arc::clone(&self.engine.events),
        )
    }

    async fn solve(&self, goal: frontend::graph::VertexId) -> Result<(), Failure> {
        let interrupt = self.stop.clone();
        let probed = tokio::task::block_in_place(|| self.steps.probe(goal, &interrupt));
        let solved = match probed {
            Ok(Some(unneeded)) => Ok(unneeded),
            probed => {
                if let Err(error) = probed {
                    tracing::debug!(%error, "cannot look for the goal alone");
                }
                let ahead = self.steps.look_ahead();
                let nodes = self.steps.nodes();
                let solved = scheduler::solve(nodes, goal, Arc::clone(self.steps), interrupt).await;
                ahead.end().await;
                solved
            }
        };
        self.steps.sandbox().stop();
        match solved {
            Ok(unneeded) => {
                self.steps.close(&unneeded);
                self.steps
                    .note_built(goal)
                    .map_err(failure::step_environment)
            }
            Err(SolveFailure::Interrupted) => Err(failure::interrupted()),
            Err(SolveFailure::Vertex(vertex, error)) => {
                Err(failure::of_step(self.lowered.graph.vertex(vertex), &error))
            }
        }
    }

    fn keep_what_was_learnt(&self) -> Result<(), Failure> {
        self.steps
            .contexts()
            .save()
            .map_err(failure::step_environment)?;
        self.steps.flush().map_err(failure::step_environment)
    }

    fn image(&self) -> Result<Image, Failure> {
        let layers = image_layers(self.steps, self.lowered);
        assemble(&self.lowered.image, &layers, epoch_of(self.request))
            .map_err(|error| Failure::new(FailureKind::Internal, crate::text::chain(&error)))
    }
}

/// All layers of the result and where they come from: those that the history's steps made are the topmost ones.
pub(super) fn image_layers(steps: &Steps, lowered: &Lowered) -> Vec<ImageLayer> {
    let done = lowered.output.and_then(|goal| steps.result(goal));
    let all = done.as_ref().map(|done| done.layers.clone());
    let all: Vec<DiffId> = all.unwrap_or_default();
    // What is not known of a step whose record is gone is known of one that was made of it: not before that.
    let mut created_ms = done.map_or(0, |done| done.created_ms);
    let added: Vec<_> = lowered
        .image
        .history
        .iter()
        .filter_map(|entry| entry.vertex)
        .collect();
    let base_count = all.len().saturating_sub(added.len());
    // Without a base image, what lies below is a context that stands in for one.
    let context = lowered
        .graph
        .vertices()
        .find(|(_, vertex)| matches!(vertex.op, Op::Local(_) | Op::Git(_) | Op::Http(_)));
    let below = match &lowered.image.base {
        Some(_) => None,
        None => context.map(|(id, _)| id),
    };
    let mut layers = Vec::with_capacity(all.len());
    for (number, diff_id) in all.into_iter().enumerate().rev() {
        let step = match number.checked_sub(base_count) {
            Some(number) => added.get(number).copied(),
            None => below,
        };
        let origin = step.map_or(LayerOrigin::Base, |vertex| {
            created_ms = steps.created_ms(vertex).unwrap_or(created_ms);
            LayerOrigin::Step {
                vertex,
                created: Duration::from_millis(created_ms),
                name: lowered.graph.vertex(vertex).name.clone(),
            }
        });
        layers.push(ImageLayer { diff_id, origin });
    }
    layers.reverse();
    layers
}
