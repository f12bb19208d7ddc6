//! Events of a build, and what users see of them.
//!
//! The engine emits [`event::Event`]s into an [`sink::EventSink`]; it never formats. The renderers fold them into a
//! terminal view, BuildKit's plain lines, BuildKit's SolveStatus as JSON lines, or nothing.
//!
//! ```text
//! engine threads ─► channel (one queue, output bounded) ─► display thread ─► tracker (state)
//!                                                                      └──► plain | tty | json | nothing
//! ```
//!
//! # Concurrency
//!
//! One thread, started by [`display::Display`], owns the terminal, the tracker and the renderer. The engine only ever
//! blocks on command output, when that thread is a queue's length behind.
//!
//! # Failure
//!
//! A terminal that is gone (`EPIPE`, a full disk behind a redirection) ends the writing, never the build.

mod channel;
pub mod display;
pub mod event;
mod frame;
mod json;
mod lines;
mod plain;
pub mod sink;
pub(crate) mod text;
pub mod tracker;
mod tty;
