//! The engine: decides what must be done for a Dockerfile and does it.
//!
//! A library without globals. Nothing below `cli` reads flags, environment, terminal or home directory.

pub mod cancel;
pub mod cli;
pub mod clock;
pub mod context;
pub mod doctor;
pub mod engine;
pub mod export;
pub mod image;
mod lock;
pub mod machine;
mod once;
pub mod op;
pub mod outcome;
mod parallel;
pub mod progress;
pub mod registry;
pub mod sandbox;
pub mod solve;
pub mod ssh_key;
pub mod text;
