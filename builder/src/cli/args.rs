//! What can be typed: the program's verbs and their flags. Doc comments are the help.
//!
//! The flags of `build` are in [`super::build_args`]; the values are read in [`super::resolve`].

use std::path::PathBuf;
use std::str::FromStr;

use super::build_args::BuildArgs;
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
