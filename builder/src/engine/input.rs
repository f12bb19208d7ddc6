//! What a build reads of the client: ignore files, directories, secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use frontend::ast::InstructionKind;
use frontend::ignore::IgnoreRules;
use frontend::source::SourceFile;

use crate::cli::request::{BuildRequest, NamedSource, SecretSource, SshSource};
use crate::op::agent::{Agent, Agents};
use crate::op::error::StepError;
use crate::op::git::{GitSettings, SshAccess};
use crate::op::local::LocalSource;
use crate::op::remote::Reach;
use crate::op::steps::Secrets;
use crate::outcome::{Failure, FailureKind};
use crate::registry::client::Client;

/// The largest secret (BuildKit's `session/secrets`).
const MAX_SECRET: usize = 500 * 1024;

/// An ignore file, if there is one: its name and its rules.
pub(super) type Ignore = Option<(String, IgnoreRules)>;

/// The rules of the first ignore file that exists, with its name.
pub(super) fn ignore_rules(request: &BuildRequest) -> Result<Ignore, Failure> {
    for path in &request.input.ignore_files {
        if let Some(rules) = read_rules(path)? {
            return Ok(Some(rules));
        }
    }
    Ok(None)
}

fn read_rules(path: &Path) -> Result<Option<(String, IgnoreRules)>, Failure> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let message = format!("cannot read `{}`: {error}", path.display());
            return Err(Failure::new(FailureKind::Environment, message));
        }
    };
    let rules = IgnoreRules::parse(&String::from_utf8_lossy(&bytes))
        .map_err(|error| Failure::new(FailureKind::Dockerfile, crate::text::chain(&error)))?;
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    Ok(Some((name.unwrap_or_default(), rules)))
}

/// The build context and the named contexts that are directories; each of those has its own `.dockerignore`.
pub(super) fn local_sources(
    request: &BuildRequest,
    context: LocalSource,
) -> Result<BTreeMap<String, LocalSource>, Failure> {
    let mut sources = BTreeMap::new();
    sources.insert("context".to_owned(), context);
    for (name, source) in &request.input.named_contexts {
        match source {
            NamedSource::Directory(path) => {
                let ignore = read_rules(&path.join(".dockerignore"))?;
                let path = path.clone();
                sources.insert(name.clone(), LocalSource::Directory { path, ignore });
            }
            NamedSource::Image(_)
            | NamedSource::OciLayout { .. }
            | NamedSource::Git(_)
            | NamedSource::Http(_) => {}
        }
    }
    Ok(sources)
}

/// How other machines are reached.
pub(super) fn reach(request: &BuildRequest, client: &Client) -> Reach {
    let environment = &request.registries.environment;
    let proxies = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];
    let names = proxies
        .iter()
        .flat_map(|name| [(*name).to_owned(), name.to_uppercase()]);
    let proxies = names.filter_map(|name| {
        let value = environment.value(&name)?.to_owned();
        Some((name, value))
    });
    let home = environment.path("HOME");
    Reach {
        client: client.clone(),
        handle: tokio::runtime::Handle::current(),
        git: GitSettings {
            path: environment.value("PATH").unwrap_or_default().to_owned(),
            proxies: proxies.collect(),
            authorities: environment.path("SSL_CERT_FILE"),
            known_hosts: home.map(|home| home.join(".ssh/known_hosts")),
            ssh: match request.ssh.get("default") {
                // A raw socket may be any server's.
                None | Some(SshSource::Raw(_)) => SshAccess::None,
                Some(SshSource::Agent(path)) => SshAccess::Path(path.clone()),
                Some(SshSource::Keys(files)) => SshAccess::Keys(files.clone()),
            },
        },
    }
}

/// Tells the Dockerfiles of a store apart: where the context is and what the file is called.
pub(super) fn dockerfile_identity(request: &BuildRequest, dockerfile: &SourceFile) -> String {
    format!("{}\n{}", request.input.context.shown(), dockerfile.name())
}

/// The names that the Dockerfile declares by ARG; none if it cannot be read, which its lowering tells.
pub(super) fn declared_args(dockerfile: &SourceFile) -> BTreeSet<String> {
    let Ok(parsed) = frontend::parse::parse(dockerfile) else {
        return BTreeSet::new();
    };
    let mut names = BTreeSet::new();
    for instruction in &parsed.instructions {
        if let InstructionKind::Arg(declared) = &instruction.kind {
            names.extend(declared.iter().map(|arg| arg.name.value.clone()));
        }
    }
    names
}

/// The secrets of a request. Files are read when a step asks.
pub(super) struct RequestSecrets {
    sources: BTreeMap<String, SecretSource>,
}

impl RequestSecrets {
    /// Takes those of a request.
    pub(super) fn new(request: &BuildRequest) -> Self {
        Self {
            sources: request.secrets.clone(),
        }
    }
}

/// The ssh agents and sockets of a request.
pub(super) struct RequestAgents {
    sources: BTreeMap<String, SshSource>,
}

impl RequestAgents {
    /// Takes those of a request.
    pub(super) fn new(request: &BuildRequest) -> Self {
        Self {
            sources: request.ssh.clone(),
        }
    }
}

impl Agents for RequestAgents {
    fn agent(&self, id: &str) -> Option<Agent> {
        self.sources.get(id).map(|source| match source {
            SshSource::Agent(path) => Agent::Ssh(path.clone()),
            SshSource::Raw(path) => Agent::Raw(path.clone()),
            SshSource::Keys(files) => Agent::Keys(files.clone()),
        })
    }
}

fn too_large(id: &str, path: PathBuf) -> StepError {
    let message = format!("secret {id} is larger than {MAX_SECRET} bytes");
    StepError::Io {
        attempt: "take the secret from",
        path,
        source: io::Error::new(io::ErrorKind::FileTooLarge, message),
    }
}

impl Secrets for RequestSecrets {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, StepError> {
        let (value, path) = match self.sources.get(id) {
            None => return Ok(None),
            Some(SecretSource::Value(value)) => (value.clone(), PathBuf::new()),
            Some(SecretSource::File(path)) => {
                let value = std::fs::read(path).map_err(|source| StepError::Io {
                    attempt: "read the secret",
                    path: path.clone(),
                    source,
                })?;
                (value, path.clone())
            }
        };
        if value.len() > MAX_SECRET {
            return Err(too_large(id, path));
        }
        Ok(Some(value))
    }
}
