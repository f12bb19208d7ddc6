//! The command line: flags and environment in, exit code out. The only caller of the engine here.
//!
//! ```text
//! words ─► args (what was typed) ─► resolve (paths, environment) ─► request ─► Engine ─► report
//! ```
//!
//! Not here: building. Nothing below this module reads flags, the environment, the terminal or the home directory.

pub mod answer;
mod args;
mod call;
mod credentials;
pub mod environment;
pub mod explain;
mod ignored;
mod input;
mod install;
mod limits;
mod maintenance;
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
use std::sync::Arc;

use frontend::source::SourceFile;

use self::answer::Answer;
use self::args::{BuildArgs, DebugVerb, DoctorArgs, LogsArgs, OtherVerb, ReportFormat, Verb};
use self::environment::Environment;
use self::explain::ExplainForm;
use self::push::PushRequest;
use self::request::{
    BuildRequest, Call, Inquiry, Isolation, Network, Presentation, PullPolicy, Registries,
};
pub use self::resolve::Host;
use crate::clock::Clock;
use crate::doctor::report::Report;
use crate::outcome::{Failure, FailureKind, Outcome};
use crate::progress::display::{Display, Mode, Size, Terminal};
use crate::progress::sink::{Discard, EventSink};

/// The name under which the program is `builder build`.
const SHORT_NAME: &str = "build";

/// What does the work. Implementations print nothing.
pub trait Engine {
    /// Makes this process one that can build in a state directory, before anything of a build is read: it may be replaced
    /// by the same program in a user namespace.
    ///
    /// # Errors
    ///
    /// What the machine lacks.
    fn prepare(&self, _isolation: Isolation, _state_root: &Path) -> Result<(), Failure> {
        Ok(())
    }

    /// Builds. Events may be emitted until it returns.
    ///
    /// # Errors
    ///
    /// The one cause, after everything else was given up.
    fn build(&self, request: &BuildRequest, events: Arc<dyn EventSink>)
    -> Result<Outcome, Failure>;

    /// Answers a question about a Dockerfile. Events may be emitted until it returns.
    ///
    /// # Errors
    ///
    /// If the answer cannot be found out.
    fn inquire(
        &self,
        request: &BuildRequest,
        inquiry: Inquiry,
        events: Arc<dyn EventSink>,
    ) -> Result<Answer, Failure>;

    /// Tells what a build would do, and does nothing. Events may be emitted until it returns.
    ///
    /// # Errors
    ///
    /// What would keep a build from beginning.
    fn explain(
        &self,
        request: &BuildRequest,
        events: Arc<dyn EventSink>,
    ) -> Result<Vec<PlannedStep>, Failure>;

    /// Does something with the images of the store: what goes to standard output.
    ///
    /// # Errors
    ///
    /// If it could not be done.
    fn store(&self, request: &StoreRequest) -> Result<String, Failure>;

    /// Pushes an image of the store: its name with the manifest's digest. Events may be emitted until it returns.
    ///
    /// # Errors
    ///
    /// There is no such image, or the registry does not take it.
    fn push(&self, request: &PushRequest, events: Arc<dyn EventSink>) -> Result<String, Failure>;

    /// Writes what steps of earlier builds wrote.
    ///
    /// # Errors
    ///
    /// If there is no such step, or it cannot be read or written.
    fn logs(&self, request: &LogRequest, output: &mut dyn Write) -> Result<(), Failure>;

    /// Examines what builds need of this machine, with that state directory.
    fn doctor(&self, state_root: &Path) -> Report;

    /// Shows what is made of a Dockerfile: what goes to standard output.
    ///
    /// # Errors
    ///
    /// What is wrong with the Dockerfile.
    fn debug(&self, view: DebugView, source: &SourceFile) -> Result<String, Failure>;
}

/// What would become of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// As shown to the user.
    pub name: String,
    /// What would become of it.
    pub state: PlanState,
    /// Why, where there is something to tell.
    pub reason: Option<String>,
}

/// What would become of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanState {
    /// Its result is in the store.
    Cached,
    /// It would run.
    Runs,
    /// Whether it would run shows only when others have run, or something was fetched.
    Depends,
    /// Nobody needs it: what is built on it is in the store.
    Unneeded,
    /// An image that is in the store.
    Present,
    /// An image of which layers would be pulled.
    Pulled {
        /// How many.
        layers: usize,
        /// How big their blobs are.
        bytes: u64,
    },
}

/// What to do with the images of the store.
#[derive(Clone, Debug)]
pub struct StoreRequest {
    /// What.
    pub command: StoreCommand,
    /// The state directory.
    pub state_root: std::path::PathBuf,
    /// How registries are reached.
    pub registries: Registries,
}

/// What to do with the images of the store. Names are as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCommand {
    /// List them.
    Images {
        /// Ids only.
        is_quiet: bool,
    },
    /// Give one another name.
    Tag {
        /// Name or id.
        source: String,
        /// The new name.
        target: String,
    },
    /// Show one's config.
    Inspect {
        /// Name or id.
        name: String,
    },
    /// Look after the store.
    Upkeep(UpkeepCommand),
    /// Remove some.
    Remove {
        /// Names or ids.
        names: Vec<String>,
    },
}

/// Whose output to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// Number or a part of the name; the list of all if absent.
    pub step: Option<String>,
    /// The last that ran a command if absent.
    pub build: Option<u64>,
    /// The state directory.
    pub state_root: std::path::PathBuf,
}

/// How the store is looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpkeepCommand {
    /// Wait for the disk and collect if need be.
    Settle {
        /// The cap in bytes; the usual one if nothing is said.
        cap_bytes: Option<u64>,
    },
    /// Tell what is there.
    DiskUsage(DiskForm),
    /// Remove what nothing needs.
    Prune(PruneOptions),
    /// Verify everything.
    Check,
}

/// How disk usage is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskForm {
    /// One line a kind.
    Summary,
    /// Every item.
    Verbose,
    /// Every item, for programs.
    Json,
}

/// What is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Only down to this many bytes.
    pub most_bytes: Option<u64>,
    /// Nothing that was used within this time.
    pub keep: Option<std::time::Duration>,
    /// Only these kinds; all if empty.
    pub kinds: std::collections::BTreeSet<cache::disk::Kind>,
    /// Only what has this in its name.
    pub name: Option<String>,
    /// `--all`
    pub takes_all: bool,
    /// `--verbose`
    pub is_verbose: bool,
}

/// A view of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugView {
    /// The step graph.
    Graph(GraphFormat),
    /// The instructions.
    Parse(ParseFormat),
}

/// How a step graph is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GraphFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For graphviz.
    Dot,
}

/// How instructions are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ParseFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

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
        Verb::Build(args) => build(&args, &host, streams, engine),
        Verb::Push(args) => push::run(args, &host, streams, engine),
        Verb::Logs(args) => exit_code(logs(args, &host, streams, engine), streams),
        Verb::Doctor(args) => exit_code(doctor(&args, &host, streams, engine), streams),
        Verb::Explain(args) => plan(&args, &host, streams, engine),
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

fn build(args: &BuildArgs, host: &Host, streams: &mut Streams, engine: &dyn Engine) -> u8 {
    // Preparing may start this program over, so standard input is read only then.
    let resolved = prepare(args, host, engine).and_then(|()| {
        let stdin = std::mem::replace(&mut streams.stdin, Box::new(io::empty()));
        resolve::resolve(args, host, stdin)
    });
    match resolved {
        Ok((request, presentation)) => run_build(&request, &presentation, host, streams, engine),
        Err(failure) => exit_code(Err(failure), streams),
    }
}

fn prepare(args: &BuildArgs, host: &Host, engine: &dyn Engine) -> Result<(), Failure> {
    resolve::refuse_unsupported(args)?;
    // A question about a Dockerfile needs no privilege.
    if call::resolve(&args.progress)?.is_some() {
        return Ok(());
    }
    let isolation = resolve::isolation(&args.run)?;
    let state_root = resolve::state_root(&host.environment, host.is_root)?;
    engine.prepare(isolation, &state_root)
}

/// Says that this program cannot run here: the exit code.
pub fn refuse(error: &dyn std::error::Error, streams: &Streams) -> u8 {
    let failure = Failure::new(FailureKind::Environment, crate::text::chain(error));
    exit_code(Err(failure), streams)
}

/// Tells what `build` with these arguments would do.
fn plan(args: &BuildArgs, host: &Host, streams: &mut Streams, engine: &dyn Engine) -> u8 {
    let resolved = prepare(args, host, engine).and_then(|()| {
        let stdin = std::mem::replace(&mut streams.stdin, Box::new(io::empty()));
        resolve::resolve(args, host, stdin)
    });
    let (request, presentation) = match resolved {
        Ok(resolved) => resolved,
        Err(failure) => return exit_code(Err(failure), streams),
    };
    match engine.explain(&request, Arc::new(Discard)) {
        Ok(plan) => {
            let form = presentation.explain.unwrap_or(ExplainForm::Text);
            let printed = streams.print(&explain::of_plan(&plan, form));
            exit_code(printed, streams)
        }
        Err(failure) => {
            let source = failure.source().or_else(|| request.input.dockerfile.read());
            streams.say(&report::failure_text(&failure, source));
            failure.kind().exit_code()
        }
    }
}

/// Builds, shows progress, and reports.
fn run_build(
    request: &BuildRequest,
    presentation: &Presentation,
    host: &Host,
    streams: &mut Streams,
    engine: &dyn Engine,
) -> u8 {
    if presentation.is_debug {
        log_to_stderr();
    }
    for warning in &presentation.warnings {
        streams.say(&format!("WARNING: {warning}\n"));
    }
    let display = match start_display(presentation.mode, host, streams) {
        Ok(display) => display,
        Err(failure) => return exit_code(Err(failure), streams),
    };
    if let Some(call) = presentation.call {
        let answer = engine.inquire(request, call.inquiry, display.events());
        drop(display.finish());
        return tell(answer, call, request, streams);
    }
    let outcome = remove_stale(presentation).and_then(|()| engine.build(request, display.events()));
    let tracker = display.finish();
    // The JSON stream has the warnings and the output already; who wants quiet wants no warnings.
    if matches!(presentation.mode, Mode::Tty | Mode::Plain) {
        streams.say(&report::warnings_text(tracker.warnings()));
    }
    if let Some(form) = presentation.explain {
        streams.say(&explain::of_build(&tracker, form));
    }
    let outcome = outcome.and_then(|outcome| deliver(&outcome, presentation, streams));
    let Err(failure) = outcome else { return 0 };
    if presentation.mode != Mode::RawJson {
        streams.say(&report::tail_text(&failure, &tracker));
    }
    streams.say(&report::failure_text(
        &failure,
        failure.source().or_else(|| request.input.dockerfile.read()),
    ));
    failure.kind().exit_code()
}

/// Shows progress on standard error from now on.
fn start_display(mode: Mode, host: &Host, streams: &Streams) -> Result<Display, Failure> {
    let terminal = Terminal {
        writer: (streams.stderr)(),
        size: Box::new(terminal_size),
        is_colored: host.environment.non_empty("NO_COLOR").is_none(),
    };
    Display::start(mode, Clock::system(), terminal).map_err(|error| {
        let message = format!("cannot start a thread: {error}");
        Failure::new(FailureKind::Environment, message)
    })
}

/// Shows an answer: the exit code.
fn tell(
    answer: Result<Answer, Failure>,
    call: Call,
    request: &BuildRequest,
    streams: &mut Streams,
) -> u8 {
    let source = request.input.dockerfile.read();
    let told = answer.and_then(|answer| {
        if let Some(source) = source {
            streams.print(&answer::render(&answer, call.format, source))?;
        }
        Ok(answer)
    });
    let failure = match told {
        Err(failure) => failure,
        Ok(Answer::Check(check)) if !check.problems.is_empty() => {
            Failure::of_dockerfile(check.problems)
        }
        Ok(Answer::Check(check)) => {
            let is_bad = !check.warnings.is_empty() && !call.ignores_status;
            return u8::from(is_bad);
        }
        Ok(Answer::Outline(_) | Answer::Targets(_)) => return 0,
    };
    streams.say(&report::failure_text(&failure, source));
    failure.kind().exit_code()
}

/// `--debug`. A second call in one process changes nothing.
fn log_to_stderr() {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(tracing::Level::DEBUG);
    if let Err(error) = log.try_init() {
        tracing::debug!(%error, "logging was set up before");
    }
}

fn terminal_size() -> Option<Size> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stderr()).ok()?;
    let size = Size {
        columns: size.ws_col,
        rows: size.ws_row,
    };
    Some(size).filter(|size| size.columns > 0 && size.rows > 0)
}

/// An id file of an earlier build must not pass for this one's, should this one fail.
fn remove_stale(presentation: &Presentation) -> Result<(), Failure> {
    let Some(path) = &presentation.iidfile else {
        return Ok(());
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(unwritable("remove", path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Hands the outcome to those who asked for it.
fn deliver(
    outcome: &Outcome,
    presentation: &Presentation,
    streams: &mut Streams,
) -> Result<(), Failure> {
    if let Some((path, id)) = presentation.iidfile.as_ref().zip(outcome.image_id.as_ref()) {
        write_file(path, id.as_bytes())?;
    }
    if let Some(path) = &presentation.metadata_file {
        let mut text = serde_json::to_vec_pretty(&outcome.metadata).map_err(|error| {
            let message = format!("cannot write metadata: {error}");
            Failure::new(FailureKind::Internal, message)
        })?;
        text.push(b'\n');
        write_file(path, &text)?;
    }
    match outcome.image_id.as_ref().filter(|_| presentation.is_quiet) {
        Some(id) => streams.print(&format!("{id}\n")),
        None => Ok(()),
    }
}

/// Writes a file in one go, so that nobody reads half of it. What is no regular file, such as a pipe, is written to.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let is_special = std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        return std::fs::write(path, bytes).map_err(|error| unwritable("write", path, &error));
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let written = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .and_then(|mut file| file.write_all(bytes).map(|()| file))
        .and_then(|file| file.persist(path).map_err(|error| error.error));
    match written {
        Ok(_) => Ok(()),
        Err(error) => Err(unwritable("write", path, &error)),
    }
}

fn unwritable(what: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot {what} `{}`: {error}", path.display());
    Failure::new(FailureKind::Environment, message)
}

#[cfg(test)]
mod tests;
