//! `--secret` and `--ssh`: where what must stay secret is found (buildx `util/buildflags/{secrets,ssh}.go`).

use std::collections::BTreeMap;
use std::path::Path;

use super::args::Switch;
use super::environment::Environment;
use super::request::{SecretSource, SshSource};
use super::values::{csv, csv_pairs};
use crate::outcome::{Failure, FailureKind};

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
    let path = match places.as_slice() {
        [] if is_raw => {
            return Err(usage(format!(
                "raw ssh socket `{spec}` needs a path: ID=PATH,raw=true"
            )));
        }
        [] => environment.path("SSH_AUTH_SOCK").ok_or_else(|| {
            usage("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set".to_owned())
        })?,
        [one] => cwd.join(one),
        _several if is_raw => {
            return Err(usage(format!(
                "raw ssh socket `{spec}` must have a single path"
            )));
        }
        [first, ..] => return Err(keys_unsupported(&cwd.join(first))),
    };
    check_socket(&path)?;
    let id = if id.is_empty() { "default" } else { id };
    let source = if is_raw {
        SshSource::Raw(path)
    } else {
        SshSource::Agent(path)
    };
    Ok((id.to_owned(), source))
}

/// A socket, or why not.
fn check_socket(path: &Path) -> Result<(), Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        usage(format!(
            "cannot use `{}` for --ssh: {error}",
            path.display()
        ))
    })?;
    if std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) {
        Ok(())
    } else {
        Err(keys_unsupported(path))
    }
}

fn keys_unsupported(path: &Path) -> Failure {
    let shown = path.display();
    Failure::not_supported(format!("--ssh with a key file (`{shown}`)")).hint(format!(
        "start an agent with `eval $(ssh-agent)`, add the key with `ssh-add {shown}` and use --ssh default"
    ))
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
        std::fs::write(cwd.join("key"), "").unwrap();
        let name = socket.display().to_string();
        let environment: Environment = [("SSH_AUTH_SOCK", name.as_str())].into_iter().collect();
        let agent = SshSource::Agent(socket.clone());
        let raw = SshSource::Raw(socket);
        let key = cwd.join("key").display().to_string();
        let unsupported = format!("not supported yet: --ssh with a key file (`{key}`)");
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
            ("x=key", Err(unsupported.as_str())),
            ("x=key,other", Err(unsupported.as_str())),
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
