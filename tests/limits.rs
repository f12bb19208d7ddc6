//! What flags give commands and what they hold them to: resources, limits, names, network, entitlements.

use std::fs;
use std::path::Path;

use crate::support::{Outcome, Place};

/// Builds one command and gives what it wrote to `/out`.
#[track_caller]
fn out_of(command: &str, flags: &[&str]) -> String {
    let place = Place::with_dockerfile(&format!("FROM busybox\nRUN {command}\n"));
    place.image(flags).text("out")
}

#[track_caller]
fn build(dockerfile: &str, flags: &[&str]) -> Outcome {
    Place::with_dockerfile(dockerfile).build(flags)
}

/// Where this process's cgroups of a controller are, and how the two languages call a file of it.
fn controller(name: &str) -> Option<bool> {
    let legacy = Path::new("/sys/fs/cgroup").join(name).exists();
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .is_ok_and(|offered| offered.split_whitespace().any(|offer| offer == name));
    match (legacy, unified) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// Whether a controller is one of version 1. The machine must have it.
fn is_legacy(name: &str) -> bool {
    controller(name).unwrap_or_else(|| {
        panic!(
            "this test needs the `{name}` cgroup controller: mount -t cgroup2 none /sys/fs/cgroup"
        )
    })
}

#[test]
fn a_command_over_its_memory_limit_says_so() {
    is_legacy("memory");
    let text = "FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=200M count=1\n";
    for flag in ["--resource=memory=16m", "-m16m"] {
        build(text, &[flag])
            .failure(1)
            .says("did not complete successfully: cannot allocate memory")
            .says("hint: the command went over its memory limit of 16 MiB; raise it with --resource=memory=SIZE");
    }
    build(text, &["--resource=memory=512m"]).success();
    // Nor is there room for what comes before the command.
    build("FROM busybox\nRUN true\n", &["--resource=memory=4k"])
        .failure(1)
        .says("did not complete successfully: cannot allocate memory")
        .says("raise it with --resource=memory=SIZE");
}

#[test]
fn limits_on_memory_and_processors_reach_the_cgroup() {
    let files = |legacy: &str, unified: &str, is_legacy: bool| {
        format!(
            "cat /sys/fs/cgroup/{} > /out",
            if is_legacy { legacy } else { unified }
        )
    };
    {
        let is_legacy = is_legacy("cpu");
        let command = files(
            "cpu/cpu.shares /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
            "cpu.weight /sys/fs/cgroup/cpu.max",
            is_legacy,
        );
        let flags = ["--cpu-shares=512", "--resource=cpu-quota=50000"];
        let want = if is_legacy {
            "512\n50000\n"
        } else {
            "20\n50000 100000\n"
        };
        assert_eq!(out_of(&command, &flags), want);
    }
    {
        is_legacy("cpuset");
        let command = "grep Cpus_allowed_list /proc/self/status > /out";
        let out = out_of(command, &["--resource=cpuset-cpus=0"]);
        assert_eq!(out, "Cpus_allowed_list:\t0\n");
    }
}

#[test]
fn resources_are_not_part_of_keys() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo a > /a\n");
    place.build(&[]).success();
    if controller("memory").is_some() {
        let outcome = place.build(&["--resource=memory=64m"]).success();
        assert_eq!(outcome.cached(), ["RUN echo a > /a"]);
    }
    let outcome = place.build(&["--ulimit=nofile=99"]).success();
    assert_eq!(outcome.ran(), ["RUN echo a > /a"]);
}

#[test]
fn limits_of_processes_and_shared_memory() {
    let command =
        "echo $(ulimit -Sn) $(ulimit -Hn) $(df -k /dev/shm | awk 'NR==2{print $2}') > /out";
    let flags = ["--ulimit=nofile=77:99", "--shm-size=8m"];
    assert_eq!(out_of(command, &flags), "77 99 8192\n");
}

#[test]
fn a_limit_that_may_not_be_raised_is_told_with_the_remedy() {
    let place = Place::with_dockerfile("FROM busybox\nRUN true\n");
    let command = place.build_command();
    let mut bounded = std::process::Command::new(crate::support::program("setpriv", "util-linux"));
    bounded.args(["--bounding-set=-sys_resource", "--"]);
    bounded.args([
        "sh",
        "-c",
        "ulimit -Sn 512; ulimit -Hn 512; exec \"$@\"",
        "sh",
    ]);
    bounded.arg(command.get_program()).args(command.get_args());
    bounded.args(["--ulimit=nofile=1024"]).arg(place.context());
    bounded.env_clear();
    for (name, value) in command.get_envs() {
        bounded.env(name, value.unwrap_or_default());
    }
    crate::support::finish(&mut bounded)
        .failure(1)
        .says("cannot raise the limit `nofile` to 1024: this process is allowed 512 and lacks CAP_SYS_RESOURCE");
}

#[test]
fn extra_hosts_are_known() {
    let command = "tail -n 2 /etc/hosts > /out";
    let flags = ["--add-host=db:10.1.2.3", "--add-host=gate=host-gateway"];
    assert_eq!(out_of(command, &flags), "10.1.2.3\tdb\n127.0.0.1\tgate\n");
}

#[test]
fn networks_are_the_hosts_or_none() {
    let count = "tail -n +3 /proc/net/dev | wc -l > /out";
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    let own = text.lines().count() - 2;
    assert_eq!(out_of(count, &[]).trim(), own.to_string());
    assert_eq!(out_of(count, &["--network=none"]), "1\n");
    assert_eq!(out_of(count, &["--network=host"]).trim(), own.to_string());
    assert_eq!(out_of(&format!("--network=none {count}"), &[]), "1\n");
}

#[test]
fn what_must_be_allowed_is_refused_until_it_is() {
    let text = "FROM busybox\nRUN --security=insecure grep -E '^(CapEff|Seccomp:)' /proc/self/status > /out && mkdir /m && mount -t tmpfs none /m\n";
    build(text, &[])
        .failure(1)
        .says("security.insecure is not allowed");
    let place = Place::with_dockerfile(text);
    let image = place.image(&["--allow=security.insecure"]);
    let out = image.text("out");
    assert!(out.ends_with("Seccomp:\t0\n"), "{out}");
    assert!(!out.contains("a80425fb"), "{out}");
    let text = "FROM busybox\nRUN --network=host true\n";
    build(text, &[])
        .failure(1)
        .says("network.host is not allowed");
    build(text, &["--allow=network.host"]).success();
}

#[test]
fn the_parent_of_cgroups_can_be_named() {
    let parent = format!("build-test-parent-{}", std::process::id());
    let out = out_of(
        "cat /proc/1/cgroup > /out; cat /proc/1/mountinfo > /dev/null",
        &[&format!("--cgroup-parent={parent}")],
    );
    // Inside its own cgroup namespace a step does not see where it is.
    assert!(!out.contains(&parent), "{out}");
    for base in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        let dir = Path::new(base).join(&parent);
        if dir.exists() {
            let left = fs::read_dir(&dir).unwrap().filter_map(Result::ok);
            assert_eq!(left.filter(|entry| entry.path().is_dir()).count(), 0);
            fs::remove_dir(&dir).unwrap();
            return;
        }
    }
    panic!("no cgroup was made in {parent}");
}
