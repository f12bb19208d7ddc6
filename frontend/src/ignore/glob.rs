//! Go's `filepath.Match`: the wildcards of COPY and ADD.

use super::PatternError;

/// Whether COPY takes a source for a pattern (`containsWildcards` of BuildKit).
pub fn has_wildcards(source: &str) -> bool {
    let mut rest = source.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(rest.next()),
            _ => {}
        }
    }
    false
}

/// Matches a whole name against a pattern: `*` and `?` within a component, `[a-z]`, `[^a]`, `\` before a special
/// character.
///
/// # Errors
///
/// A malformed pattern, if the part of it that is malformed is reached, as in Go.
pub fn match_path(pattern: &str, name: &str) -> Result<bool, PatternError> {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut pattern = pattern.as_slice();
    let name: Vec<char> = name.chars().collect();
    let mut name = name.as_slice();
    while !pattern.is_empty() {
        let (has_star, chunk, rest) = scan_chunk(pattern);
        pattern = rest;
        if has_star && chunk.is_empty() {
            return Ok(!name.contains(&'/'));
        }
        match match_chunk(chunk, name)? {
            Some(left) if left.is_empty() || !pattern.is_empty() => {
                name = left;
                continue;
            }
            Some(_) | None => {}
        }
        if has_star {
            match skip_and_match(chunk, name, pattern.is_empty())? {
                Some(left) => {
                    name = left;
                    continue;
                }
                None => return check_rest(pattern),
            }
        }
        return check_rest(pattern);
    }
    Ok(name.is_empty())
}

/// What a `*` before a chunk may skip: characters other than `/`.
fn skip_and_match<'n>(
    chunk: &[char],
    name: &'n [char],
    is_last: bool,
) -> Result<Option<&'n [char]>, PatternError> {
    for start in 0..name.len() {
        if name[start] == '/' {
            break;
        }
        match match_chunk(chunk, &name[start + 1..])? {
            // The last chunk must take all that is left.
            Some(left) if is_last && !left.is_empty() => {}
            Some(left) => return Ok(Some(left)),
            None => {}
        }
    }
    Ok(None)
}

/// No match: but what is left of the pattern must be well formed.
fn check_rest(mut pattern: &[char]) -> Result<bool, PatternError> {
    while !pattern.is_empty() {
        let (_, chunk, rest) = scan_chunk(pattern);
        match_chunk(chunk, &[])?;
        pattern = rest;
    }
    Ok(false)
}

/// Splits off leading stars and the text up to the next star outside of brackets.
fn scan_chunk(pattern: &[char]) -> (bool, &[char], &[char]) {
    let stars = pattern.iter().take_while(|c| **c == '*').count();
    let pattern = &pattern[stars..];
    let mut is_in_range = false;
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            '\\' => at += usize::from(at + 1 < pattern.len()),
            '[' => is_in_range = true,
            ']' => is_in_range = false,
            '*' if !is_in_range => break,
            _ => {}
        }
        at += 1;
    }
    let end = at.min(pattern.len());
    (stars > 0, &pattern[..end], &pattern[end..])
}

/// Matches a chunk without stars at the start of a name; gives what is left of the name. A malformed chunk is an error
/// even if the name has already failed.
fn match_chunk<'n>(
    mut chunk: &[char],
    mut name: &'n [char],
) -> Result<Option<&'n [char]>, PatternError> {
    let mut has_failed = false;
    while let Some((&c, rest)) = chunk.split_first() {
        has_failed = has_failed || name.is_empty();
        chunk = match c {
            '[' => {
                let candidate = if has_failed { None } else { name.first() };
                let (is_match, after) = match_class(rest, candidate)?;
                has_failed = has_failed || !is_match;
                after
            }
            '?' => {
                has_failed = has_failed || name.first() == Some(&'/');
                rest
            }
            '\\' => {
                let (&literal, rest) = rest.split_first().ok_or(PatternError::Syntax)?;
                has_failed = has_failed || name.first() != Some(&literal);
                rest
            }
            literal => {
                has_failed = has_failed || name.first() != Some(&literal);
                rest
            }
        };
        if !has_failed {
            name = &name[1..];
        }
    }
    Ok((!has_failed).then_some(name))
}

/// A bracket expression behind its `[`.
fn match_class<'p>(
    mut class: &'p [char],
    candidate: Option<&char>,
) -> Result<(bool, &'p [char]), PatternError> {
    let is_negated = class.first() == Some(&'^');
    if is_negated {
        class = &class[1..];
    }
    let mut is_match = false;
    let mut ranges = 0;
    loop {
        if let (Some(']'), 1..) = (class.first(), ranges) {
            return Ok((is_match != is_negated, &class[1..]));
        }
        let (low, rest) = class_character(class)?;
        let (high, rest) = match rest.split_first() {
            Some(('-', rest)) => class_character(rest)?,
            Some(_) | None => (low, rest),
        };
        is_match = is_match || candidate.is_some_and(|c| (low..=high).contains(c));
        ranges += 1;
        class = rest;
    }
}

/// One possibly escaped character of a bracket expression; the expression must go on behind it.
fn class_character(class: &[char]) -> Result<(char, &[char]), PatternError> {
    let (c, rest) = match class.split_first() {
        None | Some(('-' | ']', _)) => return Err(PatternError::Syntax),
        Some(('\\', rest)) => rest.split_first().ok_or(PatternError::Syntax)?,
        Some(found) => found,
    };
    if rest.is_empty() {
        return Err(PatternError::Syntax);
    }
    Ok((*c, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_like_go() {
        for (pattern, name, want) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("**", "a/b", false),
            ("**/x", "a/x", true),
            ("**/x", "a/b/x", false),
            (".*", ".a", true),
            ("", "", true),
        ] {
            assert_eq!(match_path(pattern, name), Ok(want), "{pattern} {name}");
        }
    }

    #[test]
    fn malformed_patterns_are_errors() {
        for (pattern, name) in [
            ("[]a]", "]"),
            ("[-]", "-"),
            ("[x-]", "x"),
            ("[", "a"),
            ("[^", "a"),
            ("[^bc", "a"),
            ("a[", "a"),
            ("a[", "ab"),
            ("a\\", "a"),
            ("x[", "a"),
            ("*[", "."),
        ] {
            assert_eq!(
                match_path(pattern, name),
                Err(PatternError::Syntax),
                "{pattern}"
            );
        }
    }

    #[test]
    fn wildcards_are_seen_unless_escaped() {
        assert!(has_wildcards("a*"));
        assert!(has_wildcards("[a]"));
        assert!(!has_wildcards("a\\*"));
        assert!(!has_wildcards("a"));
    }
}
