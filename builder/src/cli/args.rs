//! What can be typed: the program's verbs and their flags. Doc comments are the help.
//!
//! The flags of `build` are those of `docker buildx build`, hidden ones included, with the same spelling and meaning;
//! the values are read in [`super::resolve`].

use std::path::PathBuf;
use std::str::FromStr;

use super::{GraphFormat, ParseFormat};
use clap::builder::styling::Styles;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Build OCI images from Dockerfiles, without a daemon
#[derive(Clone, Debug, Parser)]
#[command(
    name = "builder",
    version,
    styles = Styles::plain(),
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = EXIT_CODES
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    the build failed
  2    the command line is wrong, or asks for what is not supported yet
  3    the environment does not allow it: kernel, permissions, disk, network
  70   a fault of this program
  130  interrupted";

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Verb {
    /// Build an image
    #[command(after_help = EXIT_CODES, visible_alias = "b")]
    Build(Box<BuildArgs>),
    /// Push an image of the store to its registry
    Push(PushArgs),
    /// Show what a step of the last build wrote, or list its steps
    Logs(LogsArgs),
    /// Tell what this machine lets builds do, and what would help
    Doctor(DoctorArgs),
    /// Tell what `build` would run, and why, and what is cached; run nothing
    Explain(Box<BuildArgs>),
    #[command(flatten)]
    Other(OtherVerb),
}

/// What is no build.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum OtherVerb {
    /// List the images of the store
    Images(ImagesArgs),
    /// Give an image of the store another name
    Tag(TagArgs),
    /// Show an image's config as JSON
    Inspect(InspectArgs),
    /// Remove names of images
    Rm(RmArgs),
    /// Show what the store holds, how big it is, and what needs it
    Du(DuArgs),
    /// Remove what no tagged image and no running build needs
    Prune(PruneArgs),
    /// Check everything in the store and drop what is damaged
    Fsck,
    /// Wait until what builds made is on disk, and keep the store below its cap: builds start it by themselves
    #[command(hide = true)]
    Settle,
    /// Install this program under the names `builder` and `build`
    Install(InstallArgs),
    /// Tell which rule of the ignore file decides about paths
    Ignored(IgnoredArgs),
    /// Show what is made of a Dockerfile
    #[command(subcommand)]
    Debug(DebugVerb),
}

#[derive(Clone, Debug, Args)]
pub(super) struct ImagesArgs {
    /// Show image ids only
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct TagArgs {
    /// Name or id of an image
    pub(super) source: String,
    /// The new name
    pub(super) target: String,
}

#[derive(Clone, Debug, Args)]
pub(super) struct PushArgs {
    /// Name of an image
    pub(super) name: String,
    /// How to show progress: auto, plain, tty, rawjson, quiet or none [default: auto]
    #[arg(long, value_name = "MODE")]
    pub(super) progress: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct InspectArgs {
    /// Name or id of an image
    pub(super) name: String,
}

#[derive(Clone, Debug, Args)]
pub(super) struct RmArgs {
    /// Names of images, or ids: an id stands for every name of its image
    #[arg(required = true)]
    pub(super) names: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct LogsArgs {
    /// Number of a step, or a part of its name [default: list them]
    pub(super) step: Option<String>,
    /// Number of an earlier build
    #[arg(long, value_name = "N")]
    pub(super) build: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct DoctorArgs {
    /// How to tell it
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(super) format: ReportFormat,
    /// Run a step in a user namespace and do nothing else
    #[arg(long = "try-userns", hide = true)]
    pub(super) tries_user_namespace: bool,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReportFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Debug, Args)]
pub(super) struct DuArgs {
    /// Show every item, when it was last used and what needs it
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// How to show it: table or json
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(super) format: String,
}

#[derive(Clone, Debug, Args)]
pub(super) struct PruneArgs {
    /// Also remove the digests of files of build contexts
    #[arg(short, long)]
    pub(super) all: bool,
    /// Only what matches: type=layer|blob|chunk|cache-mount|context|log, id=PART or until=DURATION (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) filter: Vec<String>,
    /// Keep what was used within this time, such as 24h or 7d
    #[arg(long, value_name = "DURATION")]
    pub(super) keep_duration: Option<String>,
    /// Remove only as much as brings the store down to this size, such as 20g; least benefit first
    #[arg(long, value_name = "BYTES", alias = "keep-storage")]
    pub(super) max_used_space: Option<String>,
    /// Accepted for Docker's sake: nothing is asked anyway
    #[arg(short, long, hide = true)]
    pub(super) force: bool,
    /// Show everything that was removed, not layers only
    #[arg(short, long)]
    pub(super) verbose: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct InstallArgs {
    /// Where to [default: /usr/local/bin for root, else ~/.local/bin]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct IgnoredArgs {
    /// The context
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) context: PathBuf,
    /// The Dockerfile, whose own ignore file goes first [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Paths in the context
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum DebugVerb {
    /// Print the step graph of a Dockerfile
    Graph {
        /// The Dockerfile
        file: PathBuf,
        /// How to print it
        #[arg(long, value_enum, default_value = "text")]
        format: GraphFormat,
    },
    /// Print the instructions of a Dockerfile
    Parse {
        /// The Dockerfile
        file: PathBuf,
        /// How to print them; json has an object a line
        #[arg(long, value_enum, default_value = "text")]
        format: ParseFormat,
    },
    /// Print the documentation of the build checks
    Rules {
        /// Name of a check [default: list all]
        rule: Option<String>,
    },
}

/// A flag that takes an optional truth value as Go's flags do: `--pull`, `--pull=false`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Switch(pub(super) bool);

impl FromStr for Switch {
    type Err = &'static str;

    // strconv.ParseBool
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self(false)),
            _ => Err("not true or false"),
        }
    }
}

/// Reads a truth value as [`Switch`] does.
pub(super) fn truth(text: &str) -> Result<bool, &'static str> {
    text.parse::<Switch>().map(|switch| switch.0)
}

/// The flags of `build`.
#[derive(Clone, Debug, Args)]
pub(super) struct BuildArgs {
    #[command(flatten, next_help_heading = "Input")]
    pub(super) input: InputArgs,
    #[command(flatten, next_help_heading = "Cache")]
    pub(super) cache: CacheArgs,
    #[command(flatten, next_help_heading = "Output")]
    pub(super) output: OutputArgs,
    #[command(flatten, next_help_heading = "Commands")]
    pub(super) run: RunArgs,
    #[command(flatten, next_help_heading = "Progress")]
    pub(super) progress: ProgressArgs,
    #[command(flatten)]
    pub(super) unused: UnusedArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct InputArgs {
    /// What the Dockerfile copies from: a directory, `-` for a tar or a Dockerfile on standard input, the URL of a git
    /// repository, of a tar or of a Dockerfile
    #[arg(value_name = "CONTEXT", help_heading = None::<&str>)]
    pub(super) context: String,
    /// Dockerfile, `-` for standard input, or a URL [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<String>,
    /// Set a build argument; without a value, to that of the environment (can be repeated)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Add a named context: a directory, docker-image://REF, oci-layout://DIR[:TAG|@DIGEST], the URL of a git repository
    /// or of a file (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) build_context: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Platform to build for, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Vec<String>,
    /// Expose a secret to commands: id=ID[,src=FILE|,env=NAME] (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) secret: Vec<String>,
    /// Expose an ssh agent to commands, or with raw=true any socket: default|ID[=SOCKET][,raw=true] (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) ssh: Vec<String>,
    /// When to ask the registry what a name means: always, missing, never or age:DURATION (such as age:24h)
    /// [default: unless the store has a tag of that name]
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        default_value = "false",
        hide_default_value = true
    )]
    pub(super) pull: String,
    /// Contact no registry and no server: what is not in the store is an error
    #[arg(long)]
    pub(super) offline: Switch,
    /// Source policy file (can be repeated)
    #[arg(long, value_name = "SPEC", hide = true)]
    pub(super) policy: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct CacheArgs {
    /// Run every step anew
    #[arg(long)]
    pub(super) no_cache: Switch,
    /// Run the steps of some stages anew (can be repeated)
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// Import build cache (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_from: Vec<String>,
    /// Export build cache (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_to: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct OutputArgs {
    /// Name the image, as NAME[:TAG] (can be repeated)
    #[arg(short, long, value_name = "NAME")]
    pub(super) tag: Vec<String>,
    /// Write the result: DIR, `-`, or type=image|registry|oci|docker|local|tar[,KEY=VALUE…] (can be repeated)
    #[arg(short, long, value_name = "SPEC")]
    pub(super) output: Vec<String>,
    /// Push the image: short for --output=type=registry
    #[arg(long)]
    pub(super) push: Switch,
    /// Load the image into Docker: short for --output=type=docker
    #[arg(long)]
    pub(super) load: Switch,
    /// Set a label of the image (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Set an annotation of the image (can be repeated)
    #[arg(long, value_name = "[TYPE:]NAME=VALUE")]
    pub(super) annotation: Vec<String>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write what was made to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Attach an attestation (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) attest: Vec<String>,
    /// Attach a provenance attestation
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) provenance: Option<String>,
    /// Attach a software bill of materials
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) sbom: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct RunArgs {
    /// Network of commands: default, none or host
    #[arg(long, value_name = "MODE")]
    pub(super) network: Option<String>,
    /// Add a name to /etc/hosts, as NAME:ADDRESS; the address may be `host-gateway` (can be repeated)
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(super) add_host: Vec<String>,
    /// Allow what is refused by default: network.host, security.insecure (can be repeated)
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub(super) allow: Vec<String>,
    /// Size of /dev/shm, such as 128m
    #[arg(long, value_name = "BYTES")]
    pub(super) shm_size: Option<String>,
    /// Limit a resource, as NAME=SOFT[:HARD] (can be repeated)
    #[arg(long, value_name = "LIMIT")]
    pub(super) ulimit: Vec<String>,
    /// Cgroup to make the commands' cgroups in
    #[arg(long, value_name = "CGROUP")]
    pub(super) cgroup_parent: Option<String>,
    /// Limit what each command may use, as NAME=VALUE[,NAME=VALUE…]: memory, memory-swap, cpu-shares, cpu-period,
    /// cpu-quota, cpuset-cpus, cpuset-mems (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) resource: Vec<String>,
    /// How commands are confined: auto, root or userns [default: auto]
    #[arg(long, value_name = "HOW")]
    pub(super) isolation: Option<String>,
    /// Fail where something would be passed over in silence, such as a build argument that nothing uses
    /// [env: BUILD_STRICT]
    // Not a `Switch`, which is never absent: absent, the environment decides.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", value_parser = truth)]
    pub(super) strict: Option<bool>,
    /// Commands that run at once [default: 64]
    #[arg(short, long, value_name = "N")]
    pub(super) jobs: Option<std::num::NonZeroUsize>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ProgressArgs {
    /// How to show progress: auto, plain, tty, rawjson, quiet or none [default: auto]
    #[arg(long, value_name = "MODE")]
    pub(super) progress: Option<String>,
    /// Tell why each step ran that was not cached: text or json, on standard error
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub(super) explain: Option<String>,
    /// Show no progress and print the image id
    #[arg(short, long)]
    pub(super) quiet: Switch,
    /// Check the Dockerfile: short for --call=check
    #[arg(long)]
    pub(super) check: Switch,
    /// What to do: build, check, outline or targets [default: build]
    #[arg(long, value_name = "METHOD", alias = "print")]
    pub(super) call: Option<String>,
    /// Log what the program does
    #[arg(short = 'D', long)]
    pub(super) debug: Switch,
}

/// Flags that are accepted so that command lines written for Docker work.
#[derive(Clone, Debug, Args)]
pub(super) struct UnusedArgs {
    /// Builder instance: there is but one
    #[arg(long, value_name = "NAME", hide = true)]
    pub(super) builder: Option<String>,
    /// Compress the context: it is read in place
    #[arg(long, hide = true)]
    pub(super) compress: Switch,
    /// Remove intermediate containers: there are none
    #[arg(long, hide = true)]
    pub(super) rm: Switch,
    /// Remove intermediate containers after a failure: there are none
    #[arg(long, hide = true)]
    pub(super) force_rm: Switch,
    /// Squash the image
    #[arg(long, hide = true)]
    pub(super) squash: Switch,
    /// Security options
    #[arg(long, hide = true)]
    pub(super) security_opt: Vec<String>,
    /// Memory limit: --resource=memory
    #[arg(short, long, hide = true)]
    pub(super) memory: Option<String>,
    /// Memory and swap limit
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// Processor shares
    #[arg(short, long, hide = true)]
    pub(super) cpu_shares: Option<String>,
    /// Processor period
    #[arg(long, hide = true)]
    pub(super) cpu_period: Option<String>,
    /// Processor quota
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<String>,
    /// Processors
    #[arg(long, hide = true)]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, hide = true)]
    pub(super) cpuset_mems: Option<String>,
    /// Write the image id to a file, without its algorithm
    #[arg(long, hide = true)]
    pub(super) iidfile_raw: Option<PathBuf>,
}

/// The parser of the command line.
pub(super) fn command() -> clap::Command {
    let with_switches = |build: clap::Command| {
        build.args_override_self(true).mut_args(|arg| {
            if arg.get_value_parser().type_id() == std::any::TypeId::of::<Switch>() {
                return arg
                    .required(false)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .default_value("false")
                    .hide_default_value(true)
                    .hide_possible_values(true)
                    .value_name("BOOL");
            }
            arg
        })
    };
    Cli::command()
        .mut_subcommand("build", with_switches)
        .mut_subcommand("explain", with_switches)
}

/// Reads a command line.
///
/// # Errors
///
/// clap's: also for `--help` and `--version`.
pub(super) fn parse(
    words: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Verb, clap::Error> {
    let matches = command().try_get_matches_from(words)?;
    Ok(Cli::from_arg_matches(&matches)?.verb)
}
