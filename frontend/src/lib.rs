//! Dockerfile text to step graph: pure, without I/O, clock or environment.
//!
//! The pipeline, one module a stage:
//!
//! ```text
//! source::SourceFile ─► parse::parse ─► ast::Dockerfile ─► lower::lower ─► graph::Graph + config::DraftImage
//!                                            │ └─ lint ──────► lint::Report (warnings)
//!                                            │                  ▲
//!                                            └─ expand (words)  └─ lower::ImageResolver (implemented by the builder)
//! ```
//!
//! Not here: reading files, talking to registries, running anything. What a step *does* is decided here; how it is
//! done, and whether it must be done at all, is the builder's business.

pub mod ast;
pub mod config;
mod expand;
pub mod gofmt;
pub mod graph;
pub mod ignore;
pub mod lint;
pub mod listing;
pub mod lower;
pub mod outline;
pub mod parse;
pub mod platform;
pub mod reference;
pub mod secret_name;
pub mod shown_url;
pub mod source;
