//! Keys of plans, and plans becoming trees.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use frontend::graph::{Chmod, FileAction, InputIndex, Owner};

use super::super::apply::apply;
use super::super::context_source::ContextSource;
use super::super::select::{Sources, select};
use super::{World, changed, copy};

#[test]
fn keys() {
    let base = &["d /dst 700 9", "f /other x"];
    let key = |world: &World, actions: &[FileAction]| world.plan(actions).unwrap().key();
    let first = World::new(base);
    let actions = copy(&["d"], "/dst");
    let original = key(&first, &actions);
    // Other times, another owner and mode of the folder it goes through, more in the base.
    let same = World::new(&["d /dst 711 3", "f /more y"]);
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7);
    fs::File::options()
        .write(true)
        .open(same.path("d/one.txt"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert_eq!(key(&same, &actions), original);
    // Another way to write it.
    assert_eq!(key(&first, &copy(&["./d/../d/"], "/dst/")), original);
    // What changes the layer.
    assert_ne!(
        key(&World::new(&["d /real", "l /dst real"]), &actions),
        original
    );
    assert_ne!(
        key(&World::new(&[]), &actions),
        original,
        "the folder is made"
    );
    assert_ne!(key(&first, &copy(&["d"], "/dst2")), original);
    type Edit = fn(&World);
    let edits: [Edit; 5] = [
        |w| w.file("d/one.txt", "other"),
        |w| w.chmod("d/one.txt", 0o755),
        |w| w.chmod("d/sub", 0o700),
        |w| w.file("d/new", ""),
        |w| fs::rename(w.path("d/one.txt"), w.path("d/two.txt")).unwrap(),
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        let world = World::new(base);
        edit(&world);
        assert_ne!(key(&world, &actions), original, "edit {at}");
    }
}

#[test]
fn selections_have_keys_and_explanations() {
    let world = World::new(&[]);
    let select_in = |world: &World, actions: &[FileAction]| {
        let context = world.context();
        let source = ContextSource::new("context", std::sync::Arc::new(context));
        select(actions, &Sources::from([(InputIndex(1), &source as _)]), 1).unwrap()
    };
    let actions = copy(&["d", "a.txt"], "/dst/");
    let before = select_in(&world, &actions);
    assert_eq!(select_in(&World::new(&[]), &actions).key(), before.key());
    world.file("d/sub/two.txt", "edited");
    let after = select_in(&world, &actions);
    assert_ne!(after.key(), before.key());
    let (files, earlier) = (after.files(), before.files());
    let changed_files: Vec<&str> = files
        .iter()
        .filter(|file| !earlier.contains(file))
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(changed_files, ["file /d/sub/two.txt"]);
    let chmod = changed(&["d", "a.txt"], "/dst/", |a| {
        a.mode = Some(Chmod::Octal(0o700));
    });
    let with_mode = select_in(&world, &chmod);
    assert_ne!(with_mode.key(), after.key());
    assert_eq!(with_mode.files(), files, "the files are the same");
}

#[test]
fn a_selection_is_the_same_for_any_number_of_threads() {
    let world = World::new(&[]);
    for number in 0..300 {
        let (wide, deep) = (number % 7, number % 5);
        let name = ["keep", "drop", "other"][number % 3];
        world.file(&format!("w/{wide}/{deep}/{name}{number}"), "x");
    }
    let context = std::sync::Arc::new(world.context());
    let source = ContextSource::new("context", context);
    let sources = Sources::from([(InputIndex(1), &source as _)]);
    let parents = |source: &str| changed(&[source], "/", |a| a.keeps_parents = true);
    let exclude = |patterns: &[&str]| {
        let patterns = patterns
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .collect();
        changed(&["w"], "/", |a| a.exclude = patterns)
    };
    let all = [
        copy(&["."], "/"),
        parents("w/*/3/keep*"),
        parents("w/./6/**/drop*"),
        exclude(&["**/drop*", "1", "2"]),
        exclude(&["*", "!6/4/keep*"]),
    ];
    for (at, actions) in all.iter().enumerate() {
        let with = |threads| {
            let selection = select(actions, &sources, threads).unwrap();
            (selection.key(), selection.files(), selection.bytes())
        };
        let alone = with(1);
        assert!(alone.2 > 0, "actions {at}");
        for threads in [2, 3, 8, 2, 3, 8] {
            assert_eq!(with(threads), alone, "actions {at} by {threads} threads");
        }
    }
    // Of several errors it is the first in order.
    for directory in [6, 2, 4] {
        world.file(&format!("w/{directory}/1/.wh.x"), "");
    }
    for threads in [1, 2, 3, 8] {
        let error = select(&copy(&["w"], "/"), &sources, threads).unwrap_err();
        assert!(error.to_string().contains("2/1/.wh.x"), "{error}");
    }
}

#[test]
fn a_plan_becomes_a_tree() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test changes owners; run `sudo -E cargo test -p builder`"
    );
    let world = World::new(&["d /dst 710 9"]);
    fs::hard_link(world.path("d/one.txt"), world.path("d/sub/same")).unwrap();
    symlink("x", world.path("d/link")).unwrap();
    world.file("d/big", &"0123456789".repeat(100_000));
    world.file("d/empty", "");
    let tree = world.dir.path().join("out");
    fs::create_dir(&tree).unwrap();
    let actions = changed(&["d"], "/dst/in", |action| {
        action.owner = Some(Owner {
            user: "7".into(),
            group: Some("8".into()),
        });
    });
    let (plan, index) = world
        .with_plan(&actions, |plan, sources| {
            let index = apply(plan.clone(), sources, &tree, 4).unwrap();
            (plan, index)
        })
        .unwrap();
    assert_eq!(index, plan.index);
    let at = |path: &str| fs::symlink_metadata(tree.join(path)).unwrap();
    let top = at("dst");
    assert_eq!((top.mode() & 0o7777, top.uid(), top.mtime()), (0o710, 9, 0));
    let made = at("dst/in");
    assert_eq!(
        (made.mode() & 0o7777, made.uid(), made.gid(), made.mtime()),
        (0o755, 7, 8, 0)
    );
    assert_eq!(at("dst/in/one.txt").ino(), at("dst/in/sub/same").ino());
    assert_eq!(
        fs::read_to_string(tree.join("dst/in/big")).unwrap().len(),
        1_000_000
    );
    assert_eq!(
        fs::read_link(tree.join("dst/in/link")).unwrap(),
        Path::new("x")
    );
    assert_eq!(at("dst/in/link").uid(), 7);
    let source = fs::metadata(world.path("d/one.txt")).unwrap();
    assert_eq!(at("dst/in/one.txt").mtime(), source.mtime());
    assert_eq!(fs::read(tree.join("dst/in/empty")).unwrap(), b"");
}

#[test]
fn a_file_that_changed_after_hashing_is_noticed() {
    let world = World::new(&[]);
    let tree = world.dir.path().join("out");
    let apply_after = |text: &str| {
        fs::remove_dir_all(&tree).ok();
        fs::create_dir(&tree).unwrap();
        world.with_plan(&copy(&["a.txt"], "/x"), |plan, sources| {
            world.file("a.txt", text);
            apply(plan, sources, &tree, 1)
        })
    };
    let error = apply_after("other").unwrap().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("`/a.txt` changed while it was being copied")
    );
    world.file("a.txt", "same");
    assert!(
        apply_after("same").unwrap().is_ok(),
        "written again with equal bytes"
    );
}
