//! The keys of `RUN --mount`: read in order, checked, defaults not yet filled in.
//!
//! The parser has checked what no variable can change; all of it is checked here again with the values expanded.

use crate::ast::RunMount;
use crate::gofmt::quote;
use crate::graph::CacheSharing;
use crate::source::Suggestion;

use super::error::{InstructionError, suggest};
use super::git::parse_bool;
use super::size::parse_size;

/// The keys that BuildKit suggests.
const KEYS: [&str; 16] = [
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
];

/// Why a mount is none. The texts are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MountError {
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    #[error("unexpected key '{key}' in '{field}'{suggestion}")]
    UnknownKey {
        key: String,
        field: String,
        suggestion: Suggestion,
    },
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForType { key: String, kind: &'static str },
    #[error("unsupported mount type {}{suggestion}", quote(.given))]
    UnknownType {
        given: String,
        suggestion: Suggestion,
    },
    #[error("unsupported sharing value {}{suggestion}", quote(.given))]
    UnknownSharing {
        given: String,
        suggestion: Suggestion,
    },
    #[error("invalid value for {key}: {value}")]
    InvalidValue { key: String, value: String },
    #[error("invalid value {value} for {key}")]
    InvalidNumber { key: String, value: String },
    #[error("{key} not allowed for {} type mounts", quote(.kind))]
    NotAllowed {
        key: &'static str,
        kind: &'static str,
    },
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("secret mount should not define sharing")]
    SecretSharing,
    #[error("invalid secret mount. one of source, target required")]
    SecretEmpty,
    #[error("both source and id can't be set")]
    SecretSourceAndId,
    #[error("invalid cache sharing set for {0} mount")]
    Sharing(&'static str),
    #[error("ssh does not support source")]
    SshSource,
    #[error("invalid mount target {}", quote(.0))]
    Target(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Bind,
        Self::Cache,
        Self::Tmpfs,
        Self::Secret,
        Self::Ssh,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// A mount as given, defaults not yet filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) kind: Kind,
    pub(super) from: String,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) id: String,
    pub(super) env: Option<String>,
    pub(super) sharing: Option<CacheSharing>,
    pub(super) is_readonly: Option<bool>,
    pub(super) is_required: bool,
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// Reads the keys in the order written: what a key may be depends on the type given before it.
pub(super) fn read(
    mount: &RunMount,
    expand: impl Fn(&str) -> Result<String, InstructionError>,
) -> Result<Given, InstructionError> {
    let mut given = Given::default();
    for (written, value) in &mount.options {
        let key = written.to_lowercase();
        match value {
            Some(value) => {
                let field = format!("{written}={value}");
                set_value(&mut given, key, expand(value)?, field)?;
            }
            None => set_flag(&mut given, key, written)?,
        }
    }
    validate(&given)?;
    Ok(given)
}

fn set_flag(given: &mut Given, key: String, written: &str) -> Result<(), MountError> {
    match key.as_str() {
        "readonly" | "ro" => given.is_readonly = Some(true),
        "readwrite" | "rw" => given.is_readonly = Some(false),
        "required" => {
            require(given.kind, &key, &[Kind::Secret, Kind::Ssh])?;
            given.is_required = true;
        }
        _ => return Err(MountError::NoValue(written.to_owned())),
    }
    Ok(())
}

fn set_value(
    given: &mut Given,
    key: String,
    value: String,
    field: String,
) -> Result<(), MountError> {
    match key.as_str() {
        "type" => given.kind = parse_kind(value)?,
        "from" => given.from = value,
        "source" | "src" => given.source = value,
        "target" | "dst" | "destination" => given.target = value,
        "readonly" | "ro" => given.is_readonly = Some(boolean(key, value)?),
        "readwrite" | "rw" => given.is_readonly = Some(!boolean(key, value)?),
        "required" => {
            require(given.kind, &key, &[Kind::Secret, Kind::Ssh])?;
            given.is_required = boolean(key, value)?;
        }
        "size" => {
            require(given.kind, &key, &[Kind::Tmpfs])?;
            let size = parse_size(&value).ok_or(MountError::InvalidValue { key, value })?;
            given.size = Some(size);
        }
        "id" => given.id = value,
        "sharing" => given.sharing = Some(parse_sharing(value)?),
        "mode" => given.mode = Some(number(key, value, 8)?),
        "uid" => given.uid = Some(number(key, value, 10)?),
        "gid" => given.gid = Some(number(key, value, 10)?),
        "env" => {
            require(given.kind, &key, &[Kind::Secret])?;
            given.env = Some(value);
        }
        _ => {
            let suggestion = suggest(&key, KEYS);
            return Err(MountError::UnknownKey {
                key,
                field,
                suggestion,
            });
        }
    }
    Ok(())
}

fn require(kind: Kind, key: &str, kinds: &[Kind]) -> Result<(), MountError> {
    if kinds.contains(&kind) {
        return Ok(());
    }
    Err(MountError::KeyForType {
        key: key.to_owned(),
        kind: kind.name(),
    })
}

fn parse_kind(value: String) -> Result<Kind, MountError> {
    let lower = value.to_lowercase();
    let known = Kind::ALL.into_iter().find(|kind| kind.name() == lower);
    known.ok_or_else(|| MountError::UnknownType {
        suggestion: suggest(&value, Kind::ALL.map(Kind::name)),
        given: value,
    })
}

fn parse_sharing(value: String) -> Result<CacheSharing, MountError> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(CacheSharing::Shared),
        "private" => Ok(CacheSharing::Private),
        "locked" => Ok(CacheSharing::Locked),
        _ => Err(MountError::UnknownSharing {
            suggestion: suggest(&value, ["shared", "private", "locked"]),
            given: value,
        }),
    }
}

fn boolean(key: String, value: String) -> Result<bool, MountError> {
    parse_bool(&value).ok_or(MountError::InvalidValue { key, value })
}

fn number(key: String, value: String, radix: u32) -> Result<u32, MountError> {
    let is_plain = !value.starts_with('+');
    match u32::from_str_radix(&value, radix) {
        Ok(number) if is_plain => Ok(number),
        Ok(_) | Err(_) => Err(MountError::InvalidNumber { key, value }),
    }
}

/// What only the whole mount tells.
fn validate(given: &Given) -> Result<(), MountError> {
    let kind = given.kind.name();
    if matches!(given.kind, Kind::Bind | Kind::Tmpfs) {
        for (key, value) in [("mode", given.mode), ("uid", given.uid), ("gid", given.gid)] {
            if value.is_some() {
                return Err(MountError::NotAllowed { key, kind });
            }
        }
    }
    if given.kind == Kind::Secret {
        if !given.from.is_empty() {
            return Err(MountError::SecretFrom);
        }
        if given.sharing.is_some() {
            return Err(MountError::SecretSharing);
        }
        if given.source.is_empty() && given.target.is_empty() && given.id.is_empty() {
            return Err(MountError::SecretEmpty);
        }
        if !given.source.is_empty() && !given.id.is_empty() {
            return Err(MountError::SecretSourceAndId);
        }
    }
    if given.sharing.is_some() && given.kind != Kind::Cache {
        return Err(MountError::Sharing(kind));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Span, Spanned};

    fn mount(text: &str) -> RunMount {
        RunMount {
            text: Spanned {
                value: text.to_owned(),
                span: Span::default(),
            },
            options: text
                .split(',')
                .map(|field| match field.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (field.to_owned(), None),
                })
                .collect(),
        }
    }

    #[test]
    fn wrong_mounts_are_named() {
        for (text, want) in [
            (
                "foo=bar",
                "unexpected key 'foo' in 'foo=bar' (did you mean from?)",
            ),
            ("colour=red", "unexpected key 'colour' in 'colour=red'"),
            ("type=cash", "unsupported mount type \"cash\""),
            ("type=", "unsupported mount type \"\""),
            ("target", "invalid field 'target' must be a key=value pair"),
            (
                "mode=1,target=/x",
                "mode not allowed for \"bind\" type mounts",
            ),
            (
                "type=cache,size=1m,target=/x",
                "unexpected key 'size' for mount type 'cache'",
            ),
            (
                "type=tmpfs,size=lots,target=/x",
                "invalid value for size: lots",
            ),
            (
                "type=cache,sharing=some,target=/x",
                "unsupported sharing value \"some\"",
            ),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=cache,uid=x", "invalid value x for uid"),
            ("ro=maybe", "invalid value for ro: maybe"),
            (
                "required",
                "unexpected key 'required' for mount type 'bind'",
            ),
            (
                "type=secret",
                "invalid secret mount. one of source, target required",
            ),
            ("type=secret,id=a,src=b", "both source and id can't be set"),
            (
                "type=secret,id=a,from=b",
                "secret mount should not have a from",
            ),
            (
                "type=secret,id=a,sharing=shared",
                "secret mount should not define sharing",
            ),
            (
                "type=ssh,sharing=shared",
                "invalid cache sharing set for ssh mount",
            ),
            (
                "env=A,target=/x",
                "unexpected key 'env' for mount type 'bind'",
            ),
        ] {
            let error = read(&mount(text), |value| Ok(value.to_owned())).unwrap_err();
            assert!(error.to_string().starts_with(want), "{text}: {error}");
        }
    }

    #[test]
    fn keys_are_read() {
        let text = "TYPE=Cache,dst=/c,rw=false,sharing=LOCKED,mode=0700,uid=1,gid=2,from=b,src=/s";
        let given = read(&mount(text), |value| Ok(value.to_owned())).unwrap();
        assert_eq!(
            given,
            Given {
                kind: Kind::Cache,
                target: "/c".into(),
                is_readonly: Some(true),
                sharing: Some(CacheSharing::Locked),
                mode: Some(0o700),
                uid: Some(1),
                gid: Some(2),
                from: "b".into(),
                source: "/s".into(),
                ..Given::default()
            }
        );
        let given = read(&mount("type=tmpfs,target=/t,size=1.5k,rw"), |v| {
            Ok(v.to_owned())
        })
        .unwrap();
        assert_eq!((given.size, given.is_readonly), (Some(1536), Some(false)));
    }
}
