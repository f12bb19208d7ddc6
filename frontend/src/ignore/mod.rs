//! Which paths patterns mean: `.dockerignore`, `--exclude`, `--parents` and the wildcards of COPY.
//!
//! Two languages, both Docker's: *rules* (`moby/patternmatcher`: whole paths, `**`, `!`, the last match wins, a match of a
//! parent counts) and *globs* (Go's `filepath.Match`, component by component). Neither is `.gitignore`'s.
//!
//! Not here: walking directories. Paths are relative to the root of what is walked, with `/` between components and
//! none in front.

mod glob;
mod matcher;
mod pattern;
mod rules;

pub use glob::{has_wildcards, match_path};
pub use matcher::{ExcludeMatcher, ParentsSource};
pub use pattern::PatternError;
pub use rules::{Decision, IgnoreError, IgnoreRules};

/// Go's `filepath.Clean` (on Unix): shortest equivalent path, `.` if nothing is left.
pub(crate) fn clean_path(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_rooted => {}
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (is_rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::clean_path;

    #[test]
    fn cleans_like_go() {
        for (path, want) in [
            ("", "."),
            (".", "."),
            ("a/../b", "b"),
            ("../x", "../x"),
            ("/../x", "/x"),
            ("a//b/./c/", "a/b/c"),
            ("/", "/"),
            ("a/../..", ".."),
        ] {
            assert_eq!(clean_path(path), want, "{path}");
        }
    }
}
