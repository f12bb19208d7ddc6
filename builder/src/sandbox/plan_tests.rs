//! Tests of `plan`.

use std::path::Path;

use super::*;
use crate::sandbox::spec::{Process, Rootfs};

fn spec() -> SandboxSpec {
    SandboxSpec::new(
        Rootfs {
            dir: "/store".into(),
            lowers: vec!["l".into()],
            upper: "u".into(),
            work: "w".into(),
        },
        Process {
            args: vec!["true".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
        },
    )
}

fn root() -> Facts {
    Facts {
        rung: Rung::Root,
        device_limit: DeviceLimit::Program,
        view: View::Unified,
    }
}

fn mount(target: &str) -> SpecMount {
    SpecMount {
        target: target.into(),
        source: MountSource::Tmpfs {
            size: None,
            mode: None,
        },
    }
}

fn targets(plan: &Plan) -> Vec<String> {
    let mounts = plan.mounts.iter();
    mounts
        .map(|mount| mount.target.display().to_string())
        .collect()
}

#[test]
fn outer_mounts_come_first() {
    let mut spec = spec();
    spec.mounts = vec![mount("/n/in"), mount("/n"), mount("/dev/shm")];
    let plan = plan(&spec, &root()).unwrap();
    assert_eq!(
        targets(&plan),
        [
            "/proc",
            "/dev",
            "/sys",
            "/n",
            "/dev/pts",
            "/dev/shm",
            "/dev/mqueue",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/n/in",
            "/dev/shm",
            "/sys/fs/cgroup",
        ]
    );
}

#[test]
fn attributes() {
    let of = |spec: &SandboxSpec, facts: &Facts, target: &str| {
        let plan = plan(spec, facts).unwrap();
        let found = plan
            .mounts
            .iter()
            .find(|mount| mount.target == Path::new(target));
        found.unwrap().attributes
    };
    assert_eq!(of(&spec(), &root(), "/proc"), NOTHING);
    assert_eq!(of(&spec(), &root(), "/sys"), NOTHING | READ_ONLY);
    assert_eq!(of(&spec(), &root(), "/dev"), NO_SUID);
    assert_eq!(of(&spec(), &root(), "/etc/hosts"), NOTHING | READ_ONLY);
    let mut insecure = spec();
    insecure.security = Security::Insecure;
    assert_eq!(of(&insecure, &root(), "/sys"), NOTHING);
    let bare = Facts {
        device_limit: DeviceLimit::NoDev,
        ..root()
    };
    assert_eq!(of(&spec(), &bare, "/dev"), NO_SUID | NO_DEV);
    assert_eq!(plan(&spec(), &bare).unwrap().root_attributes, NO_DEV);
    assert_eq!(plan(&spec(), &root()).unwrap().root_attributes, 0);
}

#[test]
fn cgroups_are_hidden_where_the_steps_own_cannot_be_shown() {
    let masked = |view| {
        let facts = Facts { view, ..root() };
        plan(&spec(), &facts).unwrap().masked
    };
    assert_eq!(masked(View::Unified), MASKED);
    assert_eq!(masked(View::Hidden).last(), Some(&"/sys/fs/cgroup"));
}

#[test]
fn controllers_are_mounted_in_one_tmpfs_that_is_sealed_unless_insecure() {
    let names = vec!["cpu".to_owned(), "memory".to_owned()];
    let facts = Facts {
        view: View::Legacy(names.clone()),
        ..root()
    };
    let of = |spec: &SandboxSpec| {
        let mut plan = plan(spec, &facts).unwrap();
        let mount = plan.mounts.pop().unwrap();
        assert_eq!(mount.target, Path::new("/sys/fs/cgroup"));
        (mount.kind, plan.sealed)
    };
    let controllers = |attributes| MountKind::Controllers {
        names: names.clone(),
        attributes,
    };
    let sealed = vec!["/sys/fs/cgroup".into()];
    assert_eq!(of(&spec()), (controllers(NOTHING | READ_ONLY), sealed));
    let mut insecure = spec();
    insecure.security = Security::Insecure;
    assert_eq!(of(&insecure), (controllers(NOTHING), Vec::new()));
}

#[test]
fn an_insecure_step_is_not_confined() {
    let mut spec = spec();
    spec.security = Security::Insecure;
    spec.network = Network::None;
    let plan = plan(&spec, &root()).unwrap();
    assert!(plan.masked.is_empty() && plan.protected.is_empty());
    assert_eq!((plan.capabilities, plan.is_filtered), (None, false));
    assert_ne!(plan.namespaces & libc::CLONE_NEWNET, 0);
}

#[test]
fn targets_that_belong_to_the_sandbox() {
    for target in ["/", "/proc", "/proc/sys", "relative", "/a/../b"] {
        let mut spec = spec();
        spec.mounts.push(mount(target));
        assert_eq!(
            plan(&spec, &root()),
            Err(SetupError::ForbiddenTarget {
                target: target.into()
            })
        );
    }
}

#[test]
fn scripts_may_be_executed_and_secrets_not() {
    let file = |mode| SpecMount {
        target: "/f".into(),
        source: MountSource::File {
            data: Content(Vec::new()),
            mode,
            uid: 0,
            gid: 0,
        },
    };
    let of = |mode| user_mount(&file(mode), false, 0).unwrap().attributes;
    assert_eq!(of(0o400), READ_ONLY | NOTHING);
    assert_eq!(of(0o755), READ_ONLY | NO_SUID | NO_DEV);
}

#[test]
fn names_and_bits_of_capabilities_agree() {
    assert_eq!(CAPABILITIES.count_ones() as usize, CAPABILITY_NAMES.len());
}
