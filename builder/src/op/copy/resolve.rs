//! Where a path leads inside a root: symlinks are followed as if the root were `/`.
//!
//! As BuildKit's `RootPath`: what is missing is cleaned by its text, so that the answer is also where something would be
//! made.

use cache::layer::entry::EntryKind;
use cache::layer::path::LONGEST_PATH;

/// What a look-up finds, as far as resolution cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A directory.
    Directory,
    /// A symlink with its text.
    Link(Vec<u8>),
    /// Anything else.
    Other,
}

impl From<&EntryKind> for Step {
    fn from(kind: &EntryKind) -> Self {
        match kind {
            EntryKind::Directory { .. } => Self::Directory,
            EntryKind::Symlink { target } => Self::Link(target.clone()),
            EntryKind::File { .. }
            | EntryKind::HardLink { .. }
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. }
            | EntryKind::Fifo
            | EntryKind::Whiteout => Self::Other,
        }
    }
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The path without symlinks; where it would be, if it is missing.
    pub path: Vec<u8>,
    /// Whether it is there.
    pub is_there: bool,
    /// Whether the first part that is missing is one of a link's text.
    pub is_dangling: bool,
}

/// Why a path cannot be resolved.
#[derive(Debug, PartialEq, Eq)]
pub enum ResolveError<E> {
    /// The look-up failed.
    Lookup(E),
    /// More links than the kernel would follow.
    TooManyLinks,
    /// It leads to a path longer than layers have.
    TooLong,
}

/// As the kernel's `MAXSYMLINKS`.
const MOST_LINKS: u32 = 40;

/// The parts of a path's text, without empty ones and `.`.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

/// A path's text without `.`, `..` and doubled slashes, relative to the root it cannot leave.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in components(path) {
        if name == b".." {
            names.pop();
        } else {
            names.push(name);
        }
    }
    names.join(&b'/')
}

/// The parent of a path and its name; `None` for the root.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((b"", path)),
    }
}

/// A name in a directory.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (false, true) => directory.to_vec(),
        (false, false) => [directory, b"/", name].concat(),
    }
}

/// Follows a path to its end, symlinks at the end included.
pub fn resolve<E>(
    path: &[u8],
    mut lookup: impl FnMut(&[u8]) -> Result<Option<Step>, E>,
) -> Result<Resolved, ResolveError<E>> {
    let mut todo: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    let mut current: Vec<u8> = Vec::new();
    let mut links = 0;
    let mut is_there = true;
    let mut is_dangling = false;
    // How many of those to do are of links' texts; they come first.
    let mut of_links = 0_usize;
    while let Some(name) = todo.pop() {
        let is_of_link = of_links > 0;
        of_links = of_links.saturating_sub(1);
        if name == b".." {
            current = split(&current).map_or_else(Vec::new, |(parent, _)| parent.to_vec());
            continue;
        }
        let next = join(&current, &name);
        if next.len() > LONGEST_PATH {
            return Err(ResolveError::TooLong);
        }
        let found = if is_there {
            lookup(&next).map_err(ResolveError::Lookup)?
        } else {
            None
        };
        match found {
            Some(Step::Link(target)) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(ResolveError::TooManyLinks);
                }
                if target.starts_with(b"/") {
                    current.clear();
                }
                let before = todo.len();
                todo.extend(components(&target).rev().map(<[u8]>::to_vec));
                of_links += todo.len() - before;
            }
            Some(Step::Directory | Step::Other) => current = next,
            None => {
                is_dangling |= is_there && is_of_link;
                is_there = false;
                current = next;
            }
        }
    }
    if !is_there && !current.is_empty() {
        // `..` may have led back to something that exists.
        is_there = matches!(lookup(&current), Ok(Some(Step::Directory | Step::Other)));
    }
    Ok(Resolved {
        path: current,
        is_there,
        is_dangling: is_dangling && !is_there,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(path: &[u8]) -> Result<Option<Step>, ()> {
        Ok(Some(match path {
            b"d" | b"d/sub" => Step::Directory,
            b"d/f" => Step::Other,
            b"abs" => Step::Link(b"/d/sub".to_vec()),
            b"up" => Step::Link(b"../../d".to_vec()),
            b"dangling" => Step::Link(b"/later/x".to_vec()),
            b"loop" => Step::Link(b"loop".to_vec()),
            b"bad" => return Err(()),
            _ => return Ok(None),
        }))
    }

    #[test]
    fn links_stay_inside_and_missing_parts_are_cleaned() {
        let cases: [(&str, &str, bool); 11] = [
            ("/d/f", "d/f", true),
            ("abs", "d/sub", true),
            ("abs/..", "d", true),
            ("up/f", "d/f", true),
            ("../../d/./f", "d/f", true),
            ("dangling", "later/x", false),
            ("dangling/y/../z", "later/x/z", false),
            ("none/../d/f", "d/f", true),
            ("d/f/x", "d/f/x", false),
            ("", "", true),
            ("none/..", "", false),
        ];
        for (path, expected, is_there) in cases {
            let resolved = resolve(path.as_bytes(), lookup).unwrap();
            let text = String::from_utf8(resolved.path).unwrap();
            let is_root = text.is_empty();
            assert_eq!(text, expected, "{path}");
            assert!(is_root || resolved.is_there == is_there, "{path}");
        }
        assert_eq!(resolve(b"loop", lookup), Err(ResolveError::TooManyLinks));
        let long = |count| b"d/".repeat(count);
        assert!(resolve(&long(2048), lookup).is_ok());
        assert_eq!(resolve(&long(2049), lookup), Err(ResolveError::TooLong));
        assert_eq!(resolve(b"bad/x", lookup), Err(ResolveError::Lookup(())));
        assert_eq!(clean(b"/a/../../b//./c/"), b"b/c");
    }
}
