//! Why a step was not found in the cache, for people.

use cache::key::builder::{Difference, Parts};

/// One line on what differs from the last time the step ran.
pub(super) fn reason(now: &Parts, before: &Parts) -> String {
    match now.difference_from(before) {
        None => "its result is gone from the store".to_owned(),
        Some(Difference::Reordered) => "the same parts in another order".to_owned(),
        Some(Difference::Added(part)) => format!("{} is new", part.name),
        Some(Difference::Removed(part)) => format!("{} is gone", part.name),
        Some(Difference::Changed { name, before, now }) => match name.as_str() {
            "base" => "an earlier step changed".to_owned(),
            "argument" => "the command changed".to_owned(),
            _ if is_digest(&before) && is_digest(&now) => format!("{name} changed"),
            _ if looks_secret(&name) => format!("{name} changed"),
            _ => format!("{name} changed: {before} → {now}"),
        },
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a name is that of something whose value should not be shown.
fn looks_secret(name: &str) -> bool {
    const WORDS: [&str; 9] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "passwd",
        "secret",
        "token",
    ];
    name.to_ascii_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use cache::key::builder::KeyBuilder;

    use super::*;

    fn parts(pairs: &[(&str, &str)]) -> Parts {
        let mut key = KeyBuilder::new("test");
        for (name, value) in pairs {
            key.text(name, value);
        }
        key.into_parts()
    }

    #[test]
    fn names_what_changed_and_hides_what_looks_secret() {
        let before = parts(&[
            ("base", "a"),
            ("variable VERSION", "1"),
            ("variable API_TOKEN", "x"),
        ]);
        let cases = [
            (
                parts(&[
                    ("base", "a"),
                    ("variable VERSION", "2"),
                    ("variable API_TOKEN", "x"),
                ]),
                "variable VERSION changed: 1 → 2",
            ),
            (
                parts(&[
                    ("base", "a"),
                    ("variable VERSION", "1"),
                    ("variable API_TOKEN", "y"),
                ]),
                "variable API_TOKEN changed",
            ),
            (
                parts(&[
                    ("base", "b"),
                    ("variable VERSION", "1"),
                    ("variable API_TOKEN", "x"),
                ]),
                "an earlier step changed",
            ),
            (before.clone(), "its result is gone from the store"),
        ];
        for (now, expected) in cases {
            assert_eq!(reason(&now, &before), expected);
        }
    }
}
