//! Build checks in a build: read the Dockerfile, check it, tell of the warnings.

use std::sync::Arc;

use cache::digest::Digest;
use frontend::ast::Dockerfile;
use frontend::lint::{self, Checks, Coverage, Report};
use frontend::lower::{LowerOptions, Lowered, lower_checked};
use frontend::source::{Diagnostic, SourceFile};

use super::input::Ignore;
use super::{Engine, failure};
use crate::cli::request::BuildRequest;
use crate::op::image::Resolver;
use crate::outcome::{Failure, FailureKind};
use crate::progress::event::{Event, VertexRef};

/// The vertex that warnings are about, as in BuildKit.
const DEFINITION: &str = "[internal] load build definition from Dockerfile";

/// What lowering came to, with what the checks found on the way.
pub(super) struct Checked {
    pub(super) lowered: Result<Lowered, Vec<Diagnostic>>,
    pub(super) report: Report,
}

/// Who is told of warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Who watches the build.
    Progress,
    /// Who asked for them, in the answer.
    Answer,
}

impl Engine {
    /// Parses the Dockerfile and runs the checks that need nothing else.
    pub(super) fn load_definition(
        &self,
        source: &Arc<SourceFile>,
        request: &BuildRequest,
        audience: Audience,
    ) -> Result<(Dockerfile, Report), Failure> {
        self.internal(DEFINITION, || {
            let build_args = &request.options.build_args;
            frontend::parse::check_syntax(source, build_args)
                .map_err(|error| Failure::of_dockerfile(vec![error]))?;
            let parsed = frontend::parse::parse(source).map_err(Failure::of_dockerfile)?;
            let levels = lint::levels(&parsed, build_args)
                .map_err(|error| Failure::new(FailureKind::Dockerfile, error.to_string()))?;
            let mut report = Report::new(levels);
            lint::check_file(source, &parsed, &mut report);
            match audience {
                Audience::Progress => self.warn(&report, 0),
                Audience::Answer => {}
            }
            Ok((parsed, report))
        })
    }

    /// Tells of the warnings from one on.
    pub(super) fn warn(&self, report: &Report, from: usize) {
        let vertex = VertexRef(Digest::of(DEFINITION.as_bytes()).to_string().into());
        for warning in report.warnings().iter().skip(from) {
            self.events.emit(Event::Warning {
                vertex: Some(vertex.clone()),
                message: warning.to_string(),
            });
        }
    }

    /// Lowers, with checks, on a thread that may block, because resolving images waits for registries.
    pub(super) async fn check(
        &self,
        source: &Arc<SourceFile>,
        (parsed, mut report): (Dockerfile, Report),
        options: LowerOptions,
        coverage: Coverage,
        (resolver, ignore): (&Arc<Resolver>, &Ignore),
    ) -> Result<Checked, Failure> {
        let source = Arc::clone(source);
        let resolver = Arc::clone(resolver);
        let ignore = ignore.clone();
        let lowering = tokio::task::spawn_blocking(move || {
            let checks = Checks {
                report: &mut report,
                ignore: ignore.as_ref().map(|(_, rules)| rules),
                coverage,
            };
            let lowered = lower_checked(&source, &parsed, &options, &*resolver, checks);
            Checked { lowered, report }
        });
        let checked = tokio::select! {
            checked = lowering => checked,
            () = self.interrupt.wait() => return Err(failure::interrupted()),
        };
        match checked {
            Ok(checked) => Ok(checked),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Lowers for a build: warnings are told, and fail it if the file says so.
    pub(super) async fn lower(
        &self,
        source: &Arc<SourceFile>,
        definition: (Dockerfile, Report),
        options: LowerOptions,
        outside: (&Arc<Resolver>, &Ignore),
    ) -> Result<Lowered, Failure> {
        let told = definition.1.warnings().len();
        let checked = self
            .check(source, definition, options, Coverage::Target, outside)
            .await?;
        self.warn(&checked.report, told);
        let lowered = checked.lowered.map_err(Failure::of_dockerfile)?;
        match checked.report.violation() {
            Some(message) => Err(Failure::new(FailureKind::Dockerfile, message)),
            None => Ok(lowered),
        }
    }
}
