//! Which rules warn: `# check=skip=A,B;error=true;experimental=X`, and `# check=skip=A` above an instruction.

use std::collections::BTreeSet;

use crate::gofmt::quote;
use crate::source::Spanned;

use super::rules::{Rule, Standing};

/// More options than there are kinds of are refused with the last one, as in BuildKit.
const MAX_OPTIONS: usize = 3;

/// Which rules warn, and whether a warning fails the build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    skipped: Names,
    experimental: Names,
    /// Whether a build with warnings fails.
    pub is_error: bool,
}

/// Names of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    Some(BTreeSet<String>),
    All,
}

/// Why an option of the checks cannot be read. The texts are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// An option that is none.
    #[error("failed to parse check options: invalid check option {}", quote(.0))]
    Unknown(String),
    /// A truth value that is none.
    #[error(
        "failed to parse check options: failed to parse check option {}: strconv.ParseBool: parsing {}: invalid \
         syntax", quote(.option), quote(.value)
    )]
    NotBoolean {
        /// The option as written.
        option: String,
        /// Its value.
        value: String,
    },
}

impl Default for Names {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Names {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            names => Self::Some(names.split(',').map(|name| name.trim().into()).collect()),
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(rule.name),
        }
    }
}

impl Levels {
    /// Reads the value of the directive or of the build argument.
    ///
    /// # Errors
    ///
    /// If an option is unknown or has a bad value.
    pub fn parse(text: &str) -> Result<Self, LevelError> {
        let mut levels = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(levels);
        }
        for option in text.splitn(MAX_OPTIONS, ';') {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| LevelError::Unknown(option.to_owned()))?;
            match key.trim() {
                "skip" => levels.skipped = Names::parse(value),
                "experimental" => levels.experimental = Names::parse(value),
                "error" => {
                    levels.is_error =
                        boolean(value.trim()).ok_or_else(|| LevelError::NotBoolean {
                            option: option.to_owned(),
                            value: value.trim().to_owned(),
                        })?;
                }
                key => return Err(LevelError::Unknown(key.to_owned())),
            }
        }
        Ok(levels)
    }

    /// Whether a rule warns at an instruction with these comments above it. Experimental rules are switched on, never
    /// skipped.
    pub(super) fn warns(&self, rule: &Rule, comments: &[Spanned<String>]) -> bool {
        match rule.standing {
            Standing::Experimental => self.experimental.has(rule),
            Standing::Regular => {
                !self.skipped.has(rule)
                    && !comments.iter().any(|comment| skips(&comment.value, rule))
            }
        }
    }
}

/// Whether a comment above an instruction is about checks.
pub(super) fn is_directive(comment: &str) -> bool {
    option_of(comment).is_some()
}

/// The options of a comment such as `check=skip=A`.
fn option_of(comment: &str) -> Option<&str> {
    let (key, options) = comment.split_once('=')?;
    key.trim().eq_ignore_ascii_case("check").then_some(options)
}

/// Whether a comment takes a rule out. What cannot be read takes nothing out.
fn skips(comment: &str, rule: &Rule) -> bool {
    let first_word = option_of(comment).and_then(|options| options.split_whitespace().next());
    first_word
        .and_then(|options| Levels::parse(options).ok())
        .is_some_and(|levels| levels.skipped.has(rule))
}

/// Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::find_rule;
    use super::*;
    use crate::source::Span;

    fn warns(text: &str, rule: &str, comment: &str) -> bool {
        let comments = [Spanned {
            value: comment.to_owned(),
            span: Span::default(),
        }];
        let rule = find_rule(rule).expect("a rule");
        Levels::parse(text).expect("valid").warns(rule, &comments)
    }

    #[test]
    fn rules_are_skipped_and_switched_on() {
        let (usual, experimental) = ("StageNameCasing", "InvalidDefinitionDescription");
        for (text, comment, wants) in [
            ("", "", [true, false]),
            ("skip=all", "", [false, false]),
            ("skip=FromAsCasing, StageNameCasing", "", [false, false]),
            ("skip=FromAsCasing", "", [true, false]),
            ("experimental=all;skip=all", "", [false, true]),
            (
                "experimental=InvalidDefinitionDescription;error=true",
                "",
                [true, true],
            ),
            ("", "check=skip=StageNameCasing", [false, false]),
            ("", "check=skip=all", [false, false]),
            ("", "check = skip=FromAsCasing", [true, false]),
            ("", "check=nonsense", [true, false]),
            ("", "base is the base", [true, false]),
            ("experimental=all", "check=skip=all", [false, true]),
        ] {
            let got = [
                warns(text, usual, comment),
                warns(text, experimental, comment),
            ];
            assert_eq!(got, wants, "{text} / {comment}");
        }
    }

    #[test]
    fn bad_options_are_errors() {
        for (text, want) in [
            ("skip", "invalid check option \"skip\""),
            ("colour=red", "invalid check option \"colour\""),
            (
                "error=perhaps",
                "failed to parse check option \"error=perhaps\": strconv.ParseBool: parsing \"perhaps\": invalid syntax",
            ),
        ] {
            let error = Levels::parse(text).expect_err(text).to_string();
            assert_eq!(error, format!("failed to parse check options: {want}"));
        }
        assert!(Levels::parse("error=1;skip=A").expect("valid").is_error);
    }
}
