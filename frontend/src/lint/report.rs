//! What the rules found.

use std::fmt;

use crate::ast::Instruction;
use crate::source::{LineRange, Spanned};

use super::level::Levels;
use super::rules::Rule;

/// More warnings than these do without suggestions: nobody reads them, and each costs a look at every name.
const MAX_SUGGESTIONS: usize = 100;

/// Something in the file that a rule is against.
#[derive(Clone, Debug)]
pub struct Warning {
    /// The rule.
    pub rule: &'static Rule,
    /// What is wrong, naming it.
    pub detail: String,
    /// Where.
    pub lines: LineRange,
}

/// `Rule: detail (line N)`, as progress shows it.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            detail,
            lines,
        } = self;
        write!(f, "{}: {detail} (line {})", rule.name, lines.first)
    }
}

/// Collects warnings, those that are wanted.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// `None`: nobody wants to know.
    levels: Option<Levels>,
    warnings: Vec<Warning>,
}

/// Where a rule looks: lines, and comments above them that may take rules out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) lines: LineRange,
    pub(crate) comments: &'a [Spanned<String>],
}

impl<'a> Place<'a> {
    /// An instruction of the file.
    pub(super) fn of(instruction: &'a Instruction) -> Self {
        Self {
            lines: instruction.lines,
            comments: &instruction.comments,
        }
    }

    /// Lines without comments: rules that see more than one instruction.
    pub(super) fn lines(lines: LineRange) -> Self {
        Self {
            lines,
            comments: &[],
        }
    }
}

impl Report {
    /// Takes what is wanted.
    pub fn new(levels: Levels) -> Self {
        Self {
            levels: Some(levels),
            warnings: Vec::new(),
        }
    }

    /// Takes nothing: for lowering without checks.
    pub fn silent() -> Self {
        Self::default()
    }

    /// Whether there are so few warnings that each may look for what was meant, among all the names there are.
    pub(super) fn suggests(&self) -> bool {
        self.warnings.len() < MAX_SUGGESTIONS
    }

    /// Whether anything is taken at all.
    pub(crate) fn is_silent(&self) -> bool {
        self.levels.is_none()
    }

    /// What was found, in the order of finding.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What was found, by line; what is on one line in the order of finding.
    pub fn by_line(&self) -> Vec<&Warning> {
        let mut warnings: Vec<&Warning> = self.warnings.iter().collect();
        warnings.sort_by_key(|warning| warning.lines.first);
        warnings
    }

    /// The error that the warnings are, if they are to be one (`error=true`).
    pub fn violation(&self) -> Option<String> {
        let is_error = self.levels.as_ref().is_some_and(|levels| levels.is_error);
        if !is_error || self.warnings.is_empty() {
            return None;
        }
        let mut names: Vec<&str> = Vec::new();
        for warning in &self.warnings {
            if !names.contains(&warning.rule.name) {
                names.push(warning.rule.name);
            }
        }
        Some(format!(
            "lint violation found for rules: {}",
            names.join(", ")
        ))
    }

    /// Notes a warning, if it is wanted there.
    pub(super) fn raise(&mut self, rule: &'static Rule, place: Place<'_>, detail: String) {
        let levels = self.levels.as_ref();
        if levels.is_some_and(|levels| levels.warns(rule, place.comments)) {
            self.warnings.push(Warning {
                rule,
                detail,
                lines: place.lines,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::find_rule;
    use super::*;

    #[test]
    fn warnings_become_an_error_only_if_asked() {
        let rule = |name: &str| find_rule(name).expect("a rule");
        for (options, want) in [
            (
                "error=true",
                Some("lint violation found for rules: StageNameCasing, FromAsCasing"),
            ),
            ("error=false", None),
            ("error=true;skip=all", None),
        ] {
            let mut report = Report::new(Levels::parse(options).expect("valid"));
            for (name, line) in [
                ("StageNameCasing", 7),
                ("FromAsCasing", 2),
                ("StageNameCasing", 3),
            ] {
                let lines = LineRange {
                    first: line,
                    last: line,
                };
                report.raise(rule(name), Place::lines(lines), "x".to_owned());
            }
            assert_eq!(report.violation().as_deref(), want);
            let lines: Vec<usize> = report.by_line().iter().map(|w| w.lines.first).collect();
            assert!(lines.is_sorted());
        }
        let mut silent = Report::silent();
        let lines = LineRange { first: 1, last: 1 };
        silent.raise(rule("FromAsCasing"), Place::lines(lines), "x".to_owned());
        assert!(silent.warnings().is_empty());
    }
}
