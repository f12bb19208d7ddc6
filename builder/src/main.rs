//! The program.

use std::process::ExitCode;

use builder::cli::{self, Streams};
use builder::machine::Machine;
use builder::sandbox;

fn main() -> anyhow::Result<ExitCode> {
    // A step's process must come from a process without threads, so this comes before everything else.
    if let Some(code) = sandbox::run_if_init()? {
        return Ok(code);
    }
    let words = std::env::args_os().collect();
    Ok(ExitCode::from(cli::run(
        words,
        Streams::of_process(),
        &Machine,
    )))
}
