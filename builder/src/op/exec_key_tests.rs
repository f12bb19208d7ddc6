//! Every input of a command's key changes it, nothing else does, and the keys are those recorded.

use std::collections::BTreeMap;

use frontend::graph::{CacheSharing, InputIndex, Ulimit};
use frontend::platform::Platform;

use super::super::key_testing::{assert_recorded, key};
use super::*;

/// A command with every part that a key can have.
#[derive(Clone)]
struct Case {
    op: ExecOp,
    root: Option<CacheKey>,
    inputs: Vec<MountInput>,
}

fn content(byte: u8) -> MountInput {
    MountInput::Content {
        key: key(byte),
        files: Vec::new(),
    }
}

fn mount(target: &str, kind: MountKind) -> ExecMount {
    ExecMount {
        target: target.to_owned(),
        kind,
    }
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

impl Case {
    fn new() -> Self {
        let mounts = vec![
            mount(
                "/bind",
                MountKind::Bind {
                    input: Some(InputIndex(1)),
                    source: "/src".to_owned(),
                    is_readonly: true,
                },
            ),
            mount(
                "/cache",
                MountKind::Cache {
                    id: "id".to_owned(),
                    sharing: CacheSharing::Shared,
                    input: Some(InputIndex(1)),
                    source: "/first".to_owned(),
                    is_readonly: false,
                    mode: Some(0o700),
                    uid: Some(1),
                    gid: Some(2),
                },
            ),
            mount("/tmpfs", MountKind::Tmpfs { size: Some(1024) }),
            mount(
                "/secret",
                MountKind::Secret {
                    id: "token".to_owned(),
                    env: Some("TOKEN".to_owned()),
                    mode: 0o400,
                    uid: 3,
                    gid: 4,
                    is_required: true,
                },
            ),
            mount(
                "/ssh",
                MountKind::Ssh {
                    id: "default".to_owned(),
                    mode: 0o600,
                    uid: 5,
                    gid: 6,
                    is_required: true,
                },
            ),
        ];
        let op = ExecOp {
            root: Some(InputIndex(0)),
            args: ["/bin/sh", "-c", "make  all"].map(str::to_owned).to_vec(),
            env: vec![pair("PATH", "/bin"), pair("API_TOKEN", "x")],
            cwd: "/srv".to_owned(),
            user: "app".to_owned(),
            mounts,
            platform: Platform {
                os: "linux".to_owned(),
                architecture: "arm".to_owned(),
                variant: "v7".to_owned(),
                os_version: String::new(),
            },
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            hostname: Some("box".to_owned()),
            extra_hosts: vec![pair("db", "10.0.0.1")],
            shm_size: Some(1 << 20),
            ulimits: vec![Ulimit {
                name: "nofile".to_owned(),
                soft: 10,
                hard: 20,
            }],
            cgroup_parent: Some("/slice".to_owned()),
            proxy_env: BTreeMap::new(),
            devices: vec!["vendor.com/class=name".to_owned()],
        };
        let inputs = vec![
            content(7),
            content(8),
            MountInput::None,
            MountInput::None,
            MountInput::None,
        ];
        Self {
            op,
            root: Some(key(1)),
            inputs,
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> CacheKey {
        let mut case = Self::new();
        change(&mut case);
        exec_key(&case.op, case.root.as_ref(), &case.inputs).0
    }

    /// The key with the fields of one of its mounts changed.
    fn with_mount(number: usize, change: impl FnOnce(&mut MountKind)) -> CacheKey {
        Self::with(|case| change(&mut case.op.mounts[number].kind))
    }

    fn retargeted(number: usize) -> CacheKey {
        Self::with(|case| case.op.mounts[number].target.push('2'))
    }
}

/// Sets one field of a mount of a known kind.
macro_rules! set {
    ($number:expr, $kind:ident.$field:ident = $value:expr) => {
        Case::with_mount($number, |mount| match mount {
            MountKind::$kind { $field, .. } => *$field = $value,
            _ => panic!("the mounts are in another order"),
        })
    };
}

fn of_commands() -> Vec<(&'static str, CacheKey)> {
    vec![
        ("all", Case::with(|_| {})),
        ("base", Case::with(|case| case.root = Some(key(2)))),
        ("no base", Case::with(|case| case.root = None)),
        ("argument", Case::with(|case| case.op.args[2].push(' '))),
        (
            "fewer arguments",
            Case::with(|case| drop(case.op.args.pop())),
        ),
        (
            "arguments split elsewhere",
            Case::with(|case| {
                case.op.args = ["/bin/sh", "-c make", "all"].map(str::to_owned).to_vec();
            }),
        ),
        ("variable", Case::with(|case| case.op.env[0].1.push('2'))),
        (
            "variable's name",
            Case::with(|case| case.op.env[0].0.push('2')),
        ),
        (
            "secret-looking variable",
            Case::with(|case| case.op.env[1].1.push('2')),
        ),
        (
            "fewer variables",
            Case::with(|case| drop(case.op.env.pop())),
        ),
        (
            "variables in another order",
            Case::with(|case| case.op.env.reverse()),
        ),
        (
            "working directory",
            Case::with(|case| case.op.cwd.push('2')),
        ),
        ("user", Case::with(|case| case.op.user.clear())),
    ]
}

fn of_surroundings() -> Vec<(&'static str, CacheKey)> {
    vec![
        (
            "operating system",
            Case::with(|case| case.op.platform.os.push('2')),
        ),
        (
            "architecture",
            Case::with(|case| case.op.platform.architecture.push('2')),
        ),
        (
            "variant",
            Case::with(|case| case.op.platform.variant.clear()),
        ),
        (
            "no network",
            Case::with(|case| case.op.network = NetworkMode::None),
        ),
        (
            "host's network",
            Case::with(|case| case.op.network = NetworkMode::Host),
        ),
        (
            "insecure",
            Case::with(|case| case.op.security = SecurityMode::Insecure),
        ),
        (
            "host name",
            Case::with(|case| case.op.hostname = Some("other".to_owned())),
        ),
        (
            "default host name",
            Case::with(|case| case.op.hostname = None),
        ),
        (
            "extra host",
            Case::with(|case| case.op.extra_hosts[0].0.push('2')),
        ),
        (
            "no extra host",
            Case::with(|case| case.op.extra_hosts.clear()),
        ),
        (
            "shm size",
            Case::with(|case| case.op.shm_size = Some(2 << 20)),
        ),
        (
            "default shm size",
            Case::with(|case| case.op.shm_size = None),
        ),
        (
            "ulimit's name",
            Case::with(|case| case.op.ulimits[0].name.push('2')),
        ),
        (
            "soft ulimit",
            Case::with(|case| case.op.ulimits[0].soft = 11),
        ),
        (
            "hard ulimit",
            Case::with(|case| case.op.ulimits[0].hard = 21),
        ),
        ("no ulimit", Case::with(|case| case.op.ulimits.clear())),
        (
            "cgroup parent",
            Case::with(|case| case.op.cgroup_parent = Some("/other".to_owned())),
        ),
        (
            "no cgroup parent",
            Case::with(|case| case.op.cgroup_parent = None),
        ),
        ("device", Case::with(|case| case.op.devices[0].push('2'))),
        ("no device", Case::with(|case| case.op.devices.clear())),
    ]
}

fn of_mounts() -> Vec<(&'static str, CacheKey)> {
    let fewer = Case::with(|case| {
        case.op.mounts.pop();
        case.inputs.pop();
    });
    let turned = Case::with(|case| {
        case.op.mounts.swap(0, 1);
        case.inputs.swap(0, 1);
    });
    vec![
        ("fewer mounts", fewer),
        ("mounts in another order", turned),
        ("bind mount", Case::retargeted(0)),
        (
            "bind mount's content",
            Case::with(|case| case.inputs[0] = content(9)),
        ),
        (
            "bind mount without content",
            Case::with(|case| case.inputs[0] = MountInput::None),
        ),
        ("writable bind mount", set!(0, Bind.is_readonly = false)),
        ("cache mount", Case::retargeted(1)),
        (
            "cache mount's first content",
            Case::with(|case| case.inputs[1] = content(9)),
        ),
        (
            "cache mount's source",
            set!(1, Cache.source = "/other".to_owned()),
        ),
        ("read-only cache mount", set!(1, Cache.is_readonly = true)),
        ("cache mount's mode", set!(1, Cache.mode = Some(0o755))),
        ("cache mount's default mode", set!(1, Cache.mode = None)),
        ("cache mount's user", set!(1, Cache.uid = None)),
        ("cache mount's group", set!(1, Cache.gid = None)),
        ("tmpfs mount", Case::retargeted(2)),
        ("tmpfs mount's size", set!(2, Tmpfs.size = Some(2048))),
        ("tmpfs mount of any size", set!(2, Tmpfs.size = None)),
        ("secret mount", Case::retargeted(3)),
        ("secret", set!(3, Secret.id = "other".to_owned())),
        (
            "secret's variable",
            set!(3, Secret.env = Some("OTHER".to_owned())),
        ),
        ("secret without variable", set!(3, Secret.env = None)),
        ("secret's mode", set!(3, Secret.mode = 0o440)),
        ("secret's user", set!(3, Secret.uid = 9)),
        ("secret's group", set!(3, Secret.gid = 9)),
        ("optional secret", set!(3, Secret.is_required = false)),
        ("ssh mount", Case::retargeted(4)),
        ("agent", set!(4, Ssh.id = "other".to_owned())),
        ("agent's mode", set!(4, Ssh.mode = 0o660)),
        ("agent's user", set!(4, Ssh.uid = 9)),
        ("agent's group", set!(4, Ssh.gid = 9)),
        ("optional agent", set!(4, Ssh.is_required = false)),
    ]
}

#[test]
fn keys_are_those_recorded() {
    let keys = [of_commands(), of_surroundings(), of_mounts()].concat();
    assert_recorded(include_str!("../../../testdata/keys/exec.txt"), &keys);
}

#[test]
fn what_a_command_does_not_depend_on_is_in_no_key() {
    let all = Case::with(|_| {});
    let others = [
        set!(1, Cache.id = "other".to_owned()),
        set!(1, Cache.sharing = CacheSharing::Locked),
        set!(1, Cache.input = None),
        set!(0, Bind.source = "/other".to_owned()),
        set!(0, Bind.input = None),
        Case::with(|case| case.op.root = None),
        Case::with(|case| case.op.extra_hosts[0].1 = "10.0.0.2".to_owned()),
        Case::with(|case| drop(case.op.proxy_env.insert("http_proxy".into(), "x".into()))),
        Case::with(|case| {
            let files = vec![Part {
                name: "file /a".to_owned(),
                value: "x".to_owned(),
            }];
            case.inputs[0] = MountInput::Content { key: key(7), files };
        }),
    ];
    for (number, other) in others.into_iter().enumerate() {
        assert_eq!(other, all, "case {number}");
    }
}
