//! What a context has, and what it refuses.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;

struct Without(Vec<&'static str>, Vec<&'static str>);

impl Excludes for Without {
    fn is_excluded(&self, path: &str) -> bool {
        let below = |rule: &&'static str| path == *rule || path.starts_with(&format!("{rule}/"));
        self.0.iter().any(below) && !self.1.iter().any(below)
    }

    fn can_skip_directory(&self, path: &str) -> bool {
        self.is_excluded(path) && !self.1.iter().any(|rule| rule.starts_with(path))
    }

    fn why(&self, path: &str) -> Option<String> {
        self.is_excluded(path).then(|| ".dockerignore:1".to_owned())
    }
}

fn open(path: &Path, excludes: impl Excludes + 'static) -> ContextDir {
    ContextDir::open(path, Box::new(excludes), StatCache::in_memory()).unwrap()
}

fn names(context: &ContextDir, path: &[u8]) -> Vec<String> {
    let text = |(name, _): (Vec<u8>, ContextEntry)| String::from_utf8(name).unwrap();
    context
        .children(path)
        .unwrap()
        .into_iter()
        .map(text)
        .collect()
}

#[test]
fn every_kind_is_told_and_names_are_sorted_by_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::create_dir(path.join("b")).unwrap();
    fs::set_permissions(path.join("b"), fs::Permissions::from_mode(0o2750)).unwrap();
    fs::write(path.join("a-"), "x").unwrap();
    fs::write(path.join("B"), "x").unwrap();
    fs::hard_link(path.join("B"), path.join("a")).unwrap();
    symlink("../../etc/passwd", path.join("link")).unwrap();
    let _listener = UnixListener::bind(path.join("sock")).unwrap();
    let context = open(path, ExcludeNothing);
    assert_eq!(names(&context, b""), ["B", "a", "a-", "b", "link", "sock"]);
    let at = |path: &[u8]| context.lookup(path).unwrap().unwrap();
    assert_eq!(
        (at(b"b").kind, at(b"b").mode),
        (ContextKind::Directory, 0o2750)
    );
    assert!(at(b"a").has_other_names && !at(b"a-").has_other_names);
    assert_eq!(
        at(b"link").kind,
        ContextKind::Symlink(b"../../etc/passwd".to_vec())
    );
    assert_eq!(at(b"sock").kind, ContextKind::Socket);
    assert_eq!(at(b"").kind, ContextKind::Directory);
    for absent in [&b"none"[..], b"none/x", b"a/x", b"link/x"] {
        assert_eq!(context.lookup(absent).unwrap(), None);
    }
    let stat = at(b"a").stat;
    let hashed = context.digest(b"a", &stat).unwrap();
    assert_eq!(hashed.content.0, *blake3::hash(b"x").as_bytes());
    assert_eq!((hashed.stat, hashed.is_settled), (stat, false));
}

#[test]
fn no_symlink_leads_anywhere() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    let dir = tempfile::tempdir().unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    let context = open(dir.path(), ExcludeNothing);
    assert_eq!(context.lookup(b"out/secret").unwrap(), None);
    for path in [&b"out/secret"[..], b"file"] {
        let message = context.open_file(path).unwrap_err().to_string();
        assert!(message.starts_with("cannot open `"), "{message}");
        assert!(
            context
                .open_by_steps(path, OFlags::RDONLY | OFlags::NOFOLLOW)
                .is_err()
        );
    }
    assert!(context.children(b"out").is_err());
}

#[test]
fn ignored_paths_are_not_there_unless_something_below_is() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["d/sub/keep", "d/other", "e/x", "f"] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let context = open(dir.path(), Without(vec!["d", "e"], vec!["d/sub/keep"]));
    assert_eq!(names(&context, b""), ["d", "f"]);
    assert_eq!(names(&context, b"d"), ["sub"]);
    assert_eq!(context.lookup(b"e").unwrap(), None);
    assert_eq!(context.lookup(b"d/other").unwrap(), None);
    assert!(context.lookup(b"d/sub/keep").unwrap().is_some());
    assert_eq!(context.why_excluded(b"e/x").unwrap(), ".dockerignore:1");

    let nothing = open(dir.path(), Without(vec!["d"], vec!["d/sub/none"]));
    assert_eq!(
        names(&nothing, b""),
        ["e", "f"],
        "no exception matched below d"
    );
}

#[test]
fn steps_and_openat2_agree() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/b/c"), "x").unwrap();
    let context = open(dir.path(), ExcludeNothing);
    for path in [&b"a/b/c"[..], b"a", b".", b"a/none", b"a/b/c/d"] {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        let one = context.open_by_steps(path, flags).map(drop);
        let other = context.open_inside(path, flags).map(drop);
        assert_eq!(one, other);
    }
}
