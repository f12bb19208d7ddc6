//! Runs one command in isolation.
//!
//! Not here: layers, images, caching. Whoever wants a command run describes it as plain data ([`SandboxSpec`]) and gets its
//! output and its [`Exit`].
//!
//! # Processes
//!
//! ```text
//! builder ──control socket──► sandbox-init ──clone3──► the step: pid 1 of its own pid namespace
//!    ▲                             │                        │
//!    └──── one channel per step ───┘◄──── report pipe ──────┘   (the report pipe closes at exec)
//! ```
//!
//! `sandbox-init` is this program again ([`run_if_init`]), one per build and with a single thread, so that what runs between
//! clone and exec may be ordinary code. Every step has its own channel; steps don't know of each other.
//!
//! # Who kills whom
//!
//! A step ends when its pid 1 ends. The builder kills it through a pidfd; `sandbox-init` kills it when its channel
//! closes or when the control socket does (the builder died); the kernel kills it when `sandbox-init` dies.
//!
//! # Files
//!
//! [`spec`] what is asked · `plan` what will be done (pure) · `host` the builder's side · `init` the other side · `child` the
//! step up to exec, in order · `mounts`, `sources`, `dev`, `rooted` file systems · `stubs` what is taken back afterwards ·
//! `cgroup`, `resources`, `devices` limits · `seccomp` system calls · `user`, `program` names looked up in the root · [`rung`], `idmap`,
//! `enter` how much privilege there is · [`examine`] what the kernel offers · `channel` messages · `sys` the unsafe system calls.

mod cgroup;
mod channel;
mod child;
mod dev;
mod devices;
mod enter;
mod error;
pub mod examine;
mod host;
mod hosts;
mod idmap;
mod init;
mod mounts;
mod plan;
mod program;
mod resources;
mod rooted;
pub mod rung;
mod seccomp;
mod sources;
pub mod spec;
mod stubs;
mod sys;
mod user;

pub use error::{Action, Errno, Kind, SandboxError, SetupError};
pub use host::{Cancel, HostOptions, SandboxHost};
pub use hosts::{SYSTEM_FILES, resolv_conf};
pub use init::run_if_init;
pub use rung::Rung;
pub use spec::{Exit, ExitStatus, SandboxSpec, Stream};
pub use user::{UserError, UserFile};
