//! `--resource`, and the flags of docker's old builder that mean the same.

use super::build_args::{RunArgs, UnusedArgs};
use super::values;
use crate::outcome::{Failure, FailureKind};
use crate::sandbox::spec::Resources;

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

/// Reads the limits on memory and processors. What `--resource` says counts more than the old flags; of two with one name the
/// later counts. Zero is no limit, as with docker.
///
/// # Errors
///
/// Values that are none, unknown names, and a limit on swap that the kernel could not hold.
pub(super) fn resources(run: &RunArgs, old: &UnusedArgs) -> Result<Resources, Failure> {
    let mut resources = Resources::default();
    let old_flags = [
        ("memory", &old.memory),
        ("memory-swap", &old.memory_swap),
        ("cpu-shares", &old.cpu_shares),
        ("cpu-period", &old.cpu_period),
        ("cpu-quota", &old.cpu_quota),
        ("cpuset-cpus", &old.cpuset_cpus),
        ("cpuset-mems", &old.cpuset_mems),
    ];
    for (name, value) in old_flags {
        if let Some(value) = value {
            set(&mut resources, name, value)?;
        }
    }
    for spec in &run.resource {
        for (name, value) in pairs(spec)? {
            set(&mut resources, &name, &value)?;
        }
    }
    check(&resources)?;
    Ok(resources)
}

/// Commas part fields, but also the ranges of a cpuset: a field without `=` belongs to the one before.
fn pairs(spec: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for field in values::csv(spec)? {
        match (field.split_once('='), pairs.last_mut()) {
            (Some((name, value)), _) => {
                pairs.push((name.trim().to_ascii_lowercase(), value.to_owned()));
            }
            (None, Some((name, value))) if name.starts_with("cpuset-") => {
                value.push(',');
                value.push_str(&field);
            }
            (None, _) => {
                return Err(usage(format!(
                    "invalid field '{field}' must be a key=value pair"
                )));
            }
        }
    }
    Ok(pairs)
}

fn set(resources: &mut Resources, name: &str, value: &str) -> Result<(), Failure> {
    match name {
        "memory" => resources.memory = size(name, value)?,
        "memory-swap" => {
            resources.memory_swap = match value {
                "-1" => Some(-1),
                size_text => size(name, size_text)?
                    .map(i64::try_from)
                    .transpose()
                    .map_err(|_too_large| invalid(name, value))?,
            }
        }
        "cpu-shares" => resources.cpu_shares = number(name, value)?,
        "cpu-period" => resources.cpu_period = number(name, value)?,
        "cpu-quota" => {
            resources.cpu_quota = match value {
                "-1" => None,
                text => number(name, text)?
                    .map(i64::try_from)
                    .transpose()
                    .map_err(|_too_large| invalid(name, value))?,
            }
        }
        "cpuset-cpus" => resources.cpuset_cpus = ranges(name, value)?,
        "cpuset-mems" => resources.cpuset_mems = ranges(name, value)?,
        other => {
            return Err(usage(format!(
                "unknown resource \"{other}\": use memory, memory-swap, cpu-shares, cpu-period, cpu-quota, \
                 cpuset-cpus or cpuset-mems"
            )));
        }
    }
    Ok(())
}

fn invalid(name: &str, value: &str) -> Failure {
    usage(format!("invalid value \"{value}\" for resource {name}"))
}

fn size(name: &str, value: &str) -> Result<Option<u64>, Failure> {
    let size = values::size(name, value).map_err(|_not_a_size| invalid(name, value))?;
    Ok(Some(size).filter(|size| *size != 0))
}

fn number(name: &str, value: &str) -> Result<Option<u64>, Failure> {
    let number: u64 = value.parse().map_err(|_nan| invalid(name, value))?;
    Ok(Some(number).filter(|number| *number != 0))
}

/// `0-2,4`
fn ranges(name: &str, value: &str) -> Result<Option<String>, Failure> {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let is_range = |range: &str| match range.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(range),
    };
    match value {
        "" => Ok(None),
        value if value.split(',').all(is_range) => Ok(Some(value.to_owned())),
        value => Err(invalid(name, value)),
    }
}

/// A limit on memory and swap together needs one on memory, and cannot be below it.
fn check(resources: &Resources) -> Result<(), Failure> {
    match (resources.memory, resources.memory_swap) {
        (None, Some(0..)) => Err(usage(
            "a memory-swap limit needs a memory limit as well".to_owned(),
        )),
        (Some(memory), Some(both @ 0..)) if both.unsigned_abs() < memory => Err(usage(
            "the memory-swap limit is memory and swap together: it cannot be below the memory limit"
                .to_owned(),
        )),
        (_, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Verb, parse};

    fn read(flags: &[&str]) -> Result<Resources, String> {
        let words = ["builder", "build"].iter().chain(flags).chain(&["."]);
        let Verb::Build(args) = parse(words.map(std::ffi::OsString::from)).unwrap() else {
            panic!("not a build")
        };
        resources(&args.run, &args.unused).map_err(|failure| failure.to_string())
    }

    #[test]
    fn new_and_old_flags_say_the_same() {
        let want = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            cpu_shares: Some(512),
            cpu_period: Some(50_000),
            cpu_quota: Some(25_000),
            cpuset_cpus: Some("0-1,3".into()),
            cpuset_mems: Some("0".into()),
        };
        let new = [
            "--resource=memory=64m,memory-swap=128m,cpu-shares=512",
            "--resource",
            "cpuset-cpus=0-1,3,cpuset-mems=0,CPU-period=50000",
            "--resource=cpu-quota=25000",
        ];
        assert_eq!(read(&new).unwrap(), want);
        let old = [
            "-m",
            "64m",
            "--memory-swap=128m",
            "-c",
            "512",
            "--cpu-period=50000",
            "--cpu-quota=25000",
            "--cpuset-cpus=0-1,3",
            "--cpuset-mems=0",
        ];
        assert_eq!(read(&old).unwrap(), want);
        assert_eq!(read(&[]).unwrap(), Resources::default());
        assert_eq!(
            read(&["--memory=0", "--cpu-quota=-1", "--cpu-shares=0"]).unwrap(),
            Resources::default()
        );
        let swap = read(&["--memory-swap=-1"]).unwrap().memory_swap;
        assert_eq!(swap, Some(-1));
        let both = read(&["--memory=1g", "--resource=memory=2g"]).unwrap();
        assert_eq!(both.memory, Some(2 << 30));
    }

    #[test]
    fn what_is_no_limit_is_named() {
        let cases = [
            (
                "--resource=memory=x",
                "invalid value \"x\" for resource memory",
            ),
            (
                "--resource=memory",
                "invalid field 'memory' must be a key=value pair",
            ),
            ("--resource=gpu=1", "unknown resource \"gpu\""),
            (
                "--cpuset-cpus=a",
                "invalid value \"a\" for resource cpuset-cpus",
            ),
            (
                "--cpu-quota=-5",
                "invalid value \"-5\" for resource cpu-quota",
            ),
            (
                "--memory-swap=1g",
                "a memory-swap limit needs a memory limit as well",
            ),
            (
                "--resource=memory=2g,memory-swap=1g",
                "the memory-swap limit is memory and swap together",
            ),
        ];
        for (flag, text) in cases {
            let error = read(&[flag]).unwrap_err();
            assert!(error.starts_with(text), "{flag}: {error}");
        }
    }
}
