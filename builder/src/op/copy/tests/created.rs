//! Directories that a copy makes on its way.

use frontend::graph::{FileAction, Owner};

use super::archives::{add, tar, with_archive};
use super::{World, changed, copy};

const BASE: [&str; 3] = ["d /sg 2775 50", "d /sg/plain 755 9", "d /sg/there 2700 8"];

fn seven() -> Owner {
    Owner {
        user: "7".into(),
        group: None,
    }
}

#[test]
fn what_is_made_in_a_set_group_id_directory_inherits() {
    let owned = |destination| changed(&["d/sub"], destination, |a| a.owner = Some(seven()));
    let mkdir = |owner| {
        vec![FileAction::Mkdir {
            path: "/sg/w/v".into(),
            mode: 0o755,
            owner,
        }]
    };
    let cases: [(Vec<FileAction>, &[&str]); 7] = [
        (
            copy(&["a.txt"], "/sg/n/f"),
            &["d 2755 0:50 sg/n", "f 0644 0:0 sg/n/f"],
        ),
        (
            copy(&["d/sub"], "/sg/n/m"),
            &[
                "d 2755 0:50 sg/n",
                "d 2755 0:50 sg/n/m",
                "d 0755 0:0 sg/n/m/deep",
                "f 0644 0:0 sg/n/m/deep/three.txt",
                "f 0644 0:0 sg/n/m/two.txt",
            ],
        ),
        (
            owned("/sg/there/n"),
            &[
                "d 2755 7:7 sg/there/n",
                "d 0755 7:7 sg/there/n/deep",
                "f 0644 7:7 sg/there/n/deep/three.txt",
                "f 0644 7:7 sg/there/n/two.txt",
            ],
        ),
        (
            copy(&["a.txt"], "/sg/plain/n/"),
            &["d 0755 0:0 sg/plain/n", "f 0644 0:0 sg/plain/n/a.txt"],
        ),
        (mkdir(None), &["d 2755 0:50 sg/w", "d 2755 0:50 sg/w/v"]),
        (
            mkdir(Some(seven())),
            &["d 2755 7:7 sg/w", "d 2755 7:7 sg/w/v"],
        ),
        (
            changed(&["a.txt"], "/sg/n/", |action| {
                action.mode = Some(frontend::graph::Chmod::Octal(0o700));
            }),
            &["d 2700 0:50 sg/n", "f 0700 0:0 sg/n/a.txt"],
        ),
    ];
    for (actions, expected) in cases {
        assert_eq!(World::new(&BASE).list(&actions), expected);
    }
}

#[test]
fn directories_that_an_archive_leaves_out_are_roots() {
    let world = with_archive(&BASE, &tar(&["f i/f x", "d m 750", "f m/f y"]));
    assert_eq!(
        world.list(&add(&["t"], "/sg/n")),
        [
            "d 2755 0:50 sg/n",
            "d 2755 0:0 sg/n/i",
            "f 0640 3:4 sg/n/i/f",
            "d 0750 3:4 sg/n/m",
            "f 0640 3:4 sg/n/m/f",
        ]
    );
}
