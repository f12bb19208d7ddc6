//! Dockerfile to step graph: stages, variable scopes, instructions to vertices, and the image config beside them.
//!
//! Only what the target reaches is lowered, and only its base images are resolved. Raises the errors that need stages or
//! expansion; what can be known from the text alone, the parser has raised.

mod add;
mod args;
mod check;
mod chmod;
mod context;
mod copy;
mod emit;
mod entitlement;
mod env;
mod error;
mod expose;
mod from;
mod git;
mod link;
mod meta;
mod mount;
mod mount_option;
mod notes;
mod plan;
mod run;
mod signal;
mod size;
mod stage;
mod state;
mod strict;

pub use self::git::{GitContextError, git_context, is_commit};

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{Dockerfile, InstructionKind};
use crate::config::{DraftHistory, DraftImage};
use crate::expand::Lexer;
use crate::graph::{Finished, Graph, ImageSource, NetworkMode, Ulimit, VertexId};
use crate::lint::{Checks, Coverage, Report};
use crate::outline::Outline;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::source::{Diagnostic, SourceFile};

pub(crate) use args::NOT_ENVIRONMENT;
use context::Contexts;
use emit::Emitter;
use plan::Plan;
use stage::Stages;
use state::StageImage;

/// What a build asks of a Dockerfile.
#[derive(Clone, Debug)]
pub struct LowerOptions {
    /// `--target`
    pub target: Option<String>,
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// `--label`, applied last and without history.
    pub labels: Vec<(String, String)>,
    /// The platform built for.
    pub target_platform: Platform,
    /// The platform built on.
    pub build_platform: Platform,
    /// `--build-context`
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache` and `--no-cache-filter`
    pub no_cache: NoCache,
    /// `--network`
    pub network: Option<NetworkMode>,
    /// `--add-host`: (name, address)
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes
    pub shm_size: Option<u64>,
    /// `--ulimit`
    pub ulimits: Vec<Ulimit>,
    /// `--cgroup-parent`
    pub cgroup_parent: Option<String>,
    /// `--allow`: `network.host`, `security.insecure`
    pub entitlements: BTreeSet<String>,
    /// `--strict`
    pub strictness: Strictness,
}

impl LowerOptions {
    /// What a build without any flag asks for, on and for one platform.
    pub fn new(platform: Platform) -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            labels: Vec::new(),
            target_platform: platform.clone(),
            build_platform: platform,
            named_contexts: BTreeMap::new(),
            no_cache: NoCache::Never,
            network: None,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            cgroup_parent: None,
            entitlements: BTreeSet::new(),
            strictness: Strictness::Lenient,
        }
    }
}

/// What becomes of what BuildKit passes over in silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// It is passed over.
    #[default]
    Lenient,
    /// It is an error.
    Strict,
}

/// Which steps ignore the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Never,
    /// RUN, COPY and ADD of every stage.
    Always,
    /// Those of the named stages.
    Stages(BTreeSet<String>),
}

/// The value of a `--build-context`, told apart by its form; the builder reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of the client.
    Directory,
    /// `docker-image://reference`
    Image(String),
    /// `oci-layout://path[@digest|:tag]`
    OciLayout(String),
    /// A git URL.
    Git(String),
    /// An HTTP URL.
    Http(String),
}

/// An image as the outside world resolved it.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The reference it was found under, normalised, for display.
    pub reference: String,
    /// Digest of the platform's manifest.
    pub manifest: String,
    /// The image config document.
    pub config: Vec<u8>,
    /// Where it comes from.
    pub source: ImageSource,
}

/// What to resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName<'a> {
    /// A reference: the local store's tag of that name first, then the registry.
    Reference(&'a Reference),
    /// The OCI layout of a named context.
    OciLayout {
        /// The named context's name.
        context: &'a str,
        /// `path[@digest|:tag]`
        location: &'a str,
    },
}

/// The frontend's window on registries and layouts, implemented by the builder. Called from the thread that lowers; may
/// block. Equal questions may be asked more than once in one build and must get equal answers.
pub trait ImageResolver {
    /// Resolves an image for a platform.
    fn resolve(
        &self,
        image: &ImageName<'_>,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError>;
}

/// Why an image could not be resolved. `message` is complete, such as
/// `failed to resolve source metadata for docker.io/library/nope:latest: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    /// What went wrong.
    pub message: String,
    /// What to do about it, if known.
    pub hint: Option<String>,
}

/// The outcome of lowering.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The steps.
    pub graph: Graph,
    /// The vertex whose file system is the image's; `None` if the image has no layer at all.
    pub output: Option<VertexId>,
    /// The image config to be.
    pub image: DraftImage,
    /// Name of the target stage as `TARGETSTAGE` has it.
    pub target: String,
    /// `SOURCE_DATE_EPOCH` as given by build arg or global ARG, unparsed.
    pub source_date_epoch: Option<String>,
    /// What the target takes.
    pub outline: Outline,
}

/// Lowers a Dockerfile for a target, without checks.
///
/// # Errors
///
/// Those of [`lower_checked`].
pub fn lower(
    source: &SourceFile,
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    resolver: &dyn ImageResolver,
) -> Result<Lowered, Vec<Diagnostic>> {
    let checks = Checks {
        report: &mut Report::silent(),
        ignore: None,
        coverage: Coverage::Target,
    };
    lower_checked(source, dockerfile, options, resolver, checks)
}

/// Lowers a Dockerfile for a target and runs the build checks that need more than the text. What they found before an
/// error stays in the report.
///
/// # Errors
///
/// What is wrong, the first being the one that BuildKit reports: all that can be found independently, in file order; at
/// least one.
pub fn lower_checked(
    source: &SourceFile,
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    resolver: &dyn ImageResolver,
    checks: Checks<'_>,
) -> Result<Lowered, Vec<Diagnostic>> {
    let one = |error: Diagnostic| vec![error];
    let lexer = Lexer::new(dockerfile.directives.escape);
    let contexts = Contexts::new(&options.named_contexts);
    let target = target_name(dockerfile, options);
    let globals = args::global_scope(dockerfile, options, &options.build_args, &target, &lexer)
        .map_err(one)?;
    check::froms(
        dockerfile,
        options,
        (&target, &globals),
        lexer,
        checks.report,
    );
    let stages = Stages::read(dockerfile, options, &contexts, &lexer, &globals)?;
    let epoch = globals.value(EPOCH).filter(|value| !value.is_empty());
    let source_date_epoch = options
        .build_args
        .get(EPOCH)
        .cloned()
        .or(epoch.map(str::to_owned));
    let target = globals.value("TARGETSTAGE").unwrap_or_default().to_owned();
    let plan = Plan::new(
        stages,
        globals,
        options,
        &contexts,
        resolver,
        checks.coverage,
    )?;
    strict::check_options(dockerfile, options, &plan)?;
    check::bases(&plan, options, checks.report);
    let mut emitter = Emitter::new(source, options, &plan, lexer, checks);
    let state = emitter.stages()?;
    let outline = notes::outline(&emitter, dockerfile, &state);
    let finished = emitter.builder.finish(state.root.as_slice());
    entitlement::check(&finished.graph, &options.entitlements)?;
    Ok(Lowered {
        output: state.root.and_then(|root| finished.id(root)),
        image: draft(state.image, options, &finished),
        target,
        source_date_epoch,
        outline,
        graph: finished.graph,
    })
}

/// The build arg (or global ARG) that sets the times of the image.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// `--target`, else the name of the last stage, empty if it has none.
fn target_name(dockerfile: &Dockerfile, options: &LowerOptions) -> String {
    let backwards = dockerfile.instructions.iter().rev();
    let last = backwards
        .map(|instruction| &instruction.kind)
        .find_map(|kind| {
            if let InstructionKind::From(from) = kind {
                return Some(from);
            }
            None
        });
    let name = last.and_then(|from| from.name.as_ref());
    match (&options.target, name) {
        (Some(target), _) => target.clone(),
        (None, Some(name)) => name.value.to_lowercase(),
        (None, None) => String::new(),
    }
}

/// The image as far as it is known now: `--label` goes on top, without history.
fn draft(mut image: StageImage, options: &LowerOptions, finished: &Finished) -> DraftImage {
    if !options.labels.is_empty() {
        let labels = image.config.labels.get_or_insert_default();
        labels.extend(options.labels.iter().cloned());
    }
    image.config.forget_empty();
    let history = image.history.into_iter();
    DraftImage {
        platform: options.target_platform.clone(),
        base: image.document,
        config: image.config,
        author: image.author,
        history: history
            .map(|(created_by, vertex)| DraftHistory {
                created_by,
                vertex: vertex.and_then(|vertex| finished.id(vertex)),
            })
            .collect(),
    }
}
