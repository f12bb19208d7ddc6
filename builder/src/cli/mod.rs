//! The command line: flags and environment in, exit code out. The only caller of the engine here.
//!
//! ```text
//! words ─► args (what was typed) ─► resolve (paths, environment) ─► request ─► Engine ─► report
//! ```
//!
//! Not here: building. Nothing below this module reads flags, the environment, the terminal or the home directory.

pub mod answer;
mod args;
mod build;
mod build_args;
mod call;
mod credentials;
mod deliver;
mod engine;
pub mod environment;
pub mod explain;
mod ignored;
mod input;
mod install;
mod limits;
pub(crate) mod maintenance;
pub mod push;
pub mod report;
pub mod request;
mod resolve;
pub mod stream;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::Path;

use self::args::{DebugVerb, DoctorArgs, LogsArgs, OtherVerb, ReportFormat, Verb};
pub use self::engine::{
    DebugView, DiskForm, Engine, GraphFormat, LogRequest, ParseFormat, PlanState, PlannedStep,
    PruneOptions, StoreCommand, StoreRequest, UpkeepCommand,
};
use self::environment::Environment;
use self::request::{Isolation, Network, PullPolicy, Registries};
pub use self::resolve::Host;
use crate::outcome::{Failure, FailureKind};

/// The name under which the program is `builder build`.
const SHORT_NAME: &str = "build";

/// The process's standard streams.
pub struct Streams {
    /// Standard input.
    pub stdin: Box<dyn Read + Send>,
    /// Standard output.
    pub stdout: Box<dyn Write>,
    /// Standard error, given anew for each that writes to it.
    pub stderr: Box<dyn Fn() -> Box<dyn Write + Send>>,
}

impl Streams {
    /// This process's.
    pub fn of_process() -> Self {
        Self {
            stdin: Box::new(io::stdin()),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(|| Box::new(io::stderr())),
        }
    }

    // Who closed standard error does not want to be told.
    fn say(&self, text: &str) {
        if let Err(error) = (self.stderr)().write_all(text.as_bytes()) {
            tracing::debug!(%error, "cannot write to standard error");
        }
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.stdout.write_all(text.as_bytes());
        written.and_then(|()| self.stdout.flush()).map_err(|error| {
            let message = format!("cannot write to standard output: {error}");
            Failure::new(FailureKind::Environment, message)
        })
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

impl Host {
    /// This process's surroundings.
    ///
    /// # Errors
    ///
    /// If the working directory is gone.
    pub fn of_process() -> Result<Self, Failure> {
        let cwd = std::env::current_dir().map_err(|error| {
            let message = format!("cannot find the working directory: {error}");
            Failure::new(FailureKind::Environment, message)
        })?;
        Ok(Self {
            environment: Environment::of_process(),
            cwd,
            is_root: rustix::process::geteuid().is_root(),
            has_terminal: io::stderr().is_terminal(),
        })
    }
}

/// Runs the program with its command line, the name first: the exit code.
pub fn run(words: Vec<OsString>, mut streams: Streams, engine: &dyn Engine) -> u8 {
    let words = with_verb(words);
    let outcome = match words.get(1..) {
        // Asked often by scripts, and answered before anything is made.
        Some([word]) if word == "--version" || word == "-V" => {
            streams.print(concat!("builder ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        _ => match args::parse(words) {
            Ok(verb) => return dispatch(verb, &mut streams, engine),
            Err(error) if error.use_stderr() => {
                streams.say(&error.render().to_string());
                return FailureKind::Usage.exit_code();
            }
            Err(help) => streams.print(&help.render().to_string()),
        },
    };
    exit_code(outcome, &streams)
}

/// The one place that looks at the program's own name: as `build` it is `builder build`.
fn with_verb(mut words: Vec<OsString>) -> Vec<OsString> {
    let name = words.first().and_then(|word| Path::new(word).file_name());
    let is_version = matches!(words.get(1..), Some([word]) if word == "--version" || word == "-V");
    if name.is_some_and(|name| name == SHORT_NAME) && !is_version {
        // Messages then name a command that exists under both names.
        words.splice(..1, ["builder".into(), SHORT_NAME.into()]);
    }
    words
}

fn dispatch(verb: Verb, streams: &mut Streams, engine: &dyn Engine) -> u8 {
    let host = match Host::of_process() {
        Ok(host) => host,
        Err(failure) => return exit_code(Err(failure), streams),
    };
    match verb {
        Verb::Build(args) => build::run(&args, &host, streams, engine),
        Verb::Push(args) => push::run(args, &host, streams, engine),
        Verb::Logs(args) => exit_code(logs(args, &host, streams, engine), streams),
        Verb::Doctor(args) => exit_code(doctor(&args, &host, streams, engine), streams),
        Verb::Explain(args) => build::explain(&args, &host, streams, engine),
        Verb::Other(verb) => {
            let outcome = answer(verb, &host, engine).and_then(|text| streams.print(&text));
            exit_code(outcome, streams)
        }
    }
}

fn logs(
    args: LogsArgs,
    host: &Host,
    streams: &mut Streams,
    engine: &dyn Engine,
) -> Result<(), Failure> {
    let request = LogRequest {
        step: args.step,
        build: args.build,
        state_root: resolve::state_root(&host.environment, host.is_root)?,
    };
    engine.logs(&request, &mut *streams.stdout)
}

/// Prints the report, and fails if nothing can be built here.
fn doctor(
    args: &DoctorArgs,
    host: &Host,
    streams: &mut Streams,
    engine: &dyn Engine,
) -> Result<(), Failure> {
    let state_root = resolve::state_root(&host.environment, host.is_root)?;
    if args.tries_user_namespace {
        return crate::doctor::try_user_namespace(&state_root);
    }
    let report = engine.doctor(&state_root);
    streams.print(&match args.format {
        ReportFormat::Text => report.text(),
        ReportFormat::Json => report.json(),
    })?;
    report.verdict()
}

/// Does what is not a build: what goes to standard output.
fn answer(verb: OtherVerb, host: &Host, engine: &dyn Engine) -> Result<String, Failure> {
    let command = match verb {
        OtherVerb::Images(args) => StoreCommand::Images {
            is_quiet: args.quiet,
        },
        OtherVerb::Tag(args) => StoreCommand::Tag {
            source: args.source,
            target: args.target,
        },
        OtherVerb::Inspect(args) => StoreCommand::Inspect { name: args.name },
        OtherVerb::Du(args) => StoreCommand::Upkeep(maintenance::disk_usage(&args)?),
        OtherVerb::Prune(args) => StoreCommand::Upkeep(maintenance::prune(&args)?),
        OtherVerb::Fsck => StoreCommand::Upkeep(UpkeepCommand::Check),
        OtherVerb::Settle => StoreCommand::Upkeep(maintenance::settle(&host.environment)?),
        OtherVerb::Rm(args) => StoreCommand::Remove { names: args.names },
        OtherVerb::Install(args) => {
            let dir = resolve::install_dir(host, args.dir.as_deref())?;
            let program = std::env::current_exe().map_err(|error| {
                let message = format!("cannot find this program's file: {error}");
                Failure::new(FailureKind::Environment, message)
            })?;
            let [target, link] = install::install(&program, &dir)?;
            return Ok(format!("{}\n{}\n", target.display(), link.display()));
        }
        OtherVerb::Ignored(args) => return ignored::explain(&args, &host.cwd),
        OtherVerb::Debug(DebugVerb::Graph { file, format }) => {
            return debug(DebugView::Graph(format), &file, host, engine);
        }
        OtherVerb::Debug(DebugVerb::Parse { file, format }) => {
            return debug(DebugView::Parse(format), &file, host, engine);
        }
        OtherVerb::Debug(DebugVerb::Rules { rule }) => return answer::rules(rule.as_deref()),
    };
    let state_root = resolve::state_root(&host.environment, host.is_root)?;
    if matches!(command, StoreCommand::Upkeep(_)) {
        // Trees are measured, verified and removed, which only their owners can.
        engine.prepare(Isolation::Auto, &state_root)?;
    }
    engine.store(&StoreRequest {
        command,
        state_root,
        registries: registries(host),
    })
}

fn registries(host: &Host) -> Registries {
    Registries {
        pull: PullPolicy::Default,
        network: Network::Online,
        environment: host.environment.clone(),
    }
}

fn debug(
    view: DebugView,
    file: &Path,
    host: &Host,
    engine: &dyn Engine,
) -> Result<String, Failure> {
    let source = input::read_dockerfile(&host.cwd.join(file))?;
    engine.debug(view, &source)
}

fn exit_code(outcome: Result<(), Failure>, streams: &Streams) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            streams.say(&report::failure_text(&failure, None));
            failure.kind().exit_code()
        }
    }
}

/// Says that this program cannot run here: the exit code.
pub fn refuse(error: &dyn std::error::Error, streams: &Streams) -> u8 {
    let failure = Failure::new(FailureKind::Environment, crate::text::chain(error));
    exit_code(Err(failure), streams)
}

#[cfg(test)]
mod tests;
