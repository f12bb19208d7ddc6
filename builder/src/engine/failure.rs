//! Errors of the engine as what the user is told.

use cache::layer::error::LayerError;
use cache::room::RoomError;
use frontend::graph::Vertex;

use crate::cli::maintenance::CAP;
use crate::op::copy::error::CopyError;
use crate::op::error::StepError;
use crate::op::git::GitError;
use crate::op::key_agent::KeyAgentError;
use crate::op::steps::reference_of;
use crate::outcome::{Failure, FailureKind};
use crate::sandbox::{SandboxError, SetupError};

/// The user gave up.
pub(super) fn interrupted() -> Failure {
    Failure::new(FailureKind::Interrupted, "canceled")
}

/// The store could not be used.
pub(super) fn store(error: cache::io::IoError) -> Failure {
    Failure::new(FailureKind::Environment, crate::text::chain(&error))
}

/// There are no threads to build with.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn threads(error: std::io::Error) -> Failure {
    Failure::new(
        FailureKind::Environment,
        format!("cannot start threads: {error}"),
    )
}

/// Something outside of a step failed for reasons of the machine.
pub(super) fn step_environment(error: StepError) -> Failure {
    Failure::new(kind_of(&error), crate::text::chain(&error))
}

/// A step failed.
pub(super) fn of_step(vertex: &Vertex, error: &StepError) -> Failure {
    let message = match error {
        StepError::Copy(copy) if is_about_sources(copy) => {
            format!("failed to compute cache key: {}", crate::text::chain(error))
        }
        _ => crate::text::chain(error),
    };
    let mut failure = Failure::new(kind_of(error), message).of_vertex(reference_of(vertex));
    if let Some(hint) = hint_of(error) {
        failure = failure.hint(hint);
    }
    // That a repository cannot be reached says nothing about the line that names it.
    let is_elsewhere = matches!(error, StepError::Git(GitError::Failed { .. }));
    match &vertex.origin {
        Some(origin) if !is_elsewhere => failure.at(origin.lines),
        Some(_) | None => failure,
    }
}

fn hint_of(error: &StepError) -> Option<String> {
    if let StepError::Copy(error) = error {
        return error.hint();
    }
    if let StepError::Command { hint, .. } = error {
        return hint.clone();
    }
    if let StepError::Start { source, .. } = error {
        return hint_of(source);
    }
    if let StepError::Unpack { source, .. } = error {
        return unpacking_hint(source);
    }
    if let StepError::Room(RoomError::Cap(short)) = error {
        let enough = cache::size::shown(short.kept_bytes.saturating_add(short.need_bytes));
        return Some(format!(
            "remove images with `builder rm`, or set {CAP} to more than {enough}"
        ));
    }
    if let StepError::NoSecret { id } = error {
        return Some(format!(
            "give it with --secret=id={id},src=FILE or --secret=id={id},env=VARIABLE"
        ));
    }
    if let StepError::SecretNotText { id, .. } = error {
        return Some(format!(
            "let the command read it from a file: --mount=type=secret,id={id}"
        ));
    }
    if let StepError::NoAgent { id } = error {
        return Some(format!(
            "start an agent (ssh-agent, ssh-add) and forward it with --ssh={id}"
        ));
    }
    if let StepError::KeyAgent(KeyAgentError::NoProgram(_)) = error {
        return Some(
            "install OpenSSH's client (in Debian: apt-get install openssh-client)".to_owned(),
        );
    }
    let StepError::Sandbox(SandboxError::Setup(SetupError::Action { errno, .. })) = error else {
        return None;
    };
    matches!(errno.0, libc::EPERM | libc::EACCES).then(|| {
        "the kernel does not let this process do that; `builder doctor` says what is missing"
            .to_owned()
    })
}

fn unpacking_hint(error: &StepError) -> Option<String> {
    let is_of_the_image = matches!(
        error,
        StepError::Layer(
            LayerError::Tar { .. } | LayerError::Entry { .. } | LayerError::Inconsistent { .. }
        ) | StepError::WrongDiffId { .. }
    );
    is_of_the_image.then(|| "the image is malformed: use another, or tell who made it".to_owned())
}

fn is_about_sources(error: &CopyError) -> bool {
    matches!(
        error,
        CopyError::NotFound { .. } | CopyError::NotInStage { .. }
    )
}

fn kind_of(error: &StepError) -> FailureKind {
    match error {
        StepError::Command { .. } | StepError::Start { .. } => FailureKind::Step,
        StepError::Copy(_)
        | StepError::NoSecret { .. }
        | StepError::SecretNotText { .. }
        | StepError::NoAgent { .. }
        | StepError::Unsupported { .. }
        | StepError::Url { .. }
        | StepError::HttpStatus { .. }
        | StepError::Checksum { .. }
        | StepError::Moved { .. }
        | StepError::BadCredential { .. }
        | StepError::Git(_)
        | StepError::Registry(_) => FailureKind::Dockerfile,
        StepError::Sandbox(_) => FailureKind::Step,
        StepError::Unpack { source, .. } => kind_of(source),
        StepError::Layer(_)
        | StepError::Keys(_)
        | StepError::Snapshot(_)
        | StepError::Blob(_)
        | StepError::WrongDiffId { .. }
        | StepError::Damaged
        | StepError::Context(_)
        | StepError::Store(_)
        | StepError::Room(_)
        | StepError::LayerGone { .. }
        | StepError::Io { .. }
        | StepError::KeyAgent(_) => FailureKind::Environment,
        StepError::Canceled => FailureKind::Interrupted,
        StepError::Internal { .. } => FailureKind::Internal,
    }
}
