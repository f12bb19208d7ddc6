//! ADD: local files and archives, URLs, repositories (features.md 1.12).

use crate::ast;
use crate::graph::{GitOp, HttpOp, Op, Unpack};
use crate::reference::validate_digest;

use super::copy::{Files, Request, Written, is_http, literal_pattern};
use super::emit::{Emitter, Step};
use super::error::{CopyError, InstructionError};
use super::git::GitReference;
use super::state::StageState;

/// A source of ADD.
#[derive(Debug)]
enum Remote {
    /// A path of the build context.
    No,
    Git(GitOp),
    Http(HttpOp),
}

/// Lowers an ADD.
pub(super) fn lower(
    emitter: &mut Emitter<'_>,
    state: &mut StageState,
    step: Step<'_>,
    add: &ast::Add,
) -> Result<(), InstructionError> {
    let written = Written {
        keyword: "ADD",
        sources: &add.sources,
        heredocs: &add.heredocs,
        destination: &add.destination.value,
        chown: add.chown.as_ref(),
        chmod: add.chmod.as_ref(),
        is_link: add.link,
        keeps_parents: false,
        exclude: &add.exclude,
    };
    let request = Request::read(emitter, state, &written)?;
    let checksum = match &add.checksum {
        Some(checksum) => emitter.expand(state, &checksum.value)?,
        None => String::new(),
    };
    let checksum = Some(checksum).filter(|checksum| !checksum.is_empty());
    check_checksum(&request, checksum.as_ref())?;
    let remotes = request
        .paths
        .iter()
        .map(|path| remote(path, add, checksum.as_ref()))
        .collect::<Result<Vec<Remote>, CopyError>>()?;
    let mut files = Files::new(state, &request);
    for (path, remote) in request.paths.iter().zip(remotes) {
        source(emitter, state, step, &mut files, path, (remote, add.unpack));
    }
    files.finish(emitter, state, step);
    Ok(())
}

/// Adds one source.
fn source(
    emitter: &mut Emitter<'_>,
    state: &StageState,
    step: Step<'_>,
    files: &mut Files<'_>,
    path: &str,
    (remote, unpack): (Remote, Option<bool>),
) {
    let archives = |unpack: bool| {
        if unpack {
            Unpack::Archives
        } else {
            Unpack::Never
        }
    };
    let (op, path, unpack) = match remote {
        Remote::No => {
            let context = emitter.build_context();
            let unpack = archives(unpack.unwrap_or(true));
            files.copy(emitter, Some(context), vec![path.to_owned()], unpack);
            return;
        }
        Remote::Git(git) => (Op::Git(git), "/".to_owned(), Unpack::Never),
        Remote::Http(http) => {
            let pattern = literal_pattern(&http.filename);
            (Op::Http(http), pattern, archives(unpack.unwrap_or(false)))
        }
    };
    // What is fetched is shown as the step that wants it, with the number that the step will have.
    let mut upcoming = state.clone();
    upcoming.steps.advance();
    let mut shown = emitter.present(&upcoming, step, &emitter.shown(state, step));
    shown.ignores_cache = false;
    let vertex = emitter.builder.add(op, Vec::new(), shown);
    files.copy(emitter, Some(vertex), vec![path], unpack);
}

/// A checksum is for one remote source.
fn check_checksum(request: &Request, checksum: Option<&String>) -> Result<(), CopyError> {
    if checksum.is_none() {
        return Ok(());
    }
    match request.paths.as_slice() {
        [path] if is_http(path) || GitReference::parse(path).is_some() => Ok(()),
        [_] => Err(CopyError::ChecksumForLocal),
        _ => Err(CopyError::ChecksumForSeveral),
    }
}

/// Tells what a source is.
fn remote(path: &str, add: &ast::Add, checksum: Option<&String>) -> Result<Remote, CopyError> {
    if let Some(git) = GitReference::parse(path) {
        let mut git = git?;
        match (add.keep_git_dir, git.keep_git_dir) {
            (Some(flag), Some(in_url)) if flag != in_url => return Err(CopyError::KeepGitDir),
            (flag, in_url) => git.keep_git_dir = in_url.or(flag),
        }
        match (checksum, &git.checksum) {
            (Some(given), Some(in_url)) if given != in_url => {
                return Err(CopyError::ChecksumMismatch {
                    given: crate::gofmt::quote(given),
                    in_url: crate::gofmt::quote(in_url),
                });
            }
            (Some(given), None) => git.checksum = Some(given.clone()),
            (Some(_) | None, _) => {}
        }
        return Ok(Remote::Git(git.into_op()?));
    }
    if !is_http(path) {
        return Ok(Remote::No);
    }
    if let Some(checksum) = checksum {
        validate_digest(checksum)?;
    }
    Ok(Remote::Http(HttpOp {
        url: path.to_owned(),
        checksum: checksum.cloned(),
        filename: file_name(path),
    }))
}

/// The last component of a URL's path, escaped slashes being slashes.
pub(super) fn file_name(url: &str) -> String {
    let address = url.split(['?', '#']).next().unwrap_or(url);
    let path = address
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map_or("", |(_, path)| path);
    let path = percent_decode(path);
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => "__unnamed__".to_owned(),
        Some(name) if name.contains('\0') => "__unnamed__".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// `%20` of a path; what is no escape stays.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                rest = &tail[2..];
            }
            Some(_) | None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_the_url() {
        for (url, want) in [
            ("https://h/a/b.txt?x=/y#z", "b.txt"),
            ("https://h/a/", "a"),
            ("https://h/", "__unnamed__"),
            ("https://h", "__unnamed__"),
            ("https://h/a%20b", "a b"),
            ("https://h/a%2Fb", "b"),
            ("https://h/a/..%2f..%2Fetc%2F", "etc"),
            ("https://h/a%2F..", "__unnamed__"),
            ("https://h/%2F", "__unnamed__"),
            ("https://h/a%00b", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), want, "{url}");
        }
    }
}
