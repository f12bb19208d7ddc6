//! Any ignore file asked about any path.

#![no_main]

use frontend::ignore::{ExcludeMatcher, IgnoreRules, match_path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (patterns, path) = text.split_once('\0').unwrap_or((text, "a/b/c.txt"));
    if let Ok(rules) = IgnoreRules::parse(patterns) {
        let is_excluded = rules.is_excluded(path);
        // What can be skipped is excluded, or a walk would lose files.
        assert!(is_excluded || !rules.can_skip_directory(path));
    }
    let lines: Vec<String> = patterns.lines().map(str::to_owned).collect();
    if let Ok(matcher) = ExcludeMatcher::new(&lines) {
        let _is_excluded = matcher.is_excluded(path);
    }
    for line in &lines {
        let _matches = match_path(line, path);
    }
});
