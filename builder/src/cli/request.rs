//! What a build is asked to do: plain data, everything resolved.
//!
//! Made by `cli::resolve`; the engine reads it and nothing else: no flags, environment or home directory. Paths are
//! absolute. What only the world can answer (does the image exist?) is not asked here.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use frontend::graph::{GitOp, NetworkMode, Ulimit};
use frontend::lower::{LowerOptions, NamedContext, NoCache, Strictness};
use frontend::platform::Platform;
use frontend::source::SourceFile;

use super::environment::Environment;
use super::stream::ClientStream;
use crate::sandbox::spec::Resources;

/// What a build is asked to do.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// What is built from.
    pub input: Input,
    /// What is asked of the Dockerfile.
    pub options: Options,
    /// Where secrets are, by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Sockets of ssh agents and the like, by id.
    pub ssh: BTreeMap<String, SshSource>,
    /// What becomes of the result.
    pub output: Output,
    /// How steps run.
    pub execution: Execution,
    /// How images are found.
    pub registries: Registries,
    /// The state directory.
    pub state_root: PathBuf,
}

/// What is built from.
#[derive(Clone, Debug)]
pub struct Input {
    /// The build context.
    pub context: ContextSpec,
    /// The Dockerfile.
    pub dockerfile: DockerfileSpec,
    /// Where ignore patterns may be; the first file that exists has them. None for contexts that are no directories.
    pub ignore_files: Vec<PathBuf>,
    /// `--build-context` by name.
    pub named_contexts: BTreeMap<String, NamedSource>,
}

/// Where the build context is.
#[derive(Clone, Debug)]
pub enum ContextSpec {
    /// An existing directory.
    Directory(PathBuf),
    /// There is none: the Dockerfile came alone.
    Empty,
    /// A tar, plain or compressed.
    Archive(ClientStream),
    /// A git repository.
    Git(GitOp),
    /// A tar or a single Dockerfile, by URL.
    Http(String),
}

/// Where the Dockerfile is.
#[derive(Clone, Debug)]
pub enum DockerfileSpec {
    /// Here, under the name that messages show.
    Read(SourceFile),
    /// In a context that is no directory.
    InContext(String),
    /// At a URL.
    Url(String),
}

impl DockerfileSpec {
    /// The Dockerfile, if it was read already.
    pub fn read(&self) -> Option<&SourceFile> {
        match self {
            Self::Read(source) => Some(source),
            Self::InContext(_) | Self::Url(_) => None,
        }
    }
}

impl ContextSpec {
    /// As the user knows it.
    pub fn shown(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Empty | Self::Archive(_) => "-".to_owned(),
            Self::Git(op) => op.remote.clone(),
            Self::Http(url) => url.clone(),
        }
    }
}

/// The value of a `--build-context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedSource {
    /// An existing directory.
    Directory(PathBuf),
    /// A reference.
    Image(String),
    /// A git repository.
    Git(String),
    /// A file by URL.
    Http(String),
    /// An OCI layout.
    OciLayout {
        /// Its directory.
        path: PathBuf,
        /// `@digest`, `:tag` or nothing, as written.
        selector: String,
    },
}

/// What is asked of the Dockerfile.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--target`
    pub target: Option<String>,
    /// `--build-arg`, and `SOURCE_DATE_EPOCH` of the environment if it is not among them.
    pub build_args: BTreeMap<String, String>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// `--platform` as typed; this machine's if absent.
    pub platform: Option<String>,
    /// `--no-cache` and `--no-cache-filter`
    pub no_cache: NoCache,
    /// What commands get.
    pub run: RunOptions,
}

/// What commands get beside what the Dockerfile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// `--network`
    pub network: Option<NetworkMode>,
    /// `--add-host`: (name, address), `host-gateway` replaced.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes
    pub shm_size: Option<u64>,
    /// `--ulimit`
    pub ulimits: Vec<Ulimit>,
    /// `--cgroup-parent`
    pub cgroup_parent: Option<String>,
    /// `--allow`
    pub entitlements: std::collections::BTreeSet<String>,
}

impl BuildRequest {
    /// What lowering is told, for platforms that the caller has parsed.
    pub fn lower_options(&self, target: Platform, build: Platform) -> LowerOptions {
        let (options, run) = (&self.options, &self.options.run);
        let named = self.input.named_contexts.iter();
        LowerOptions {
            target: options.target.clone(),
            build_args: options.build_args.clone(),
            labels: options.labels.clone().into_iter().collect(),
            target_platform: target,
            build_platform: build,
            named_contexts: named
                .map(|(name, source)| (name.clone(), source.to_named_context()))
                .collect(),
            no_cache: options.no_cache.clone(),
            network: run.network,
            extra_hosts: run.extra_hosts.clone(),
            shm_size: run.shm_size,
            ulimits: run.ulimits.clone(),
            cgroup_parent: run.cgroup_parent.clone(),
            entitlements: run.entitlements.clone(),
            strictness: self.execution.strictness,
        }
    }
}

impl NamedSource {
    fn to_named_context(&self) -> NamedContext {
        match self {
            Self::Directory(_) => NamedContext::Directory,
            Self::Image(reference) => NamedContext::Image(reference.clone()),
            Self::Git(url) => NamedContext::Git(url.clone()),
            Self::Http(url) => NamedContext::Http(url.clone()),
            Self::OciLayout { path, selector } => {
                NamedContext::OciLayout(format!("{}{selector}", path.display()))
            }
        }
    }
}

/// Where a secret is. Its `Debug` shows no value.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, read when a step asks for it.
    File(PathBuf),
    /// The value of an environment variable.
    Value(Vec<u8>),
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(…)"),
        }
    }
}

/// What commands may reach by a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshSource {
    /// An ssh agent's.
    Agent(PathBuf),
    /// Any server's: `raw=true`.
    Raw(PathBuf),
    /// An agent's with the keys in these files.
    Keys(Vec<PathBuf>),
}

/// What becomes of the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// `--tag`, as typed.
    pub tags: Vec<String>,
    /// `--output`, as typed; `export` reads them.
    pub outputs: Vec<String>,
    /// `--push`
    pub push: bool,
    /// `--load`
    pub load: bool,
    /// `--annotation`, as typed.
    pub annotations: Vec<String>,
}

/// How steps run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// `--jobs`
    pub jobs: NonZeroUsize,
    /// `--isolation`
    pub isolation: Isolation,
    /// `--strict`
    pub strictness: Strictness,
    /// `--resource`: what each command may use of memory and processors.
    pub resources: Resources,
    /// `BUILD_MAX_USED_SPACE`: how big the store may be.
    pub cap: cache::room::Cap,
}

/// Which rung of confinement is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The best that works.
    Auto,
    /// As root.
    Root,
    /// In a user namespace with subordinate ids.
    UserNamespace,
}

/// How images are found and by whose rights.
#[derive(Clone, Debug)]
pub struct Registries {
    /// `--pull`
    pub pull: PullPolicy,
    /// `--offline`
    pub network: Network,
    /// What registry clients read of the environment: `HOME`, `XDG_*`, `DOCKER_CONFIG`, `DOCKER_HOST`,
    /// `REGISTRY_AUTH_FILE`, `CONTAINERS_REGISTRIES_CONF`, `SSL_CERT_FILE`, `SSL_CERT_DIR`, proxies.
    pub environment: Environment,
}

/// Whether the registry is asked which image a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Once a build, unless the store has a tag of that name.
    Default,
    /// Also if the store has a tag of that name.
    Always,
    /// Only about names it was never asked about.
    Missing,
    /// Not at all, and nothing is fetched.
    Never,
    /// Only if its last answer is older than this.
    Age(std::time::Duration),
}

/// Whether anybody may be contacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Yes.
    #[default]
    Online,
    /// Nobody, by this program (`--offline`); commands have the network that `--network` gives them.
    Offline,
}

/// A question about a Dockerfile: `--call`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// What do the build checks say?
    Check,
    /// What does the target take?
    Outline,
    /// What targets are there?
    Targets,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `--call` and `--check`, if they ask for anything but a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub inquiry: Inquiry,
    /// How the answer is shown.
    pub format: AnswerFormat,
    /// Whether warnings leave the exit code alone.
    pub ignores_status: bool,
}

/// What the command does with the outcome of a build, beside the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presentation {
    /// What is asked instead of a build.
    pub call: Option<Call>,
    /// How progress is shown.
    pub mode: crate::progress::display::Mode,
    /// `--quiet`: prints the image id.
    pub is_quiet: bool,
    /// `--debug`
    pub is_debug: bool,
    /// `--explain`
    pub explain: Option<super::explain::ExplainForm>,
    /// `--iidfile`
    pub iidfile: Option<PathBuf>,
    /// `--metadata-file`
    pub metadata_file: Option<PathBuf>,
    /// Flags that do nothing yet, one line each.
    pub warnings: Vec<String>,
}
