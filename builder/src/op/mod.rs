//! How each op of the step graph is carried out, and what its cache key is made of.

pub mod agent;
pub mod blob;
mod cause;
pub mod copy;
pub mod early_blob;
pub mod error;
pub mod fetch;
pub mod git;
pub(crate) mod http;
pub mod image;
pub mod layers;
pub mod local;
pub mod remote;
pub mod runner;
pub mod steps;
pub(crate) mod stored;
pub(crate) mod unpack;
pub mod watch;

mod ahead;
mod arriving;
mod exec;
mod exec_key;
mod file;
mod file_key;
pub mod key_agent;
#[cfg(test)]
mod key_testing;
mod miss;
mod mount;
mod mount_input;
mod performer;
mod probe;
mod results;
mod stack_key;
pub mod threads;
mod transfer;
mod trees;
