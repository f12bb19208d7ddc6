//! Tests of `checks`.

use super::*;

fn facts() -> Facts {
    Facts {
        kernel: Kernel {
            release: "6.8.0-31-generic".into(),
            user: "root".into(),
            is_in_first_namespace: true,
            capabilities: u64::MAX,
            has_seccomp: true,
            has_overlay: true,
            controllers: ["memory", "cpu", "cpuset"]
                .map(|name| (name.to_owned(), "v2"))
                .into(),
            device_limit: Some("a BPF program on the v2 hierarchy"),
            switches: [("user.max_user_namespaces", "15000".to_owned())].into(),
            mappers: [
                ("newuidmap", Some("/usr/bin/newuidmap".into())),
                ("newgidmap", Some("/usr/bin/newgidmap".into())),
            ]
            .into(),
            subordinate_ids: (65_536, 65_536),
            ..Kernel::default()
        },
        store: Store {
            path: "/s".into(),
            file_system: "ext4".into(),
            problem: None,
        },
        trial_root: Trial::Worked,
        trial_user_namespace: Trial::Worked,
    }
}

fn not_ok(report: &RungReport) -> Vec<(&'static str, State, &str)> {
    report
        .checks
        .iter()
        .filter(|check| check.state != State::Ok)
        .map(|check| {
            (
                check.name,
                check.state,
                check.remedy.as_deref().unwrap_or_default(),
            )
        })
        .collect()
}

#[test]
fn a_sound_machine_has_nothing_to_mend() {
    assert_eq!(not_ok(&root(&facts())), []);
    let userns = user_namespace(&facts());
    assert!(userns.is_usable());
    let names: Vec<_> = not_ok(&userns).iter().map(|found| found.0).collect();
    assert_eq!(names, ["limits on memory and processors"]);
}

#[test]
fn each_lack_has_its_remedy_at_rung_one() {
    type Break = fn(&mut Facts);
    let cases: [(Break, &str, State, &str); 12] = [
        (
            |facts| facts.kernel.uid = 1000,
            "user",
            State::Missing,
            "run builder as root",
        ),
        (
            |facts| facts.kernel.is_in_first_namespace = false,
            "user",
            State::Missing,
            "run builder outside",
        ),
        (
            |facts| facts.kernel.release = "5.4.0".into(),
            "kernel",
            State::Missing,
            "use Linux 5.12",
        ),
        (
            |facts| facts.kernel.capabilities &= !(1 << 21),
            "capabilities",
            State::Missing,
            "start the container with --privileged, or at least --cap-add=SYS_ADMIN",
        ),
        (
            |facts| facts.kernel.capabilities &= !(1 << 24),
            "capabilities",
            State::Limited,
            "start the container with --cap-add=SYS_RESOURCE",
        ),
        (
            |facts| facts.kernel.apparmor = Some("docker-default (enforce)".into()),
            "AppArmor",
            State::Limited,
            "if the whole step below fails: --security-opt apparmor=unconfined",
        ),
        (
            |facts| facts.kernel.is_filtered = true,
            "outer system call filter",
            State::Limited,
            "if the whole step below fails: --security-opt seccomp=unconfined",
        ),
        (
            |facts| facts.kernel.has_overlay = false,
            "overlay file system",
            State::Limited,
            "if the whole step below fails: modprobe overlay",
        ),
        (
            |facts| facts.store.problem = Some("read-only".into()),
            "state directory",
            State::Missing,
            "set BUILD_ROOT",
        ),
        (
            |facts| facts.kernel.device_limit = Some("nodev mounts"),
            "limiting devices",
            State::Limited,
            "mount cgroups writable",
        ),
        (
            |facts| facts.kernel.controllers.clear(),
            "limits on memory and processors",
            State::Limited,
            "delegate the controllers",
        ),
        (
            |facts| facts.trial_root = Trial::Failed("no".into()),
            "a whole step",
            State::Missing,
            "",
        ),
    ];
    for (break_it, name, state, remedy) in cases {
        let mut facts = facts();
        break_it(&mut facts);
        let report = root(&facts);
        let found = not_ok(&report);
        assert!(
            found
                .iter()
                .any(|found| found.0 == name && found.1 == state && found.2.starts_with(remedy)),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn each_lack_has_its_remedy_at_rung_two() {
    type Break = fn(&mut Facts);
    let cases: [(Break, &str, &str); 5] = [
        (
            |facts| {
                let name = "user.max_user_namespaces";
                facts.kernel.switches.insert(name, "0".into());
            },
            "user namespaces",
            "sysctl -w user.max_user_namespaces=15000",
        ),
        (
            |facts| {
                let name = "kernel.apparmor_restrict_unprivileged_userns";
                facts.kernel.switches.insert(name, "1".into());
            },
            "user namespaces",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            |facts| facts.kernel.mappers = [("newgidmap", None)].into(),
            "newgidmap",
            "install it: apt-get install uidmap",
        ),
        (
            |facts| facts.kernel.subordinate_ids = (65_536, 0),
            "subordinate ids",
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 root",
        ),
        (
            |facts| facts.trial_user_namespace = Trial::Untried,
            "a whole step",
            "mend that first",
        ),
    ];
    for (break_it, name, remedy) in cases {
        let mut facts = facts();
        break_it(&mut facts);
        let report = user_namespace(&facts);
        assert!(!report.is_usable());
        let found = not_ok(&report);
        assert!(found.contains(&(name, State::Missing, remedy)), "{found:?}");
    }
}
