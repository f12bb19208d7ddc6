//! The program.

use std::process::ExitCode;

use builder::cli::{self, Streams};
use builder::machine::Machine;
use builder::sandbox;

fn main() -> ExitCode {
    // A step's process must come from a process without threads, so this comes before everything else.
    let code = match sandbox::run_if_init() {
        Ok(Some(code)) => return code,
        Ok(None) => cli::run(
            std::env::args_os().collect(),
            Streams::of_process(),
            &Machine,
        ),
        Err(error) => cli::refuse(&error, &Streams::of_process()),
    };
    ExitCode::from(code)
}
