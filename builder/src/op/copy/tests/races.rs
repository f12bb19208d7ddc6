//! Files of a context that change between being hashed and being copied.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cache::layer::tree::OverlayXattrs;
use cache::layer::verify::is_intact;

use super::super::apply::apply;
use super::{World, copy};

/// Plans a copy of `d`, edits the context, and writes the layer: its error, or whether it is what was planned.
fn edited(world: &World, edit: impl FnOnce(&World)) -> Result<bool, String> {
    let out = tempfile::tempdir().unwrap();
    let written = world.with_plan(&copy(&["d"], "/"), |plan, sources| {
        edit(world);
        apply(plan, sources, out.path(), 1)
    });
    match written.unwrap() {
        Ok(index) => Ok(is_intact(&index, out.path(), OverlayXattrs::Trusted)),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_is_written_again_within_a_tick_of_the_clock_is_noticed() {
    for round in 0..200 {
        let world = World::new(&[]);
        world.file("d/one.txt", "first version");
        let outcome = edited(&world, |world| {
            fs::write(world.path("d/one.txt"), "other version").unwrap();
        });
        let error = outcome.expect_err("the other version was taken for the first");
        assert!(
            error.contains("`/d/one.txt` changed while"),
            "{round}: {error}"
        );
    }
}

#[test]
fn every_edit_ends_in_an_error_and_nothing_of_outside_is_read() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("sub")).unwrap();
    for name in ["one.txt", "sub/two.txt"] {
        // As long as what it takes the place of.
        fs::write(outside.path().join(name), "x".repeat(2 + name.len())).unwrap();
    }
    type Edit = fn(&World, &Path);
    let edits: [(&str, Edit); 9] = [
        ("grown", |w, _| {
            fs::write(w.path("d/one.txt"), vec![b'x'; 1 << 20]).unwrap();
        }),
        ("shrunk", |w, _| {
            fs::write(w.path("d/one.txt"), "d/o").unwrap();
        }),
        ("emptied", |w, _| {
            fs::write(w.path("d/one.txt"), "").unwrap();
        }),
        ("gone", |w, _| fs::remove_file(w.path("d/one.txt")).unwrap()),
        ("other bytes, the time restored", |w, _| {
            let before = fs::metadata(w.path("d/one.txt"))
                .unwrap()
                .modified()
                .unwrap();
            fs::write(w.path("d/one.txt"), "D/ONE.TXT").unwrap();
            let file = fs::File::options().write(true).open(w.path("d/one.txt"));
            file.unwrap().set_modified(before).unwrap();
        }),
        ("a link instead of a file", |w, outside| {
            fs::remove_file(w.path("d/one.txt")).unwrap();
            symlink(outside.join("one.txt"), w.path("d/one.txt")).unwrap();
        }),
        ("a link instead of a directory", |w, outside| {
            fs::rename(w.path("d"), w.path("moved")).unwrap();
            symlink(outside, w.path("d")).unwrap();
        }),
        ("a directory instead of a file", |w, _| {
            fs::remove_file(w.path("d/one.txt")).unwrap();
            fs::create_dir(w.path("d/one.txt")).unwrap();
        }),
        ("a pipe instead of a file", |w, _| {
            fs::remove_file(w.path("d/one.txt")).unwrap();
            let mode = rustix::fs::Mode::RUSR;
            let pipe = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, w.path("d/one.txt"), pipe, mode, 0).unwrap();
        }),
    ];
    for (name, edit) in edits {
        let world = World::new(&[]);
        let error = edited(&world, |world| edit(world, outside.path()));
        let error = error.expect_err(name);
        assert!(
            error.contains("changed while it was being copied") || error.contains("cannot open"),
            "{name}: {error}"
        );
    }
    // Touched, or replaced by the same bytes: what was planned is still true.
    let touches: [Edit; 2] = [
        |w, _| {
            let file = fs::File::options().write(true).open(w.path("d/one.txt"));
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
            file.unwrap().set_modified(time).unwrap();
        },
        |w, _| {
            fs::write(w.path("new"), "d/one.txt").unwrap();
            fs::rename(w.path("new"), w.path("d/one.txt")).unwrap();
        },
    ];
    for touch in touches {
        let world = World::new(&[]);
        assert_eq!(
            edited(&world, |world| touch(world, outside.path())),
            Ok(true)
        );
    }
}
