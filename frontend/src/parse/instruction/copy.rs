//! COPY and ADD.

use std::collections::BTreeMap;

use crate::ast::{Add, Copy, Heredoc, Source};
use crate::parse::error::InstructionError;
use crate::parse::flags::{FlagKind, Flags};
use crate::parse::heredoc::Marker;
use crate::parse::statement::{Arguments, Statement, exact};
use crate::source::Spanned;

use super::Keyword;

/// What both have besides flags.
struct Files {
    sources: Vec<Source>,
    destination: Spanned<String>,
    heredocs: Vec<Heredoc>,
}

pub(super) fn copy(statement: Statement<'_>) -> Result<Copy, InstructionError> {
    let (flags, files) = parse(
        statement,
        Keyword::Copy,
        &[
            ("chown", FlagKind::String),
            ("from", FlagKind::String),
            ("chmod", FlagKind::String),
            ("link", FlagKind::Bool),
            ("parents", FlagKind::Bool),
            ("exclude", FlagKind::Strings),
        ],
    )?;
    Ok(Copy {
        sources: files.sources,
        destination: files.destination,
        heredocs: files.heredocs,
        from: flags.string("from"),
        chown: flags.string("chown"),
        chmod: flags.string("chmod"),
        link: flags.boolean("link").unwrap_or(false),
        parents: flags.boolean("parents").unwrap_or(false),
        exclude: flags.strings("exclude"),
    })
}

pub(super) fn add(statement: Statement<'_>) -> Result<Add, InstructionError> {
    let (flags, files) = parse(
        statement,
        Keyword::Add,
        &[
            ("chown", FlagKind::String),
            ("chmod", FlagKind::String),
            ("link", FlagKind::Bool),
            ("keep-git-dir", FlagKind::Bool),
            ("checksum", FlagKind::String),
            ("unpack", FlagKind::Bool),
            ("exclude", FlagKind::Strings),
        ],
    )?;
    Ok(Add {
        sources: files.sources,
        destination: files.destination,
        heredocs: files.heredocs,
        chown: flags.string("chown"),
        chmod: flags.string("chmod"),
        checksum: flags.string("checksum"),
        link: flags.boolean("link").unwrap_or(false),
        keep_git_dir: flags.boolean("keep-git-dir"),
        unpack: flags.boolean("unpack"),
        exclude: flags.strings("exclude"),
    })
}

fn parse(
    statement: Statement<'_>,
    keyword: Keyword,
    known: &[(&'static str, FlagKind)],
) -> Result<(Flags, Files), InstructionError> {
    let keyword = keyword.name();
    let mut words = statement.list();
    let destination = match words.pop() {
        Some(destination) if !words.is_empty() => destination,
        Some(_) | None => return Err(InstructionError::NoDestination { keyword }),
    };
    let flags = statement.flags(known)?;
    if matches!(statement.arguments, Arguments::Array(_)) {
        let files = Files {
            sources: words.into_iter().map(Source::Path).collect(),
            destination,
            heredocs: Vec::new(),
        };
        return Ok((flags, files));
    }
    if Marker::parse(&destination.value).is_some() {
        return Err(InstructionError::HeredocDestination { keyword });
    }
    let sources = sources(words, &statement);
    let heredocs = statement.heredocs;
    let files = Files {
        sources,
        destination,
        heredocs,
    };
    Ok((flags, files))
}

/// Tells heredocs and paths apart. Of several heredocs with one name the last gives the content to all.
fn sources(words: Vec<Spanned<String>>, statement: &Statement<'_>) -> Vec<Source> {
    let names = statement.heredocs.iter().enumerate();
    let by_name: BTreeMap<&str, usize> = names.map(|(i, h)| (h.name.as_str(), i)).collect();
    let source = |word: Spanned<String>| {
        let heredoc = Marker::parse(&word.value)
            .and_then(|marker| by_name.get(marker.name.as_str()).copied());
        match heredoc {
            Some(index) => Source::Heredoc(index),
            None => Source::Path(word),
        }
    };
    exact(words.into_iter().map(source).collect())
}
