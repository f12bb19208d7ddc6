//! How a build ended, as the engine says it and `cli::report` prints it.

use std::fmt;
use std::sync::Arc;

use frontend::source::{Diagnostic, LineRange, SourceFile};

use crate::progress::event::VertexRef;

/// What a build that succeeded made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The image's id: the digest of its config. `None` if the build made no image.
    pub image_id: Option<String>,
    /// What `--metadata-file` gets: `containerimage.digest` and so on (BuildKit's exporter response).
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// What kind of failure: decides the heading and the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The Dockerfile is wrong, or asks for what is not there.
    Dockerfile,
    /// A command failed.
    Step,
    /// The command line is wrong.
    Usage,
    /// Kernel, permissions, disk, network.
    Environment,
    /// A fault of this program.
    Internal,
    /// The user stopped it.
    Interrupted,
}

/// Why a build failed.
///
/// Invariant: there is at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    kind: FailureKind,
    problems: Vec<Diagnostic>,
    vertex: Option<VertexRef>,
    source: Option<Arc<SourceFile>>,
}

impl Failure {
    /// A failure with one problem, without lines or hint.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let problem = Diagnostic {
            message: message.into(),
            lines: None,
            hint: None,
        };
        Self {
            kind,
            problems: vec![problem],
            vertex: None,
            source: None,
        }
    }

    /// What is wrong with a Dockerfile, in file order.
    pub fn of_dockerfile(problems: Vec<Diagnostic>) -> Self {
        if problems.is_empty() {
            return Self::new(
                FailureKind::Internal,
                "the Dockerfile was refused without a reason",
            );
        }
        Self {
            kind: FailureKind::Dockerfile,
            problems,
            vertex: None,
            source: None,
        }
    }

    /// A feature that is known and not built.
    pub fn not_supported(what: impl fmt::Display) -> Self {
        Self::new(FailureKind::Usage, format!("not supported yet: {what}"))
    }

    /// Points at lines of the Dockerfile.
    #[must_use]
    pub fn at(mut self, lines: LineRange) -> Self {
        for problem in &mut self.problems {
            problem.lines = Some(lines);
        }
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(problem) = self.problems.last_mut() {
            problem.hint = Some(hint.into());
        }
        self
    }

    /// Names the vertex that failed, whose last output is shown.
    #[must_use]
    pub fn of_vertex(mut self, vertex: VertexRef) -> Self {
        self.vertex = Some(vertex);
        self
    }

    /// Tells the Dockerfile that lines are of, where the caller cannot know it.
    #[must_use]
    pub fn in_file(mut self, source: &Arc<SourceFile>) -> Self {
        self.source = Some(Arc::clone(source));
        self
    }

    /// The Dockerfile that lines are of, if it came with a context that had to be fetched.
    pub fn source(&self) -> Option<&SourceFile> {
        self.source.as_deref()
    }

    /// Its kind.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// What is wrong: at least one thing.
    pub fn problems(&self) -> &[Diagnostic] {
        &self.problems
    }

    /// The vertex that failed, if it was one.
    pub fn vertex(&self) -> Option<&VertexRef> {
        self.vertex.as_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            f.write_str(&problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
