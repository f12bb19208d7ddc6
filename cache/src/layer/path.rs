//! Paths inside a layer: bytes, relative to the root, without leading, trailing or doubled slashes; the root is empty.

use std::cmp::Ordering;

/// The longest path taken from a tar: the kernel's `PATH_MAX` less its terminator.
pub const LONGEST_PATH: usize = 4095;

/// The longest name of a file (`NAME_MAX`).
pub(crate) const LONGEST_NAME: usize = 255;

/// Layer-format order: depth first, siblings by name bytes.
///
/// The slash counts as smaller than every byte of a name, so that a directory's subtree directly follows it.
pub fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let shared = left.iter().zip(right).take_while(|(l, r)| l == r).count();
    match (left.get(shared), right.get(shared)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) | (Some(b'/'), Some(_)) => Ordering::Less,
        (Some(_), None | Some(b'/')) => Ordering::Greater,
        (Some(l), Some(r)) => l.cmp(r),
    }
}

/// Whether `path` lies below `dir` (and is not `dir` itself).
pub fn is_below(dir: &[u8], path: &[u8]) -> bool {
    if dir.is_empty() {
        return !path.is_empty();
    }
    path.len() > dir.len() && path.starts_with(dir) && path[dir.len()] == b'/'
}

/// The parent directory and the name; `None` for the root.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((b"", path)),
    }
}

/// The path of a name in a directory.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        return name.to_vec();
    }
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// The parts of any path text, without empty ones and `.`; `..` is kept.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

/// The directories above a path, nearest first, the root last.
pub fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut current = path;
    std::iter::from_fn(move || {
        let (parent, _) = split(current)?;
        current = parent;
        Some(parent)
    })
}

/// A path for people: absolute, lossy.
pub fn display(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

/// A key whose plain byte order is [`compare`]: the slash becomes NUL, which no name holds.
pub(crate) fn sort_key(path: &[u8]) -> Vec<u8> {
    path.iter()
        .map(|b| if *b == b'/' { 0 } else { *b })
        .collect()
}

/// The path of a [`sort_key`].
pub(crate) fn from_sort_key(key: &[u8]) -> Vec<u8> {
    key.iter()
        .map(|b| if *b == 0 { b'/' } else { *b })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtree_follows_its_directory() {
        let mut paths: Vec<&[u8]> =
            vec![b"a-b", b"a/z", b"b", b"a", b"a/b/c", b"", b"a/b", b"a/b-c"];
        paths.sort_by(|l, r| compare(l, r));
        let expected: Vec<&[u8]> =
            vec![b"", b"a", b"a/b", b"a/b/c", b"a/b-c", b"a/z", b"a-b", b"b"];
        assert_eq!(paths, expected);
        let mut keys: Vec<_> = paths.iter().rev().map(|p| sort_key(p)).collect();
        keys.sort();
        let back: Vec<_> = keys.iter().map(|k| from_sort_key(k)).collect();
        assert_eq!(back, expected);
    }

    #[test]
    fn parts() {
        assert_eq!(split(b""), None);
        assert_eq!(split(b"a"), Some((&b""[..], &b"a"[..])));
        assert_eq!(split(b"a/b/c"), Some((&b"a/b"[..], &b"c"[..])));
        assert_eq!(join(b"", b"x"), b"x");
        assert_eq!(join(b"a", b"x"), b"a/x");
        assert!(is_below(b"", b"a") && is_below(b"a", b"a/b"));
        assert!(!is_below(b"a", b"ab") && !is_below(b"a", b"a") && !is_below(b"", b""));
        let above: Vec<&[u8]> = ancestors(b"a/b/c").collect();
        assert_eq!(above, vec![&b"a/b"[..], b"a", b""]);
        let parts: Vec<&[u8]> = components(b"//a/./b/../c/").collect();
        assert_eq!(parts, vec![&b"a"[..], b"b", b"..", b"c"]);
    }
}
