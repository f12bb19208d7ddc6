//! Every input of the key by definition of COPY, ADD and WORKDIR changes it, and the keys are those recorded.

use super::super::key_testing::{assert_recorded, key};
use super::*;

/// An op with every kind of action.
struct Case {
    op: FileOp,
    base: Option<CacheKey>,
    sources: Vec<Option<CacheKey>>,
}

fn owner(user: &str, group: Option<&str>) -> Option<Owner> {
    Some(Owner {
        user: user.to_owned(),
        group: group.map(str::to_owned),
    })
}

impl Case {
    fn new() -> Self {
        let copy = CopyAction {
            input: Some(InputIndex(1)),
            sources: vec!["/src".to_owned(), "*.txt".to_owned()],
            destination: "/dst/".to_owned(),
            owner: owner("app", Some("web")),
            mode: Some(Chmod::Octal(0o755)),
            keeps_parents: false,
            exclude: vec!["*.md".to_owned()],
            unpack: Unpack::Never,
            keeps_owner: true,
        };
        let mkdir = FileAction::Mkdir {
            path: "/srv".to_owned(),
            mode: 0o755,
            owner: owner("app", None),
        };
        let mkfile = FileAction::Mkfile {
            path: "/text".to_owned(),
            mode: 0o644,
            data: b"text".to_vec(),
        };
        Self {
            op: FileOp {
                base: Some(InputIndex(0)),
                actions: vec![FileAction::Copy(copy), mkdir, mkfile],
            },
            base: Some(key(1)),
            sources: vec![Some(key(2)), None, None],
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> CacheKey {
        let mut case = Self::new();
        change(&mut case);
        key_by_definition(&case.op, case.base.as_ref(), &case.sources)
    }

    fn with_copy(change: impl FnOnce(&mut CopyAction)) -> CacheKey {
        Self::with(|case| match &mut case.op.actions[0] {
            FileAction::Copy(copy) => change(copy),
            FileAction::Mkdir { .. } | FileAction::Mkfile { .. } => panic!("not a copy"),
        })
    }

    fn with_mkdir(change: impl FnOnce(&mut String, &mut u32, &mut Option<Owner>)) -> CacheKey {
        Self::with(|case| match &mut case.op.actions[1] {
            FileAction::Mkdir { path, mode, owner } => change(path, mode, owner),
            FileAction::Copy(_) | FileAction::Mkfile { .. } => panic!("not a mkdir"),
        })
    }

    fn with_mkfile(change: impl FnOnce(&mut String, &mut u32, &mut Vec<u8>)) -> CacheKey {
        Self::with(|case| match &mut case.op.actions[2] {
            FileAction::Mkfile { path, mode, data } => change(path, mode, data),
            FileAction::Copy(_) | FileAction::Mkdir { .. } => panic!("not a mkfile"),
        })
    }
}

#[test]
fn keys_are_those_recorded() {
    let fewer = Case::with(|case| {
        case.op.actions.pop();
        case.sources.pop();
    });
    let turned = Case::with(|case| case.op.actions.swap(1, 2));
    let keys = [
        ("all", Case::with(|_| {})),
        ("base", Case::with(|case| case.base = Some(key(9)))),
        ("scratch", Case::with(|case| case.base = None)),
        ("input", Case::with(|case| case.sources[0] = Some(key(9)))),
        (
            "input is scratch",
            Case::with(|case| case.sources[0] = None),
        ),
        ("fewer actions", fewer),
        ("actions in another order", turned),
        ("source", Case::with_copy(|copy| copy.sources[0].push('2'))),
        (
            "fewer sources",
            Case::with_copy(|copy| drop(copy.sources.pop())),
        ),
        (
            "sources in another order",
            Case::with_copy(|copy| copy.sources.reverse()),
        ),
        (
            "destination",
            Case::with_copy(|copy| copy.destination.push('2')),
        ),
        (
            "copy's user",
            Case::with_copy(|copy| copy.owner = owner("root", Some("web"))),
        ),
        (
            "copy's group",
            Case::with_copy(|copy| copy.owner = owner("app", Some("root"))),
        ),
        (
            "copy without group",
            Case::with_copy(|copy| copy.owner = owner("app", None)),
        ),
        (
            "copy without owner",
            Case::with_copy(|copy| copy.owner = None),
        ),
        (
            "octal chmod",
            Case::with_copy(|copy| copy.mode = Some(Chmod::Octal(0o700))),
        ),
        (
            "symbolic chmod",
            Case::with_copy(|copy| copy.mode = Some(Chmod::Symbolic("0755".to_owned()))),
        ),
        ("no chmod", Case::with_copy(|copy| copy.mode = None)),
        ("exclude", Case::with_copy(|copy| copy.exclude[0].push('2'))),
        ("no exclude", Case::with_copy(|copy| copy.exclude.clear())),
        ("parents", Case::with_copy(|copy| copy.keeps_parents = true)),
        (
            "unpack",
            Case::with_copy(|copy| copy.unpack = Unpack::Archives),
        ),
        (
            "owners do not count",
            Case::with_copy(|copy| copy.keeps_owner = false),
        ),
        ("directory", Case::with_mkdir(|path, _, _| path.push('2'))),
        (
            "directory's mode",
            Case::with_mkdir(|_, mode, _| *mode = 0o700),
        ),
        (
            "directory's user",
            Case::with_mkdir(|_, _, user| *user = owner("root", None)),
        ),
        (
            "directory's group",
            Case::with_mkdir(|_, _, user| *user = owner("app", Some("web"))),
        ),
        (
            "directory without owner",
            Case::with_mkdir(|_, _, user| *user = None),
        ),
        ("file", Case::with_mkfile(|path, _, _| path.push('2'))),
        ("file's mode", Case::with_mkfile(|_, mode, _| *mode = 0o600)),
        (
            "file's data",
            Case::with_mkfile(|_, _, data| data.push(b'2')),
        ),
    ];
    assert_recorded(include_str!("../../../testdata/keys/file.txt"), &keys);
}
