//! What is planned, by path: kept in the order of layers, and found while it is being made.
//!
//! A copy may have very many files, so each is held once, as the node that the layer's index will have, with where its
//! bytes come from beside it. Most come in the order of layers: those lie one behind the other and are searched there. Of
//! others a map tells where they lie, until there are so many of them that all are put in order.

use std::collections::{BTreeMap, BTreeSet};

use cache::layer::index::Node;
use cache::layer::path;

use super::plan::Bytes;

/// Nodes out of order are put in order when there are this many of them, and a quarter as many as those in order.
const MOST_OTHERS: usize = 4096;

/// A path ordered as layers are: with NUL, which no name holds, for the slash, plain byte order puts what is in a
/// directory right behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LayerPath(Box<[u8]>);

impl LayerPath {
    pub(super) fn of(path: &[u8]) -> Self {
        let swap = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        Self(path.iter().map(swap).collect())
    }

    /// Whether it is this path or one below it; those follow each other.
    fn is_in(&self, above: &Self) -> bool {
        let rest = self.0.strip_prefix(&*above.0);
        rest.is_some_and(|rest| above.0.is_empty() || matches!(rest.first(), None | Some(0)))
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let swap = |byte: &u8| if *byte == 0 { b'/' } else { *byte };
        self.0.iter().map(swap).collect()
    }
}

/// What is known of a planned node beside what the index has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// Where a file's bytes come from.
    pub(super) bytes: Option<Bytes>,
    /// Names of one file have one number, from 1; 0 is none.
    pub(super) group: u32,
    /// Whether something came in its place.
    is_gone: bool,
}

impl Origin {
    pub(super) fn new(bytes: Option<Bytes>, group: u32) -> Self {
        Self {
            bytes,
            group,
            is_gone: false,
        }
    }
}

/// What is planned.
#[derive(Debug, Default)]
pub(super) struct Planned {
    nodes: Vec<Node>,
    /// One for each node.
    origins: Vec<Origin>,
    /// How many nodes, the first ones, are in order.
    ordered: usize,
    /// Where the others lie, but for those that are gone.
    others: BTreeMap<LayerPath, usize>,
    /// Paths at and below which none of those in order is left.
    cleared: BTreeSet<Vec<u8>>,
}

impl Planned {
    /// What is planned at a path.
    pub(super) fn get(&self, wanted: &[u8]) -> Option<(&Node, &Origin)> {
        let at = self.position(wanted)?;
        Some((&self.nodes[at], &self.origins[at]))
    }

    fn position(&self, wanted: &[u8]) -> Option<usize> {
        if !self.is_behind(wanted)
            && let Ok(at) = self.nodes[..self.ordered]
                .binary_search_by(|node| path::compare(&node.entry.path, wanted))
            && !self.origins[at].is_gone
        {
            return Some(at);
        }
        if self.others.is_empty() {
            return None;
        }
        self.others.get(&LayerPath::of(wanted)).copied()
    }

    /// Whether a path comes behind all that are in order.
    fn is_behind(&self, wanted: &[u8]) -> bool {
        let last = self.nodes[..self.ordered].last();
        last.is_none_or(|last| path::compare(&last.entry.path, wanted).is_lt())
    }

    /// Plans a node, in place of one planned for its path.
    pub(super) fn put(&mut self, node: Node, origin: Origin) {
        if let Some(at) = self.position(&node.entry.path) {
            self.nodes[at] = node;
            self.origins[at] = origin;
            return;
        }
        let is_next = self.nodes.len() == self.ordered
            && self.cleared.is_empty()
            && self.is_behind(&node.entry.path);
        if is_next {
            self.ordered += 1;
        } else {
            let at = LayerPath::of(&node.entry.path);
            self.others.insert(at, self.nodes.len());
        }
        self.nodes.push(node);
        self.origins.push(origin);
        if self.nodes.len() - self.ordered > MOST_OTHERS.max(self.ordered / 4) {
            self.put_in_order();
        }
    }

    /// Forgets what is planned at and below a path.
    pub(super) fn remove(&mut self, wanted: &[u8]) {
        let above = LayerPath::of(wanted);
        let below = self.others.range(above.clone()..);
        let inside: Vec<LayerPath> = below
            .map_while(|(path, _)| path.is_in(&above).then(|| path.clone()))
            .collect();
        for path in inside {
            if let Some(at) = self.others.remove(&path) {
                self.origins[at].is_gone = true;
            }
        }
        if !self.cleared.insert(wanted.to_vec()) {
            return;
        }
        let ordered = &self.nodes[..self.ordered];
        let first = ordered.partition_point(|node| path::compare(&node.entry.path, wanted).is_lt());
        let is_inside = |node: &&Node| {
            let path = node.entry.path.as_slice();
            path == wanted || path::is_below(wanted, path)
        };
        let count = ordered[first..].iter().take_while(is_inside).count();
        for origin in &mut self.origins[first..first + count] {
            origin.is_gone = true;
        }
    }

    fn put_in_order(&mut self) {
        let is_left = |at: &usize| !self.origins[*at].is_gone;
        let mut order: Vec<usize> = (0..self.ordered).filter(is_left).collect();
        order.extend(self.others.values());
        // Two runs, which sorting merges.
        let path = |at: &usize| self.nodes[*at].entry.path.as_slice();
        order.sort_by(|left, right| path::compare(path(left), path(right)));
        let left = order.len();
        let mut places = vec![usize::MAX; self.nodes.len()];
        for (place, at) in order.into_iter().enumerate() {
            places[at] = place;
        }
        // What is gone goes to the end.
        let gone = places.iter_mut().filter(|place| **place == usize::MAX);
        for (place, number) in gone.zip(left..) {
            *place = number;
        }
        for at in 0..places.len() {
            while places[at] != at {
                let place = places[at];
                self.nodes.swap(at, place);
                self.origins.swap(at, place);
                places.swap(at, place);
            }
        }
        self.nodes.truncate(left);
        self.origins.truncate(left);
        self.ordered = left;
        self.others.clear();
        self.cleared.clear();
    }

    /// All that was put in order.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All of it in order, to be seen and changed, but for paths.
    pub(super) fn in_order(&mut self) -> (&mut [Node], &mut [Origin]) {
        if self.nodes.len() > self.ordered || !self.cleared.is_empty() {
            self.put_in_order();
        }
        (&mut self.nodes, &mut self.origins)
    }

    /// All of it in order.
    pub(super) fn into_parts(mut self) -> (Vec<Node>, Vec<Origin>) {
        self.in_order();
        (self.nodes, self.origins)
    }
}

#[cfg(test)]
mod tests {
    use cache::layer::entry::Entry;
    use cache::layer::index::Role;

    use super::*;

    fn node(path: &[u8], mode: u32) -> Node {
        let directory = Entry::default_directory(path.to_vec());
        Node {
            entry: Entry { mode, ..directory },
            role: Role::Entry,
        }
    }

    #[test]
    fn it_is_as_a_map_by_path_is_whatever_the_order() {
        let mut planned = Planned::default();
        let mut model: BTreeMap<LayerPath, u32> = BTreeMap::new();
        let mut random = 7_u32;
        for mode in 0..60_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = random >> 8;
            let path = match number % 5 {
                // In order, for long.
                _ if mode % 20_000 < 9_000 => format!("z/{mode:06}"),
                0 => format!("a/{}", number % 700),
                1 => format!("a-/{}", number % 900),
                _ => format!("a/{}/{}", number % 70, number % 1_100),
            };
            let path = path.as_bytes();
            if number.is_multiple_of(97) {
                let above = &path[..path.len() - 1 - usize::from(number.is_multiple_of(2))];
                planned.remove(above);
                let at = LayerPath::of(above);
                model.retain(|path, _| !path.is_in(&at));
            }
            planned.put(node(path, mode), Origin::new(None, mode));
            model.insert(LayerPath::of(path), mode);
            let found = planned.get(path).unwrap();
            assert_eq!((found.0.entry.mode, found.1.group), (mode, mode));
        }
        for number in 0..1_200 {
            let path = format!("a/{}/{number}", number % 70);
            let found = planned.get(path.as_bytes()).map(|(_, origin)| origin.group);
            let expected = model.get(&LayerPath::of(path.as_bytes()));
            assert_eq!(found.as_ref(), expected, "{path}");
        }
        let (nodes, origins) = planned.into_parts();
        let all: Vec<_> = nodes
            .iter()
            .zip(&origins)
            .map(|(node, origin)| (LayerPath::of(&node.entry.path), origin.group))
            .collect();
        assert!(all.len() > 10_000);
        assert_eq!(all, model.into_iter().collect::<Vec<_>>());
    }
}
