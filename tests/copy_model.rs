//! COPY and ADD of random trees against a model of `cp -a`: every path, byte, mode, owner, time and link.
//!
//! The seed is printed by a test that fails; `RANDOM_SEED` sets it.

use std::collections::BTreeMap;
use std::process::Command;

use crate::support::tree::{Kind, Node, Random, Tree, is_below, join, parent};
use crate::support::{Outcome, Place, finish, image::Image};

const POOL: [&str; 6] = ["a", "b", "c", "d.x", "e", "f.x"];

/// The seed of the numbers of a test.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "who replays a failure sees and sets it"
)]
fn seed() -> u64 {
    let seed = std::env::var("RANDOM_SEED").map_or(20_261_122, |text| text.parse().unwrap());
    eprintln!("RANDOM_SEED={seed}");
    seed
}

/// What a COPY is told.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    chown: Option<(u32, u32)>,
    chmod: Option<u32>,
    is_linked: bool,
    keeps_owner: bool,
    keeps_parents: bool,
}

/// What `mkdir` makes in a directory: with the set-group-ID bit that one passes on, and its group.
fn made_directory(above: Option<&Node>, flags: Flags) -> Node {
    let above = above.filter(|above| above.mode & 0o2000 != 0);
    let usual = (0, above.map_or(0, |above| above.gid));
    let (uid, gid) = flags.chown.unwrap_or(usual);
    let mode = flags.chmod.map_or(0o755, |mode| mode & 0o777);
    Node {
        kind: Kind::Directory,
        mode: mode | above.map_or(0, |_| 0o2000),
        uid,
        gid,
        mtime: 0,
    }
}

/// Where a path leads, with the root as `/`.
fn resolve(tree: &Tree, path: &[u8]) -> Option<Vec<u8>> {
    let mut todo: Vec<Vec<u8>> = path
        .split(|b| *b == b'/')
        .rev()
        .map(<[u8]>::to_vec)
        .collect();
    let (mut at, mut links) = (Vec::new(), 0);
    while let Some(name) = todo.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at = parent(&at).to_vec();
                continue;
            }
            _ => {}
        }
        let next = join(&at, &name);
        if let Some(Node {
            kind: Kind::Symlink(text),
            ..
        }) = tree.get(&next)
        {
            links += 1;
            if links > 40 {
                return None;
            }
            if text.starts_with(b"/") {
                at.clear();
            }
            todo.extend(text.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        } else {
            at = next;
        }
    }
    Some(at)
}

fn make_directories(tree: &mut Tree, path: &[u8], flags: Flags) -> Result<(), &'static str> {
    for end in (0..=path.len()).filter(|at| *at == path.len() || path[*at] == b'/') {
        let dir = &path[..end];
        if tree.is_dir(dir) {
            continue;
        }
        if tree.get(dir).is_some() {
            return Err("directory");
        }
        let made = made_directory(tree.get(parent(dir)), flags);
        tree.put(dir, made);
    }
    Ok(())
}

/// `COPY FLAGS source/ /destination`
fn copy(base: &Tree, source: &Tree, to: &[u8], flags: Flags) -> Result<Tree, &'static str> {
    let is_linked = flags.is_linked && flags.chmod.is_none();
    let mut tree = if is_linked {
        Tree::default()
    } else {
        base.clone()
    };
    let at = resolve(&tree, to).ok_or("too many levels")?;
    if tree.get(&at).is_some() && !tree.is_dir(&at) {
        return Err("directory");
    }
    make_directories(&mut tree, &at, flags)?;
    let mut inodes: BTreeMap<usize, usize> = BTreeMap::new();
    for (path, number) in &source.paths {
        let path = join(&at, path);
        let found = tree.get(&path).cloned();
        let node = copied(&source.nodes[*number], found.as_ref(), flags);
        let is_dir = node.kind == Kind::Directory;
        if found.is_some() && is_dir != tree.is_dir(&path) {
            return Err("directory");
        }
        match inodes.get(number) {
            Some(inode) => {
                tree.remove(&path);
                tree.paths.insert(path, *inode);
            }
            None => drop(inodes.insert(*number, tree.put(&path, node))),
        }
    }
    Ok(if is_linked {
        stacked(base, &tree)
    } else {
        tree
    })
}

fn copied(source: &Node, found: Option<&Node>, flags: Flags) -> Node {
    let kept = if flags.keeps_owner {
        (source.uid, source.gid)
    } else {
        (0, 0)
    };
    let (uid, gid) = flags.chown.unwrap_or(kept);
    let mode = match (&source.kind, flags.chmod) {
        (Kind::Symlink(_), _) | (_, None) => source.mode,
        (_, Some(mode)) => mode,
    };
    let kind = match &source.kind {
        Kind::Socket => Kind::File(Vec::new()),
        kind => kind.clone(),
    };
    let node = Node {
        kind,
        mode,
        uid,
        gid,
        mtime: source.mtime,
    };
    match found {
        // What is there already keeps all but its mode.
        Some(found) if flags.keeps_parents && found.kind == Kind::Directory => Node {
            mode: source.mode,
            ..found.clone()
        },
        _ => node,
    }
}

/// A layer of its own on a base.
fn stacked(base: &Tree, layer: &Tree) -> Tree {
    let mut tree = base.clone();
    let mut inodes: BTreeMap<usize, usize> = BTreeMap::new();
    for (path, number) in &layer.paths {
        if layer.is_dir(path) && !tree.is_dir(path) {
            tree.remove(path);
        }
        match inodes.get(number) {
            Some(inode) => {
                tree.remove(path);
                tree.paths.insert(path.clone(), *inode);
            }
            None => drop(inodes.insert(*number, tree.put(path, layer.nodes[*number].clone()))),
        }
    }
    tree
}

/// A part of a tree.
fn filtered(tree: &Tree, is_meant: impl Fn(&[u8]) -> bool) -> Tree {
    let mut part = tree.clone();
    part.paths.retain(|path, _| is_meant(path));
    part
}

/// Takes what a copy could not go over out of a base: directories and other things that meet.
fn without_conflicts(base: &Tree, source: &Tree) -> Tree {
    let mut cleaned = base.clone();
    for path in source.paths.keys() {
        if cleaned.get(path).is_some() && cleaned.is_dir(path) != source.is_dir(path) {
            cleaned.remove(path);
        }
    }
    cleaned
}

/// A place with two trees in its context: `base`, which is on scratch, and `source`.
fn place(base: &Tree, source: &Tree) -> Place {
    let place = Place::new();
    for (name, tree) in [("base", base), ("source", source)] {
        let dir = place.context().join(name);
        std::fs::create_dir(&dir).unwrap();
        tree.write(&dir);
    }
    place
}

fn build(place: &Place, copy: &str) -> Outcome {
    let text = format!("FROM scratch AS base\nCOPY base /\nFROM base\n{copy}\n");
    place.file("Dockerfile", text);
    let output = format!("type=oci,dest={}", place.path("image.tar").display());
    place.build(&["--output", &output])
}

fn flattened(place: &Place) -> Tree {
    Tree::of_layers(&Image::read(&place.path("image.tar")).layers)
}

/// Builds and compares.
fn assert_copied(place: &Place, text: &str, expected: Result<Tree, &str>) {
    let outcome = build(place, text);
    match expected {
        Err(why) => drop(outcome.failure(1).says(why)),
        Ok(expected) => {
            drop(outcome.success());
            assert_same(&flattened(place), &expected, text);
        }
    }
}

fn assert_same(found: &Tree, expected: &Tree, text: &str) {
    let (found, expected) = (found.lines(), expected.lines());
    let only = |some: &[String], others: &[String]| -> Vec<String> {
        let others: std::collections::BTreeSet<&String> = others.iter().collect();
        let only = some.iter().filter(|line| !others.contains(line));
        only.take(10).cloned().collect()
    };
    let (more, missing) = (only(&found, &expected), only(&expected, &found));
    assert!(
        more.is_empty() && missing.is_empty(),
        "{text}\nfound: {more:#?}\nexpected: {missing:#?}"
    );
}

/// The base as its own COPY makes it: nothing belongs to users.
fn on_scratch(base: &Tree) -> Tree {
    copy(&Tree::default(), base, b"", Flags::default()).unwrap()
}

#[test]
fn five_thousand_entries_are_copied_as_they_are() {
    let mut random = Random::new(seed());
    let source = random.tree(5_500, &POOL);
    let base = without_conflicts(&random.tree(1_500, &POOL), &source);
    assert!(source.paths.len() >= 4_500, "{}", source.paths.len());
    let place = place(&base, &source);
    let base = on_scratch(&base);
    let plain = copy(&base, &source, b"", Flags::default());
    assert_copied(&place, "COPY source /", plain);
    let flags = Flags {
        chown: Some((12, 34)),
        is_linked: true,
        ..Flags::default()
    };
    let linked = copy(&base, &source, b"new/dir", flags);
    assert_copied(&place, "COPY --link --chown=12:34 source /new/dir", linked);
}

#[test]
fn flags_and_symlinked_destinations_do_what_the_model_does() {
    let seed = seed();
    for round in 0..2 {
        let mut random = Random::new(seed + round);
        let source = random.tree(300, &POOL);
        let mut base = without_conflicts(&random.tree(150, &POOL), &source);
        let dirs: Vec<Vec<u8>> = base
            .paths
            .keys()
            .filter(|path| base.is_dir(path))
            .cloned()
            .collect();
        let Some(dir) = dirs.last() else { continue };
        // A link to a directory, absolute, and one that climbs.
        for (name, text) in [("into", b"/".to_vec()), ("up", b"../../".to_vec())] {
            let node = Node {
                kind: Kind::Symlink([text, dir.clone()].concat()),
                mode: 0o777,
                uid: 0,
                gid: 0,
                mtime: 7,
            };
            base.put(name.as_bytes(), node);
        }
        let place = place(&base, &source);
        let base = on_scratch(&base);
        let chown = Flags {
            chown: Some((70_000, 4_000_000)),
            ..Flags::default()
        };
        let chmod = Flags {
            chmod: Some(0o2711),
            ..chown
        };
        let link = Flags {
            is_linked: true,
            ..Flags::default()
        };
        let ignored = Flags {
            is_linked: true,
            ..chmod
        };
        for (flags, text) in [
            (chown, "--chown=70000:4000000"),
            (chmod, "--chmod=2711 --chown=70000:4000000"),
            (link, "--link"),
            (ignored, "--link --chmod=2711 --chown=70000:4000000"),
        ] {
            for to in ["", "new/a", "into/new", "up/new/x", "into"] {
                let expected = copy(&base, &source, to.as_bytes(), flags);
                assert_copied(&place, &format!("COPY {text} source /{to}"), expected);
            }
        }
        let named = |path: &[u8]| {
            path.split(|b| *b == b'/')
                .any(|name| name == b"a" || name.ends_with(b".x"))
        };
        let kept = filtered(&source, |path| !named(path));
        let expected = copy(&base, &kept, b"new", Flags::default());
        assert_copied(
            &place,
            "COPY --exclude=**/a --exclude=**/*.x source /new",
            expected,
        );
        let parents = Flags {
            keeps_parents: true,
            ..Flags::default()
        };
        // A link would be followed.
        let is_no_link = |name: &&[u8]| {
            let found = source.get(name);
            found.is_some_and(|node| !matches!(node.kind, Kind::Symlink(_)))
        };
        for name in POOL.map(str::as_bytes).into_iter().filter(is_no_link) {
            let part = filtered(&source, |path| path == name || is_below(name, path));
            let text = String::from_utf8_lossy(name).into_owned();
            let expected = copy(&base, &part, b"", parents);
            assert_copied(
                &place,
                &format!("COPY --parents source/./{text} /"),
                expected,
            );
        }
    }
}

#[test]
fn trees_that_meet_merge_or_are_refused_as_in_the_model() {
    let seed = seed();
    let mut refused = 0;
    for round in 0..40 {
        let mut random = Random::new(seed * 1_000 + round);
        let base = random.tree(6, &["a", "b", "c"]);
        let source = random.tree(6, &["a", "b", "c"]);
        let place = place(&base, &source);
        let base = on_scratch(&base);
        for to in ["", "a", "a/b/"] {
            let expected = copy(&base, &source, to.as_bytes(), Flags::default());
            refused += u32::from(expected.is_err());
            assert_copied(&place, &format!("COPY source /{to}"), expected);
        }
    }
    assert!(refused > 10, "{refused}: nothing is shown about errors");
}

#[test]
fn an_archive_of_a_random_tree_unpacks_to_it() {
    let mut random = Random::new(seed());
    let mut source = random.tree(2_500, &POOL);
    // Tars have no sockets.
    let nodes = source.nodes.clone();
    source
        .paths
        .retain(|_, number| nodes[*number].kind != Kind::Socket);
    let place = place(&Tree::default(), &source);
    let mut tar = Command::new("tar");
    tar.args(["--format=pax", "--numeric-owner", "-C"])
        .arg(place.context().join("source"));
    finish(tar.arg("-cf").arg(place.context().join("t.tar")).arg(".")).success();
    let before_the_epoch = source.nodes.iter_mut().filter(|node| node.mtime < 0);
    before_the_epoch.for_each(|node| node.mtime = 0);
    let keeping = Flags {
        keeps_owner: true,
        ..Flags::default()
    };
    let unpacked = copy(&Tree::default(), &source, b"to", keeping).unwrap();
    assert_copied(&place, "ADD t.tar /to/", Ok(unpacked.clone()));
    let text = "FROM base AS added\nADD t.tar /to/\nFROM base\nCOPY --from=added / /again";
    let again = copy(&Tree::default(), &unpacked, b"again", keeping);
    assert_copied(&place, text, again);
}
