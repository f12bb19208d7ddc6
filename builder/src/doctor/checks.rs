//! From what the machine answered to what it means for each rung. Pure.

use super::report::{Check, RungReport, State};
use crate::sandbox::Rung;
use crate::sandbox::examine::Kernel;

/// What was found out about the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) kernel: Kernel,
    pub(super) store: Store,
    /// What came of a whole step at each rung; none where it could not be tried.
    pub(super) trial_root: Trial,
    pub(super) trial_user_namespace: Trial,
}

/// The state directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) path: String,
    /// Such as `ext4`.
    pub(super) file_system: String,
    /// Why it cannot be used.
    pub(super) problem: Option<String>,
}

/// What came of a whole step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Trial {
    /// It was not tried, because of what else is missing.
    #[default]
    Untried,
    /// It worked.
    Worked,
    /// It failed.
    Failed(String),
}

/// Capabilities that rung 1 cannot do without, and what for.
const NEEDED: [(u32, &str, &str); 9] = [
    (21, "CAP_SYS_ADMIN", "mounts and namespaces"),
    (0, "CAP_CHOWN", "owners of copied files"),
    (1, "CAP_DAC_OVERRIDE", "files of other users"),
    (3, "CAP_FOWNER", "modes and times of other users' files"),
    (4, "CAP_FSETID", "set-group-id bits"),
    (6, "CAP_SETGID", "USER"),
    (7, "CAP_SETUID", "USER"),
    (8, "CAP_SETPCAP", "taking capabilities from steps"),
    (31, "CAP_SETFCAP", "file capabilities in layers"),
];

/// Capabilities without which something is missing.
const USEFUL: [(u32, &str, &str); 3] = [
    (12, "CAP_NET_ADMIN", "RUN --network=none"),
    (
        24,
        "CAP_SYS_RESOURCE",
        "a --ulimit above this process's own",
    ),
    (27, "CAP_MKNOD", "device nodes in images"),
];

/// The report of rung 1.
pub(super) fn root(facts: &Facts) -> RungReport {
    let kernel = &facts.kernel;
    let mut checks = vec![privilege(kernel), kernel_release(kernel)];
    if kernel.uid == 0 && kernel.is_in_first_namespace {
        checks.push(capabilities(kernel));
        checks.extend(confinement(kernel));
    }
    checks.extend([
        namespaces(kernel),
        overlay(kernel),
        seccomp(kernel),
        store(&facts.store),
    ]);
    checks.extend(devices(kernel));
    checks.push(limits(kernel));
    checks.push(trial(&facts.trial_root, &facts.store));
    RungReport {
        rung: Rung::Root,
        checks,
    }
}

/// The report of rung 2.
pub(super) fn user_namespace(facts: &Facts) -> RungReport {
    let kernel = &facts.kernel;
    let mut checks = vec![kernel_release(kernel), switches(kernel)];
    if kernel.is_in_first_namespace {
        checks.extend(mappers(kernel));
        checks.push(subordinate_ids(kernel));
    }
    checks.extend([
        namespaces(kernel),
        overlay(kernel),
        seccomp(kernel),
        store(&facts.store),
        Check {
            name: "limits on memory and processors",
            state: State::Limited,
            found: "cgroups belong to root".into(),
            remedy: Some("build as root to use --resource".into()),
        },
        trial(&facts.trial_user_namespace, &facts.store),
    ]);
    RungReport {
        rung: Rung::UserNamespace,
        checks,
    }
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check {
        name,
        state: State::Ok,
        found: found.into(),
        remedy: None,
    }
}

fn lacking(name: &'static str, state: State, found: String, remedy: impl Into<String>) -> Check {
    Check {
        name,
        state,
        found,
        remedy: Some(remedy.into()),
    }
}

fn privilege(kernel: &Kernel) -> Check {
    const NAME: &str = "user";
    match (kernel.uid, kernel.is_in_first_namespace) {
        (0, true) => ok(NAME, "root"),
        (0, false) => lacking(
            NAME,
            State::Missing,
            "root of a user namespace only".into(),
            "run builder outside of it, or use isolation userns",
        ),
        (uid, _) => lacking(
            NAME,
            State::Missing,
            format!("{} ({uid})", kernel.user),
            "run builder as root, or use isolation userns",
        ),
    }
}

fn kernel_release(kernel: &Kernel) -> Check {
    const NAME: &str = "kernel";
    let mut numbers = kernel
        .release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // mount_setattr is the youngest call that there is no other way for; overlay in user namespaces is of 5.11.
    if version >= (5, 12) {
        ok(NAME, &kernel.release)
    } else {
        lacking(
            NAME,
            State::Missing,
            kernel.release.clone(),
            "use Linux 5.12 or newer",
        )
    }
}

fn capabilities(kernel: &Kernel) -> Check {
    const NAME: &str = "capabilities";
    let lacks = |(bit, _, _): &&(u32, &str, &str)| kernel.capabilities & (1 << *bit) == 0;
    let tell = |missing: &[&(u32, &str, &str)]| {
        let each = missing
            .iter()
            .map(|(_, name, why)| format!("{name} ({why})"));
        format!("without {}", each.collect::<Vec<_>>().join(", "))
    };
    let needed: Vec<_> = NEEDED.iter().filter(lacks).collect();
    let useful: Vec<_> = USEFUL.iter().filter(lacks).collect();
    let add = |missing: &[&(u32, &str, &str)]| {
        let each = missing
            .iter()
            .map(|(_, name, _)| format!("--cap-add={}", name.trim_start_matches("CAP_")));
        each.collect::<Vec<_>>().join(" ")
    };
    if !needed.is_empty() {
        return lacking(
            NAME,
            State::Missing,
            tell(&needed),
            format!(
                "start the container with --privileged, or at least {}",
                add(&needed)
            ),
        );
    }
    if !useful.is_empty() {
        return lacking(
            NAME,
            State::Limited,
            tell(&useful),
            format!("start the container with {}", add(&useful)),
        );
    }
    ok(NAME, format!("{:016x}", kernel.capabilities))
}

/// What a container puts around this process. It may let everything through: whether it does, the trial tells.
fn confinement(kernel: &Kernel) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(profile) = &kernel.apparmor {
        checks.push(lacking(
            "AppArmor",
            State::Limited,
            format!("confined by `{profile}`"),
            "if the whole step below fails: --security-opt apparmor=unconfined",
        ));
    }
    if kernel.is_filtered {
        checks.push(lacking(
            "outer system call filter",
            State::Limited,
            "installed by whoever started this process".into(),
            "if the whole step below fails: --security-opt seccomp=unconfined",
        ));
    }
    checks
}

fn namespaces(kernel: &Kernel) -> Check {
    const NAME: &str = "namespaces";
    match kernel.missing_namespaces.as_slice() {
        [] => ok(NAME, "all"),
        missing => lacking(
            NAME,
            State::Missing,
            format!("the kernel has no {} namespaces", missing.join(", ")),
            "use a kernel built with them",
        ),
    }
}

fn overlay(kernel: &Kernel) -> Check {
    const NAME: &str = "overlay file system";
    if kernel.has_overlay {
        return ok(NAME, "known to the kernel");
    }
    // Mounting one loads the module where that is allowed, so only the trial knows.
    lacking(
        NAME,
        State::Limited,
        "not loaded".into(),
        "if the whole step below fails: modprobe overlay",
    )
}

fn seccomp(kernel: &Kernel) -> Check {
    const NAME: &str = "system call filters";
    if kernel.has_seccomp {
        ok(NAME, "can be installed")
    } else {
        lacking(
            NAME,
            State::Missing,
            "the kernel has none".into(),
            "use a kernel built with CONFIG_SECCOMP_FILTER",
        )
    }
}

fn store(store: &Store) -> Check {
    const NAME: &str = "state directory";
    let found = format!("{} on {}", store.path, store.file_system);
    match &store.problem {
        None => ok(NAME, found),
        Some(problem) => lacking(
            NAME,
            State::Missing,
            format!("{found}: {problem}"),
            "set BUILD_ROOT to a directory of your own",
        ),
    }
}

fn devices(kernel: &Kernel) -> Option<Check> {
    const NAME: &str = "limiting devices";
    let limit = kernel.device_limit?;
    Some(if limit.starts_with("nodev") {
        lacking(
            NAME,
            State::Limited,
            format!("no writable cgroup hierarchy: {limit} stand in for it"),
            "mount cgroups writable: --cgroupns=private with --privileged, or -v /sys/fs/cgroup:/sys/fs/cgroup:rw",
        )
    } else {
        ok(NAME, limit)
    })
}

fn limits(kernel: &Kernel) -> Check {
    const NAME: &str = "limits on memory and processors";
    let shown: Vec<String> = kernel
        .controllers
        .iter()
        .map(|(name, version)| format!("{name} ({version})"))
        .collect();
    let missing: Vec<&str> = ["memory", "cpu", "cpuset"]
        .into_iter()
        .filter(|name| !kernel.controllers.contains_key(*name))
        .collect();
    if missing.is_empty() {
        return ok(NAME, shown.join(", "));
    }
    lacking(
        NAME,
        State::Limited,
        format!("no {} controller", missing.join(", ")),
        "delegate the controllers to use --resource: mount the hierarchy writable",
    )
}

fn switches(kernel: &Kernel) -> Check {
    const NAME: &str = "user namespaces";
    let is = |name: &str, value: &str| kernel.switches.get(name).is_some_and(|v| v == value);
    let off = [
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ]
    .into_iter()
    .find(|(name, value, _)| is(name, value));
    match off {
        None => ok(NAME, "allowed"),
        Some((name, value, wanted)) => lacking(
            NAME,
            State::Missing,
            format!("{name} = {value}"),
            format!("sysctl -w {name}={wanted}"),
        ),
    }
}

fn mappers(kernel: &Kernel) -> Vec<Check> {
    kernel
        .mappers
        .iter()
        .map(|(name, path)| match path {
            Some(path) => ok(name, path.display().to_string()),
            None => lacking(
                name,
                State::Missing,
                "not found".into(),
                "install it: apt-get install uidmap",
            ),
        })
        .collect()
}

fn subordinate_ids(kernel: &Kernel) -> Check {
    const NAME: &str = "subordinate ids";
    // Images use ids up to 65 534.
    const USUAL: u64 = 65_536;
    let (uids, gids) = kernel.subordinate_ids;
    let found = format!("{uids} user and {gids} group ids for {}", kernel.user);
    let remedy = format!(
        "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
        kernel.user
    );
    match uids.min(gids) {
        USUAL.. => ok(NAME, found),
        0 => lacking(NAME, State::Missing, found, remedy),
        _few => lacking(NAME, State::Limited, found, remedy),
    }
}

fn trial(trial: &Trial, store: &Store) -> Check {
    const NAME: &str = "a whole step";
    match trial {
        Trial::Worked => ok(NAME, format!("worked in {}", store.path)),
        Trial::Untried => lacking(
            NAME,
            State::Missing,
            "not tried, because of what is missing above".into(),
            "mend that first",
        ),
        Trial::Failed(why) => Check {
            name: NAME,
            state: State::Missing,
            found: why.clone(),
            remedy: None,
        },
    }
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
