//! Git repositories as sources: which texts mean one, and what they say (features.md 1.12).

use crate::graph::GitOp;

/// Why a git source cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GitError {
    #[error("query {} has no value", crate::gofmt::quote(.0))]
    NoValue(String),
    #[error("query {} has multiple values", crate::gofmt::quote(.0))]
    SeveralValues(String),
    #[error("{what} conflicts: {} vs {}", crate::gofmt::quote(.first), crate::gofmt::quote(.second))]
    Conflict {
        what: &'static str,
        first: String,
        second: String,
    },
    #[error("branch conflicts with tag")]
    BranchAndTag,
    #[error("invalid {key} value: {}", crate::gofmt::quote(.value))]
    InvalidValue { key: String, value: String },
    #[error("unexpected query {}", crate::gofmt::quote(.0))]
    Unexpected(String),
    #[error(
        "query \"fetch-by-commit\" needs the commit in full; add \"checksum=\" and its 40 hex digits"
    )]
    NoCommit,
}

/// Why the text of a git context cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct GitContextError(#[from] GitError);

/// Reads a build context; `None` if it is no git repository.
///
/// # Errors
///
/// It is one, and what it says about itself cannot be used.
pub fn git_context(text: &str) -> Option<Result<GitOp, GitContextError>> {
    let git = GitReference::parse_context(text)?;
    let op = git.and_then(GitReference::into_op);
    Some(op.map_err(GitContextError))
}

/// A git source, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GitReference {
    pub(super) remote: String,
    pub(super) reference: Option<String>,
    pub(super) subdir: Option<String>,
    pub(super) checksum: Option<String>,
    pub(super) keep_git_dir: Option<bool>,
    pub(super) submodules: Option<bool>,
    /// The commit is fetched as such; where the reference has got to meanwhile does not matter.
    pub(super) fetch_by_commit: bool,
}

impl GitReference {
    /// Reads a source of ADD; `None` if it is no git repository: a URL of git or ssh, an http URL whose path ends in
    /// `.git`, or `user@host:path`.
    pub(super) fn parse(text: &str) -> Option<Result<Self, GitError>> {
        if text.starts_with("./") || text.starts_with("../") {
            return None;
        }
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = address.split_once('?').unwrap_or((address, ""));
        if !is_url(remote) && !is_scp(remote) {
            return None;
        }
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let found = Self {
            remote: remote.to_owned(),
            reference: some(reference),
            subdir: some(subdir),
            ..Self::default()
        };
        Some(found.with_query(query))
    }

    /// Reads a named context, which may also be `github.com/x/y`.
    pub(super) fn parse_context(text: &str) -> Option<Result<Self, GitError>> {
        if text.starts_with("github.com/") {
            let text = format!("https://{text}");
            let (address, fragment) = text.split_once('#').unwrap_or((&text, ""));
            let git = format!("{}.git#{fragment}", address.trim_end_matches(".git"));
            return Self::parse(&git);
        }
        Self::parse(text)
    }

    /// The op that fetches it.
    ///
    /// # Errors
    ///
    /// It is to be fetched by its commit, and that is not known in full.
    pub(super) fn into_op(self) -> Result<GitOp, GitError> {
        let reference = if self.fetch_by_commit {
            let full = |text: &Option<String>| text.clone().filter(|text| is_commit(text));
            match (full(&self.checksum), full(&self.reference)) {
                (Some(first), Some(second)) if !first.eq_ignore_ascii_case(&second) => {
                    return Err(GitError::Conflict {
                        what: "checksum",
                        first,
                        second,
                    });
                }
                (Some(commit), _) | (None, Some(commit)) => Some(commit),
                (None, None) => return Err(GitError::NoCommit),
            }
        } else {
            self.reference
        };
        Ok(GitOp {
            remote: self.remote,
            reference,
            subdir: self.subdir,
            checksum: self.checksum,
            keep_git_dir: self.keep_git_dir.unwrap_or(false),
            skip_submodules: self.submodules == Some(false),
        })
    }

    fn with_query(mut self, query: &str) -> Result<Self, GitError> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (unescape(key), unescape(value));
            if seen.contains(&key) {
                return Err(GitError::SeveralValues(key));
            }
            seen.push(key.clone());
            let is_flag = matches!(
                key.as_str(),
                "submodules" | "keep-git-dir" | "fetch-by-commit"
            );
            if value.is_empty() && !is_flag {
                return Err(GitError::NoValue(key));
            }
            match key.as_str() {
                "ref" => agree("ref", &mut self.reference, value)?,
                "tag" => tag = Some(with_prefix("refs/tags/", value)),
                "branch" => branch = Some(with_prefix("refs/heads/", value)),
                "subdir" => agree("subdir", &mut self.subdir, value)?,
                "checksum" | "commit" => agree("checksum", &mut self.checksum, value)?,
                "keep-git-dir" => self.keep_git_dir = Some(flag(&key, value)?),
                "submodules" => self.submodules = Some(flag(&key, value)?),
                // The builder gives files the time of the commit, always.
                "mtime" if matches!(value.as_str(), "checkout" | "commit") => {}
                "mtime" => return Err(GitError::InvalidValue { key, value }),
                "fetch-by-commit" => self.fetch_by_commit = flag(&key, value)?,
                _ => return Err(GitError::Unexpected(key)),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err(GitError::BranchAndTag);
        }
        if let Some(reference) = tag.or(branch) {
            agree("ref", &mut self.reference, reference)?;
        }
        if self.reference.is_none() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(self)
    }
}

/// Whether this is a full commit id: SHA-1 or SHA-256.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Sets a value that may have been given in another way before.
fn agree(what: &'static str, known: &mut Option<String>, value: String) -> Result<(), GitError> {
    match known {
        Some(first) if *first != value => Err(GitError::Conflict {
            what,
            first: first.clone(),
            second: value,
        }),
        Some(_) => Ok(()),
        None => {
            *known = Some(value);
            Ok(())
        }
    }
}

fn with_prefix(prefix: &str, value: String) -> String {
    if value.starts_with(prefix) {
        return value;
    }
    format!("{prefix}{value}")
}

/// A flag is set by being there.
fn flag(key: &str, value: String) -> Result<bool, GitError> {
    if value.is_empty() {
        return Ok(true);
    }
    parse_bool(&value).ok_or_else(|| GitError::InvalidValue {
        key: key.to_owned(),
        value,
    })
}

/// Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// `%41` and `+` of a URL's query; what is no escape stays.
fn unescape(text: &str) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_url(remote: &str) -> bool {
    let Some((scheme, rest)) = remote.split_once("://") else {
        return false;
    };
    match scheme.to_ascii_lowercase().as_str() {
        "git" | "ssh" => true,
        "http" | "https" => rest
            .split_once('/')
            .is_some_and(|(_, path)| path.ends_with(".git")),
        _ => false,
    }
}

/// `user@host:path`
fn is_scp(remote: &str) -> bool {
    let Some((user, rest)) = remote.split_once('@') else {
        return false;
    };
    let Some((host, _)) = rest.split_once(':') else {
        return false;
    };
    let is_word = |text: &str, extra: char| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == extra)
    };
    is_word(user, '_') && is_word(host, '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match GitReference::parse(text) {
            None => "no git".to_owned(),
            Some(Err(error)) => format!("error: {error}"),
            Some(Ok(git)) => {
                let op = match git.into_op() {
                    Ok(op) => op,
                    Err(error) => return format!("error: {error}"),
                };
                let show = |text: Option<String>| text.unwrap_or_else(|| "-".into());
                format!(
                    "{} {} {} {}{}{}",
                    op.remote,
                    show(op.reference),
                    show(op.subdir),
                    show(op.checksum),
                    if op.keep_git_dir { " keep" } else { "" },
                    if op.skip_submodules { " skip" } else { "" }
                )
            }
        }
    }

    #[test]
    fn reads_what_is_git() {
        for (text, want) in [
            ("https://h/r.git", "https://h/r.git - - -"),
            (
                "https://h/r.git#main:sub/dir",
                "https://h/r.git main sub/dir -",
            ),
            (
                "http://127.0.0.1:9/repo.git",
                "http://127.0.0.1:9/repo.git - - -",
            ),
            ("https://h/r", "no git"),
            ("https://h/r.git.txt", "no git"),
            ("git://h/r", "git://h/r - - -"),
            ("ssh://git@h/r#v1", "ssh://git@h/r v1 - -"),
            ("git@h.x:o/r.git#v1", "git@h.x:o/r.git v1 - -"),
            ("./git@h:x", "no git"),
            ("github.com/o/r", "no git"),
            ("file:///x.git", "no git"),
            ("a.txt", "no git"),
            (
                "https://h/r.git?tag=v1&subdir=d&keep-git-dir&submodules=false",
                "https://h/r.git refs/tags/v1 d - keep skip",
            ),
            (
                "https://h/r.git?branch=b",
                "https://h/r.git refs/heads/b - -",
            ),
            ("https://h/r.git?checksum=abc", "https://h/r.git abc - abc"),
            ("https://h/r.git?ref=a%2Fb", "https://h/r.git a/b - -"),
            ("https://h/r.git?mtime=checkout", "https://h/r.git - - -"),
            (
                "https://h/r.git?ref=a#b",
                "error: ref conflicts: \"b\" vs \"a\"",
            ),
            (
                "https://h/r.git?tag=a&branch=b",
                "error: branch conflicts with tag",
            ),
            ("https://h/r.git?ref", "error: query \"ref\" has no value"),
            (
                "https://h/r.git?ref=a&ref=b",
                "error: query \"ref\" has multiple values",
            ),
            ("https://h/r.git?x=a", "error: unexpected query \"x\""),
            (
                "https://h/r.git?submodules=x",
                "error: invalid submodules value: \"x\"",
            ),
            ("https://h/r.git?mtime=commit", "https://h/r.git - - -"),
        ] {
            assert_eq!(parsed(text), want, "{text}");
        }
    }

    #[test]
    fn fetching_by_commit_takes_the_commit_for_the_reference() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let other = commit.replace('0', "f");
        let needs = GitError::NoCommit.to_string();
        for (url, want) in [
            (
                format!("https://h/r.git?branch=b&checksum={commit}&fetch-by-commit=true"),
                format!("https://h/r.git {commit} - {commit}"),
            ),
            (
                format!("https://h/r.git?branch=b&checksum={commit}&fetch-by-commit=false"),
                format!("https://h/r.git refs/heads/b - {commit}"),
            ),
            (
                format!("https://h/r.git?commit=0123&fetch-by-commit#{commit}:d"),
                format!("https://h/r.git {commit} d 0123"),
            ),
            (
                format!("https://h/r.git?checksum={commit}&fetch-by-commit#{other}"),
                format!("error: checksum conflicts: \"{commit}\" vs \"{other}\""),
            ),
            (
                "https://h/r.git?branch=b&checksum=0123456&fetch-by-commit".to_owned(),
                format!("error: {needs}"),
            ),
            (
                "https://h/r.git?branch=b&fetch-by-commit".to_owned(),
                format!("error: {needs}"),
            ),
            (
                "https://h/r.git?fetch-by-commit=x".to_owned(),
                "error: invalid fetch-by-commit value: \"x\"".to_owned(),
            ),
        ] {
            assert_eq!(parsed(&url), want, "{url}");
        }
    }
}
