//! `builder push`: progress as of a build, then the pushed reference on standard output.

use std::path::PathBuf;

use super::args::PushArgs;
use super::build::start_display;
use super::request::{Isolation, Registries};
use super::{Engine, Host, Streams, exit_code, registries, resolve};
use crate::outcome::Failure;

/// An image of the store to push.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// Its name, as typed.
    pub name: String,
    /// The state directory.
    pub state_root: PathBuf,
    /// How registries are reached.
    pub registries: Registries,
}

/// Pushes and reports: the exit code.
pub(super) fn run(args: PushArgs, host: &Host, streams: &mut Streams, engine: &dyn Engine) -> u8 {
    let outcome = push(args, host, streams, engine);
    let outcome = outcome.and_then(|pushed| streams.print(&format!("{pushed}\n")));
    exit_code(outcome, streams)
}

fn push(
    args: PushArgs,
    host: &Host,
    streams: &Streams,
    engine: &dyn Engine,
) -> Result<String, Failure> {
    let request = PushRequest {
        name: args.name,
        state_root: resolve::state_root(&host.environment, host.is_root)?,
        registries: registries(host),
    };
    engine.prepare(Isolation::Auto, &request.state_root)?;
    let mode = resolve::mode(args.progress.as_deref(), args.quiet, host)?;
    let display = start_display(mode, host, streams)?;
    let pushed = engine.push(&request, display.events());
    display.finish();
    pushed
}
