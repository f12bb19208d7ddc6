//! Which commit a reference is.

use cache::key::builder::KeyBuilder;
use frontend::graph::GitOp;
use frontend::lower::is_commit;

use super::GitError;
use super::program::{From, Git, Run};
use crate::op::error::StepError;
use crate::op::remote::{Fetching, Identified};

/// A commit and the name under which the remote has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Revision {
    /// Full, lower case.
    pub(super) commit: String,
    /// `refs/…` or `HEAD`; none for a commit given as such.
    pub(super) name: Option<String>,
}

/// Finds out which commit is meant.
pub(crate) fn identify(fetching: &Fetching<'_>, op: &GitOp) -> Result<Identified, StepError> {
    let git = Git::new(fetching, &op.remote)?;
    let revision = revision(&git, fetching, op)?;
    Ok(key(op, &revision.commit))
}

/// The key is the commit and what is made of it; where it comes from only matters to who keeps `.git`.
fn key(op: &GitOp, commit: &str) -> Identified {
    let mut key = KeyBuilder::new("git");
    key.text("commit", commit);
    match &op.subdir {
        Some(subdir) => key.text("directory", subdir),
        None => key.absent("directory"),
    };
    key.number("skips submodules", i128::from(op.skip_submodules));
    match op.keep_git_dir {
        true => key.text(
            "keeps .git of",
            &super::program::without_password(&op.remote),
        ),
        false => key.absent("keeps .git of"),
    };
    Identified {
        key: key.finish(),
        parts: key.into_parts(),
    }
}

/// Asks the remote, unless the reference is a commit itself.
pub(super) fn revision(
    git: &Git<'_>,
    fetching: &Fetching<'_>,
    op: &GitOp,
) -> Result<Revision, StepError> {
    let revision = match op.reference.as_deref() {
        Some(reference) if is_commit(reference) => Revision {
            commit: reference.to_ascii_lowercase(),
            name: None,
        },
        reference => {
            let reference = reference.unwrap_or("HEAD");
            if !is_safe(reference) {
                return Err(GitError::BadReference(reference.to_owned()).into());
            }
            fetching.may_ask(&format!("{reference} of {}", git.shown))?;
            let run = Run {
                attempt: "fetch remote",
                dir: fetching.paths.root(),
                from: From::Network,
                env: &[],
            };
            let peeled = format!("{reference}^{{}}");
            let args = ["ls-remote", "--", op.remote.as_str(), reference, &peeled];
            let listed = git.run(&run, args)?;
            let listed = String::from_utf8_lossy(&listed);
            chosen(&listed, reference).ok_or_else(|| GitError::NoReference {
                remote: git.shown.clone(),
                reference: reference.to_owned(),
            })?
        }
    };
    match &op.checksum {
        Some(expected) if !revision.commit.starts_with(&expected.to_ascii_lowercase()) => {
            Err(GitError::Checksum {
                expected: expected.clone(),
                found: revision.commit,
            }
            .into())
        }
        Some(_) | None => Ok(revision),
    }
}

/// What `git check-ref-format` allows, and nothing that looks like an option.
fn is_safe(reference: &str) -> bool {
    let is_bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    !reference.is_empty()
        && !reference.starts_with('-')
        && !reference.contains("..")
        && !reference.contains(is_bad)
}

/// Picks from `ID TAB NAME` lines: the full name, else a branch, else a tag; of an annotated tag the commit.
fn chosen(listed: &str, reference: &str) -> Option<Revision> {
    let find = |name: &str| {
        let mut lines = listed.lines().filter_map(|line| line.split_once('\t'));
        lines
            .find(|(id, found)| *found == name && is_commit(id))
            .map(|(id, _)| id.to_owned())
    };
    let names = [
        reference.to_owned(),
        format!("refs/heads/{reference}"),
        format!("refs/tags/{reference}"),
    ];
    let is_full = |name: &String| name.starts_with("refs/") || name == "HEAD";
    names.into_iter().filter(is_full).find_map(|name| {
        let commit = find(&format!("{name}^{{}}")).or_else(|| find(&name))?;
        Some(Revision {
            commit,
            name: Some(name),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_go_before_tags_and_tags_are_peeled() {
        let id = |c: &str| c.repeat(40);
        let listed = format!(
            "{}\trefs/heads/v1\n{}\trefs/heads/x/v1\n{}\trefs/tags/v1\n{}\trefs/tags/v2\n{}\trefs/tags/v2^{{}}\n{}\tHEAD\nnonsense\n",
            id("a"),
            id("b"),
            id("c"),
            id("d"),
            id("e"),
            id("f"),
        );
        for (reference, want) in [
            ("v1", Some(("a", "refs/heads/v1"))),
            ("refs/tags/v1", Some(("c", "refs/tags/v1"))),
            ("v2", Some(("e", "refs/tags/v2"))),
            ("HEAD", Some(("f", "HEAD"))),
            ("x", None),
        ] {
            let want = want.map(|(c, name)| Revision {
                commit: id(c),
                name: Some(name.to_owned()),
            });
            assert_eq!(chosen(&listed, reference), want, "{reference}");
        }
    }

    #[test]
    fn references_cannot_pass_for_options_or_patterns() {
        for reference in [
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a*",
            "a:b",
            "",
            "a^{}",
            "a\n",
        ] {
            assert!(!is_safe(reference), "{reference}");
        }
        assert!(is_safe("feature/a-b_1.2"));
        assert!(is_commit(&"0aB".repeat(14)[..40]) && !is_commit("abc"));
    }
}
