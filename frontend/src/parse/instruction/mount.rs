//! `RUN --mount`: reading its CSV, and the checks that no expansion can change (features.md 1.10).
//!
//! A value is *literal* if it has neither variables nor quotes nor escapes. Keys and their combinations are checked as
//! far as literal values decide them; numbers, sizes, switches and paths are left to lowering, which expands first.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::ast::RunMount;
use crate::parse::statement::exact;
use crate::source::{Spanned, Suggestion, did_you_mean};

/// Why a mount was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::parse) enum MountError {
    #[error("failed to parse csv mounts: EOF")]
    Empty,
    #[error("failed to parse csv mounts: bare \" in non-quoted field")]
    BareQuote,
    #[error("failed to parse csv mounts: extraneous or missing \" in quoted-field")]
    OpenQuote,
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    FromVariable,
    #[error("invalid field '{field}' must be a key=value pair")]
    NotPair { field: String },
    #[error("unexpected key '{key}' in '{field}'{suggestion}")]
    UnknownKey {
        key: String,
        field: String,
        suggestion: Suggestion,
    },
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForType { key: String, kind: String },
    #[error("unsupported mount type {value:?}{suggestion}")]
    UnknownType {
        value: String,
        suggestion: Suggestion,
    },
    #[error("unsupported sharing value {value:?}{suggestion}")]
    UnknownSharing {
        value: String,
        suggestion: Suggestion,
    },
    #[error("{key} not allowed for {kind:?} type mounts")]
    NotAllowed { key: &'static str, kind: String },
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("secret mount should not define sharing")]
    SecretSharing,
    #[error("invalid secret mount. one of source, target required")]
    SecretNameless,
    #[error("both source and id can't be set")]
    SecretNames,
    #[error("invalid cache sharing set for {kind} mount")]
    SharingForType { kind: String },
}

const TYPES: &[&str] = &["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: &[&str] = &["shared", "private", "locked"];
const KEYS: &[&str] = &[
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "ro",
    "rw",
    "readwrite",
    "destination",
    "size",
    "env",
];

/// Reads the value of a flag. What is an error here is one that BuildKit finds while parsing.
pub(super) fn read(text: Spanned<String>) -> Result<RunMount, MountError> {
    let fields = split_csv(&text.value)?;
    let options: Vec<_> = fields
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value.to_owned())),
            None => (field.to_lowercase(), None),
        })
        .collect();
    let is_variable = |value: &str| {
        value
            .split_once('$')
            .is_some_and(|(_, name)| !name.is_empty())
    };
    let has_variable_from = options
        .iter()
        .any(|(key, value)| key == "from" && value.as_deref().is_some_and(is_variable));
    if has_variable_from {
        return Err(MountError::FromVariable);
    }
    Ok(RunMount {
        text,
        options: exact(options),
    })
}

/// Splits a line of CSV; a field in double quotes may have commas, and quotes written twice.
fn split_csv(text: &str) -> Result<Vec<String>, MountError> {
    if text.is_empty() {
        return Err(MountError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => split_quoted_field(quoted)?,
            None => {
                let (field, after) = match rest.split_once(',') {
                    Some((field, after)) => (field, Some(after)),
                    None => (rest, None),
                };
                if field.contains('"') {
                    return Err(MountError::BareQuote);
                }
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// Reads a field after its opening quote: the field, and what follows its comma.
fn split_quoted_field(text: &str) -> Result<(String, Option<&str>), MountError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or(MountError::OpenQuote)?;
        field.push_str(part);
        if let Some(after) = after.strip_prefix('"') {
            field.push('"');
            rest = after;
        } else if after.is_empty() {
            return Ok((field, None));
        } else {
            let after = after.strip_prefix(',').ok_or(MountError::OpenQuote)?;
            return Ok((field, Some(after)));
        }
    }
}

/// Checks keys, types and combinations in the order in which BuildKit does when it comes to the step.
pub(in crate::parse) fn check(mount: &RunMount, escape: char) -> Result<(), MountError> {
    let mut checked = Checked {
        escape,
        kind: Some("bind"),
        values: BTreeMap::new(),
    };
    for (key, value) in &mount.options {
        checked.option(key, value.as_deref())?;
    }
    checked.combination()
}

/// What is known of a mount so far.
struct Checked<'a> {
    escape: char,
    /// The type; unknown after one that is not literal.
    kind: Option<&'static str>,
    /// The options with values, by their main names.
    values: BTreeMap<&'static str, &'a str>,
}

impl<'a> Checked<'a> {
    fn option(&mut self, key: &str, value: Option<&'a str>) -> Result<(), MountError> {
        let field = || match value {
            Some(value) => format!("{key}={value}"),
            None => key.to_owned(),
        };
        let Some(known) = KEYS.iter().find(|known| **known == key) else {
            if value.is_none() {
                return Err(MountError::NotPair { field: field() });
            }
            let near = did_you_mean(key, KEYS.iter().copied());
            return Err(MountError::UnknownKey {
                key: key.to_owned(),
                field: field(),
                suggestion: Suggestion(near.map(str::to_owned)),
            });
        };
        let value = match (*known, value) {
            ("required", _) => return self.require_type(key, &["secret", "ssh"]),
            ("readonly" | "ro" | "readwrite" | "rw", _) => return Ok(()),
            (_, None) => return Err(MountError::NotPair { field: field() }),
            (_, Some(value)) => value,
        };
        let name = match *known {
            "size" => return self.require_type(key, &["tmpfs"]),
            "type" => {
                self.kind = self.one_of(value, TYPES, unknown_type)?;
                return Ok(());
            }
            "sharing" => {
                self.one_of(value, SHARING, unknown_sharing)?;
                "sharing"
            }
            "src" => "source",
            "dst" | "destination" => "target",
            name => name,
        };
        self.values.insert(name, value);
        Ok(())
    }

    fn is_literal(&self, value: &str) -> bool {
        !value.contains(['$', '\'', '"', self.escape])
    }

    /// The choice that a literal value makes.
    fn one_of(
        &self,
        value: &str,
        choices: &[&'static str],
        error: fn(&str, Suggestion) -> MountError,
    ) -> Result<Option<&'static str>, MountError> {
        if !self.is_literal(value) {
            return Ok(None);
        }
        let lower = value.to_lowercase();
        match choices.iter().find(|choice| **choice == lower) {
            Some(choice) => Ok(Some(choice)),
            None => {
                let near = did_you_mean(value, choices.iter().copied());
                Err(error(value, Suggestion(near.map(str::to_owned))))
            }
        }
    }

    fn require_type(&self, key: &str, kinds: &[&str]) -> Result<(), MountError> {
        match self.kind {
            Some(kind) if !kinds.contains(&kind) => Err(MountError::KeyForType {
                key: key.to_owned(),
                kind: kind.to_owned(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether an option has a value; unknown if only expansion tells.
    fn is_set(&self, key: &str) -> Option<bool> {
        match self.values.get(key) {
            None | Some(&"") => Some(false),
            Some(value) => self.is_literal(value).then_some(true),
        }
    }

    fn combination(&self) -> Result<(), MountError> {
        let Some(kind) = self.kind else {
            return Ok(());
        };
        if matches!(kind, "bind" | "tmpfs") {
            let owned = ["mode", "uid", "gid"];
            if let Some(key) = owned.into_iter().find(|key| self.values.contains_key(key)) {
                let kind = kind.to_owned();
                return Err(MountError::NotAllowed { key, kind });
            }
        }
        if kind == "secret" {
            self.secret()?;
        }
        if kind != "cache" && self.is_set("sharing") == Some(true) {
            let kind = kind.to_owned();
            return Err(MountError::SharingForType { kind });
        }
        Ok(())
    }

    fn secret(&self) -> Result<(), MountError> {
        if self.is_set("from") == Some(true) {
            return Err(MountError::SecretFrom);
        }
        if self.is_set("sharing") == Some(true) {
            return Err(MountError::SecretSharing);
        }
        let names = ["source", "target", "id"].map(|key| self.is_set(key));
        if names == [Some(false); 3] {
            return Err(MountError::SecretNameless);
        }
        if names[0] == Some(true) && names[2] == Some(true) {
            return Err(MountError::SecretNames);
        }
        Ok(())
    }
}

fn unknown_type(value: &str, suggestion: Suggestion) -> MountError {
    MountError::UnknownType {
        value: value.to_owned(),
        suggestion,
    }
}

fn unknown_sharing(value: &str, suggestion: Suggestion) -> MountError {
    MountError::UnknownSharing {
        value: value.to_owned(),
        suggestion,
    }
}
