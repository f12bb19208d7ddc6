//! Reads the values of single flags, by the rules of `docker buildx build`.

use std::net::IpAddr;
use std::time::Duration;

use frontend::graph::{NetworkMode, Ulimit};

use super::args::Switch;
use super::request::PullPolicy;
use crate::outcome::{Failure, FailureKind};

/// What `host-gateway` stands for. Commands use the host's network, where the host is the loopback address.
const HOST_GATEWAY: &str = "127.0.0.1";

/// Names of limits as Docker knows them (`github.com/docker/go-units`, `ulimit.go`).
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

/// Splits a line of comma-separated values, where a value in double quotes may have commas (RFC 4180).
pub(super) fn csv(text: &str) -> Result<Vec<String>, Failure> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let starts = fields.last().is_none_or(String::is_empty);
        match c {
            '"' if is_quoted && chars.next_if_eq(&'"').is_some() => push(&mut fields, '"'),
            '"' if is_quoted => is_quoted = false,
            '"' if starts => is_quoted = true,
            ',' if !is_quoted => fields.push(String::new()),
            c => push(&mut fields, c),
        }
    }
    if is_quoted {
        return Err(usage(format!("unclosed quote in `{text}`")));
    }
    Ok(fields)
}

fn push(fields: &mut [String], c: char) {
    if let Some(field) = fields.last_mut() {
        field.push(c);
    }
}

/// Splits a line of comma-separated `key=value`; keys are lower-cased.
pub(super) fn csv_pairs(text: &str) -> Result<Vec<(String, String)>, Failure> {
    csv(text)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((key.to_ascii_lowercase(), value.to_owned())),
            None => Err(usage(format!(
                "invalid field '{field}' must be a key=value pair"
            ))),
        })
        .collect()
}

/// `--add-host NAME:ADDRESS`, `NAME=ADDRESS`; an IPv6 address may stand in brackets.
pub(super) fn extra_host(text: &str) -> Result<(String, String), Failure> {
    let invalid = || usage(format!("invalid host {text}"));
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(invalid)?;
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    let address = if address == "host-gateway" {
        HOST_GATEWAY
    } else {
        bare
    };
    if name.is_empty() || address.parse::<IpAddr>().is_err() {
        return Err(invalid());
    }
    Ok((name.to_owned(), address.to_owned()))
}

/// A size in bytes with a binary unit: `64m`, `1.5g`, `100` (`units.RAMInBytes`).
pub(super) fn size(flag: &str, text: &str) -> Result<u64, Failure> {
    let invalid = || {
        usage(format!(
            "invalid argument `{text}` for --{flag}: not a size"
        ))
    };
    let at = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = unit.trim_start().to_ascii_lowercase();
    let letter = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = match letter {
        "" if unit != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(invalid()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let digits = |digits: &str| match digits {
        "" => Some(0),
        digits => digits.parse::<u64>().ok(),
    };
    let scaled = digits(whole).and_then(|whole| whole.checked_mul(1 << shift));
    // Nine digits of a fraction say more than any unit can.
    let fraction = &fraction[..fraction.len().min(9)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or_default());
    let part = digits(fraction).map(|part| (u128::from(part) << shift) / scale);
    let part = part.and_then(|part| u64::try_from(part).ok());
    scaled
        .zip(part)
        .and_then(|(scaled, part)| scaled.checked_add(part))
        .ok_or_else(invalid)
}

/// `--ulimit NAME=SOFT[:HARD]`
pub(super) fn ulimit(text: &str) -> Result<Ulimit, Failure> {
    let invalid = |why: &str| usage(format!("invalid ulimit argument: {text}: {why}"));
    let (name, values) = text.split_once('=').ok_or_else(|| invalid("no `=`"))?;
    if !ULIMITS.contains(&name) {
        return Err(invalid("unknown limit"));
    }
    let number = |text: &str| {
        let number = text.parse::<i64>().ok();
        number
            .filter(|number| *number >= -1)
            .ok_or_else(|| invalid("not a number"))
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(invalid("the soft limit is above the hard limit"));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// `--network`; `None` for the default.
pub(super) fn network(text: &str) -> Result<Option<NetworkMode>, Failure> {
    match text {
        "" | "default" => Ok(None),
        "none" => Ok(Some(NetworkMode::None)),
        "host" => Ok(Some(NetworkMode::Host)),
        other => Err(usage(format!(
            "network mode \"{other}\" is not supported: use default, none or host"
        ))),
    }
}

/// `--allow`
pub(super) fn entitlement(text: &str) -> Result<String, Failure> {
    match text {
        "network.host" | "security.insecure" => Ok(text.to_owned()),
        "device" | "buildx.local.delete" => Err(Failure::not_supported(format!("--allow {text}"))),
        other if other.starts_with("device=") || other.starts_with("fs") => {
            Err(Failure::not_supported(format!("--allow {other}")))
        }
        other => Err(usage(format!("invalid entitlement \"{other}\""))),
    }
}

/// Reads a span of time: `90s`, `15m`, `24h`, `7d`, or several in a row.
pub(super) fn duration(flag: &str, text: &str) -> Result<Duration, Failure> {
    let invalid = || {
        usage(format!(
            "invalid argument `{text}` for --{flag}: not a duration such as 90s, 15m, 24h or 7d"
        ))
    };
    let mut seconds = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit());
        let at = at.ok_or_else(invalid)?;
        let number: u64 = rest[..at].parse().ok().ok_or_else(invalid)?;
        let unit = match rest.as_bytes().get(at) {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            Some(_) | None => return Err(invalid()),
        };
        let part = number.checked_mul(unit);
        seconds = part
            .and_then(|part| seconds.checked_add(part))
            .ok_or_else(invalid)?;
        rest = &rest[at + 1..];
    }
    match text.is_empty() {
        true => Err(invalid()),
        false => Ok(Duration::from_secs(seconds)),
    }
}

/// Reads `--pull`: a truth value as Docker has it, or when to ask.
pub(super) fn pull(text: &str) -> Result<PullPolicy, Failure> {
    if let Ok(Switch(is_always)) = text.parse() {
        return Ok(match is_always {
            true => PullPolicy::Always,
            false => PullPolicy::Default,
        });
    }
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        _ => match text.strip_prefix("age:") {
            Some(age) => Ok(PullPolicy::Age(duration("pull", age)?)),
            None => Err(usage(format!(
                "invalid argument `{text}` for --pull: use always, missing, never or age:DURATION"
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_quoted() {
        let cases = [
            ("a", vec!["a"]),
            ("a,b=c", vec!["a", "b=c"]),
            (r#""a,b",c"#, vec!["a,b", "c"]),
            (r#""a""b",x"y"#, vec!["a\"b", "x\"y"]),
            ("", vec![""]),
        ];
        for (text, want) in cases {
            assert_eq!(csv(text).unwrap(), want);
        }
        assert_eq!(
            csv(r#""a"#).unwrap_err().to_string(),
            "unclosed quote in `\"a`"
        );
        assert_eq!(
            csv_pairs("ID=x,src=a=b").unwrap(),
            [("id".into(), "x".into()), ("src".into(), "a=b".to_owned())]
        );
        assert_eq!(
            csv_pairs("x").unwrap_err().to_string(),
            "invalid field 'x' must be a key=value pair"
        );
    }

    #[test]
    fn hosts_have_a_name_and_an_address() {
        let cases = [
            ("a:1.2.3.4", Some(("a", "1.2.3.4"))),
            ("a=1.2.3.4", Some(("a", "1.2.3.4"))),
            ("a:::1", Some(("a", "::1"))),
            ("a=[fe80::1]", Some(("a", "fe80::1"))),
            ("a:host-gateway", Some(("a", "127.0.0.1"))),
            ("a", None),
            (":1.2.3.4", None),
            ("a:", None),
            ("a:b", None),
        ];
        for (text, want) in cases {
            let got = extra_host(text);
            match want {
                Some((name, address)) => {
                    assert_eq!(got.unwrap(), (name.to_owned(), address.to_owned()));
                }
                None => assert_eq!(got.unwrap_err().to_string(), format!("invalid host {text}")),
            }
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        let cases = [
            ("100", Some(100)),
            ("8m", Some(8 << 20)),
            ("8MB", Some(8 << 20)),
            ("1.5g", Some(3 << 29)),
            ("64 KiB", Some(64 << 10)),
            ("0.0000000001k", Some(0)),
            ("1b", Some(1)),
            ("", None),
            (".", None),
            ("m", None),
            ("1.2.3", None),
            ("-1", None),
            ("5x", None),
            ("3ib", None),
            ("99999999999p", None),
        ];
        for (text, want) in cases {
            assert_eq!(size("shm-size", text).ok(), want, "{text}");
        }
    }

    #[test]
    fn limits_are_checked() {
        let cases = [
            ("nofile=1024:2048", Some((1024, 2048))),
            ("nofile=7", Some((7, 7))),
            ("core=-1", Some((-1, -1))),
            ("core=0:-1", Some((0, -1))),
            ("core=-1:5", None),
            ("nofile=3:2", None),
            ("nofile", None),
            ("nofile=x", None),
            ("nosuch=1", None),
            ("nofile=1:2:3", None),
        ];
        for (text, want) in cases {
            assert_eq!(
                ulimit(text).ok().map(|limit| (limit.soft, limit.hard)),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn networks_and_entitlements_are_known_ones() {
        assert_eq!(network("default").unwrap(), None);
        assert_eq!(network("none").unwrap(), Some(NetworkMode::None));
        assert_eq!(network("host").unwrap(), Some(NetworkMode::Host));
        assert!(network("bridge").is_err());
        assert_eq!(entitlement("network.host").unwrap(), "network.host");
        assert_eq!(
            entitlement("device=x").unwrap_err().to_string(),
            "not supported yet: --allow device=x"
        );
        assert_eq!(
            entitlement("all").unwrap_err().to_string(),
            "invalid entitlement \"all\""
        );
    }

    #[test]
    fn durations_and_pull_policies_are_read() {
        let hours = |count: u64| Duration::from_secs(count * 3600);
        let cases = [
            ("24h", Some(hours(24))),
            ("1h30m", Some(Duration::from_secs(5400))),
            ("7d", Some(hours(168))),
            ("0s", Some(Duration::ZERO)),
            ("", None),
            ("5", None),
            ("h", None),
            ("5y", None),
            ("99999999999999999999h", None),
            ("9999999999999999999h", None),
        ];
        for (text, want) in cases {
            assert_eq!(duration("x", text).ok(), want, "{text}");
        }
        let cases = [
            ("true", Some(PullPolicy::Always)),
            ("always", Some(PullPolicy::Always)),
            ("false", Some(PullPolicy::Default)),
            ("missing", Some(PullPolicy::Missing)),
            ("never", Some(PullPolicy::Never)),
            ("age:24h", Some(PullPolicy::Age(hours(24)))),
            ("age:", None),
            ("sometimes", None),
        ];
        for (text, want) in cases {
            assert_eq!(pull(text).ok(), want, "{text}");
        }
    }
}
