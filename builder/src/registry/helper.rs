//! Credential helpers: `docker-credential-NAME get`, the protocol of docker-credential-helpers.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::config::Secret;
use super::credentials::{Credential, CredentialError};

/// How long a helper may take: it may ask a keyring or a cloud, but not hang the build.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a helper says if it has no credentials: an answer, not a failure.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that marks the secret as an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks the helper `name` for the credentials of `server`; `None` if it has none.
///
/// # Errors
///
/// [`CredentialError`] names the helper and shows what it says, never what it answered.
pub(crate) async fn ask(name: &str, server: &str) -> Result<Option<Credential>, CredentialError> {
    let program = format!("docker-credential-{name}");
    match name.is_empty() || name.contains('/') {
        true => Err(CredentialError::HelperName { program }),
        false => run(program, server).await,
    }
}

async fn run(program: String, server: &str) -> Result<Option<Credential>, CredentialError> {
    let failed = |source| CredentialError::HelperStart {
        program: program.clone(),
        source,
    };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CredentialError::HelperMissing {
                program: program.clone(),
            },
            _ => failed(source),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input may still answer.
        stdin.write_all(server.as_bytes()).await.ok();
    }
    let output = match tokio::time::timeout(PATIENCE, child.wait_with_output()).await {
        Ok(output) => output.map_err(failed)?,
        Err(_) => {
            return Err(CredentialError::HelperStalled {
                program,
                after: PATIENCE,
            });
        }
    };
    match output.status.success() {
        true => answered(program, &output.stdout),
        false => refused(program, &output.stdout),
    }
}

/// A failing helper writes its message, and no secret, to standard output.
fn refused(program: String, output: &[u8]) -> Result<Option<Credential>, CredentialError> {
    let text = String::from_utf8_lossy(output);
    let message = text.trim().lines().next().unwrap_or_default().to_owned();
    match message.contains(NOT_FOUND) {
        true => Ok(None),
        false => Err(CredentialError::HelperFailed { program, message }),
    }
}

fn answered(program: String, output: &[u8]) -> Result<Option<Credential>, CredentialError> {
    let parsed = serde_json::from_slice(output).ok();
    let answer: Answer = parsed.ok_or(CredentialError::HelperAnswer { program })?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        (TOKEN_USER, secret) => Some(Credential::IdentityToken(Secret::new(secret))),
        (username, secret) => Some(Credential::Basic {
            username: username.to_owned(),
            password: Secret::new(secret),
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Runs a helper that is a shell script.
    async fn run_script(body: &str) -> Result<Option<Credential>, CredentialError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = path.display().to_string();
        loop {
            match run(program.clone(), "https://index.docker.io/v1/").await {
                // Another test's fork had the script open for writing.
                Err(CredentialError::HelperStart { source, .. })
                    if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
                other => return other,
            }
        }
    }

    #[tokio::test]
    async fn answers() {
        let echo = r#"read -r url; echo "{\"Username\":\"$1 $url\",\"Secret\":\"s\"}""#;
        let found = run_script(echo).await.unwrap();
        let expected = Credential::Basic {
            username: "get https://index.docker.io/v1/".into(),
            password: Secret::new("s"),
        };
        assert_eq!(found, Some(expected));
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        let found = run_script(token).await.unwrap();
        assert_eq!(found, Some(Credential::IdentityToken(Secret::new("t"))));
        let nothing = "echo credentials not found in native keychain; exit 1";
        assert_eq!(run_script(nothing).await.unwrap(), None);
    }

    #[tokio::test]
    async fn failures() {
        let cases = [
            (
                "echo keyring is locked; exit 1",
                "failed: keyring is locked",
            ),
            ("echo not json", "gave an answer that is not understood"),
        ];
        for (body, message) in cases {
            let error = run_script(body).await.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
