//! `--call`: questions about a Dockerfile that are answered without running anything.

use std::sync::Arc;

use cache::lease::Lease;
use frontend::lint::{self, Coverage, Report};
use frontend::source::{Diagnostic, SourceFile};

use super::checks::{Audience, Checked};
use super::ready::Purpose;
use super::{Engine, failure, input, open_root};
use crate::cli::answer::{Answer, CheckAnswer};
use crate::cli::request::{BuildRequest, Inquiry};
use crate::op::image::{Resolver, ResolverParts};
use crate::outcome::Failure;

impl Engine {
    /// Answers a question about a Dockerfile. Base images may be resolved for it; `--platform` does not count, as in
    /// BuildKit.
    ///
    /// # Errors
    ///
    /// If the answer cannot be found out. What is wrong with the Dockerfile is part of the answer to a check.
    pub async fn inquire(
        &self,
        request: &BuildRequest,
        inquiry: Inquiry,
    ) -> Result<Answer, Failure> {
        match inquiry {
            Inquiry::Check => self.answer_check(request).await.map(Answer::Check),
            Inquiry::Outline => self.answer_outline(request).await,
            Inquiry::Targets => {
                let (parsed, _) =
                    self.load_definition(&source_of(request)?, request, Audience::Answer)?;
                Ok(Answer::Targets(frontend::outline::targets(&parsed)))
            }
        }
    }

    async fn answer_check(&self, request: &BuildRequest) -> Result<CheckAnswer, Failure> {
        let definition = match self.load_definition(&source_of(request)?, request, Audience::Answer)
        {
            Ok(definition) => definition,
            Err(failure) => {
                return Ok(CheckAnswer {
                    warnings: Vec::new(),
                    problems: failure.problems().to_vec(),
                });
            }
        };
        let coverage = match request.options.target {
            Some(_) => Coverage::Target,
            None => Coverage::AllStages,
        };
        let checked = self.checked(request, definition, coverage).await?;
        let violation = checked.report.violation().map(|message| Diagnostic {
            message,
            lines: None,
            hint: None,
        });
        Ok(CheckAnswer {
            warnings: checked.report.by_line().into_iter().cloned().collect(),
            problems: match checked.lowered {
                Ok(_) => violation.into_iter().collect(),
                Err(problems) => problems,
            },
        })
    }

    async fn answer_outline(&self, request: &BuildRequest) -> Result<Answer, Failure> {
        let (parsed, _) = self.load_definition(&source_of(request)?, request, Audience::Answer)?;
        let definition = (parsed, Report::silent());
        let checked = self.checked(request, definition, Coverage::Target).await?;
        let lowered = checked.lowered.map_err(Failure::of_dockerfile)?;
        Ok(Answer::Outline(lowered.outline))
    }

    async fn checked(
        &self,
        request: &BuildRequest,
        definition: (frontend::ast::Dockerfile, lint::Report),
        coverage: Coverage,
    ) -> Result<Checked, Failure> {
        let ignore = self.internal("[internal] load .dockerignore", || {
            input::ignore_rules(request)
        })?;
        let root = open_root(&request.state_root)?;
        let lease = Arc::new(Lease::acquire(root.paths()).map_err(failure::store)?);
        let resolver = Arc::new(Resolver::new(ResolverParts {
            client: super::clients(request, Purpose::Explain).1,
            paths: root.paths(),
            lease: &lease,
            handle: tokio::runtime::Handle::current(),
            events: Arc::clone(&self.events),
            clock: self.clock.clone(),
            policy: super::policy_of(request),
        }));
        let host = self.surroundings.platform();
        let options = request.lower_options(host.clone(), host);
        self.check(
            &source_of(request)?,
            definition,
            options,
            coverage,
            (&resolver, &ignore),
        )
        .await
    }
}

/// The Dockerfile, which must have been read: nothing is fetched for a question.
fn source_of(request: &BuildRequest) -> Result<Arc<SourceFile>, Failure> {
    match request.input.dockerfile.read() {
        Some(source) => Ok(Arc::new(source.clone())),
        None => {
            let what = "--call for a Dockerfile that has to be fetched; check a local copy of it";
            Err(Failure::not_supported(what))
        }
    }
}
