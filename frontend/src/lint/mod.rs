//! Build checks: what is allowed and yet worth a warning (features.md 2).
//!
//! ```text
//! ast ─► check_file ─────────────┐
//!        FROM lines ─ check_froms┤
//! lower ─ each base ─ check_base ├─► Report (filtered by `level`) ─► warnings
//!        each step ── check_step ┘
//! ```
//!
//! One rule a file, and one table of them ([`RULES`]) that says what each looks at. Rules that need no more than the text
//! run over the whole file; the others are run by [`crate::lower`], which knows variables, stages and base images, and so
//! cover what the target needs only.
//!
//! Not here: deciding what becomes of warnings, and showing them.

mod from;
mod level;
mod page;
mod report;
mod rules;
mod step;

pub use level::{LevelError, Levels};
pub use page::Page;
pub use report::{Report, Warning};
pub use rules::{RULES, Rule, Standing, find_rule};

pub(crate) use from::{BaseView, Globals, check_base, check_froms};
pub(crate) use step::{StageMemory, StepView, check_step};

use crate::ast::{Dockerfile, Instruction};
use crate::ignore::IgnoreRules;
use crate::source::SourceFile;

use rules::Check;

/// The build argument that replaces the `# check=` directive.
const BUILD_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What lowering is to check, and where it reports to.
#[derive(Debug)]
pub struct Checks<'a> {
    /// What was found so far.
    pub report: &'a mut Report,
    /// The ignore file of the build context, if it has one.
    pub ignore: Option<&'a IgnoreRules>,
    /// Which stages are looked at.
    pub coverage: Coverage,
}

/// Which stages are lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Those that the target needs.
    Target,
    /// All: a check without a target.
    AllStages,
}

/// What rules about the text see.
pub(crate) struct FileView<'a> {
    /// The text.
    pub(crate) source: &'a SourceFile,
    /// The instructions.
    pub(crate) instructions: &'a [Instruction],
}

/// Which rules warn: by the build argument if it is given, else by the directive of the file.
///
/// # Errors
///
/// If that cannot be read.
pub fn levels(
    dockerfile: &Dockerfile,
    build_args: &std::collections::BTreeMap<String, String>,
) -> Result<Levels, LevelError> {
    let directive = dockerfile.directives.check.as_ref();
    let text = build_args
        .get(BUILD_ARG)
        .or(directive.map(|directive| &directive.value));
    text.map_or(Ok(Levels::default()), |text| Levels::parse(text))
}

/// Runs the rules that need no more than the text.
pub fn check_file(source: &SourceFile, dockerfile: &Dockerfile, report: &mut Report) {
    let view = FileView {
        source,
        instructions: &dockerfile.instructions,
    };
    for rule in RULES {
        if let Check::File(check) = rule.check {
            check(&view, report);
        }
    }
}

#[cfg(test)]
mod tests;
