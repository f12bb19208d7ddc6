//! Rules of COPY, each as cases: what is planned.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use cache::layer::entry::EntryKind;
use frontend::graph::{Chmod, CopyAction, FileAction, InputIndex, Owner};

use super::super::place::plan;
use super::super::select::{Sources, select};
use super::{World, changed, copy, listing, stack, stack_source};

const D: [&str; 5] = [
    "f 0644 0:0 dst/one.txt",
    "d 0755 0:0 dst/sub",
    "d 0755 0:0 dst/sub/deep",
    "f 0644 0:0 dst/sub/deep/three.txt",
    "f 0644 0:0 dst/sub/two.txt",
];

fn with_dst(rest: &[&str]) -> Vec<String> {
    let dst = ["d 0755 0:0 dst"];
    dst.iter()
        .chain(rest)
        .map(|line| (*line).to_owned())
        .collect()
}

#[test]
fn destinations() {
    let base = &[
        "d /dst 700 9",
        "d /real",
        "d /real/sub",
        "l /link real",
        "l /dangling /later/file",
        "f /target x",
        "l /tolink target",
    ];
    let cases: [(&[&str], &str, &[&str]); 12] = [
        (
            &["a.txt"],
            "/x/y/z",
            &["d 0755 0:0 x", "d 0755 0:0 x/y", "f 0644 0:0 x/y/z"],
        ),
        (
            &["a.txt"],
            "/new/",
            &["d 0755 0:0 new", "f 0644 0:0 new/a.txt"],
        ),
        (&["/a.txt"], "/dst", &["f 0644 0:0 dst/a.txt"]),
        (&["../../d/../a.txt"], "/", &["f 0644 0:0 a.txt"]),
        (&["a.txt"], "/link/", &["f 0644 0:0 real/a.txt"]),
        (&["a.txt"], "/link", &["f 0644 0:0 real/a.txt"]),
        (&["a.txt"], "/link/sub/b", &["f 0644 0:0 real/sub/b"]),
        (
            &["a.txt"],
            "/dangling",
            &["d 0755 0:0 later", "f 0644 0:0 later/file"],
        ),
        (
            &["a.txt"],
            "/dangling/",
            &[
                "d 0755 0:0 later",
                "d 0755 0:0 later/file",
                "f 0644 0:0 later/file/a.txt",
            ],
        ),
        (&["a.txt"], "/tolink", &["f 0644 0:0 target"]),
        (&["a.txt", "b.txt"], "/one", &["f 0644 0:0 one"]),
        (&["d"], "/dst", &D),
    ];
    for (sources, destination, expected) in cases {
        assert_eq!(
            World::new(base).list(&copy(sources, destination)),
            expected,
            "{sources:?} {destination}"
        );
    }
    let plan = World::new(base).plan(&copy(&["a.txt"], "/dst/q/")).unwrap();
    let implied: Vec<_> = plan
        .index
        .implied()
        .map(|d| (d.path.as_slice(), d.mode, d.uid))
        .collect();
    assert_eq!(implied, [(&b""[..], 0o755, 0), (b"dst", 0o700, 9)]);
}

#[test]
fn a_directory_gives_its_contents() {
    let world = World::new(&[]);
    world.chmod("d", 0o700);
    assert_eq!(world.list(&copy(&["d"], "/dst")), with_dst(&D));
    assert_eq!(world.list(&copy(&["d/"], "/dst/")), with_dst(&D));
    let several = world.list(&copy(&["d/sub", "a.txt"], "/dst"));
    let expected = [
        "f 0644 0:0 dst/a.txt",
        "d 0755 0:0 dst/deep",
        "f 0644 0:0 dst/deep/three.txt",
        "f 0644 0:0 dst/two.txt",
    ];
    assert_eq!(several, with_dst(&expected));
}

#[test]
fn collisions() {
    type Expected = Result<&'static [&'static str], &'static str>;
    let cases: [(&[&str], &[&str], &str, Expected); 7] = [
        (
            &["f /dst x"],
            &["d"],
            "/dst",
            Err("cannot copy to non-directory: /dst"),
        ),
        (
            &["d /dst", "d /else", "l /dst/sub /else"],
            &["d"],
            "/dst/",
            Err("cannot copy to non-directory: /dst/sub"),
        ),
        (
            &["d /dst", "d /dst/one.txt"],
            &["d"],
            "/dst/",
            Err("cannot replace to directory /dst/one.txt with file"),
        ),
        (
            &["d /etc", "f /etc/passwd x"],
            &["a.txt"],
            "/etc/passwd/x",
            Err("mkdir /etc/passwd: not a directory"),
        ),
        (
            &["d /dst", "f /keep x", "l /dst/one.txt /keep"],
            &["d/one.txt"],
            "/dst/",
            Ok(&["f 0644 0:0 dst/one.txt"]),
        ),
        (
            &["d /dst 700 5", "d /dst/sub 700 5"],
            &["d"],
            "/dst",
            Ok(&D),
        ),
        (
            &["l /loop loop"],
            &["a.txt"],
            "/loop/x",
            Err("too many levels of symbolic links in `/loop`"),
        ),
    ];
    for (base, sources, destination, expected) in cases {
        let world = World::new(base);
        let actions = copy(sources, destination);
        match expected {
            Ok(expected) => assert_eq!(world.list(&actions), expected),
            Err(expected) => assert_eq!(world.error(&actions), expected),
        }
    }
}

#[test]
fn missing_sources() {
    let mut world = World::new(&[]);
    symlink("nowhere", world.path("broken")).unwrap();
    world.excluded = "c.md";
    let not_found =
        |path: &str| format!("failed to calculate checksum of ref context: \"/{path}\": not found");
    for path in ["missing", "A.TXT", "not/there", "broken", "a.txt/x"] {
        assert_eq!(world.error(&copy(&["a.txt", path], "/x/")), not_found(path));
    }
    let error = world.plan(&copy(&["./c.md"], "/x")).unwrap_err();
    assert_eq!(
        error.to_string(),
        not_found("c.md") + ": excluded by .dockerignore:3 (`c.md`)"
    );
    assert_eq!(
        error.hint().unwrap(),
        "remove the pattern or add `!c.md` after it"
    );
    let none = world.plan(&copy(&["*.nope", "d/*/y"], "/dst/")).unwrap();
    assert!(none.entries().next().is_none());
    let implied: Vec<&[u8]> = none.index.implied().map(|d| d.path.as_slice()).collect();
    assert_eq!(implied, [b""], "only the root, which every tree has");
    let scratch = changed(&["/no/such"], "/x", |action| action.input = None);
    assert_eq!(
        world.error(&scratch),
        "failed to calculate checksum of ref scratch: \"/no/such\": not found: lstat /no/such: no such file or directory"
    );
}

#[test]
fn wildcards() {
    let world = World::new(&[]);
    for path in [
        ".dot/x",
        ".hidden",
        "p1/q/f",
        "p1/q/g",
        "p2/q/f",
        "arr[0].txt",
        "starX",
        "star*",
    ] {
        world.file(path, path);
    }
    let cases: [(&str, &[&str]); 7] = [
        (
            "*.txt",
            &[
                "f 0644 0:0 dst/a.txt",
                "f 0644 0:0 dst/arr[0].txt",
                "f 0644 0:0 dst/b.txt",
            ],
        ),
        ("**/*.txt", &["f 0644 0:0 dst/one.txt"]),
        ("p*/q/f", &["f 0644 0:0 dst/f"]),
        ("p*/q", &["f 0644 0:0 dst/f", "f 0644 0:0 dst/g"]),
        ("arr[[]0].txt", &["f 0644 0:0 dst/arr[0].txt"]),
        ("[^b-z]?t*", &["f 0644 0:0 dst/a.txt"]),
        (".*", &["f 0644 0:0 dst/.hidden", "f 0644 0:0 dst/x"]),
    ];
    for (source, expected) in cases {
        assert_eq!(
            world.list(&copy(&[source], "/dst/")),
            with_dst(expected),
            "{source}"
        );
    }
}

#[test]
fn what_comes_before_a_wildcard_must_exist() {
    let world = World::new(&[]);
    for (source, missing) in [
        ("nosuch/*", "/nosuch"),
        ("d/nosuch/*/x?", "/d/nosuch"),
        ("a.txt/sub/*", "/a.txt/sub"),
    ] {
        let error =
            format!("failed to calculate checksum of ref context: \"{missing}\": not found");
        assert_eq!(world.error(&copy(&[source], "/dst/")), error, "{source}");
    }
    // Nothing matches.
    for source in ["d/*.nope", "nosuch*/x", "a.txt/*"] {
        assert_eq!(world.list(&copy(&[source], "/dst/")), [""; 0], "{source}");
    }
}

#[test]
fn a_malformed_pattern_is_an_error() {
    let world = World::new(&[]);
    for source in ["[a", "d/*[", "*/x[^"] {
        assert_eq!(
            world.error(&copy(&[source], "/dst/")),
            format!("invalid pattern `/{source}`: syntax error in pattern")
        );
    }
}

#[test]
fn symlinks_are_followed_at_the_top_and_kept_below() {
    let world = World::new(&[]);
    world.chmod("a.txt", 0o640);
    symlink("a.txt", world.path("link")).unwrap();
    symlink("../../../../d/one.txt", world.path("esc")).unwrap();
    symlink("/d/sub", world.path("todir")).unwrap();
    symlink("nowhere", world.path("d/dangling")).unwrap();
    assert_eq!(
        world.list(&copy(&["link"], "/dst/")),
        with_dst(&["f 0640 0:0 dst/link"])
    );
    assert_eq!(
        world.list(&copy(&["esc"], "/dst/")),
        with_dst(&["f 0644 0:0 dst/esc"])
    );
    let expected = [
        "d 0755 0:0 dst/deep",
        "f 0644 0:0 dst/deep/three.txt",
        "f 0644 0:0 dst/two.txt",
    ];
    assert_eq!(world.list(&copy(&["todir"], "/dst/")), with_dst(&expected));
    let below = world.list(&copy(&["d"], "/dst"));
    assert_eq!(below[1], "l 0777 0:0 dst/dangling nowhere");
}

#[test]
fn modes() {
    let base = &["d /old 700", "d /old/sub 700"];
    let world = World::new(base);
    world.chmod("d/one.txt", 0o600);
    let octal = |mode| move |action: &mut CopyAction| action.mode = Some(Chmod::Octal(mode));
    let symbolic = |action: &mut CopyAction| action.mode = Some(Chmod::Symbolic("a=rX".into()));
    assert_eq!(
        world.list(&changed(&["a.txt"], "/p/q/", octal(0o1751))),
        ["d 0751 0:0 p", "d 0751 0:0 p/q", "f 1751 0:0 p/q/a.txt"]
    );
    assert_eq!(
        world.list(&changed(&["d/sub"], "/dst", octal(0o1777))),
        [
            "d 0777 0:0 dst",
            "d 1777 0:0 dst/deep",
            "f 1777 0:0 dst/deep/three.txt",
            "f 1777 0:0 dst/two.txt"
        ]
    );
    let old = world.list(&changed(&["d"], "/old", octal(0o777)));
    assert_eq!(old[..2], ["f 0777 0:0 old/one.txt", "d 0777 0:0 old/sub"]);
    let dst = world.list(&changed(&["d"], "/dst", symbolic));
    assert_eq!(
        dst[..3],
        [
            "d 0755 0:0 dst",
            "f 0444 0:0 dst/one.txt",
            "d 0555 0:0 dst/sub"
        ]
    );
}

#[test]
fn owners() {
    let passwd = "root:x:8:9::/:/bin/sh\napp:x:1500:1600::/app:/bin/sh\n";
    let group = "root:x:9:\napps:x:1700:app\n";
    let world = World::new(&[
        "d /etc",
        "l /etc/passwd users",
        "f /etc/users x",
        "f /etc/group x",
        "d /own 755 5",
    ]);
    fs::create_dir_all(world.dir.path().join("tree/etc")).unwrap();
    fs::write(world.dir.path().join("tree/etc/users"), passwd).unwrap();
    fs::write(world.dir.path().join("tree/etc/group"), group).unwrap();
    let owned = |user: &str, group: Option<&str>| {
        let owner = Owner {
            user: user.into(),
            group: group.map(Into::into),
        };
        changed(&["a.txt"], "/n/x", |action| action.owner = Some(owner))
    };
    let cases = [
        ("app", None, "1500:1600"),
        ("app", Some("apps"), "1500:1700"),
        ("app", Some("42"), "1500:42"),
        ("77", Some("apps"), "77:1700"),
        ("", Some("apps"), "0:1700"),
        ("1500", None, "1500:1500"),
        ("5000", Some("6000"), "5000:6000"),
        ("ghost", None, "0:0"),
        ("7", Some("ghosts"), "7:7"),
        ("app", Some("ghosts"), "1500:1600"),
        ("ghost", Some("5"), "0:5"),
        ("root", None, "0:0"),
        ("app", Some("root"), "1500:0"),
        ("app", Some(""), "1500:0"),
        ("5000", Some(""), "5000:0"),
    ];
    for (user, group, expected) in cases {
        let list = world.list(&owned(user, group));
        assert_eq!(
            list,
            [
                format!("d 0755 {expected} n"),
                format!("f 0644 {expected} n/x")
            ],
            "{user} {group:?}"
        );
    }
    for (user, group) in [("www", None), ("7", Some("www"))] {
        let error = World::scratch().error(&owned(user, group));
        assert!(error.contains("invalid user index: -1"), "{error}");
    }
    for (user, group) in [
        ("7", None),
        ("root", Some("root")),
        ("", Some("")),
        ("5", Some("")),
    ] {
        assert!(
            World::scratch().plan(&owned(user, group)).is_ok(),
            "{user} {group:?}"
        );
    }
    // The existing top keeps its owner, which is no part of the layer.
    let own = changed(&["d"], "/own", |a| {
        a.owner = Some(Owner {
            user: "7".into(),
            group: None,
        });
    });
    assert_eq!(world.list(&own)[0], "f 0644 7:7 own/one.txt");
}

#[test]
fn owners_of_stages_are_kept() {
    let world = World::new(&[]);
    let from = stack(&["d /o 2700 30", "d /o/d 711 31", "f /o/x text", "h /o/y o/x"]);
    let stage = stack_source("stage", from, PathBuf::from("/nowhere"));
    let sources = Sources::from([(InputIndex(1), &stage as _)]);
    let list = |path: &str| {
        let actions = changed(&[path], "/dst", |action| action.keeps_owner = true);
        let selection = select(&actions, &sources, 1).unwrap();
        listing(&plan(selection, &sources, None).unwrap())
    };
    let expected = [
        "d 0755 0:0 dst",
        "d 0711 31:31 dst/d",
        "f 0644 0:0 dst/x",
        "h 0644 0:0 dst/y dst/x",
    ];
    assert_eq!(list("/o"), expected);
    assert_eq!(list("/o/y"), ["f 0644 0:0 dst"]);
    let selection = select(&copy(&["/no/such"], "/x"), &sources, 1);
    assert!(
        selection
            .unwrap_err()
            .to_string()
            .contains("/no/such: no such file or directory")
    );
    drop(world);
}

#[test]
fn hard_links_survive_inside_one_source_only() {
    let world = World::new(&[]);
    fs::hard_link(world.path("d/one.txt"), world.path("d/sub/same")).unwrap();
    fs::hard_link(world.path("a.txt"), world.path("a2")).unwrap();
    let list = world.list(&copy(&["d"], "/dst"));
    assert_eq!(list[5], "h 0644 0:0 dst/sub/same dst/one.txt");
    let links = |list: Vec<String>| list.iter().filter(|line| line.starts_with('h')).count();
    assert_eq!(links(world.list(&copy(&["a.txt", "a2"], "/dst/"))), 0);
    assert_eq!(links(world.list(&copy(&["a*"], "/dst/"))), 0);
    // A group that loses its first name to a later source goes on with the next.
    let list = world.list(&copy(&["d", "d/one.txt"], "/dst/"));
    assert_eq!(links(list), 0);
}

#[test]
fn excludes() {
    let world = World::new(&[]);
    let without = |patterns: &'static [&'static str]| {
        move |action: &mut CopyAction| {
            action.exclude = patterns.iter().map(|p| (*p).to_owned()).collect();
        }
    };
    assert_eq!(
        world.list(&changed(&["a.txt"], "/x/", without(&["a.txt"]))),
        ["d 0755 0:0 x", "f 0644 0:0 x/a.txt"]
    );
    let list = world.list(&changed(&["d"], "/dst", without(&["**/*.txt"])));
    assert_eq!(
        list,
        with_dst(&["d 0755 0:0 dst/sub", "d 0755 0:0 dst/sub/deep"])
    );
    let list = world.list(&changed(&["d"], "/dst", without(&["sub"])));
    assert_eq!(list, with_dst(&["f 0644 0:0 dst/one.txt"]));
    let list = world.list(&changed(&["d"], "/dst", without(&["sub", "!sub/deep"])));
    assert_eq!(
        list,
        with_dst(&[
            "f 0644 0:0 dst/one.txt",
            "d 0755 0:0 dst/sub",
            "d 0755 0:0 dst/sub/deep",
            "f 0644 0:0 dst/sub/deep/three.txt"
        ])
    );
    assert_eq!(
        world.list(&changed(&["d"], "/dst", without(&["/sub", "d/sub"]))),
        with_dst(&D)
    );
}

#[test]
fn parents() {
    let world = World::new(&["d /old 700 9", "d /old/d 700 9"]);
    world.chmod("d", 0o711);
    let keep = |action: &mut CopyAction| action.keeps_parents = true;
    let cases: [(&[&str], &[&str]); 6] = [
        (
            &["d/sub/two.txt", "./a.txt"],
            &[
                "f 0644 0:0 dst/a.txt",
                "d 0711 0:0 dst/d",
                "d 0755 0:0 dst/d/sub",
                "f 0644 0:0 dst/d/sub/two.txt",
            ],
        ),
        (
            &["d/./sub/*.txt"],
            &["d 0755 0:0 dst/sub", "f 0644 0:0 dst/sub/two.txt"],
        ),
        (&["./d/sub/./two.txt"], &["f 0644 0:0 dst/two.txt"]),
        (
            &["**/three.txt"],
            &[
                "d 0711 0:0 dst/d",
                "d 0755 0:0 dst/d/sub",
                "d 0755 0:0 dst/d/sub/deep",
                "f 0644 0:0 dst/d/sub/deep/three.txt",
            ],
        ),
        (
            &["d/sub"],
            &[
                "d 0711 0:0 dst/d",
                "d 0755 0:0 dst/d/sub",
                "d 0755 0:0 dst/d/sub/deep",
                "f 0644 0:0 dst/d/sub/deep/three.txt",
                "f 0644 0:0 dst/d/sub/two.txt",
            ],
        ),
        (&["*.nope"], &[]),
    ];
    for (sources, expected) in cases {
        assert_eq!(
            world.list(&changed(sources, "/dst/", keep)),
            with_dst(expected),
            "{sources:?}"
        );
    }
    let missing = world.error(&changed(&["d/sub/missing.txt"], "/dst/", keep));
    assert!(
        missing.contains("\"/d/sub/missing.txt\": not found"),
        "{missing}"
    );
    let both = changed(&["d/sub/two.txt"], "/dst/", |action| {
        keep(action);
        action.mode = Some(Chmod::Octal(0o750));
        action.owner = Some(Owner {
            user: "33".into(),
            group: None,
        });
    });
    let expected = [
        "d 0750 33:33 dst",
        "d 0750 33:33 dst/d",
        "d 0750 33:33 dst/d/sub",
        "f 0750 33:33 dst/d/sub/two.txt",
    ];
    assert_eq!(world.list(&both), expected);
    let old = world.list(&changed(&["d/one.txt"], "/old/", keep));
    assert_eq!(old, ["d 0711 9:9 old/d", "f 0644 0:0 old/d/one.txt"]);
}

#[test]
fn patterns_list_only_where_they_can_match() {
    let world = World::new(&[]);
    world.file("secret/x", "x");
    world.chmod("secret", 0o000);
    let keep = |action: &mut CopyAction| action.keeps_parents = true;
    if !rustix::process::geteuid().is_root() {
        let message = world.error(&copy(&["."], "/"));
        assert!(message.ends_with("ctx/secret`"), "{message}");
    }
    assert_eq!(world.list(&changed(&["d/one.txt"], "/", keep)).len(), 2);
    world.chmod("secret", 0o755);
}

#[test]
fn actions_of_an_op_see_each_other() {
    let world = World::new(&[]);
    let actions = [
        FileAction::Mkdir {
            path: "/w/x".into(),
            mode: 0o700,
            owner: Some(Owner {
                user: "4".into(),
                group: Some("5".into()),
            }),
        },
        FileAction::Mkfile {
            path: "/w/x/heredoc".into(),
            mode: 0o644,
            data: b"text".to_vec(),
        },
        copy(&["a.txt"], "/w/x").remove(0),
        copy(&["b.txt"], "/w/x/a.txt").remove(0),
    ];
    let plan = world.plan(&actions).unwrap();
    assert_eq!(
        listing(&plan),
        [
            "d 0700 4:5 w",
            "d 0700 4:5 w/x",
            "f 0644 0:0 w/x/a.txt",
            "f 0644 0:0 w/x/heredoc"
        ]
    );
    let EntryKind::File { content, .. } = &plan.entries().nth(2).unwrap().kind else {
        panic!()
    };
    assert_eq!(content.0, *blake3::hash(b"b.txt").as_bytes());
    let over = [FileAction::Mkdir {
        path: "/a/b".into(),
        mode: 0o755,
        owner: None,
    }];
    assert!(
        World::new(&["f /a x"])
            .error(&over)
            .contains("mkdir /a: not a directory")
    );
    assert_eq!(World::new(&["d /a", "d /a/b 700"]).list(&over), [""; 0]);
}

#[test]
fn overlay_metadata_is_refused() {
    let world = World::new(&[]);
    world.file("d/.wh.x", "");
    let message = world.error(&copy(&["d"], "/dst"));
    assert!(
        message.starts_with("cannot copy `/d/.wh.x`: its name starts with `.wh.`"),
        "{message}"
    );
    assert!(
        world.plan(&copy(&["a.txt"], "/dst")).is_ok(),
        "only what is copied is looked at"
    );
}
