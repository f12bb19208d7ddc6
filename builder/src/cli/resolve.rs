//! From what was typed to what is meant: [`BuildArgs`] to [`BuildRequest`].
//!
//! The only part of a build that reads the environment and standard input. Flags that ask for what is not built are
//! refused here; flags that Docker accepts and that change nothing are passed over.

use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use frontend::graph::NetworkMode;
use frontend::lower::{NoCache, Strictness};

use super::args::truth;
use super::build_args::{BuildArgs, OutputArgs, RunArgs, UnusedArgs};
use super::environment::Environment;
use super::explain::ExplainForm;
use super::request::{
    BuildRequest, Execution, Isolation, Network, Options, Output, Presentation, Registries,
    RunOptions, SshSource,
};
use super::{call, credentials, input, limits, maintenance, values};
use crate::outcome::{Failure, FailureKind};
use crate::progress::display::Mode;

/// Commands that run at once if nothing is said.
const DEFAULT_JOBS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The process's surroundings.
#[derive(Clone, Debug)]
pub struct Host {
    /// The environment.
    pub environment: Environment,
    /// The working directory.
    pub cwd: PathBuf,
    /// Whether the effective user is root.
    pub is_root: bool,
    /// Whether standard error is a terminal.
    pub has_terminal: bool,
}

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

/// Resolves the arguments of `build`.
///
/// # Errors
///
/// Of kind `Usage` for what was typed, `Dockerfile` if that can't be read, `Environment` if there is no state directory.
pub(super) fn resolve(
    args: &BuildArgs,
    host: &Host,
    stdin: Box<dyn Read + Send>,
) -> Result<(BuildRequest, Presentation), Failure> {
    let environment = &host.environment;
    let presentation = presentation(args, host)?;
    let request = BuildRequest {
        state_root: state_root(environment, host.is_root)?,
        secrets: credentials::secrets(&args.input.secret, &host.cwd, environment)?,
        ssh: ssh(args, host)?,
        options: options(args, environment)?,
        output: output(&args.output),
        execution: execution(&args.run, &args.unused, environment)?,
        registries: Registries {
            pull: values::pull(&args.input.pull)?,
            network: match args.input.offline.0 {
                true => Network::Offline,
                false => Network::Online,
            },
            environment: environment.clone(),
        },
        input: input::resolve(&args.input, &host.cwd, stdin)?,
    };
    Ok((request, presentation))
}

/// `--ssh`; a context that is fetched over ssh has the user's agent without it, as with buildx.
fn ssh(args: &BuildArgs, host: &Host) -> Result<BTreeMap<String, SshSource>, Failure> {
    let mut all = credentials::ssh(&args.input.ssh, &host.cwd, &host.environment)?;
    let context = &args.input.context;
    let is_ssh = context.starts_with("ssh://") || context.starts_with("git@");
    if is_ssh && let Some(agent) = host.environment.path("SSH_AUTH_SOCK") {
        let default = "default".to_owned();
        all.entry(default).or_insert(SshSource::Agent(agent));
    }
    Ok(all)
}

pub(super) fn refuse_unsupported(args: &BuildArgs) -> Result<(), Failure> {
    let is_off = |spec: &Option<String>| {
        spec.as_deref()
            .is_none_or(|spec| matches!(spec, "false" | "0" | "disabled=true"))
    };
    let is_disabled = |spec: &String| spec.split(',').any(|field| field == "disabled=true");
    let wanted = [
        (!args.input.policy.is_empty(), "--policy".to_owned()),
        (!is_off(&args.output.provenance), "--provenance".to_owned()),
        (!is_off(&args.output.sbom), "--sbom".to_owned()),
        (
            !args.output.attest.iter().all(is_disabled),
            "--attest".to_owned(),
        ),
        (
            args.unused.iidfile_raw.is_some(),
            "--iidfile-raw".to_owned(),
        ),
    ];
    match wanted.into_iter().find(|(is_wanted, _)| *is_wanted) {
        Some((_, flag)) => Err(Failure::not_supported(flag)),
        None => Ok(()),
    }
}

/// What was typed and does nothing, one line each.
fn warnings(args: &BuildArgs) -> Vec<String> {
    let unused = &args.unused;
    let ignored = [
        (
            !args.cache.cache_from.is_empty(),
            "cache-from",
            "importing cache is not supported yet",
        ),
        (
            !args.cache.cache_to.is_empty(),
            "cache-to",
            "exporting cache is not supported yet",
        ),
        (
            unused.squash.0,
            "squash",
            "squash inside the build with a multi-stage Dockerfile",
        ),
        (
            !unused.security_opt.is_empty(),
            "security-opt",
            "use `RUN --security=insecure`",
        ),
    ];
    ignored
        .into_iter()
        .filter(|(is_given, _, _)| *is_given)
        .map(|(_, flag, why)| format!("--{flag} is ignored: {why}"))
        .collect()
}

fn presentation(args: &BuildArgs, host: &Host) -> Result<Presentation, Failure> {
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(|path| host.cwd.join(path));
    Ok(Presentation {
        call: call::resolve(&args.progress)?,
        mode: mode(
            args.progress.progress.as_deref(),
            args.progress.quiet.0,
            host,
        )?,
        is_quiet: args.progress.quiet.0,
        is_debug: args.progress.debug.0,
        explain: args
            .progress
            .explain
            .as_deref()
            .map(ExplainForm::parse)
            .transpose()?,
        iidfile: absolute(&args.output.iidfile),
        metadata_file: absolute(&args.output.metadata_file),
        warnings: warnings(args),
    })
}

pub(super) fn mode(typed: Option<&str>, is_quiet: bool, host: &Host) -> Result<Mode, Failure> {
    let typed = typed.filter(|mode| !mode.is_empty());
    if is_quiet {
        return match typed {
            None | Some("auto" | "quiet" | "none") => Ok(Mode::Quiet),
            Some(mode) => Err(usage(format!(
                "progress={mode} and quiet cannot be used together"
            ))),
        };
    }
    let given = host.environment.non_empty("BUILDKIT_PROGRESS");
    match typed.or(given.as_deref()).unwrap_or("auto") {
        "auto" if host.has_terminal && host.environment.text("TERM").as_deref() != Some("dumb") => {
            Ok(Mode::Tty)
        }
        "auto" | "plain" => Ok(Mode::Plain),
        "tty" if host.has_terminal => Ok(Mode::Tty),
        "tty" => Err(usage(
            "progress=tty needs a terminal on standard error".to_owned(),
        )),
        "rawjson" => Ok(Mode::RawJson),
        "quiet" | "none" => Ok(Mode::Quiet),
        other => Err(usage(format!("invalid progress mode {other}"))),
    }
}

fn options(args: &BuildArgs, environment: &Environment) -> Result<Options, Failure> {
    let mut build_args = pairs("build-arg", &args.input.build_arg, |name| {
        environment.text(name)
    })?;
    if let Some(epoch) = environment.non_empty("SOURCE_DATE_EPOCH") {
        build_args
            .entry("SOURCE_DATE_EPOCH".to_owned())
            .or_insert(epoch);
    }
    let filter = &args.cache.no_cache_filter;
    let no_cache = match (args.cache.no_cache.0, filter.is_empty()) {
        (true, false) => {
            return Err(usage(
                "cannot specify both --no-cache and --no-cache-filter".to_owned(),
            ));
        }
        (true, true) => NoCache::Always,
        (false, true) => NoCache::Never,
        (false, false) => NoCache::Stages(filter.iter().cloned().collect()),
    };
    Ok(Options {
        target: args.input.target.clone().filter(|name| !name.is_empty()),
        build_args,
        labels: pairs("label", &args.output.label, |_| Some(String::new()))?,
        platform: platform(&args.input.platform, environment)?,
        no_cache,
        run: run_options(&args.run)?,
    })
}

/// Reads `NAME[=VALUE]`; a bare name has the value that `bare` gives, or is left out.
fn pairs(
    flag: &str,
    texts: &[String],
    bare: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), bare(text)),
        };
        if name.is_empty() {
            return Err(usage(format!(
                "invalid key-value pair \"{text}\" for --{flag}: empty key"
            )));
        }
        if let Some(value) = value {
            pairs.insert(name.to_owned(), value);
        }
    }
    Ok(pairs)
}

fn platform(typed: &[String], environment: &Environment) -> Result<Option<String>, Failure> {
    let default = environment.non_empty("DOCKER_DEFAULT_PLATFORM");
    let given = if typed.is_empty() {
        default.as_slice()
    } else {
        typed
    };
    let mut names = given
        .iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let first = names.next().map(str::to_owned);
    match names.find(|name| Some(*name) != first.as_deref()) {
        Some(_) => Err(Failure::not_supported("--platform with several platforms")),
        None => Ok(first),
    }
}

fn run_options(args: &RunArgs) -> Result<RunOptions, Failure> {
    let network = values::network(args.network.as_deref().unwrap_or_default())?;
    let entitlements = args.allow.iter().map(|text| values::entitlement(text));
    let mut options = RunOptions {
        network,
        extra_hosts: args
            .add_host
            .iter()
            .map(|text| values::extra_host(text))
            .collect::<Result<_, _>>()?,
        shm_size: match args.shm_size.as_deref() {
            None | Some("" | "0") => None,
            Some(text) => Some(values::size("shm-size", text)?),
        },
        ulimits: args
            .ulimit
            .iter()
            .map(|text| values::ulimit(text))
            .collect::<Result<_, _>>()?,
        cgroup_parent: args
            .cgroup_parent
            .clone()
            .filter(|parent| !parent.is_empty()),
        entitlements: entitlements.collect::<Result<_, _>>()?,
    };
    // Who asks for it on the command line allows it, as buildx does.
    if network == Some(NetworkMode::Host) {
        options.entitlements.insert("network.host".to_owned());
    }
    Ok(options)
}

fn output(args: &OutputArgs) -> Output {
    Output {
        tags: args.tag.clone(),
        outputs: args.output.clone(),
        push: args.push.0,
        load: args.load.0,
        annotations: args.annotation.clone(),
    }
}

/// `--isolation`
pub(super) fn isolation(args: &RunArgs) -> Result<Isolation, Failure> {
    match args.isolation.as_deref().unwrap_or_default() {
        "" | "auto" | "default" => Ok(Isolation::Auto),
        "root" => Ok(Isolation::Root),
        "userns" => Ok(Isolation::UserNamespace),
        other => Err(usage(format!(
            "invalid isolation `{other}`: use auto, root or userns"
        ))),
    }
}

fn execution(
    args: &RunArgs,
    unused: &UnusedArgs,
    environment: &Environment,
) -> Result<Execution, Failure> {
    Ok(Execution {
        jobs: args.jobs.unwrap_or(DEFAULT_JOBS),
        isolation: isolation(args)?,
        strictness: strictness(args, environment)?,
        resources: limits::resources(args, unused)?,
        cap: maintenance::cap(environment)?,
    })
}

fn strictness(args: &RunArgs, environment: &Environment) -> Result<Strictness, Failure> {
    let is_strict = match (args.strict, environment.non_empty("BUILD_STRICT")) {
        (Some(flag), _) => flag,
        (None, None) => false,
        (None, Some(text)) => {
            truth(&text).map_err(|why| usage(format!("invalid BUILD_STRICT `{text}`: {why}")))?
        }
    };
    Ok(if is_strict {
        Strictness::Strict
    } else {
        Strictness::Lenient
    })
}

/// The state directory: `BUILD_ROOT`, else `/var/lib/build` for root, else `build` in the user's data directory.
pub(super) fn state_root(environment: &Environment, is_root: bool) -> Result<PathBuf, Failure> {
    if let Some(root) = environment.path("BUILD_ROOT") {
        return match root.is_absolute() {
            true => Ok(root),
            false => Err(Failure::new(
                FailureKind::Environment,
                format!("BUILD_ROOT `{}` is not an absolute path", root.display()),
            )),
        };
    }
    if is_root {
        return Ok(PathBuf::from("/var/lib/build"));
    }
    // The base directory specification: relative paths are to be ignored.
    let data = environment
        .path("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| Some(environment.path("HOME")?.join(".local/share")));
    data.filter(|path| path.is_absolute())
        .map(|path| path.join("build"))
        .ok_or_else(|| {
            let message = "no place for the state directory: HOME is not set";
            Failure::new(FailureKind::Environment, message).hint("set BUILD_ROOT to a directory")
        })
}

/// Where `install` puts the program if nothing is said.
pub(super) fn install_dir(host: &Host, typed: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = typed {
        return Ok(host.cwd.join(dir));
    }
    if host.is_root {
        return Ok(PathBuf::from("/usr/local/bin"));
    }
    let home = host.environment.path("HOME").ok_or_else(|| {
        let message = "no place to install to: HOME is not set";
        Failure::new(FailureKind::Environment, message).hint("name a directory")
    })?;
    Ok(home.join(".local/bin"))
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
