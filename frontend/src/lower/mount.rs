//! `RUN --mount`: what is mounted where (features.md 1.10).

use crate::ast;
use crate::graph::{CacheSharing, ExecMount, MountKind};
use crate::ignore::clean_path;

use super::emit::{Emitter, NotEmitted, Step};
use super::error::{InstructionError, StageError};
use super::mount_option::{Given, Kind, MountError, read};
use super::run::Inputs;
use super::stage::SourceRef;
use super::state::StageState;

/// Lowers the mounts of a RUN, in order.
pub(super) fn lower(
    emitter: &mut Emitter<'_>,
    state: &StageState,
    step: Step<'_>,
    run: &ast::Run,
    inputs: &mut Inputs,
) -> Result<Vec<ExecMount>, InstructionError> {
    let given = run
        .mounts
        .iter()
        .map(|mount| read(mount, |value| emitter.expand(state, value)))
        .collect::<Result<Vec<Given>, _>>()?;
    let mut mounts = Vec::with_capacity(given.len());
    let mut sockets = 0;
    for (given, source) in given.into_iter().zip(&step.command.sources) {
        mounts.push(match given.kind {
            Kind::Secret => secret(given, state),
            Kind::Ssh => {
                sockets += 1;
                ssh(given, sockets - 1, state)?
            }
            Kind::Tmpfs => ExecMount {
                target: target(&given, state)?,
                kind: MountKind::Tmpfs { size: given.size },
            },
            Kind::Bind | Kind::Cache => files(emitter, state, given, *source, inputs)?,
        });
    }
    Ok(mounts)
}

/// A bind or cache mount.
fn files(
    emitter: &mut Emitter<'_>,
    state: &StageState,
    given: Given,
    source: Option<SourceRef>,
    inputs: &mut Inputs,
) -> Result<ExecMount, InstructionError> {
    let is_context = given.kind == Kind::Bind && given.from.is_empty();
    let vertex = match source {
        Some(source) if !is_context => {
            emitter
                .source_root(source)
                .map_err(|NotEmitted| StageError::MountFromLater {
                    from: given.from.clone(),
                    target: given.target.clone(),
                })?
        }
        Some(_) | None if is_context => Some(emitter.build_context()),
        Some(_) | None => None,
    };
    let target = target(&given, state)?;
    let input = vertex.map(|vertex| inputs.add(vertex));
    let source = clean_path(&format!("/{}", given.source));
    let kind = if given.kind == Kind::Bind {
        MountKind::Bind {
            input,
            source,
            is_readonly: given.is_readonly.unwrap_or(true),
        }
    } else {
        let id = if given.id.is_empty() {
            clean_path(&given.target)
        } else {
            given.id
        };
        MountKind::Cache {
            id: match emitter.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS") {
                Some(namespace) if !namespace.is_empty() => format!("{namespace}/{id}"),
                Some(_) | None => id,
            },
            sharing: given.sharing.unwrap_or(CacheSharing::Shared),
            input,
            source,
            is_readonly: given.is_readonly.unwrap_or(false),
            mode: given.mode,
            uid: given.uid,
            gid: given.gid,
        }
    };
    Ok(ExecMount { target, kind })
}

/// The target seen from the working directory; the root cannot be one.
fn target(given: &Given, state: &StageState) -> Result<String, MountError> {
    let target = state.resolve_directory(&given.target);
    if target == "/" {
        return Err(MountError::Target(target));
    }
    Ok(target)
}

fn secret(given: Given, state: &StageState) -> ExecMount {
    let id = [&given.source, &given.id]
        .into_iter()
        .find(|id| !id.is_empty())
        .cloned()
        .unwrap_or_else(|| base_name(&given.target).to_owned());
    let target = match (given.target.as_str(), &given.env) {
        ("", Some(_)) => String::new(),
        ("", None) => format!("/run/secrets/{}", base_name(&id)),
        (target, _) => state.resolve_directory(target),
    };
    ExecMount {
        target,
        kind: MountKind::Secret {
            id,
            env: given.env,
            mode: given.mode.unwrap_or(0o400),
            uid: given.uid.unwrap_or(0),
            gid: given.gid.unwrap_or(0),
            is_required: given.is_required,
        },
    }
}

fn ssh(given: Given, number: usize, state: &StageState) -> Result<ExecMount, MountError> {
    if !given.source.is_empty() {
        return Err(MountError::SshSource);
    }
    let target = match given.target.as_str() {
        "" => format!("/run/buildkit/ssh_agent.{number}"),
        target => state.resolve_directory(target),
    };
    let id = Some(given.id).filter(|id| !id.is_empty());
    Ok(ExecMount {
        target,
        kind: MountKind::Ssh {
            id: id.unwrap_or_else(|| "default".to_owned()),
            mode: given.mode.unwrap_or(0o600),
            uid: given.uid.unwrap_or(0),
            gid: given.gid.unwrap_or(0),
            is_required: given.is_required,
        },
    })
}

fn base_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}
