//! `${…}`: defaults, checks, trimming and replacing.

use super::allowance::Exhausted;
use super::error::SyntaxError;
use super::pattern::{self, Greed, PatternError};
use super::word::{Run, Unset};

/// How many steps of a match are as good as making a byte of text.
const STEPS_PER_BYTE: usize = 4;

impl Run<'_> {
    /// `${…}` behind its `{`.
    pub(super) fn braces(&mut self) -> Result<String, SyntaxError> {
        match self.rest.peek() {
            None => return Err(SyntaxError::MissingBrace),
            Some('{' | '}' | ':') => return Err(SyntaxError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            Some('}') => Ok(match (self.lookup(&name)?, self.lexer.unset) {
                (Some(value), _) => value,
                (None, Unset::Keep) => format!("${{{name}}}"),
                (None, Unset::Empty) => String::new(),
            }),
            Some(':') => {
                let operator = self.rest.next();
                self.operator(&name, operator, true)
            }
            Some(operator @ ('+' | '-' | '?' | '#' | '%')) => {
                self.operator(&name, Some(operator), false)
            }
            Some('/') => self.replacement(&name),
            Some(other) => Err(SyntaxError::UnsupportedModifier(other.to_string())),
            None => Err(SyntaxError::MissingBrace),
        }
    }

    /// `${name-word}` and its kin; with `:`, an empty value counts as none.
    fn operator(
        &mut self,
        name: &str,
        operator: Option<char>,
        has_colon: bool,
    ) -> Result<String, SyntaxError> {
        let is_trim = matches!(operator, Some('#' | '%'));
        let word = self.part('}', is_trim, SyntaxError::MissingBrace)?;
        let value = self.lookup(name)?;
        let written = format!(
            "{}{}",
            if has_colon { ":" } else { "" },
            operator.map_or(String::new(), String::from)
        );
        if value.is_none() && self.lexer.unset == Unset::Keep {
            return Ok(format!("${{{name}{written}{word}}}"));
        }
        let has_value = value
            .as_ref()
            .is_some_and(|value| !(has_colon && value.is_empty()));
        let is_set = value.is_some();
        let value = value.unwrap_or_default();
        match operator {
            Some('-') => Ok(if has_value { value } else { word }),
            Some('+') => Ok(if has_value { word } else { String::new() }),
            Some('?') if has_value => Ok(value),
            Some('?') => Err(required(name, word, is_set)),
            Some(trim @ ('#' | '%')) => {
                self.matching(&value, &word)?;
                trimmed(&value, &word, trim)
            }
            Some(_) | None => Err(SyntaxError::UnsupportedModifier(written)),
        }
    }

    /// `${name/pattern/word}` behind its first `/`.
    fn replacement(&mut self, name: &str) -> Result<String, SyntaxError> {
        let is_all = self.rest.peek() == Some(&'/');
        if is_all {
            self.rest.next();
        }
        let pattern = self.part('/', true, SyntaxError::MissingSlash)?;
        let word = self.part('}', true, SyntaxError::MissingBrace)?;
        let value = self.lookup(name)?;
        let Some(value) = value.or_else(|| (self.lexer.unset == Unset::Empty).then(String::new))
        else {
            return Ok(format!("${{{name}/{pattern}/{word}}}"));
        };
        self.matching(&value, &pattern)?;
        let replaced = if is_all {
            let allowance = self.variables.allowance();
            pattern::replace_all(&value, &pattern, &word, allowance)
        } else {
            pattern::replace_first(&value, &pattern, &word)
        };
        replaced.map_err(|reason| refused(&pattern, reason))
    }

    /// Finding a pattern takes time with the product of both lengths.
    fn matching(&self, value: &str, pattern: &str) -> Result<(), Exhausted> {
        let steps = value.len().saturating_mul(pattern.len());
        self.variables.allowance().spend(steps / STEPS_PER_BYTE)
    }

    /// A part of `${…}` up to `stop`; if the text ends first, that is `missing`.
    fn part(
        &mut self,
        stop: char,
        raw_escapes: bool,
        missing: SyntaxError,
    ) -> Result<String, SyntaxError> {
        match self.until(Some(stop), raw_escapes) {
            Ok(part) => Ok(part.text),
            Err(_) if self.rest.peek().is_none() => Err(missing),
            Err(reason) => Err(reason),
        }
    }
}

fn required(name: &str, word: String, is_set: bool) -> SyntaxError {
    let message = match (word.is_empty(), is_set) {
        (false, _) => word,
        (true, false) => "is not allowed to be unset".to_owned(),
        (true, true) => "is not allowed to be empty".to_owned(),
    };
    SyntaxError::Required {
        name: name.to_owned(),
        message,
    }
}

fn trimmed(value: &str, word: &str, operator: char) -> Result<String, SyntaxError> {
    let (greed, pattern) = match word.strip_prefix(operator) {
        Some(pattern) => (Greed::Longest, pattern),
        None => (Greed::Shortest, word),
    };
    let result = if operator == '#' {
        pattern::trim_prefix(value, pattern, greed)
    } else {
        pattern::trim_suffix(value, pattern, greed)
    };
    result.map_err(|reason| refused(pattern, reason))
}

fn refused(pattern: &str, reason: PatternError) -> SyntaxError {
    match reason {
        PatternError::Exhausted(exhausted) => exhausted.into(),
        PatternError::InvalidEscape(_) | PatternError::TooLarge => SyntaxError::Pattern {
            pattern: pattern.to_owned(),
            reason,
        },
    }
}
