//! The mounts of a command: what they show, what they hold on to while it runs.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::claim::Wait;
use cache::mounts::{MountRequest, Sharing, Start, StepMounts};
use cache::snapshot::active::ActiveTree;
use frontend::graph::{CacheSharing, ExecMount, ExecOp, MountKind, Op, VertexId};

use super::agent::{Agent, Forward, Owner};
use super::error::StepError;
use super::layers::OverlayLayers;
use super::mount_input;
use super::steps::{Done, Steps};
use crate::cancel::CancelFlag;
use crate::sandbox::spec::{Access, Content, MountSource, Scratch, SpecMount};

/// The mounts of a command, and what they hold on to while it runs.
#[derive(Default)]
pub(super) struct Held {
    /// What the sandbox mounts.
    pub(super) mounts: Vec<SpecMount>,
    /// Variables that secrets are given by.
    pub(super) env: Vec<(String, String)>,
    caches: Option<StepMounts>,
    /// How many cache mounts have been given their directory.
    caches_placed: usize,
    /// Directories that are thrown away after the command.
    scratch: Vec<ActiveTree>,
    /// Sockets that are served.
    agents: Vec<Forward>,
    /// Stacks that are mounted.
    overlays: Vec<OverlayLayers>,
}

impl Held {
    /// The locks that must last until the command's last process is gone.
    pub(super) fn locks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.caches
            .iter()
            .flat_map(|caches| &caches.directories)
            .map(AsFd::as_fd)
    }
}

/// Prepares the mounts of a command: locks cache directories, makes trees, reads secrets.
pub(super) fn hold(
    steps: &Steps,
    vertex: VertexId,
    op: &ExecOp,
    inputs: &[Arc<Done>],
    cancel: &CancelFlag,
) -> Result<Held, StepError> {
    let mut held = Held::default();
    let ignores_cache = steps.ignores_cache(vertex);
    let requests: Vec<MountRequest> = op
        .mounts
        .iter()
        .filter_map(|mount| cache_request(mount, inputs, ignores_cache))
        .collect();
    if !requests.is_empty() {
        let wait = Wait::UntilCanceled(cancel.as_atomic());
        held.caches = cache::mounts::acquire(&steps.paths, &requests, wait)?;
        if held.caches.is_none() {
            return Err(StepError::Canceled);
        }
    }
    for mount in &op.mounts {
        if let Some(source) = source_of(steps, &steps.vertex(vertex).inputs, mount, &mut held)? {
            let target = PathBuf::from(&mount.target);
            held.mounts.push(SpecMount { target, source });
        }
    }
    Ok(held)
}

/// What a mount shows; `None` if it shows nothing: a secret that is only a variable, or an optional thing not given.
fn source_of(
    steps: &Steps,
    inputs: &[VertexId],
    mount: &ExecMount,
    held: &mut Held,
) -> Result<Option<MountSource>, StepError> {
    let input_of = |index: &Option<frontend::graph::InputIndex>| {
        index.and_then(|index| inputs.get(index.0).copied())
    };
    Ok(match &mount.kind {
        MountKind::Bind {
            input,
            source,
            is_readonly,
        } => Some(bind_source(
            steps,
            input_of(input),
            source,
            *is_readonly,
            held,
        )?),
        MountKind::Cache {
            input,
            source,
            is_readonly,
            mode,
            uid,
            gid,
            ..
        } => {
            let root = CacheRoot {
                mode: mode.unwrap_or(0o755),
                uid: uid.unwrap_or(0),
                gid: gid.unwrap_or(0),
            };
            let path = prepare_cache(steps, held, input_of(input), source, &root)?;
            let access = if *is_readonly {
                Access::ReadOnly
            } else {
                Access::ReadWrite
            };
            Some(MountSource::Bind {
                path,
                subpath: PathBuf::new(),
                access,
            })
        }
        MountKind::Tmpfs { size } => Some(MountSource::Tmpfs {
            size: *size,
            mode: None,
        }),
        MountKind::Secret {
            id,
            env,
            mode,
            uid,
            gid,
            is_required,
        } => {
            let data = steps.settings.secrets.secret(id)?;
            if data.is_none() && *is_required {
                return Err(StepError::NoSecret { id: id.clone() });
            }
            if let Some(name) = env {
                let value = String::from_utf8(data.clone().unwrap_or_default()).ok();
                let value = value.filter(|value| !value.contains('\0'));
                let value = value.ok_or_else(|| StepError::SecretNotText {
                    id: id.clone(),
                    name: name.clone(),
                })?;
                held.env.push((name.clone(), value));
            }
            let file = |data| MountSource::File {
                data: Content(data),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            };
            data.filter(|_| !mount.target.is_empty()).map(file)
        }
        MountKind::Ssh {
            id,
            mode,
            uid,
            gid,
            is_required,
        } => {
            let owner = Owner {
                uid: *uid,
                gid: *gid,
                mode: *mode,
            };
            match steps.settings.agents.agent(id) {
                Some(agent) => Some(agent_source(steps, agent, owner, held)?),
                None if *is_required => return Err(StepError::NoAgent { id: id.clone() }),
                None => None,
            }
        }
    })
}

/// A socket of its own for a mount. Connecting needs no writable mount, only the right to write to the socket.
fn agent_source(
    steps: &Steps,
    agent: Agent,
    owner: Owner,
    held: &mut Held,
) -> Result<MountSource, StepError> {
    let tree = steps.layers.new_tree()?;
    let forward = Forward::start(steps.sandbox.handle(), agent, tree.upper(), owner)?;
    let path = forward.path().to_owned();
    held.scratch.push(tree);
    held.agents.push(forward);
    Ok(MountSource::Bind {
        path,
        subpath: PathBuf::new(),
        access: Access::ReadOnly,
    })
}

/// What a bind mount shows: part of a stage or image, or of a context, of which a copy is made as a step would see it
/// (owned by root, without what is ignored).
fn bind_source(
    steps: &Steps,
    input: Option<VertexId>,
    source: &str,
    is_readonly: bool,
    held: &mut Held,
) -> Result<MountSource, StepError> {
    let subpath = PathBuf::from(source.trim_start_matches('/'));
    let access = if is_readonly {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let local = input.filter(|input| matches!(steps.vertex(*input).op, Op::Local(_)));
    if let Some(context) = local {
        let tree = steps.layers.new_tree()?;
        mount_input::copy_out(steps, context, source, source, tree.upper())?;
        let path = tree.upper().to_owned();
        held.scratch.push(tree);
        return Ok(MountSource::Bind {
            path,
            subpath,
            access,
        });
    }
    let done = input.and_then(|input| steps.result(input));
    let overlay = steps
        .layers
        .overlay(done.as_ref().map_or(&[], |done| &done.layers))?;
    let scratch = if is_readonly {
        None
    } else {
        let tree = steps.layers.new_tree()?;
        let scratch = Scratch {
            upper: tree.upper().to_owned(),
            work: tree.make_work()?.to_owned(),
        };
        held.scratch.push(tree);
        Some(scratch)
    };
    let (dir, lowers) = (overlay.dir.clone(), overlay.lowers.clone());
    held.overlays.push(overlay);
    Ok(MountSource::Overlay {
        dir,
        lowers,
        scratch,
        subpath,
    })
}

/// A cache is known by id, first content, mode and owner.
fn cache_request(
    mount: &ExecMount,
    inputs: &[Arc<Done>],
    ignores_cache: bool,
) -> Option<MountRequest> {
    let MountKind::Cache {
        id,
        sharing,
        input,
        source,
        mode,
        uid,
        gid,
        is_readonly: _,
    } = &mount.kind
    else {
        return None;
    };
    let from = input
        .and_then(|index| inputs.get(index.0))
        .map_or_else(|| "scratch".to_owned(), |done| done.key.hex());
    let identity = format!("{id}\n{from}\n{source}\n{mode:?}\n{uid:?}\n{gid:?}");
    Some(MountRequest {
        identity,
        sharing: match sharing {
            CacheSharing::Shared => Sharing::Shared,
            CacheSharing::Private => Sharing::Private,
            CacheSharing::Locked => Sharing::Locked,
        },
        start: if ignores_cache {
            Start::Empty
        } else {
            Start::Kept
        },
    })
}

struct CacheRoot {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Gives the directory of a cache mount, with its first content if it is new.
fn prepare_cache(
    steps: &Steps,
    held: &mut Held,
    first: Option<VertexId>,
    source: &str,
    root: &CacheRoot,
) -> Result<PathBuf, StepError> {
    let missing = StepError::Internal {
        what: "a cache mount without a directory",
    };
    let Some(caches) = &mut held.caches else {
        return Err(missing);
    };
    let place = caches.places.get(held.caches_placed);
    held.caches_placed += 1;
    let directory = place.and_then(|at| caches.directories.get_mut(*at));
    let Some(directory) = directory else {
        return Err(missing);
    };
    let path = directory.path().to_owned();
    if directory.is_new() {
        if let Some(first) = first {
            mount_input::copy_out(steps, first, source, "/", &path)?;
        }
        set_root(&path, root)?;
        directory.ready()?;
    }
    Ok(path)
}

fn set_root(path: &Path, root: &CacheRoot) -> Result<(), StepError> {
    use std::os::unix::fs::PermissionsExt as _;
    let error = |attempt| {
        move |source| StepError::Io {
            attempt,
            path: path.to_owned(),
            source,
        }
    };
    std::os::unix::fs::chown(path, Some(root.uid), Some(root.gid))
        .map_err(error("change the owner of"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(root.mode))
        .map_err(error("change the mode of"))
}
