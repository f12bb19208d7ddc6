//! What rules about FROM see: the global scope, and the base image once it is resolved.

use std::collections::BTreeSet;

use crate::ast::{self, Instruction, InstructionKind};
use crate::expand::{Lexer, Scope};
use crate::platform::Platform;
use crate::source::LineRange;

use super::report::{Place, Report};
use super::rules::{Check, RULES};

/// The global scope.
pub(crate) struct Globals<'a> {
    /// The scope of the build.
    pub(crate) scope: &'a Scope,
    /// The scope as if no build argument were given; `None` if some default cannot be expanded.
    pub(crate) defaults: Option<&'a Scope>,
    /// Names of global ARGs, also of those without a value.
    pub(crate) declared: BTreeSet<&'a str>,
    /// The lexer of the file.
    pub(crate) lexer: Lexer,
    /// This machine's architecture, for short platforms.
    pub(crate) architecture: &'a str,
}

/// What rules about one FROM see.
pub(crate) struct FromView<'a> {
    pub(crate) from: &'a ast::From,
    pub(crate) place: Place<'a>,
    pub(crate) globals: &'a Globals<'a>,
}

/// What rules about a resolved base image see.
pub(crate) struct BaseView<'a> {
    /// The name in FROM.
    pub(crate) name: &'a str,
    pub(crate) lines: LineRange,
    /// The platform asked for.
    pub(crate) wanted: &'a Platform,
    /// The platform of the image.
    pub(crate) found: &'a Platform,
}

/// Runs the rules about FROM over a file.
pub(crate) fn check_froms(
    instructions: &[Instruction],
    globals: &Globals<'_>,
    report: &mut Report,
) {
    for instruction in instructions {
        let InstructionKind::From(from) = &instruction.kind else {
            continue;
        };
        let view = FromView {
            from,
            place: Place {
                lines: instruction.lines,
                comments: &instruction.comments,
            },
            globals,
        };
        for rule in RULES {
            if let Check::From(check) = rule.check {
                check(&view, report);
            }
        }
    }
}

/// Runs the rules about a base image.
pub(crate) fn check_base(view: &BaseView<'_>, report: &mut Report) {
    for rule in RULES {
        if let Check::Base(check) = rule.check {
            check(view, report);
        }
    }
}
