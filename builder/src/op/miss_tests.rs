//! Tests of how a miss is explained: which part of a key is named, and what the words for it are. What a build prints of it is in `tests/`.

use cache::key::builder::KeyBuilder;

use super::*;

fn parts(pairs: &[(&str, &str)]) -> Parts {
    let mut key = KeyBuilder::new("test");
    for (name, value) in pairs {
        key.text(name, value);
    }
    key.into_parts()
}

fn told(before: &[(&str, &str)], now: &[(&str, &str)]) -> Option<String> {
    let args = ["VERSION".to_owned()].into();
    differences(&parts(now), &parts(before), &args).line()
}

#[test]
fn every_kind_of_difference_is_named() {
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Pairs<'_>, Pairs<'_>, &str); 14] = [
        (
            &[("variable VERSION", "1.2")],
            &[("variable VERSION", "1.3")],
            "ARG VERSION: 1.2 → 1.3",
        ),
        (
            &[("variable M", "1")],
            &[("variable M", "2")],
            "ENV M: 1 → 2",
        ),
        (&[], &[("variable M", "2")], "ENV M is new: 2"),
        (&[("variable M", "2")], &[], "ENV M is gone"),
        (
            &[("variable API_TOKEN", "x")],
            &[("variable API_TOKEN", "y")],
            "ENV API_TOKEN changed",
        ),
        (
            &[("argument", "a")],
            &[("argument", "b")],
            "the command changed",
        ),
        (&[("user", "root")], &[("user", "app")], "USER: root → app"),
        (
            &[("file /a", "file 0644 0:0 11")],
            &[("file /a", "file 0644 0:0 22")],
            "a changed",
        ),
        (
            &[("file /a", "file 0644 0:0 11")],
            &[("file /a", "file 0755 0:0 11")],
            "mode of a: 0644 → 0755",
        ),
        (
            &[("file /a", "file 0644 0:0 11")],
            &[("file /a", "file 0644 1:1 11")],
            "owner of a: 0:0 → 1:1",
        ),
        (
            &[("file /a", "file 0644 0:0 11")],
            &[("file /a", "link 0777 0:0 22")],
            "a was a file, is a link",
        ),
        (
            &[("file /a", "1"), ("file /b", "1"), ("file /c", "1")],
            &[("file /a", "2"), ("file /b", "2"), ("file /d", "1")],
            "2 files changed, 1 added, 1 removed: a, b, d, …",
        ),
        (
            &[("mount /m: content", "1"), ("mount /m: file /a", "1")],
            &[("mount /m: content", "1"), ("mount /m: file /a", "2")],
            "mount /m: a changed",
        ),
        (
            &[("variable A", "1"), ("variable B", "1")],
            &[("variable B", "1"), ("variable A", "1")],
            "the order of its variables or options changed",
        ),
    ];
    for (before, now, expected) in cases {
        assert_eq!(told(before, now).as_deref(), Some(expected));
    }
}

#[test]
fn another_base_is_no_difference_of_the_step() {
    let args = BTreeSet::new();
    let found = differences(&parts(&[("base", "2")]), &parts(&[("base", "1")]), &args);
    assert_eq!((found.line(), found.has_other_base), (None, true));
    let same = parts(&[("base", "1")]);
    assert_eq!(differences(&same, &same, &args), Differences::default());
}

#[test]
fn lists_of_files_are_compared_only_if_both_have_one() {
    let with = [("source", "a"), ("file /a", "1")];
    assert_eq!(told(&with, &[("source", "a")]), None);
    assert_eq!(told(&[("source", "a")], &with), None);
}
