//! The logs of steps: which there are, and what one says.

use std::io::{self, Write};

use cache::log::{self, Ending, Logged};
use cache::root::{RootOptions, StatePaths, StateRoot};

use crate::cli::LogRequest;
use crate::outcome::{Failure, FailureKind};

/// Writes the list of a build's logs, or the one that is asked for, byte for byte.
pub(crate) fn show(request: &LogRequest, output: &mut dyn Write) -> Result<(), Failure> {
    let root = StateRoot::open(&request.state_root, &RootOptions::default())
        .map_err(|error| environment(&error))?;
    let build = build_of(root.paths(), request.build)?;
    let steps = log::steps(root.paths(), build).map_err(|error| environment(&error))?;
    let written = match &request.step {
        None => output.write_all(list(build, &steps).as_bytes()),
        Some(wanted) => {
            let step = find(&steps, wanted, build)?;
            let mut file = step.open().map_err(|error| environment(&error))?;
            io::copy(&mut file, output).map(|_length| ())
        }
    };
    match written.and_then(|()| output.flush()) {
        // Who reads only the beginning has what they want.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(
            FailureKind::Environment,
            format!("cannot write the log: {error}"),
        )),
        Ok(()) => Ok(()),
    }
}

fn environment(error: &dyn std::error::Error) -> Failure {
    Failure::new(FailureKind::Environment, crate::text::chain(error))
}

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

/// The build that is asked for, else the last that ran a command.
fn build_of(paths: &StatePaths, wanted: Option<u64>) -> Result<u64, Failure> {
    let builds = log::builds(paths).map_err(|error| environment(&error))?;
    let Some(last) = builds.last() else {
        return Err(usage("no build has run a command yet".to_owned()));
    };
    match wanted {
        None => Ok(*last),
        Some(wanted) if builds.contains(&wanted) => Ok(wanted),
        Some(wanted) => Err(usage(format!(
            "build {wanted} has no logs: those of {} to {last} are kept",
            builds.first().unwrap_or(last)
        ))),
    }
}

/// The step with that number, or the only one with that in its name.
fn find<'a>(steps: &'a [Logged], wanted: &str, build: u64) -> Result<&'a Logged, Failure> {
    let number = wanted.parse().ok();
    if let Some(step) = steps.iter().find(|step| Some(step.number) == number) {
        return Ok(step);
    }
    let found: Vec<&Logged> = steps
        .iter()
        .filter(|step| step.heading.name.contains(wanted) || step.heading.vertex == wanted)
        .collect();
    match found.as_slice() {
        [step] => Ok(step),
        [] => Err(usage(format!(
            "no step `{wanted}` ran in build {build}; what came from the cache has no output"
        ))
        .hint("`builder logs` lists the steps that ran")),
        several => Err(usage(format!(
            "`{wanted}` stands in the names of {} steps; use a number:\n{}",
            several.len(),
            list(build, steps).trim_end()
        ))),
    }
}

fn list(build: u64, steps: &[Logged]) -> String {
    let mut text = format!("build {build}\n");
    for step in steps {
        let ending = match &step.heading.ending {
            Ending::Open => "not ended",
            Ending::Done => "done",
            Ending::Failed(how) => how,
        };
        let name =
            crate::progress::text::printable(step.heading.name.replace('\n', " ").as_bytes());
        text.push_str(&format!(
            "{:>4}  {:>12}  {ending:<16}  {name}\n",
            step.number, step.size
        ));
    }
    text
}
