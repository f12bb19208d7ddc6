//! `.dockerignore`: lines to rules, and which rule decided about a path.

use super::PatternError;
use super::pattern::Pattern;

/// The rules of an ignore file, in order.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    line: usize,
    written: String,
    pattern: Pattern,
}

/// What the last rule that matched says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The line of the rule, from one.
    pub line: usize,
    /// The rule as written, without surrounding blanks.
    pub pattern: &'a str,
    /// Whether the path is ignored; false if a `!` rule took it back in.
    pub is_excluded: bool,
}

/// A rule that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern `{pattern}` on line {line}")]
pub struct IgnoreError {
    /// Its line, from one.
    pub line: usize,
    /// The rule as written.
    pub pattern: String,
    /// What is wrong; its text is BuildKit's.
    #[source]
    pub reason: PatternError,
}

impl IgnoreRules {
    /// Reads an ignore file: a byte order mark is dropped, `#` in the first column makes a comment, blanks around a
    /// pattern go, a leading `/` means nothing.
    ///
    /// # Errors
    ///
    /// The first malformed pattern.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let written = line.trim();
            let Some(pattern) = normalise(written) else {
                continue;
            };
            let pattern = Pattern::new(&pattern).map_err(|reason| IgnoreError {
                line: index + 1,
                pattern: written.to_owned(),
                reason,
            })?;
            rules.extend(pattern.map(|pattern| Rule {
                line: index + 1,
                written: written.to_owned(),
                pattern,
            }));
        }
        Ok(Self { rules })
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether some rule takes paths back in.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.pattern.is_exception())
    }

    /// The rule that decides about a path: the last one that matches it or a directory above it and changes the
    /// verdict. `None` if no rule does.
    pub fn decide(&self, path: &str) -> Option<Decision<'_>> {
        let mut decision = None;
        for rule in &self.rules {
            let is_excluded = decision.is_some_and(|d: Decision<'_>| d.is_excluded);
            if rule.pattern.is_exception() == is_excluded && rule.pattern.matches_or_parent(path) {
                decision = Some(Decision {
                    line: rule.line,
                    pattern: &rule.written,
                    is_excluded: !rule.pattern.is_exception(),
                });
            }
        }
        decision
    }

    /// Whether a path is ignored.
    pub fn is_excluded(&self, path: &str) -> bool {
        self.decide(path)
            .is_some_and(|decision| decision.is_excluded)
    }

    /// Whether a directory and all below it are ignored, so that a walk may leave it out: it is ignored and no `!` rule
    /// can match below it.
    pub fn can_skip_directory(&self, path: &str) -> bool {
        self.is_excluded(path)
            && !self
                .rules
                .iter()
                .any(|rule| rule.pattern.is_exception() && rule.pattern.may_match_below(path))
    }
}

/// A line as the reader of ignore files hands it to the matcher (`patternmatcher/ignorefile`): cleaned, without a leading
/// slash, the blanks behind a `!` gone. `None` for a blank line.
fn normalise(written: &str) -> Option<String> {
    if written.is_empty() {
        return None;
    }
    let (mark, rest) = match written.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", written),
    };
    if rest.is_empty() {
        return Some(mark.to_owned());
    }
    let cleaned = super::clean_path(rest);
    let relative = match cleaned.strip_prefix('/') {
        Some(relative) if cleaned.len() > 1 => relative,
        Some(_) | None => &cleaned,
    };
    Some(format!("{mark}{relative}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(rules: &str, paths: &[&str]) -> Vec<String> {
        let rules = IgnoreRules::parse(rules).unwrap();
        paths
            .iter()
            .filter(|path| !rules.is_excluded(path))
            .map(|path| (*path).to_owned())
            .collect()
    }

    #[test]
    fn ignores_what_docker_ignores() {
        for (rules, paths, want) in [
            ("*", &["a", "a/b", ".x"][..], &[][..]),
            ("**", &["a", "a/b"], &[]),
            (
                "\\a.txt\nd\\/x",
                &["a.txt", "d/x", "d/y"],
                &["a.txt", "d/y"],
            ),
            (
                "A.TXT",
                &["a.txt", "A.TXT", "sub/A.TXT"],
                &["a.txt", "sub/A.TXT"],
            ),
            (
                "dir\n!dir/sub/keep",
                &["dir", "dir/x", "dir/sub", "dir/sub/keep"],
                &["dir/sub/keep"],
            ),
            (
                "f?.x\n[ab]1\n[^c-z]2\nst\\*r\n\\!bang",
                &[
                    "f1.x", "f.x", "f12.x", "a1", "c1", "a2", "d2", "st*r", "star", "!bang",
                ],
                &["f.x", "f12.x", "c1", "d2", "star"],
            ),
            (
                "\u{feff}a.txt\r\n*.md\r\n!b.md\r\n",
                &["a.txt", "a.md", "b.md", "c"],
                &["b.md", "c"],
            ),
            (".\n./a\nd/../b\nd/./c", &["a", "b", "d/c", "d/d"], &["d/d"]),
            ("../x\n..\na", &["a", "b", "x"], &["b", "x"]),
            (
                "**/*.tmp\n**/cache\nx/**/z\ny/**",
                &[
                    "a.tmp",
                    "d/a.tmp",
                    "d/cache/f",
                    "cache",
                    "x/z",
                    "x/1/2/z",
                    "x/1/w",
                    "y",
                    "y/1",
                ],
                &["x/1/w", "y"],
            ),
            (
                "foo**\n**bar\na/**/b",
                &[
                    "foo", "foox/y", "d/foo", "xbar", "d/bar", "a/b", "a/x/y/b", "a/xb", "ab",
                ],
                &["d/foo", "a/xb", "ab"],
            ),
            (
                "*\n!d\nd/x\n!d/x/y",
                &["a", "d", "d/1", "d/x", "d/x/2", "d/x/y/1"],
                &["d", "d/1", "d/x/y/1"],
            ),
            (
                "/a.txt\n/sub/b.txt",
                &["a.txt", "sub/a.txt", "sub/b.txt"],
                &["sub/a.txt"],
            ),
            ("!README.md\n*.md", &["README.md", "b.txt"], &["b.txt"]),
            ("a*c\nd?f", &["abc", "a/c", "d/f", "dxf"], &["a/c", "d/f"]),
            (
                "a/*/c\n*/top",
                &["a/b/c", "a/b/d", "a/c", "x/top", "top", "x/y/top"],
                &["a/b/d", "a/c", "top", "x/y/top"],
            ),
            (
                "ü*\n日?",
                &["über", "日本", "日本語", "u"],
                &["日本語", "u"],
            ),
            (
                "  a.txt  \n\tb.txt\t\nsp ace\n!  k2.md",
                &["a.txt", "b.txt", "sp ace", "c"],
                &["c"],
            ),
            (" # x\n#y", &["# x", "#y"], &["#y"]),
            ("a/", &["a", "a/b"], &[]),
            ("/", &["a"], &["a"]),
            ("*.x|y", &["a.x", "y"], &[]),
            ("x{a", &["x{a"], &[]),
            ("*x{a", &["1x{a"], &[]),
            ("[a[]z", &["[z", "az", "bz"], &["bz"]),
        ] {
            assert_eq!(kept(rules, paths), want, "{rules:?}");
        }
    }

    #[test]
    fn the_last_match_decides_and_is_named() {
        let rules = IgnoreRules::parse("# c\n*\n!src\nsrc/**/*.o\n!src/keep.o\n").unwrap();
        let decided = |path| {
            rules
                .decide(path)
                .map(|d| (d.line, d.pattern.to_owned(), d.is_excluded))
        };
        assert_eq!(decided("x"), Some((2, "*".into(), true)));
        assert_eq!(decided("src/a.c"), Some((3, "!src".into(), false)));
        assert_eq!(decided("src/e/y.o"), Some((4, "src/**/*.o".into(), true)));
        assert_eq!(
            decided("src/keep.o"),
            Some((5, "!src/keep.o".into(), false))
        );
        assert_eq!(IgnoreRules::parse("a").unwrap().decide("b"), None);
    }

    #[test]
    fn directories_are_skipped_unless_an_exception_lies_below() {
        for (rules, directory, want) in [
            ("a", "a", true),
            ("a", "b", false),
            ("*\n!src/keep", "src", false),
            ("*\n!src/keep", "lib", true),
            ("*\n!**/keep", "lib", false),
            ("*\n!src/*/keep", "src/x", false),
            ("*\n!src/*/keep", "srcs", true),
            ("p/**\n!p/c", "p/c", false),
            ("p/**\n!p/c", "p/d", true),
        ] {
            let rules = IgnoreRules::parse(rules).unwrap();
            assert_eq!(rules.can_skip_directory(directory), want, "{directory}");
        }
    }

    #[test]
    fn bad_patterns_are_named() {
        for (text, line, want) in [
            ("a\n!\n", 2, "illegal exclusion pattern: \"!\""),
            ("a[", 1, "syntax error in pattern"),
            ("\n[-]", 2, "syntax error in pattern"),
            ("*\\q", 1, "syntax error in pattern"),
        ] {
            let error = IgnoreRules::parse(text).unwrap_err();
            assert_eq!(
                (error.line, error.reason.to_string().as_str()),
                (line, want)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_rule_panics(text in "[a!*?\\[\\]\\\\^/.{}|,0-9\n é-]{0,30}", path in "[a/.{}0-9é|]{0,12}") {
            if let Ok(rules) = IgnoreRules::parse(&text) {
                // What may be skipped must be ignored with all that is below it.
                if rules.can_skip_directory(&path) {
                    let below = format!("{path}/a");
                    proptest::prop_assert!(rules.is_excluded(&below));
                }
            }
            let _outcome = super::super::match_path(&text, &path);
        }
    }
}
