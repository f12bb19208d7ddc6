//! `builder build` and `builder explain`: from the arguments to the exit code, with progress and a report on the way.

use std::io;
use std::sync::Arc;

use super::answer::{self, Answer};
use super::build_args::BuildArgs;
use super::deliver::{deliver, remove_stale};
use super::engine::Engine;
use super::explain::{self, ExplainForm};
use super::request::{BuildRequest, Call, Presentation};
use super::resolve::Host;
use super::{Streams, call, exit_code, report, resolve};
use crate::clock::Clock;
use crate::outcome::{Failure, FailureKind};
use crate::progress::display::{Display, Mode, Size, Terminal};
use crate::progress::sink::Discard;

pub(super) fn run(args: &BuildArgs, host: &Host, streams: &mut Streams, engine: &dyn Engine) -> u8 {
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

/// Tells what `build` with these arguments would do.
pub(super) fn explain(
    args: &BuildArgs,
    host: &Host,
    streams: &mut Streams,
    engine: &dyn Engine,
) -> u8 {
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
pub(super) fn start_display(
    mode: Mode,
    host: &Host,
    streams: &Streams,
) -> Result<Display, Failure> {
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
