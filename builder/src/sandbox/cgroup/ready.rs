//! Makes new groups fit to have limits and members, on the way down to them.

use std::fs;
use std::io;
use std::path::Path;

/// A new cpuset of the v1 hierarchy is empty, and nothing can join it: it gets what its parent has.
pub(super) fn fill_cpusets(base: &Path, group: &Path) -> io::Result<()> {
    let mut dir = base.to_owned();
    for name in group.strip_prefix(base).unwrap_or(Path::new("")) {
        let child = dir.join(name);
        inherit_cpuset(&dir, &child)?;
        dir = child;
    }
    Ok(())
}

pub(super) fn inherit_cpuset(parent: &Path, child: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(child.join(file))?.trim().is_empty() {
            fs::write(child.join(file), fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}

/// Lets the children of `base` down to `group` have limits (v2).
pub(super) fn enable_controllers(base: &Path, group: &Path) -> io::Result<()> {
    let offered = fs::read_to_string(base.join("cgroup.controllers"))?;
    let wanted: Vec<_> = ["cpu", "cpuset", "memory"]
        .iter()
        .filter(|name| offered.split_whitespace().any(|offer| offer == **name))
        .map(|name| format!("+{name}"))
        .collect();
    let mut dir = base.to_owned();
    let mut names = group.strip_prefix(base).unwrap_or(Path::new("")).iter();
    loop {
        fs::write(dir.join("cgroup.subtree_control"), wanted.join(" "))?;
        match names.next() {
            Some(name) => dir.push(name),
            None => return Ok(()),
        }
    }
}
