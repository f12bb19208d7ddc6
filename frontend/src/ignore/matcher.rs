//! The rule language without a file: `--exclude` and `--parents`.

use super::PatternError;
use super::glob::has_wildcards;
use super::pattern::Pattern;

/// `COPY --exclude`, `ADD --exclude`: all patterns of one instruction, in order.
#[derive(Clone, Debug, Default)]
pub struct ExcludeMatcher {
    patterns: Vec<Pattern>,
}

impl ExcludeMatcher {
    /// Compiles patterns; a leading `/` is kept and so matches nothing.
    ///
    /// # Errors
    ///
    /// The first malformed pattern.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut compiled = Vec::new();
        for pattern in patterns {
            compiled.extend(Pattern::new(pattern.as_ref())?);
        }
        Ok(Self { patterns: compiled })
    }

    /// Whether a path, relative to the copied root, is left out: the last pattern that matches it or a directory above
    /// it decides.
    pub fn is_excluded(&self, path: &str) -> bool {
        let mut is_excluded = false;
        for pattern in &self.patterns {
            if pattern.is_exception() == is_excluded && pattern.matches_or_parent(path) {
                is_excluded = !is_excluded;
            }
        }
        is_excluded
    }
}

/// A source of `COPY --parents`.
#[derive(Clone, Debug)]
pub struct ParentsSource {
    root: String,
    pattern: Option<Pattern>,
    required: Option<String>,
}

impl ParentsSource {
    /// Reads a source: what stands before `/./` is not repeated below the destination.
    ///
    /// # Errors
    ///
    /// A malformed pattern.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        let (root, pattern) = source.split_once("/./").unwrap_or(("/", source));
        let root = super::clean_path(&format!("/{root}"));
        let pattern = super::clean_path(&format!("/{pattern}"));
        let required = (!has_wildcards(&root) && !has_wildcards(&pattern))
            .then(|| super::clean_path(&format!("{root}/{pattern}")));
        Ok(Self {
            root,
            pattern: Pattern::new(&pattern[1..])?,
            required,
        })
    }

    /// The directory (or pattern of directories) that the copy starts at, absolute.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The path that must exist, absolute; `None` if wildcards were used.
    pub fn required(&self) -> Option<&str> {
        self.required.as_deref()
    }

    /// Whether a path, relative to the root, is copied: it or a directory above it matches.
    pub fn is_included(&self, path: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.matches_or_parent(path) != pattern.is_exception(),
            None => true,
        }
    }

    /// The pattern below the root, cleaned; empty if all of the root is meant.
    pub fn pattern(&self) -> &str {
        self.pattern.as_ref().map_or("", Pattern::text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes_with_exceptions() {
        let matcher = ExcludeMatcher::new(&["*.md", "!keep.md", "/lead", "d"]).unwrap();
        for (path, want) in [
            ("a.md", true),
            ("keep.md", false),
            ("x/a.md", false),
            ("lead", false),
            ("d/x/y", true),
        ] {
            assert_eq!(matcher.is_excluded(path), want, "{path}");
        }
        assert_eq!(
            ExcludeMatcher::new(&["["]).unwrap_err(),
            PatternError::Syntax
        );
    }

    #[test]
    fn parents_have_a_pivot_and_double_stars() {
        let all = ParentsSource::new("./a/./b/**/c.txt").unwrap();
        assert_eq!(all.root(), "/a");
        assert_eq!(all.required(), None);
        assert!(all.is_included("b/c.txt"));
        assert!(all.is_included("b/x/y/c.txt"));
        assert!(!all.is_included("b/x/d.txt"));

        let literal = ParentsSource::new("a/b/missing.txt").unwrap();
        assert_eq!(literal.root(), "/");
        assert_eq!(literal.required(), Some("/a/b/missing.txt"));
        assert_eq!(literal.pattern(), "a/b/missing.txt");
        assert!(ParentsSource::new(".").unwrap().is_included("x"));
    }
}
