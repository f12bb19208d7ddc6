//! RUN: the command, its environment and what is mounted.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::ast::{self, CommandLine, Heredoc, RunNetwork, RunSecurity};
use crate::expand::Scope;
use crate::graph::{
    ExecMount, ExecOp, FileAction, FileOp, InputIndex, MountKind, NetworkMode, Op, Presentation,
    SecurityMode, VertexId,
};

use super::emit::{Emitter, Step};
use super::error::InstructionError;
use super::meta::{shell_words, with_shell};
use super::mount;
use super::state::{StageState, display};

/// Where scripts with a `#!` line are mounted.
const SCRIPTS: &str = "/dev/pipes/";

/// The inputs of a vertex under way; equal ones are one.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    vertices: Vec<VertexId>,
    known: BTreeMap<VertexId, InputIndex>,
}

impl Inputs {
    /// Adds an input.
    pub(super) fn add(&mut self, vertex: VertexId) -> InputIndex {
        *self.known.entry(vertex).or_insert_with(|| {
            self.vertices.push(vertex);
            InputIndex(self.vertices.len() - 1)
        })
    }

    /// All inputs.
    pub(super) fn into_vertices(self) -> Vec<VertexId> {
        self.vertices
    }
}

/// What is run, and what it needs.
struct Script {
    args: Vec<String>,
    /// Behind the instruction in progress.
    summary: String,
    mount: Option<ExecMount>,
}

/// Lowers a RUN.
pub(super) fn lower(
    emitter: &mut Emitter<'_>,
    state: &mut StageState,
    step: Step<'_>,
    run: &ast::Run,
) -> Result<(), InstructionError> {
    state.scope.charge(state.scope.size());
    let mut inputs = Inputs::default();
    let root = state.root.map(|root| inputs.add(root));
    let script = script(emitter, state, step, run, &mut inputs)?;
    let mut mounts: Vec<ExecMount> = script.mount.into_iter().collect();
    mounts.extend(mount::lower(emitter, state, step, run, &mut inputs)?);
    let shown_scope = mask_secrets(&state.scope, &mounts);
    let text = format!("{}{}", step.original(), script.summary);
    let text = display(emitter.lexer.for_display(), &text, &shown_scope);
    let created_by = history(state, &script.args);
    let options = emitter.options;
    let op = ExecOp {
        root,
        args: script.args,
        env: environment(&state.scope, &mounts),
        cwd: state.directory(),
        user: state.image.config.user.clone(),
        mounts,
        platform: state
            .platform
            .clone()
            .unwrap_or_else(|| options.target_platform.clone()),
        network: network(run, options.network),
        security: match run.security {
            None | Some(RunSecurity::Sandbox) => SecurityMode::Sandbox,
            Some(RunSecurity::Insecure) => SecurityMode::Insecure,
        },
        hostname: options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned(),
        extra_hosts: options.extra_hosts.clone(),
        shm_size: options.shm_size,
        ulimits: options.ulimits.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        proxy_env: emitter.proxy.clone(),
        devices: run
            .devices
            .iter()
            .map(|device| device.value.clone())
            .collect(),
    };
    state.steps.advance();
    let shown = emitter.present(state, step, &text);
    let vertex = emitter
        .builder
        .add(Op::Exec(Box::new(op)), inputs.into_vertices(), shown);
    state.record_layer(created_by, vertex);
    Ok(())
}

fn network(run: &ast::Run, default: Option<NetworkMode>) -> NetworkMode {
    match run.network {
        Some(RunNetwork::Default) => NetworkMode::Default,
        Some(RunNetwork::None) => NetworkMode::None,
        Some(RunNetwork::Host) => NetworkMode::Host,
        None => default.unwrap_or(NetworkMode::Default),
    }
}

/// The command: heredocs are the script itself, a file to run, or text for the shell.
fn script(
    emitter: &mut Emitter<'_>,
    state: &StageState,
    step: Step<'_>,
    run: &ast::Run,
    inputs: &mut Inputs,
) -> Result<Script, InstructionError> {
    let plain = |args| Script {
        args,
        summary: String::new(),
        mount: None,
    };
    let Some(first) = run.heredocs.first() else {
        return Ok(plain(with_shell(state, &run.command)));
    };
    let CommandLine::Shell(line) = &run.command else {
        return Err(InstructionError::ExecWithHeredoc);
    };
    if !is_only_heredoc(line) {
        let text = reassemble(emitter, step, line, &run.heredocs);
        return Ok(plain(shell_words(state, &text)));
    }
    let summary = format!(" ({})", summarise(&first.content));
    if !first.content.starts_with("#!") {
        return Ok(Script {
            args: shell_words(state, &first.content),
            summary,
            mount: None,
        });
    }
    let target = format!("{SCRIPTS}{}", first.name);
    let file = document(emitter, &first.name, 0o755, first.content.as_bytes());
    Ok(Script {
        args: shell_words(state, &target),
        summary,
        mount: Some(ExecMount {
            target,
            kind: MountKind::Bind {
                input: Some(inputs.add(file)),
                source: format!("/{}", first.name),
                is_readonly: true,
            },
        }),
    })
}

/// A file of its own, from the text of a heredoc.
pub(super) fn document(
    emitter: &mut Emitter<'_>,
    name: &str,
    mode: u32,
    content: &[u8],
) -> VertexId {
    let op = Op::File(FileOp {
        base: None,
        actions: vec![FileAction::Mkfile {
            path: format!("/{name}"),
            mode,
            data: content.to_vec(),
        }],
    });
    let shown = Presentation {
        name: "[internal] preparing inline document".to_owned(),
        ..Presentation::default()
    };
    emitter.builder.add(op, Vec::new(), shown)
}

/// Whether a line is `<<WORD` and nothing else.
fn is_only_heredoc(line: &str) -> bool {
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(word) = digits.strip_prefix("<<") else {
        return false;
    };
    let word = word.strip_prefix('-').unwrap_or(word);
    !word.contains('<')
        && crate::expand::Lexer::new('\\')
            .for_display()
            .expand_words(word.trim_start(), &Scope::default())
            .is_ok_and(|expanded| expanded.words.len() == 1)
}

/// The line with the bodies behind it, as a shell reads it: with the tabs that `<<-` will strip.
fn reassemble(emitter: &Emitter<'_>, step: Step<'_>, line: &str, heredocs: &[Heredoc]) -> String {
    let source = step
        .command
        .trigger
        .as_deref()
        .unwrap_or_else(|| emitter.source.text());
    let mut text = line.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(heredoc.raw(source));
        text.push_str(&heredoc.name);
    }
    text
}

/// The first line of a script, with dots if there are more.
fn summarise(script: &str) -> String {
    let mut lines = script.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() {
        return format!("{first}...");
    }
    first.to_owned()
}

/// `created_by`: the declared ARGs with their present values, then the command.
fn history(state: &StageState, args: &[String]) -> String {
    let declared = state.args.names();
    let mut words = vec!["RUN".to_owned()];
    if !declared.is_empty() {
        words.push(format!("|{}", declared.len()));
        words.extend(declared.iter().map(|name| {
            let value = state.scope.value(name);
            format!("{name}={}", value.unwrap_or(state.args.value(name)))
        }));
    }
    words.extend_from_slice(args);
    format!("{} # buildkit", words.join(" "))
}

/// The variables of the step; the first ssh mount is named in SSH_AUTH_SOCK unless that is set.
fn environment(scope: &Scope, mounts: &[ExecMount]) -> Vec<(String, String)> {
    const SOCKET: &str = "SSH_AUTH_SOCK";
    let entries = scope.entries();
    let mut env: Vec<_> = entries
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let is_ssh = |mount: &&ExecMount| matches!(mount.kind, MountKind::Ssh { .. });
    if let Some(mount) = mounts.iter().find(is_ssh)
        && scope.value(SOCKET).is_none()
    {
        env.push((SOCKET.to_owned(), mount.target.clone()));
    }
    env
}

/// Variables that a secret will be in are shown as stars.
fn mask_secrets<'s>(scope: &'s Scope, mounts: &[ExecMount]) -> Cow<'s, Scope> {
    let mut masked = Cow::Borrowed(scope);
    for mount in mounts {
        if let MountKind::Secret { env: Some(env), .. } = &mount.kind {
            masked.to_mut().set(env, "****");
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_heredoc_is_the_script() {
        for (line, want) in [
            ("<<EOF", true),
            ("<< EOF", true),
            ("<<-'EOF'", true),
            ("3<<EOF", true),
            ("<<EOF cat", false),
            ("cat <<EOF", false),
            ("<<A <<B", false),
            ("<<", false),
        ] {
            assert_eq!(is_only_heredoc(line), want, "{line}");
        }
    }

    #[test]
    fn scripts_are_summarised_by_their_first_line() {
        assert_eq!(summarise("\necho a\necho b\n"), "echo a...");
        assert_eq!(summarise("echo a\n"), "echo a");
        assert_eq!(summarise(""), "");
    }

    #[test]
    fn history_lists_args_once_with_present_values() {
        let mut state = StageState::default();
        for (name, value) in [("Z", "1"), ("A", "2"), ("Z", "3"), ("N", "")] {
            state.args.declare(name, value.to_owned());
        }
        state.scope.set("Z", "3");
        state.scope.set("A", "env");
        assert_eq!(
            history(&state, &["/bin/sh".into(), "-c".into(), "true".into()]),
            "RUN |3 Z=3 A=env N= /bin/sh -c true # buildkit"
        );
    }
}
