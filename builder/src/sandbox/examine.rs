//! What the kernel answers when asked for each thing that steps need. Changes nothing that stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::cgroup::{Cgroups, DeviceLimit, Hierarchies};
use super::enter;
use super::idmap;
use super::rung::Rung;
use super::user::name_of;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// Such as `6.1.0`.
    pub release: String,
    /// The effective user.
    pub uid: u32,
    /// Its name, or its number.
    pub user: String,
    /// Whether this process is in the first user namespace.
    pub is_in_first_namespace: bool,
    /// Effective capabilities as bits.
    pub capabilities: u64,
    /// The AppArmor profile that this process is confined by.
    pub apparmor: Option<String>,
    /// Whether a system call filter is installed already: that of a container.
    pub is_filtered: bool,
    /// Whether filters can be installed.
    pub has_seccomp: bool,
    /// Namespaces the kernel does not have.
    pub missing_namespaces: Vec<&'static str>,
    /// Whether it knows the overlay file system; a module may still be loaded.
    pub has_overlay: bool,
    /// Where limits can be set: `v1` or `v2` by controller.
    pub controllers: BTreeMap<String, &'static str>,
    /// How opening of devices is limited: only known at rung 1.
    pub device_limit: Option<&'static str>,
    /// Settings that turn user namespaces off: name and value, if the kernel has them.
    pub switches: BTreeMap<&'static str, String>,
    /// The programs that map ids.
    pub mappers: BTreeMap<&'static str, Option<PathBuf>>,
    /// How many subordinate user and group ids the user has.
    pub subordinate_ids: (u64, u64),
}

/// Files of settings that matter to user namespaces, by their sysctl names.
const SWITCHES: [(&str, &str); 3] = [
    (
        "user.max_user_namespaces",
        "/proc/sys/user/max_user_namespaces",
    ),
    (
        "kernel.unprivileged_userns_clone",
        "/proc/sys/kernel/unprivileged_userns_clone",
    ),
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    ),
];

const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Controllers that limits on steps need.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "cpuset"];

/// Asks for everything.
pub fn kernel() -> Kernel {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let uid = geteuid().as_raw();
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let name = name_of(uid, &passwd);
    let count = |file: &str| -> u64 {
        idmap::subordinate(&read(file), name.as_deref(), uid)
            .iter()
            .map(|(_first, count)| u64::from(*count))
            .sum()
    };
    let is_in_first_namespace = idmap::is_initial(&read("/proc/self/uid_map"));
    let is_rung_one = uid == 0 && is_in_first_namespace;
    Kernel {
        release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        uid,
        is_in_first_namespace,
        capabilities: field(&status, "CapEff:")
            .and_then(|bits| u64::from_str_radix(bits, 16).ok())
            .unwrap_or(0),
        apparmor: apparmor(&read("/proc/self/attr/current")),
        is_filtered: field(&status, "Seccomp:") == Some("2"),
        has_seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        missing_namespaces: NAMESPACES
            .into_iter()
            .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
            .collect(),
        has_overlay: read("/proc/filesystems")
            .lines()
            .any(|line| line.trim_start_matches("nodev").trim() == "overlay"),
        controllers: controllers(&Hierarchies::parse(&read("/proc/self/mountinfo"))),
        device_limit: is_rung_one.then(device_limit),
        switches: SWITCHES
            .into_iter()
            .filter_map(|(name, file)| Some((name, fs::read_to_string(file).ok()?)))
            .map(|(name, value)| (name, value.trim().to_owned()))
            .collect(),
        mappers: enter::MAPPERS
            .into_iter()
            .map(|name| (name, enter::find_program(name)))
            .collect(),
        subordinate_ids: (count("/etc/subuid"), count("/etc/subgid")),
        user: name.unwrap_or_else(|| uid.to_string()),
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// `docker-default (enforce)`; nothing if there is no confinement. Other modules than AppArmor use the file as well.
fn apparmor(current: &str) -> Option<String> {
    let profile = current.trim_end_matches(['\n', '\0']).trim();
    profile.ends_with("(enforce)").then(|| profile.to_owned())
}

fn controllers(hierarchies: &Hierarchies) -> BTreeMap<String, &'static str> {
    let offered = hierarchies
        .unified
        .as_ref()
        .and_then(|base| fs::read_to_string(base.join("cgroup.controllers")).ok())
        .unwrap_or_default();
    CONTROLLERS
        .into_iter()
        .filter_map(|name| {
            let version = if hierarchies.legacy.contains_key(name) {
                "v1"
            } else if offered.split_whitespace().any(|offer| offer == name) {
                "v2"
            } else {
                return None;
            };
            Some((name.to_owned(), version))
        })
        .collect()
}

/// Tries as a build does; its cgroups are removed again.
fn device_limit() -> &'static str {
    match Cgroups::detect(Rung::Root).device_limit() {
        DeviceLimit::Program => "a BPF program on the v2 hierarchy",
        DeviceLimit::Controller => "the v1 devices controller",
        DeviceLimit::NoDev => "nodev mounts",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_and_fields() {
        assert_eq!(apparmor("unconfined\n"), None);
        assert_eq!(
            apparmor("docker-default (enforce)\n").as_deref(),
            Some("docker-default (enforce)")
        );
        assert_eq!(apparmor("system_u:system_r:init_t:s0\0"), None);
        assert_eq!(field("A:\t1\nCapEff:\t00ff\n", "CapEff:"), Some("00ff"));
    }

    #[test]
    fn this_machine_has_a_kernel() {
        let found = kernel();
        assert!(!found.release.is_empty() && !found.user.is_empty());
        assert_eq!(found.mappers.len(), 2);
    }
}
