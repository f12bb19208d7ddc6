//! What `git` and the programs below it are told: configuration, environment, credentials.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{MemfdFlags, memfd_create};

use super::GitError;
use crate::op::error::StepError;
use crate::op::steps::Secrets;

/// What `git` takes from the user's surroundings.
#[derive(Clone, Debug, Default)]
pub struct GitSettings {
    /// `PATH`
    pub path: OsString,
    /// Proxy variables, by name.
    pub proxies: Vec<(String, OsString)>,
    /// Certificate authorities instead of the system's.
    pub authorities: Option<PathBuf>,
    /// The user's own list of ssh servers, beside the system's.
    pub known_hosts: Option<PathBuf>,
    /// How ssh logs in.
    pub ssh: SshAccess,
}

/// How ssh logs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SshAccess {
    /// It does not.
    #[default]
    None,
    /// By an agent's socket, or a key where the file is no socket.
    Path(PathBuf),
    /// By keys.
    Keys(Vec<PathBuf>),
}

/// Holds for every run: no hooks, no helpers, nothing in the background, nothing from the machine.
const FIXED: &str = "\
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tautocrlf = false
\taskPass =
[init]
\ttemplateDir =
\tdefaultBranch = main
[protocol]
\tversion = 2
[credential]
\thelper =
[gc]
\tauto = 0
[maintenance]
\tauto = false
[advice]
\tdetachedHead = false
[safe]
\tdirectory = *
[submodule]
\trecurse = false
[uploadpack]
\tallowAnySHA1InWant = true
[pack]
\tthreads = 1
[http]
\tlowSpeedLimit = 1
\tlowSpeedTime = 60
";

/// A configuration that exists in memory only, because it may have a token in it.
#[derive(Debug)]
pub(super) struct Configuration {
    file: File,
}

impl Configuration {
    /// Writes the configuration for a remote.
    pub(super) fn new(remote: &str, secrets: &dyn Secrets) -> Result<Self, StepError> {
        let mut text = FIXED.to_owned();
        match header(remote, secrets)? {
            None => text.push_str("\tfollowRedirects = initial\n"),
            Some((scope, header)) => {
                // git sends extra headers wherever a redirect leads.
                text.push_str("\tfollowRedirects = false\n");
                text.push_str(&format!(
                    "[http {}]\n\textraHeader = {}\n",
                    quoted(&scope),
                    quoted(&header)
                ));
            }
        }
        let failed = |source: std::io::Error| GitError::io("write", "git's configuration")(source);
        let file = memfd_create("git-config", MemfdFlags::CLOEXEC)
            .map_err(|errno| failed(errno.into()))?;
        let mut file = File::from(file);
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Self { file })
    }

    /// Where `git` finds it, as long as this value lives.
    pub(super) fn path(&self) -> PathBuf {
        let process = rustix::process::getpid().as_raw_nonzero();
        PathBuf::from(format!("/proc/{process}/fd/{}", self.file.as_raw_fd()))
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The header with the credential for a remote, and the addresses that it is for. `GIT_AUTH_HEADER` has the value of the
/// header, `GIT_AUTH_TOKEN` a token; with `.host` behind, for that host only.
fn header(remote: &str, secrets: &dyn Secrets) -> Result<Option<(String, String)>, StepError> {
    let Ok(url) = reqwest::Url::parse(remote) else {
        return Ok(None);
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Ok(None);
    }
    let host = url.host_str().unwrap_or_default();
    let authority = crate::registry::transport::authority(&url);
    let ids = [format!(".{authority}"), format!(".{host}"), String::new()];
    for suffix in ids {
        for (name, is_token) in [("TOKEN", true), ("HEADER", false)] {
            let id = format!("GIT_AUTH_{name}{suffix}");
            let Some(secret) = secrets.secret(&id)? else {
                continue;
            };
            let text = String::from_utf8(secret.trim_ascii().to_vec()).ok();
            let text = text.filter(|text| !text.chars().any(char::is_control));
            let text = text.ok_or(StepError::BadCredential { id })?;
            let value = match is_token {
                true => format!(
                    "basic {}",
                    STANDARD.encode(format!("x-access-token:{text}"))
                ),
                false => text,
            };
            let scope = format!("{}://{authority}/", url.scheme());
            return Ok(Some((scope, format!("Authorization: {value}"))));
        }
    }
    Ok(None)
}

impl GitSettings {
    /// The command by which `git` starts ssh: without configuration files, never asking. A server that nobody knows is
    /// trusted at first sight and remembered in `remembered`.
    pub(super) fn ssh_command(&self, remembered: &std::path::Path) -> String {
        let mut command = String::from(
            "ssh -F none -o BatchMode=yes -o ConnectTimeout=30 -o StrictHostKeyChecking=accept-new",
        );
        let mut known = quoted(&remembered.to_string_lossy());
        if let Some(own) = &self.known_hosts {
            known = format!("{known} {}", quoted(&own.to_string_lossy()));
        }
        command.push_str(&format!(
            " -o {}",
            shell_quoted(&format!("UserKnownHostsFile={known}"))
        ));
        let keys = match &self.ssh {
            SshAccess::None => Vec::new(),
            SshAccess::Path(path) if is_socket(path) => return command,
            SshAccess::Path(path) => vec![path.clone()],
            SshAccess::Keys(keys) => keys.clone(),
        };
        command.push_str(" -o IdentitiesOnly=yes -o IdentityAgent=none");
        if keys.is_empty() {
            command.push_str(" -o IdentityFile=none");
        }
        for key in keys {
            command.push_str(&format!(" -i {}", shell_quoted(&key.to_string_lossy())));
        }
        command
    }

    /// The agent's socket.
    pub(super) fn agent(&self) -> Option<&std::path::Path> {
        match &self.ssh {
            SshAccess::Path(path) if is_socket(path) => Some(path),
            SshAccess::Path(_) | SshAccess::None | SshAccess::Keys(_) => None,
        }
    }
}

fn is_socket(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Given(BTreeMap<&'static str, &'static str>);

    impl Secrets for Given {
        fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, StepError> {
            Ok(self.0.get(id).map(|value| value.as_bytes().to_vec()))
        }
    }

    #[test]
    fn a_credential_is_for_its_host_alone() {
        let all = Given(BTreeMap::from([
            ("GIT_AUTH_TOKEN", "t\n"),
            ("GIT_AUTH_TOKEN.other", "o"),
            ("GIT_AUTH_HEADER.h:81", "bearer x"),
        ]));
        let token = "Authorization: basic eC1hY2Nlc3MtdG9rZW46dA==";
        for (remote, want) in [
            ("https://h/r.git", Some(("https://h/", token))),
            (
                "http://h:81/r.git",
                Some(("http://h:81/", "Authorization: bearer x")),
            ),
            (
                "https://other/r",
                Some((
                    "https://other/",
                    "Authorization: basic eC1hY2Nlc3MtdG9rZW46bw==",
                )),
            ),
            ("git://h/r", None),
            ("git@h:r", None),
        ] {
            let got = header(remote, &all).unwrap();
            let got = got
                .as_ref()
                .map(|(scope, value)| (scope.as_str(), value.as_str()));
            assert_eq!(got, want, "{remote}");
        }
        let bad = Given(BTreeMap::from([("GIT_AUTH_HEADER", "a\nb: c")]));
        let error = header("https://h/r", &bad).unwrap_err().to_string();
        assert!(error.contains("GIT_AUTH_HEADER cannot be sent"), "{error}");
    }

    #[test]
    fn ssh_reads_no_configuration_and_asks_nobody() {
        let settings = GitSettings {
            ssh: SshAccess::Keys(vec!["/k'1".into()]),
            ..GitSettings::default()
        };
        let command = settings.ssh_command(std::path::Path::new("/s/known"));
        assert_eq!(
            command,
            "ssh -F none -o BatchMode=yes -o ConnectTimeout=30 -o StrictHostKeyChecking=accept-new \
             -o 'UserKnownHostsFile=\"/s/known\"' -o IdentitiesOnly=yes -o IdentityAgent=none -i '/k'\\''1'"
        );
    }
}
