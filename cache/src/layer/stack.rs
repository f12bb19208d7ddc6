//! A file system seen as a stack of layer indexes: look-ups without anything unpacked.
//!
//! Follows overlayfs: an entry hides what is below it unless both are directories; a whiteout hides; an opaque
//! directory hides everything below its path; an implied directory takes its metadata from the layers below, and its
//! own if they have no directory there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Entry, EntryKind};
use super::index::{LayerIndex, Role};
use super::path;

/// Symlinks followed before a path counts as a loop, as in the kernel (`MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// A stack of layers, bottom first.
#[derive(Clone, Debug)]
pub struct LayerStack {
    layers: Vec<Arc<LayerIndex>>,
    /// The root of a stack without layers (`FROM scratch`).
    bare_root: Entry,
}

impl Default for LayerStack {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Number of the layer that decides, counted from the bottom.
    pub layer: usize,
    /// The entry; never a whiteout.
    pub entry: &'a Entry,
    /// The entry that holds the bytes: differs from `entry` for hard links. It lies in the same layer.
    pub inode: &'a Entry,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The path without symlinks, as far as it exists.
    pub path: Vec<u8>,
    /// What is there.
    pub end: End<'a>,
}

/// How a resolution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End<'a> {
    /// Everything exists; a symlink only if the last one was not to be followed.
    Found(Found<'a>),
    /// The path exists (as a directory) and this remainder does not. Without `..`, and empty only if the text led
    /// through something missing and back by `..`.
    Missing(Vec<u8>),
    /// The path exists but is not a directory, and this remainder was to be found in it.
    NotDirectory(Vec<u8>),
    /// More than 40 symlinks.
    Loop,
}

enum Below<'a> {
    Hides,
    Continues,
    Is(Found<'a>),
    Implied(Found<'a>, bool),
}

impl LayerStack {
    /// Stacks layers, bottom first.
    pub fn new(layers: Vec<Arc<LayerIndex>>) -> Self {
        Self {
            layers,
            bare_root: Entry::default_directory(Vec::new()),
        }
    }

    /// The layers, bottom first.
    pub fn layers(&self) -> &[Arc<LayerIndex>] {
        &self.layers
    }

    /// The lowest `count` layers.
    pub fn lower(&self, count: usize) -> Self {
        Self::new(self.layers.iter().take(count).cloned().collect())
    }

    /// What is at a path, without following symlinks. The root always exists.
    pub fn lookup(&self, wanted: &[u8]) -> Option<Found<'_>> {
        if self.layers.is_empty() && wanted.is_empty() {
            return Some(Found {
                layer: 0,
                entry: &self.bare_root,
                inode: &self.bare_root,
            });
        }
        let mut implied = None;
        for layer in (0..self.layers.len()).rev() {
            match self.look_in(layer, wanted) {
                Below::Continues => {}
                Below::Hides => break,
                Below::Is(found) => {
                    // Something in a higher layer lies below this path, so there it is a directory.
                    let is_covered = implied.is_some() && !found.entry.is_directory();
                    return if is_covered { implied } else { Some(found) };
                }
                Below::Implied(found, hides) => {
                    implied = Some(found);
                    if hides {
                        break;
                    }
                }
            }
        }
        implied
    }

    /// What one layer says about a path.
    fn look_in(&self, layer: usize, wanted: &[u8]) -> Below<'_> {
        let index = &self.layers[layer];
        let is_in_opaque = || {
            index.has_opaque()
                && path::ancestors(wanted).any(|above| {
                    index.lookup(above).is_some_and(|entry| {
                        matches!(entry.kind, EntryKind::Directory { is_opaque: true })
                    })
                })
        };
        match index.search(wanted) {
            Ok(position) => {
                let node = &index.nodes()[position];
                let found = Found {
                    layer,
                    entry: &node.entry,
                    inode: index.inode(&node.entry),
                };
                match node.role {
                    Role::Implied => Below::Implied(found, is_in_opaque()),
                    Role::Entry if node.entry.kind == EntryKind::Whiteout => Below::Hides,
                    Role::Entry => Below::Is(found),
                }
            }
            // The node before shares the deepest existing directory with the path: parents are always there.
            Err(position) => {
                let Some(before) = position.checked_sub(1).map(|i| &index.nodes()[i].entry) else {
                    return Below::Continues;
                };
                let is_blocked = !before.is_directory() && path::is_below(&before.path, wanted);
                if is_blocked || is_in_opaque() {
                    Below::Hides
                } else {
                    Below::Continues
                }
            }
        }
    }

    /// What a directory holds, by name. Empty if the path is no directory.
    pub fn children(&self, dir: &[u8]) -> BTreeMap<Vec<u8>, Found<'_>> {
        if !self
            .lookup(dir)
            .is_some_and(|found| found.entry.is_directory())
        {
            return BTreeMap::new();
        }
        let mut names: BTreeSet<&[u8]> = BTreeSet::new();
        for node in self.layers.iter().flat_map(|index| index.children(dir)) {
            names.extend(path::split(&node.entry.path).map(|(_, name)| name));
        }
        let found = names
            .into_iter()
            .filter_map(|name| Some((name.to_vec(), self.lookup(&path::join(dir, name))?)));
        found.collect()
    }

    /// Where a path leads, symlinks resolved inside the root as with `RESOLVE_IN_ROOT`; the last one only if
    /// `follow_last`.
    pub fn resolve(&self, wanted: &[u8], follow_last: bool) -> Resolved<'_> {
        self.resolve_observed(wanted, follow_last, &mut |_, _| {})
    }

    /// As [`Self::resolve`]; tells every path it looked up and the answer.
    pub fn resolve_observed<'a>(
        &'a self,
        wanted: &[u8],
        follow_last: bool,
        observe: &mut dyn FnMut(&[u8], Option<&Found<'a>>),
    ) -> Resolved<'a> {
        let mut todo: Vec<Vec<u8>> = path::components(wanted).rev().map(<[u8]>::to_vec).collect();
        let must_be_directory = matches!(wanted.last(), Some(b'/')) || wanted.ends_with(b"/.");
        let mut current: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                current =
                    path::split(&current).map_or_else(Vec::new, |(parent, _)| parent.to_vec());
                continue;
            }
            let next = path::join(&current, &name);
            let found = self.lookup(&next);
            observe(&next, found.as_ref());
            let Some(found) = found else {
                return missing(current, name, todo);
            };
            let is_followed = !todo.is_empty() || follow_last || must_be_directory;
            if let EntryKind::Symlink { target } = &found.inode.kind
                && is_followed
            {
                links += 1;
                if links > MOST_LINKS {
                    return Resolved {
                        path: current,
                        end: End::Loop,
                    };
                }
                if target.starts_with(b"/") {
                    current.clear();
                }
                todo.extend(path::components(target).rev().map(<[u8]>::to_vec));
            } else if found.entry.is_directory() {
                current = next;
            } else if todo.is_empty() {
                return Resolved {
                    path: next,
                    end: End::Found(found),
                };
            } else {
                todo.reverse();
                return Resolved {
                    path: next,
                    end: End::NotDirectory(todo.join(&b'/')),
                };
            }
        }
        match self.lookup(&current) {
            Some(found) => Resolved {
                path: current,
                end: End::Found(found),
            },
            // Not reached: what was walked was looked up.
            None => Resolved {
                path: Vec::new(),
                end: End::Missing(current),
            },
        }
    }
}

/// A path that ends in nothing: what is left is cleaned by its text, as there is nothing to resolve in.
fn missing<'a>(mut at: Vec<u8>, first: Vec<u8>, todo: Vec<Vec<u8>>) -> Resolved<'a> {
    let mut names: Vec<Vec<u8>> = vec![first];
    for name in todo.into_iter().rev() {
        if name != b".." {
            names.push(name);
        } else if names.pop().is_none() {
            at = path::split(&at).map_or_else(Vec::new, |(parent, _)| parent.to_vec());
        }
    }
    Resolved {
        path: at,
        end: End::Missing(names.join(&b'/')),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::*;
    use super::*;

    fn stack(layers: Vec<Vec<Entry>>) -> LayerStack {
        let index = |entries| Arc::new(LayerIndex::new(entries, Vec::new()).unwrap());
        LayerStack::new(layers.into_iter().map(index).collect())
    }

    fn layer_of(stack: &LayerStack, path: &str) -> Option<usize> {
        stack.lookup(path.as_bytes()).map(|found| found.layer)
    }

    #[test]
    fn what_hides_what() {
        let base = vec![
            directory("d", 0o700),
            file("d/a", b"a"),
            directory("d/sub", 0o755),
            file("d/sub/x", b"x"),
            file("f", b"f"),
            directory("gone", 0o755),
            file("gone/y", b"y"),
            directory("op", 0o755),
            file("op/old", b""),
            directory("op/in", 0o711),
            directory("t", 0o755),
            file("t/z", b""),
        ];
        let top = vec![
            whiteout("d/a"),
            file("d/b", b"b"),
            whiteout("gone"),
            opaque("op"),
            file("op/in/new", b""),
            file("t", b"now a file"),
            file("f/now/below", b""),
        ];
        let stack = stack(vec![base, top]);
        let cases = [
            ("", Some(0)),
            ("d", Some(0)),
            ("d/a", None),
            ("d/b", Some(1)),
            ("d/sub/x", Some(0)),
            ("gone", None),
            ("gone/y", None),
            ("op", Some(1)),
            ("op/old", None),
            ("op/in", Some(1)),
            ("op/in/new", Some(1)),
            ("t", Some(1)),
            ("t/z", None),
            ("f", Some(1)),
            ("f/now", Some(1)),
            ("none", None),
        ];
        for (path, expected) in cases {
            assert_eq!(layer_of(&stack, path), expected, "{path}");
        }
        assert_eq!(
            stack.lookup(b"d").unwrap().entry.mode,
            0o700,
            "implied takes the base's mode"
        );
        assert_eq!(
            stack.lookup(b"op/in").unwrap().entry.mode,
            0o755,
            "nothing below an opaque one"
        );
        let names = |dir: &str| -> Vec<String> {
            stack
                .children(dir.as_bytes())
                .keys()
                .map(|n| text(n))
                .collect()
        };
        assert_eq!(names(""), ["d", "f", "op", "t"]);
        assert_eq!(names("d"), ["b", "sub"]);
        assert_eq!(names("op"), ["in"]);
        assert_eq!(names("f"), ["now"]);
        assert!(names("t").is_empty() && names("gone").is_empty());
        assert_eq!(layer_of(&LayerStack::default(), ""), Some(0));
    }

    #[test]
    fn resolving() {
        let stack = stack(vec![vec![
            directory("usr", 0o755),
            directory("usr/bin", 0o755),
            file("usr/bin/tool", b""),
            symlink("bin", "/usr/bin"),
            symlink("up", "../../../usr"),
            symlink("dangling", "usr/new/deep"),
            symlink("loop", "loop"),
            link("usr/bin/twin", "usr/bin/tool"),
        ]]);
        let cases = [
            ("bin/tool", true, "usr/bin/tool", "found"),
            ("/bin/", false, "usr/bin", "found"),
            ("bin", false, "bin", "found"),
            ("up/bin/../bin/tool", true, "usr/bin/tool", "found"),
            ("../../usr", true, "usr", "found"),
            ("dangling/x", true, "usr", "missing new/deep/x"),
            ("none/a/../../b", true, "", "missing b"),
            (
                "usr/bin/tool/x/y",
                true,
                "usr/bin/tool",
                "not a directory x/y",
            ),
            ("loop", true, "", "loop"),
            ("loop", false, "loop", "found"),
            ("", true, "", "found"),
        ];
        for (wanted, follow, path, end) in cases {
            let resolved = stack.resolve(wanted.as_bytes(), follow);
            let told = match resolved.end {
                End::Found(found) => {
                    assert_eq!(text(&found.entry.path), path);
                    "found".to_owned()
                }
                End::Missing(rest) => format!("missing {}", text(&rest)),
                End::NotDirectory(rest) => format!("not a directory {}", text(&rest)),
                End::Loop => "loop".to_owned(),
            };
            assert_eq!(
                (text(&resolved.path), told),
                (path.to_owned(), end.to_owned()),
                "{wanted}"
            );
        }
        let twin = stack.lookup(b"usr/bin/twin").unwrap();
        assert_eq!(text(&twin.inode.path), "usr/bin/tool");

        let mut seen = Vec::new();
        stack.resolve_observed(b"bin/none", true, &mut |path, found| {
            seen.push((text(path), found.is_some()));
        });
        let expected = [
            ("bin", true),
            ("usr", true),
            ("usr/bin", true),
            ("usr/bin/none", false),
        ];
        assert_eq!(seen, expected.map(|(p, f)| (p.to_owned(), f)));
    }
}
