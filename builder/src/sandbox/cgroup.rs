//! One cgroup per step, for its devices and limits.
//!
//! # Layout
//!
//! ```text
//! <hierarchy>/<parent, else build>/<pid of init>[-insecure]/<n>
//! ```
//!
//! The device rule hangs on the third level: attaching it once per build is cheap, attaching and detaching it per step makes the
//! kernel patch its own code each time. On the v2 hierarchy (also in hybrid setups) every step has a cgroup; on v1
//! hierarchies only where something is limited there.
//!
//! # Failure
//!
//! What a killed `sandbox-init` left is removed by the next one. Removal is best effort: an empty cgroup costs next to nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::devices;
use super::error::{Action, Attempt, SetupError};
use super::resources::{Writes, settings};
use super::rung::Rung;
use super::spec::{Limits, Resources, Security};
use super::sys;
use ready::{enable_controllers, fill_cpusets, inherit_cpuset};

mod ready;

/// What keeps a step from opening devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceLimit {
    /// A BPF program on the v2 hierarchy.
    Program,
    /// The v1 devices controller.
    Controller,
    /// The root and every writable mount are `nodev`.
    NoDev,
}

/// What a step sees at `/sys/fs/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Nothing.
    Hidden,
    /// The v2 hierarchy.
    Unified,
    /// These v1 controllers.
    Legacy(Vec<String>),
}

/// The hierarchies mounted here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    pub(super) unified: Option<PathBuf>,
    /// By controller.
    pub(super) legacy: BTreeMap<String, PathBuf>,
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo`.
    pub(super) fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount) = before.split(' ').nth(4) else {
                continue;
            };
            let mut after = after.split(' ');
            match (after.next(), after.nth(1)) {
                (Some("cgroup2"), _) => found.unified = Some(mount.into()),
                (Some("cgroup"), Some(options)) => {
                    for option in options.split(',').filter(|option| is_controller(option)) {
                        found.legacy.insert(option.to_owned(), mount.into());
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn view(&self) -> View {
        if !self.legacy.is_empty() {
            return View::Legacy(self.legacy.keys().cloned().collect());
        }
        match self.unified {
            Some(_) => View::Unified,
            None => View::Hidden,
        }
    }
}

fn is_controller(option: &str) -> bool {
    !option.contains('=')
        && !matches!(
            option,
            "rw" | "ro" | "xattr" | "clone_children" | "noprefix"
        )
}

/// Makes steps' cgroups.
#[derive(Debug)]
pub(super) struct Cgroups {
    hierarchies: Hierarchies,
    program: Option<OwnedFd>,
    device_limit: DeviceLimit,
    view: View,
    name: String,
    groups: Vec<PathBuf>,
    next: u64,
}

impl Cgroups {
    /// Finds out what this machine offers and removes what dead processes left.
    pub(super) fn detect(rung: Rung) -> Self {
        let hierarchies = match rung {
            Rung::Root => fs::read_to_string("/proc/self/mountinfo")
                .map(|text| Hierarchies::parse(&text))
                .unwrap_or_default(),
            // Nothing is writable there, unless delegated, which is not used yet.
            Rung::UserNamespace => Hierarchies::default(),
        };
        let view = match rung {
            Rung::Root => hierarchies.view(),
            Rung::UserNamespace => View::Hidden,
        };
        let mut cgroups = Self {
            hierarchies,
            program: None,
            device_limit: DeviceLimit::NoDev,
            view,
            name: std::process::id().to_string(),
            groups: Vec::new(),
            next: 0,
        };
        cgroups.remove_left_behind();
        cgroups.choose_device_limit();
        cgroups
    }

    pub(super) fn device_limit(&self) -> DeviceLimit {
        self.device_limit
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Tries the choices in order, on a real cgroup.
    fn choose_device_limit(&mut self) {
        if let Some(base) = self.hierarchies.unified.clone() {
            self.program = sys::load_device_program(&devices::program()).ok();
            let group = base.join(DEFAULT_PARENT).join(&self.name);
            if self.program.is_some() && self.group(&group, Security::Sandbox).is_ok() {
                self.device_limit = DeviceLimit::Program;
                return;
            }
            self.program = None;
            // Without the right to make cgroups there, it is of no use at all.
            self.hierarchies.unified = None;
        }
        if let Some(base) = self.hierarchies.legacy.get("devices") {
            let group = base.join(DEFAULT_PARENT).join(&self.name);
            self.device_limit = DeviceLimit::Controller;
            if self.group(&group, Security::Sandbox).is_err() {
                self.device_limit = DeviceLimit::NoDev;
            }
        }
    }

    /// Makes the cgroups of one step.
    pub(super) fn step(
        &mut self,
        limits: &Limits,
        security: Security,
    ) -> Result<StepCgroup, SetupError> {
        self.next += 1;
        let parent = limits.cgroup_parent.as_deref().unwrap_or(DEFAULT_PARENT);
        let parent = inside(parent);
        let name = match security {
            Security::Sandbox => self.name.clone(),
            Security::Insecure => format!("{}-insecure", self.name),
        };
        let relative = parent.join(name);
        let mut step = StepCgroup::default();
        for (base, writes) in self.wanted(&limits.resources)? {
            let group = base.join(&relative);
            self.group(&group, security)
                .attempt(Action::Cgroup, &group)?;
            let is_unified = self.hierarchies.unified.as_ref() == Some(&base);
            if is_unified && !writes.is_empty() {
                enable_controllers(&base, &group).attempt(Action::Cgroup, &group)?;
            }
            let dir = group.join(self.next.to_string());
            fs::create_dir(&dir).attempt(Action::Cgroup, &dir)?;
            step.dirs.push(dir.clone());
            if self.hierarchies.legacy.get("cpuset") == Some(&base) {
                inherit_cpuset(&group, &dir).attempt(Action::Cgroup, &dir)?;
            }
            for (file, value) in &writes {
                write_limit(&dir, file, value)?;
            }
            if writes.iter().any(|(file, _)| file.starts_with("memory.")) {
                step.memory = Some(dir.join(if is_unified {
                    "memory.events"
                } else {
                    "memory.oom_control"
                }));
            }
            step.open(&dir, is_unified)?;
        }
        Ok(step)
    }

    /// The hierarchies a step needs a cgroup in, and what is written there.
    fn wanted(&self, resources: &Resources) -> Result<BTreeMap<PathBuf, Writes>, SetupError> {
        let mut wanted: BTreeMap<PathBuf, Writes> = BTreeMap::new();
        if let Some(base) = &self.hierarchies.unified {
            wanted.insert(base.clone(), Writes::new());
        }
        if self.device_limit == DeviceLimit::Controller
            && let Some(base) = self.hierarchies.legacy.get("devices")
        {
            wanted.insert(base.clone(), Writes::new());
        }
        for setting in settings(resources) {
            let legacy = self.hierarchies.legacy.get(setting.controller);
            let (base, write) = match (legacy, &self.hierarchies.unified) {
                (Some(base), _) => (base, setting.legacy),
                (None, Some(base)) => (base, setting.unified),
                (None, None) => {
                    return Err(SetupError::Unsupported {
                        what: format!(
                            "limiting {} without a writable cgroup hierarchy; run as root",
                            setting.controller
                        ),
                    });
                }
            };
            wanted.entry(base.clone()).or_default().extend(write);
        }
        Ok(wanted)
    }

    /// Makes the third level, once, with its device rule.
    fn group(&mut self, group: &Path, security: Security) -> io::Result<()> {
        if self.groups.iter().any(|known| known == group) && group.exists() {
            return Ok(());
        }
        fs::create_dir_all(group)?;
        if let Some(base) = self.hierarchies.legacy.get("cpuset")
            && group.starts_with(base)
        {
            fill_cpusets(base, group)?;
        }
        if !self.groups.iter().any(|known| known == group) {
            self.groups.push(group.to_owned());
        }
        if security == Security::Insecure {
            return Ok(());
        }
        let starts_with = |base: Option<&PathBuf>| base.is_some_and(|base| group.starts_with(base));
        if let Some(program) = &self.program
            && starts_with(self.hierarchies.unified.as_ref())
        {
            let dir = open_dir(group)?;
            sys::attach_device_program(dir.as_fd(), program.as_fd())?;
        }
        if self.device_limit == DeviceLimit::Controller
            && starts_with(self.hierarchies.legacy.get("devices"))
        {
            fs::write(group.join("devices.deny"), "a")?;
            for line in devices::legacy_lines() {
                fs::write(group.join("devices.allow"), line)?;
            }
        }
        Ok(())
    }

    fn remove_left_behind(&self) {
        let bases = self
            .hierarchies
            .unified
            .iter()
            .chain(self.hierarchies.legacy.values());
        for base in bases {
            for group in subdirs(&base.join(DEFAULT_PARENT)) {
                let name = group.file_name().unwrap_or_default().to_string_lossy();
                let pid = name.trim_end_matches("-insecure");
                if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
                    remove_tree(&group);
                }
            }
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for group in &self.groups {
            remove_tree(group);
        }
    }
}

const DEFAULT_PARENT: &str = "build";

/// The cgroups of a step; dropped when it is over.
#[derive(Debug, Default)]
pub(super) struct StepCgroup {
    dirs: Vec<PathBuf>,
    unified: Option<OwnedFd>,
    /// `cgroup.procs` of v1 hierarchies.
    joins: Vec<OwnedFd>,
    memory: Option<PathBuf>,
}

impl StepCgroup {
    fn open(&mut self, dir: &Path, is_unified: bool) -> Result<(), SetupError> {
        if is_unified {
            self.unified = Some(open_dir(dir).attempt(Action::Cgroup, dir)?);
            return Ok(());
        }
        let procs = dir.join("cgroup.procs");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = openat(CWD, &procs, flags, Mode::empty()).attempt(Action::Cgroup, &procs)?;
        self.joins.push(fd);
        Ok(())
    }

    /// Where the step is cloned into.
    pub(super) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process into the v1 cgroups.
    pub(super) fn join(&self) -> Result<(), SetupError> {
        for procs in &self.joins {
            rustix::io::write(procs, b"0").attempt(Action::Cgroup, "cgroup.procs")?;
        }
        Ok(())
    }

    /// Whether one of its processes was killed for want of memory.
    pub(super) fn is_oom_killed(&self) -> bool {
        self.memory
            .as_ref()
            .and_then(|path| fs::read_to_string(path).ok())
            .is_some_and(|text| oom_kills(&text) > 0)
    }
}

impl Drop for StepCgroup {
    fn drop(&mut self) {
        self.unified = None;
        self.joins.clear();
        for dir in &self.dirs {
            remove(dir);
        }
    }
}

/// `memory.events` and `memory.oom_control` have the same line.
fn oom_kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// A limit that the kernel does not have is named, with what to do.
fn write_limit(dir: &Path, file: &str, value: &str) -> Result<(), SetupError> {
    let path = dir.join(file);
    match fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SetupError::Unsupported {
            what: format!(
                "`{file}` is not among this kernel's limits; leave that limit away or {}",
                remedy(file)
            ),
        }),
        other => other.attempt(Action::Cgroup, path),
    }
}

fn remedy(file: &str) -> &'static str {
    if file.contains("swap") || file.contains("memsw") {
        "boot with swapaccount=1"
    } else {
        "mount the controller's hierarchy"
    }
}

/// A parent as the user wrote it, kept inside the hierarchy.
fn inside(parent: &str) -> PathBuf {
    Path::new(parent)
        .components()
        .filter_map(|component| match component {
            std::path::Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect()
}

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, dir, flags, Mode::empty())?)
}

fn subdirs(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(dir: &Path) {
    for child in subdirs(dir) {
        remove(&child);
    }
    remove(dir);
}

/// Best effort: what stays is removed by the next process.
fn remove(dir: &Path) {
    drop(fs::remove_dir(dir));
}

#[cfg(test)]
mod tests;
