//! Makes keys out of named parts.
//!
//! A key is BLAKE3 over the key version, the domain and every part in order: name, kind and value, each with its length
//! in front, so that no two different lists of parts give the same bytes. The parts are kept beside the key in a form a
//! person can read, to tell later what made two keys differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{CacheKey, ContentDigest, hex};

/// Enters every key. Another number makes every stored key unreachable: do so when the meaning of parts changes.
const KEY_VERSION: &str = "build key 1";

/// Longest value kept for explanation, in bytes; longer ones are cut and their hash appended.
const LONGEST_SHOWN: usize = 160;

/// A part of a key as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is, such as `arg` or `source /src/main.c`.
    pub name: String,
    /// Its value, or a digest of it.
    pub value: String,
}

/// The parts of a key in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parts(pub Vec<Part>);

/// One way in which two keys differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A part has another value.
    Changed {
        /// Its name.
        name: String,
        /// Its value then.
        before: String,
        /// Its value now.
        now: String,
    },
    /// A part is new.
    Added(Part),
    /// A part is gone.
    Removed(Part),
    /// The same parts in another order.
    Reordered,
}

impl Parts {
    /// Everything that differs from an earlier list, in the order of this one, what is gone last. A list with the same
    /// parts in another order differs by [`Difference::Reordered`].
    pub fn differences_from(&self, earlier: &Self) -> Vec<Difference> {
        let count = |list: &[Part]| {
            let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
            for part in list {
                *counts
                    .entry((part.name.clone(), part.value.clone()))
                    .or_default() += 1;
            }
            counts
        };
        // What one list has more of than the other.
        let beyond = |list: &Self, other: &Self| {
            let mut others = count(&other.0);
            let is_beyond =
                |part: &&Part| match others.get_mut(&(part.name.clone(), part.value.clone())) {
                    Some(left) if *left > 0 => {
                        *left -= 1;
                        false
                    }
                    Some(_) | None => true,
                };
            list.0.iter().filter(is_beyond).cloned().collect::<Vec<_>>()
        };
        let new = beyond(self, earlier);
        let mut gone = beyond(earlier, self);
        let mut differences = Vec::new();
        for part in new {
            let before = gone.iter().position(|before| before.name == part.name);
            differences.push(match before.map(|at| gone.remove(at)) {
                Some(before) => Difference::Changed {
                    name: part.name,
                    before: before.value,
                    now: part.value,
                },
                None => Difference::Added(part),
            });
        }
        differences.extend(gone.into_iter().map(Difference::Removed));
        if differences.is_empty() && self != earlier {
            differences.push(Difference::Reordered);
        }
        differences
    }
}

/// A key being made.
#[derive(Clone, Debug)]
pub struct KeyBuilder {
    hasher: blake3::Hasher,
    parts: Parts,
    scope: String,
}

/// Kinds of values; they enter the key, so that `"1"` and `1` differ. Changing a number breaks stored keys.
#[derive(Clone, Copy)]
enum Kind {
    Bytes = 1,
    Number = 2,
    Key = 3,
    Content = 4,
    Absent = 5,
}

impl KeyBuilder {
    /// Starts a key of a domain, such as `exec` or `copy`: keys of two domains are never equal.
    pub fn new(domain: &str) -> Self {
        let mut builder = Self {
            hasher: blake3::Hasher::new(),
            parts: Parts::default(),
            scope: String::new(),
        };
        builder.framed(KEY_VERSION.as_bytes());
        builder.framed(domain.as_bytes());
        builder
    }

    /// Adds text.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.add(name, Kind::Bytes, value.as_bytes(), || shown(value))
    }

    /// Adds bytes.
    pub fn bytes(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.add(name, Kind::Bytes, value, || {
            shown(&String::from_utf8_lossy(value))
        })
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: i128) -> &mut Self {
        self.add(name, Kind::Number, &value.to_le_bytes(), || {
            value.to_string()
        })
    }

    /// Adds another key.
    pub fn key(&mut self, name: &str, value: &CacheKey) -> &mut Self {
        self.add(name, Kind::Key, &value.0, || value.hex())
    }

    /// Adds the digest of some content.
    pub fn content(&mut self, name: &str, value: &ContentDigest) -> &mut Self {
        self.add(name, Kind::Content, &value.0, || hex(&value.0))
    }

    /// Adds text that is shown as a hash only.
    pub fn secret(&mut self, name: &str, value: &str) -> &mut Self {
        self.add(name, Kind::Bytes, value.as_bytes(), || {
            let hash = blake3::hash(value.as_bytes());
            format!("(hidden, {})", hex(&hash.as_bytes()[..4]))
        })
    }

    /// What the names of following parts are shown with in front; not part of the key.
    pub fn scope(&mut self, scope: &str) -> &mut Self {
        scope.clone_into(&mut self.scope);
        self
    }

    /// Adds a part to what is shown that is not part of the key: detail of one that is.
    pub fn note(&mut self, name: &str, value: &str) -> &mut Self {
        let name = format!("{}{name}", self.scope);
        let value = value.to_owned();
        self.parts.0.push(Part { name, value });
        self
    }

    /// Adds the fact that something is not there.
    pub fn absent(&mut self, name: &str) -> &mut Self {
        self.add(name, Kind::Absent, &[], || "absent".to_owned())
    }

    /// The key.
    pub fn finish(&self) -> CacheKey {
        CacheKey(*self.hasher.finalize().as_bytes())
    }

    /// The parts added, for explanation.
    pub fn into_parts(self) -> Parts {
        self.parts
    }

    fn add(
        &mut self,
        name: &str,
        kind: Kind,
        value: &[u8],
        show: impl Fn() -> String,
    ) -> &mut Self {
        self.framed(name.as_bytes());
        self.hasher.update(&[kind as u8]);
        self.framed(value);
        self.parts.0.push(Part {
            name: format!("{}{name}", self.scope),
            value: show(),
        });
        self
    }

    fn framed(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}

fn shown(value: &str) -> String {
    if value.len() <= LONGEST_SHOWN {
        return value.to_owned();
    }
    let cut = value.floor_char_boundary(LONGEST_SHOWN);
    let hash = hex(&blake3::hash(value.as_bytes()).as_bytes()[..8]);
    format!("{}… ({} bytes, {hash})", &value[..cut], value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> KeyBuilder {
        let mut builder = KeyBuilder::new("exec");
        builder
            .text("arg", "make")
            .bytes("data", &[0, 255])
            .number("uid", -1)
            .key("root", &CacheKey([7; 32]))
            .content("file", &ContentDigest([8; 32]))
            .absent("passwd");
        builder
    }

    #[test]
    fn keys_are_pinned() {
        // Another value here means that every store loses its records: raise the version and say so.
        assert_eq!(
            example().finish().hex(),
            "89ea611d24cb54850205146db46dfa7e54c082d681b23c66627d7ac830691848"
        );
    }

    #[test]
    fn no_two_lists_of_parts_give_one_key() {
        let key = |domain: &str, parts: &[(&str, &str)]| {
            let mut builder = KeyBuilder::new(domain);
            for (name, value) in parts {
                builder.text(name, value);
            }
            builder.finish()
        };
        let all = [
            key("a", &[]),
            key("b", &[]),
            key("a", &[("x", "")]),
            key("a", &[("", "x")]),
            key("a", &[("x", "y"), ("z", "")]),
            key("a", &[("x", "yz")]),
            key("a", &[("xy", "z")]),
            key("a", &[("z", ""), ("x", "y")]),
            KeyBuilder::new("a").number("x", 0).finish(),
            KeyBuilder::new("a").bytes("x", &[0; 16]).finish(),
            KeyBuilder::new("a").key("x", &CacheKey([0; 32])).finish(),
            KeyBuilder::new("a")
                .content("x", &ContentDigest([0; 32]))
                .finish(),
            KeyBuilder::new("a").bytes("x", &[0; 32]).finish(),
            KeyBuilder::new("a").absent("x").finish(),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn every_difference_is_told_once() {
        let parts = |list: &[(&str, &str)]| {
            let mut key = KeyBuilder::new("x");
            for (name, value) in list {
                key.text(name, value);
            }
            key.into_parts()
        };
        let before = parts(&[("a", "1"), ("a", "1"), ("b", "1"), ("c", "1")]);
        let now = parts(&[("a", "1"), ("a", "2"), ("d", "1"), ("c", "1")]);
        let part = |name: &str, value: &str| Part {
            name: name.into(),
            value: value.into(),
        };
        assert_eq!(
            now.differences_from(&before),
            [
                Difference::Changed {
                    name: "a".into(),
                    before: "1".into(),
                    now: "2".into()
                },
                Difference::Added(part("d", "1")),
                Difference::Removed(part("b", "1")),
            ]
        );
        assert_eq!(now.differences_from(&now), []);
        let turned = parts(&[("c", "1"), ("a", "1"), ("a", "2"), ("d", "1")]);
        assert_eq!(turned.differences_from(&now), [Difference::Reordered]);
    }

    #[test]
    fn scopes_and_notes_are_shown_and_not_hashed() {
        let mut scoped = KeyBuilder::new("x");
        scoped
            .scope("mount /m: ")
            .text("a", "1")
            .note("file f", "2");
        scoped.scope("").secret("t", "s");
        let mut plain = KeyBuilder::new("x");
        plain.text("a", "1").text("t", "s");
        assert_eq!(scoped.finish(), plain.finish());
        let parts = scoped.into_parts().0;
        assert_eq!(parts[0].name, "mount /m: a");
        assert_eq!(parts[1].name, "mount /m: file f");
        assert!(
            parts[2].value.starts_with("(hidden, "),
            "{}",
            parts[2].value
        );
    }

    #[test]
    fn long_values_are_cut_for_show_and_still_told_apart() {
        let long = "é".repeat(200);
        let one = shown(&long);
        let two = shown(&format!("{long}x"));
        assert!(one.len() < 220, "{one}");
        assert_ne!(one, two);
    }
}
