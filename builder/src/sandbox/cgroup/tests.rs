//! Hierarchies, limits and what the kernel tells of a group.

use super::*;

#[test]
fn hierarchies_of_a_hybrid_machine() {
    let text = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    let found = Hierarchies::parse(text);
    assert_eq!(found.unified, Some("/sys/fs/cgroup/unified".into()));
    let controllers: Vec<_> = found.legacy.keys().map(String::as_str).collect();
    assert_eq!(controllers, ["cpu", "cpuacct"]);
    assert_eq!(
        found.view(),
        View::Legacy(vec!["cpu".into(), "cpuacct".into()])
    );
}

#[test]
fn parents_stay_inside() {
    assert_eq!(inside("/a/../../b"), Path::new("a/b"));
}

#[test]
fn counts_of_kills() {
    assert_eq!(oom_kills("low 0\noom 1\noom_kill 3\n"), 3);
    assert_eq!(
        oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        1
    );
    assert_eq!(oom_kills(""), 0);
}
