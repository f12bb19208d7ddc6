//! What a RUN's key is made of (the table is in `cache::key`).

use cache::digest::CacheKey;
use cache::key::builder::{KeyBuilder, Part, Parts};
use frontend::graph::{ExecMount, ExecOp, MountKind, NetworkMode, SecurityMode};
use frontend::secret_name::looks_secret;

/// What a mount's input adds to the key: the caller knows the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountInput {
    /// No input, or one whose content does not matter.
    None,
    /// What the mounted path contains.
    Content {
        /// Its digest.
        key: CacheKey,
        /// Its files, for explanation, if they were listed.
        files: Vec<Part>,
    },
}

/// Key and readable parts of a RUN.
///
/// `root` is the state key of its root, `None` for scratch; `inputs` has one entry a mount.
pub(crate) fn exec_key(
    op: &ExecOp,
    root: Option<&CacheKey>,
    inputs: &[MountInput],
) -> (CacheKey, Parts) {
    let mut key = KeyBuilder::new("exec");
    match root {
        Some(root) => key.key("base", root),
        None => key.absent("base"),
    };
    key.text("platform", &op.platform.to_string());
    key.number("arguments", op.args.len() as i128);
    for arg in &op.args {
        key.text("argument", arg);
    }
    key.number("variables", op.env.len() as i128);
    for (name, value) in &op.env {
        let part = format!("variable {name}");
        match looks_secret(name) {
            true => key.secret(&part, value),
            false => key.text(&part, value),
        };
    }
    key.text("working directory", &op.cwd);
    key.text("user", &op.user);
    key.text("network", network(op.network));
    key.text("security", security(op.security));
    match &op.hostname {
        Some(name) => key.text("host name", name),
        None => key.absent("host name"),
    };
    for (name, _address) in &op.extra_hosts {
        key.text("extra host", name);
    }
    if let Some(size) = op.shm_size {
        key.number("shm size", i128::from(size));
    }
    for limit in &op.ulimits {
        let value = format!("{}={}:{}", limit.name, limit.soft, limit.hard);
        key.text("ulimit", &value);
    }
    if let Some(parent) = &op.cgroup_parent {
        key.text("cgroup parent", parent);
    }
    for device in &op.devices {
        key.text("device", device);
    }
    key.number("mounts", op.mounts.len() as i128);
    for (mount, input) in op.mounts.iter().zip(inputs) {
        key.scope(&scope(mount));
        add_mount(&mut key, mount, input);
    }
    (key.finish(), key.into_parts())
}

/// What the parts of a mount are shown with in front: a secret that is only a variable has no target.
fn scope(mount: &ExecMount) -> String {
    match &mount.kind {
        MountKind::Secret { id, .. } if mount.target.is_empty() => {
            format!("mount of secret {id}: ")
        }
        MountKind::Bind { .. }
        | MountKind::Cache { .. }
        | MountKind::Tmpfs { .. }
        | MountKind::Secret { .. }
        | MountKind::Ssh { .. } => format!("mount {}: ", mount.target),
    }
}

fn network(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::Default => "default",
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
    }
}

fn security(mode: SecurityMode) -> &'static str {
    match mode {
        SecurityMode::Sandbox => "sandbox",
        SecurityMode::Insecure => "insecure",
    }
}

fn add_mount(key: &mut KeyBuilder, mount: &ExecMount, input: &MountInput) {
    let target = &mount.target;
    let optional = |key: &mut KeyBuilder, name: &str, value: Option<u32>| {
        match value {
            Some(value) => key.number(name, i128::from(value)),
            None => key.absent(name),
        };
    };
    match &mount.kind {
        MountKind::Bind {
            input: _,
            source: _,
            is_readonly,
        } => {
            key.text("bind mount", target);
            key.number("read-only", i128::from(*is_readonly));
        }
        MountKind::Cache {
            id: _,
            sharing: _,
            input: _,
            source,
            is_readonly,
            mode,
            uid,
            gid,
        } => {
            key.text("cache mount", target);
            key.text("source", source);
            key.number("read-only", i128::from(*is_readonly));
            optional(key, "mode", *mode);
            optional(key, "uid", *uid);
            optional(key, "gid", *gid);
        }
        MountKind::Tmpfs { size } => {
            key.text("tmpfs mount", target);
            match size {
                Some(size) => key.number("size", i128::from(*size)),
                None => key.absent("size"),
            };
        }
        MountKind::Secret {
            id,
            env,
            mode,
            uid,
            gid,
            is_required,
        } => {
            key.text("secret mount", target);
            key.text("secret", id);
            match env {
                Some(env) => key.text("variable", env),
                None => key.absent("variable"),
            };
            add_numbers(key, [*mode, *uid, *gid, u32::from(*is_required)]);
        }
        MountKind::Ssh {
            id,
            mode,
            uid,
            gid,
            is_required,
        } => {
            key.text("ssh mount", target);
            key.text("agent", id);
            add_numbers(key, [*mode, *uid, *gid, u32::from(*is_required)]);
        }
    }
    match input {
        MountInput::None => key.absent("content"),
        MountInput::Content {
            key: content,
            files,
        } => {
            key.key("content", content);
            for file in files {
                key.note(&file.name, &file.value);
            }
            key
        }
    };
}

fn add_numbers(key: &mut KeyBuilder, [mode, uid, gid, is_required]: [u32; 4]) {
    key.number("mode", i128::from(mode));
    key.number("uid", i128::from(uid));
    key.number("gid", i128::from(gid));
    key.number("required", i128::from(is_required));
}

#[cfg(test)]
#[path = "exec_key_tests.rs"]
mod tests;
