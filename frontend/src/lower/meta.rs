//! Instructions that change the image's config, and WORKDIR, which also makes its directory.

use crate::ast::{CommandLine, Healthcheck};
use crate::config::{Empty, HealthConfig};
use crate::gofmt::{duration, plain_list, quote_list};
use crate::graph::{FileAction, FileOp, InputIndex, Op};
use crate::source::Spanned;

use super::copy::parse_owner;
use super::emit::{Emitter, Step};
use super::error::InstructionError;
use super::expose::parse_ports;
use super::signal::is_signal;
use super::state::StageState;

/// What an exposed port takes, about.
const PORT_BYTES: usize = 64;

/// The shell unless SHELL says otherwise.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A command line as it is run and stored.
pub(super) fn with_shell(state: &StageState, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(args) => args.clone(),
        CommandLine::Shell(text) => shell_words(state, text),
    }
}

/// The shell and a script.
pub(super) fn shell_words(state: &StageState, script: &str) -> Vec<String> {
    let mut words = match &state.image.config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        Some(_) | None => DEFAULT_SHELL.map(str::to_owned).to_vec(),
    };
    words.push(script.to_owned());
    words
}

/// WORKDIR: relative ones add up. The directory is a layer of its own, owned by USER, unless it is `/`. An empty one
/// keeps the directory but makes the layer.
pub(super) fn workdir(
    emitter: &mut Emitter<'_>,
    state: &mut StageState,
    step: Step<'_>,
    path: &str,
) -> Result<(), InstructionError> {
    let path = emitter.expand(state, path)?;
    let directory = state.resolve_directory(&path);
    let created_by = format!("WORKDIR {directory}");
    state.image.config.working_dir.clone_from(&directory);
    if directory == "/" {
        state.record(created_by);
        return Ok(());
    }
    let owner = Some(&state.image.config.user).filter(|user| !user.is_empty());
    let op = Op::File(FileOp {
        base: state.root.map(|_| InputIndex(0)),
        actions: vec![FileAction::Mkdir {
            path: directory,
            mode: 0o755,
            owner: owner.map(|user| parse_owner(user)),
        }],
    });
    state.steps.advance();
    let mut shown = emitter.present(state, step, &emitter.shown(state, step));
    // `--no-cache` is about RUN, COPY and ADD.
    shown.ignores_cache = false;
    let vertex = emitter
        .builder
        .add(op, state.root.into_iter().collect(), shown);
    state.record_layer(created_by, vertex);
    Ok(())
}

/// USER: kept as written; whether it exists is found out by the step that runs under it.
pub(super) fn user(
    emitter: &Emitter<'_>,
    state: &mut StageState,
    user: &str,
) -> Result<(), InstructionError> {
    let user = emitter.expand(state, user)?;
    state.record(format!("USER {user}"));
    state.image.config.user = user;
    Ok(())
}

/// EXPOSE: the words are sorted as written, then expanded and split at blanks.
pub(super) fn expose(
    emitter: &Emitter<'_>,
    state: &mut StageState,
    words: &[Spanned<String>],
) -> Result<(), InstructionError> {
    let mut written: Vec<&str> = words.iter().map(|word| word.value.as_str()).collect();
    written.sort_unstable();
    let mut ports = Vec::new();
    for word in written {
        for port in emitter.lexer.expand_words(word, &state.scope)?.words {
            ports.extend(parse_ports(&port)?);
            state.scope.charge(ports.len() * PORT_BYTES);
            state.scope.check_allowance()?;
        }
    }
    let exposed = state.image.config.exposed_ports.get_or_insert_default();
    exposed.extend(ports.iter().map(|port| (port.clone(), Empty {})));
    state.record(format!("EXPOSE {}", plain_list(&ports)));
    Ok(())
}

/// VOLUME: config only.
pub(super) fn volume(
    emitter: &Emitter<'_>,
    state: &mut StageState,
    words: &[Spanned<String>],
) -> Result<(), InstructionError> {
    let volumes = words
        .iter()
        .map(|word| emitter.expand(state, &word.value))
        .collect::<Result<Vec<String>, _>>()?;
    if volumes.iter().any(String::is_empty) {
        return Err(InstructionError::EmptyVolume);
    }
    let known = state.image.config.volumes.get_or_insert_default();
    known.extend(volumes.iter().map(|volume| (volume.clone(), Empty {})));
    state.record(format!("VOLUME {}", plain_list(&volumes)));
    Ok(())
}

/// STOPSIGNAL: checked, kept as written.
pub(super) fn stopsignal(
    emitter: &Emitter<'_>,
    state: &mut StageState,
    signal: &str,
) -> Result<(), InstructionError> {
    let signal = emitter.expand(state, signal)?;
    if !is_signal(&signal) {
        return Err(InstructionError::InvalidSignal(signal));
    }
    state.record(format!("STOPSIGNAL {signal}"));
    state.image.config.stop_signal = signal;
    Ok(())
}

/// CMD: any CMD sets `ArgsEscaped`, for good.
pub(super) fn cmd(state: &mut StageState, command: &CommandLine) {
    let words = with_shell(state, command);
    state.record(format!("CMD {}", quote_list(&words)));
    state.image.config.cmd = Some(words);
    state.image.config.args_escaped = true;
    state.has_own_cmd = true;
}

/// ENTRYPOINT: drops a CMD that came with the base.
pub(super) fn entrypoint(state: &mut StageState, command: &CommandLine) {
    let words = with_shell(state, command);
    state.record(format!("ENTRYPOINT {}", quote_list(&words)));
    state.image.config.entrypoint = Some(words);
    if !state.has_own_cmd {
        state.image.config.cmd = None;
    }
}

/// SHELL: for the shell forms after it.
pub(super) fn shell(state: &mut StageState, shell: &[String]) {
    state.record(format!("SHELL {}", plain_list(shell)));
    state.image.config.shell = Some(shell.to_vec());
}

/// MAINTAINER: the author.
pub(super) fn maintainer(state: &mut StageState, author: &str) {
    state.record(format!("MAINTAINER {author}"));
    state.image.author = Some(author.to_owned());
}

/// HEALTHCHECK
pub(super) fn healthcheck(state: &mut StageState, check: &Healthcheck) {
    let health = match check {
        Healthcheck::None => HealthConfig {
            test: vec!["NONE".to_owned()],
            ..HealthConfig::default()
        },
        Healthcheck::Cmd {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => {
            let mut test = vec![];
            match command {
                CommandLine::Shell(text) => test.extend(["CMD-SHELL".to_owned(), text.clone()]),
                CommandLine::Exec(args) => {
                    test.push("CMD".to_owned());
                    test.extend_from_slice(args);
                }
            }
            HealthConfig {
                test,
                interval: *interval,
                timeout: *timeout,
                start_period: *start_period,
                start_interval: *start_interval,
                retries: i64::from(*retries),
            }
        }
    };
    state.record(format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&health.test),
        duration(health.interval),
        duration(health.timeout),
        duration(health.start_period),
        duration(health.start_interval),
        health.retries
    ));
    state.image.config.healthcheck = Some(health);
}
