//! `--secret` and `--ssh`: where what must stay secret is found (buildx `util/buildflags/{secrets,ssh}.go`).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::args::Switch;
use super::environment::Environment;
use super::request::{SecretSource, SshSource};
use super::values::{csv, csv_pairs};
use crate::outcome::{Failure, FailureKind};
use crate::ssh_key::{self, MOST_BYTES, Unusable};

/// Largest secret: buildx's limit.
const SECRET_LIMIT_BYTES: u64 = 500 * 1024;

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

/// Reads all `--secret`; of two with one id the later counts.
pub(super) fn secrets(
    specs: &[String],
    cwd: &Path,
    environment: &Environment,
) -> Result<BTreeMap<String, SecretSource>, Failure> {
    specs
        .iter()
        .map(|spec| secret(spec, cwd, environment))
        .collect()
}

fn secret(
    spec: &str,
    cwd: &Path,
    environment: &Environment,
) -> Result<(String, SecretSource), Failure> {
    let (mut id, mut file, mut variable) = (None, None, None);
    let mut is_variable = false;
    for (key, value) in csv_pairs(spec)? {
        match key.as_str() {
            "id" => id = Some(value),
            "source" | "src" => file = Some(value),
            "env" => variable = Some(value),
            "type" if value == "env" => is_variable = true,
            "type" if value == "file" => is_variable = false,
            "type" => return Err(usage(format!("unsupported secret type \"{value}\""))),
            _ => return Err(usage(format!("unexpected key '{key}' in '{key}={value}'"))),
        }
    }
    if is_variable && variable.is_none() {
        variable = file.take();
    }
    let id = id
        .or_else(|| variable.clone())
        .or_else(|| file.clone())
        .filter(|id| !id.is_empty())
        .ok_or_else(|| usage(format!("secret `{spec}` has no id")))?;
    // With neither: the variable of that name, else the file of that name.
    if variable.is_none() && file.is_none() && environment.value(&id).is_some() {
        variable = Some(id.clone());
    }
    if let Some(variable) = variable {
        let value = environment.value(&variable).ok_or_else(|| {
            usage(format!(
                "secret `{id}`: environment variable `{variable}` is not set"
            ))
        })?;
        let value = std::os::unix::ffi::OsStrExt::as_bytes(value).to_vec();
        return Ok((id, SecretSource::Value(value)));
    }
    let path = cwd.join(file.unwrap_or_else(|| id.clone()));
    let metadata = std::fs::metadata(&path).map_err(|error| {
        usage(format!(
            "secret `{id}`: cannot read `{}`: {error}",
            path.display()
        ))
    })?;
    if metadata.len() > SECRET_LIMIT_BYTES {
        return Err(usage(format!("secret `{id}` is too big: at most 500 KiB")));
    }
    Ok((id, SecretSource::File(path)))
}

/// Reads all `--ssh`; of two with one id the later counts.
pub(super) fn ssh(
    specs: &[String],
    cwd: &Path,
    environment: &Environment,
) -> Result<BTreeMap<String, SshSource>, Failure> {
    specs
        .iter()
        .map(|spec| one_ssh(spec, cwd, environment))
        .collect()
}

fn one_ssh(
    spec: &str,
    cwd: &Path,
    environment: &Environment,
) -> Result<(String, SshSource), Failure> {
    let (id, fields) = match spec.split_once('=') {
        Some((id, fields)) => (id, csv(fields)?),
        None => (spec, Vec::new()),
    };
    let (mut places, mut is_raw) = (Vec::new(), false);
    for field in fields {
        match field.strip_prefix("raw=") {
            Some(value) => {
                let Switch(value) = value
                    .parse()
                    .map_err(|_neither| usage(format!("invalid value for 'raw': {value}")))?;
                is_raw = value;
            }
            None => places.push(field),
        }
    }
    let id = if id.is_empty() { "default" } else { id };
    let source = match places.as_slice() {
        [] if is_raw => {
            return Err(usage(format!(
                "raw ssh socket `{spec}` needs a path: ID=PATH,raw=true"
            )));
        }
        [_, _, ..] if is_raw => {
            return Err(usage(format!(
                "raw ssh socket `{spec}` must have a single path"
            )));
        }
        [] => {
            let socket = environment.path("SSH_AUTH_SOCK").ok_or_else(|| {
                usage("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set".to_owned())
            })?;
            socket_or_keys(vec![socket])?
        }
        [socket] if is_raw => raw(cwd.join(socket))?,
        several => socket_or_keys(several.iter().map(|place| cwd.join(place)).collect())?,
    };
    Ok((id.to_owned(), source))
}

fn is_socket(path: &Path) -> Result<bool, Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| unusable(path, &error))?;
    Ok(std::os::unix::fs::FileTypeExt::is_socket(
        &metadata.file_type(),
    ))
}

fn raw(path: PathBuf) -> Result<SshSource, Failure> {
    match is_socket(&path)? {
        true => Ok(SshSource::Raw(path)),
        false => Err(unusable(&path, &"it is not a socket")),
    }
}

/// An agent's socket, or else one or more files with keys.
fn socket_or_keys(paths: Vec<PathBuf>) -> Result<SshSource, Failure> {
    for path in &paths {
        match is_socket(path)? {
            false => check_key(path)?,
            true if paths.len() == 1 => return Ok(SshSource::Agent(path.clone())),
            true => return Err(unusable(path, &"only a single socket is allowed")),
        }
    }
    Ok(SshSource::Keys(paths))
}

/// Looks at a key before anything is built with it; what can be read only once (a pipe) is left to whoever uses it.
fn check_key(path: &Path) -> Result<(), Failure> {
    if !path.is_file() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| unusable(path, &error))?;
    let problem = match ssh_key::check(&bytes) {
        _ if bytes.len() as u64 > MOST_BYTES => Unusable::NoKey,
        Err(problem) => problem,
        Ok(()) => return Ok(()),
    };
    let failure = unusable(path, &problem);
    Err(match problem {
        Unusable::NoKey => failure,
        Unusable::Passphrase => failure.hint(format!(
            "start an agent with `eval $(ssh-agent)`, add the key with `ssh-add {}` and use --ssh default",
            path.display()
        )),
    })
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    usage(format!("cannot use `{}` for --ssh: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        [("TOKEN", "t0p")].into_iter().collect()
    }

    #[test]
    fn secrets_come_from_files_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s"), "x").unwrap();
        let file = SecretSource::File(dir.path().join("s"));
        let value = SecretSource::Value(b"t0p".to_vec());
        let cases = [
            ("id=a,src=s", Ok(("a", &file))),
            ("id=a,source=s,type=file", Ok(("a", &file))),
            ("src=s", Ok(("s", &file))),
            ("id=s", Ok(("s", &file))),
            ("id=TOKEN", Ok(("TOKEN", &value))),
            ("id=a,env=TOKEN", Ok(("a", &value))),
            ("type=env,id=a,src=TOKEN", Ok(("a", &value))),
            (
                "id=a,env=UNSET",
                Err("secret `a`: environment variable `UNSET` is not set"),
            ),
            (
                "id=a,colour=red",
                Err("unexpected key 'colour' in 'colour=red'"),
            ),
            ("a", Err("invalid field 'a' must be a key=value pair")),
            ("id=a,type=x", Err("unsupported secret type \"x\"")),
            ("type=file", Err("secret `type=file` has no id")),
        ];
        for (spec, want) in cases {
            let got =
                secret(spec, dir.path(), &environment()).map_err(|failure| failure.to_string());
            let want = want
                .map(|(id, source)| (id.to_owned(), source.clone()))
                .map_err(str::to_owned);
            assert_eq!(got, want, "{spec}");
        }
        assert!(
            secret("id=a,src=nope", dir.path(), &environment())
                .unwrap_err()
                .to_string()
                .contains("nope")
        );
        let big = std::fs::File::create(dir.path().join("big")).unwrap();
        big.set_len(SECRET_LIMIT_BYTES + 1).unwrap();
        assert!(
            secret("id=big", dir.path(), &environment())
                .unwrap_err()
                .to_string()
                .contains("too big")
        );
        assert_eq!(format!("{value:?}"), "Value(…)");
    }

    #[test]
    fn agents_are_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let cwd = dir.path();
        let socket = cwd.join("agent.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let name = socket.display().to_string();
        let environment: Environment = [("SSH_AUTH_SOCK", name.as_str())].into_iter().collect();
        let agent = SshSource::Agent(socket.clone());
        let raw = SshSource::Raw(socket);
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        for name in ["key", "other"] {
            std::fs::write(cwd.join(name), pem).unwrap();
        }
        std::fs::write(cwd.join("text"), "key").unwrap();
        let locked = pem.replace("RSA", "ENCRYPTED");
        std::fs::write(cwd.join("locked"), locked).unwrap();
        let keys = SshSource::Keys(vec![cwd.join("key"), cwd.join("other")]);
        let one_key = SshSource::Keys(vec![cwd.join("key")]);
        let why = |name: &str, why: &str| {
            format!("cannot use `{}` for --ssh: {why}", cwd.join(name).display())
        };
        let no_key = why("text", "it holds no private key");
        let passphrase = why("locked", "the key is protected by a passphrase");
        let two = why("agent.sock", "only a single socket is allowed");
        let no_socket = why("key", "it is not a socket");
        let cases = [
            ("default", Ok(("default", &agent))),
            ("x", Ok(("x", &agent))),
            ("x=agent.sock", Ok(("x", &agent))),
            ("=agent.sock", Ok(("default", &agent))),
            ("x=agent.sock,raw=false", Ok(("x", &agent))),
            ("x=agent.sock,raw=true", Ok(("x", &raw))),
            ("x=raw=1,agent.sock", Ok(("x", &raw))),
            ("x=agent.sock,raw=2", Err("invalid value for 'raw': 2")),
            (
                "x=raw=true",
                Err("raw ssh socket `x=raw=true` needs a path: ID=PATH,raw=true"),
            ),
            (
                "x=a,b,raw=true",
                Err("raw ssh socket `x=a,b,raw=true` must have a single path"),
            ),
            ("x=key", Ok(("x", &one_key))),
            ("x=key,other", Ok(("x", &keys))),
            ("x=key,text", Err(no_key.as_str())),
            ("x=locked", Err(passphrase.as_str())),
            ("x=key,agent.sock", Err(two.as_str())),
            ("x=key,raw=true", Err(no_socket.as_str())),
        ];
        for (spec, want) in cases {
            let got = one_ssh(spec, cwd, &environment).map_err(|failure| failure.to_string());
            let want = want
                .map(|(id, source)| (id.to_owned(), source.clone()))
                .map_err(str::to_owned);
            assert_eq!(got, want, "{spec}");
        }
        let failure = one_ssh("x=nope", cwd, &environment).unwrap_err();
        assert!(
            failure
                .to_string()
                .contains("nope` for --ssh: No such file")
        );
        let failure = one_ssh("default", cwd, &Environment::default()).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set"
        );
    }
}
