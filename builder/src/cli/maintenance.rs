//! The verbs that look after the store: from what was typed to what is meant.

use cache::disk::Kind;
use cache::room::Cap;

use super::args::{DuArgs, PruneArgs};
use super::environment::Environment;
use super::values::{duration, size};
use super::{DiskForm, PruneOptions, UpkeepCommand};
use crate::outcome::{Failure, FailureKind};

/// The variable that sets the store's cap, as a size or `0` for none.
pub(crate) const CAP: &str = "BUILD_MAX_USED_SPACE";

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

/// `du`
pub(super) fn disk_usage(args: &DuArgs) -> Result<UpkeepCommand, Failure> {
    let form = match (args.format.as_str(), args.verbose) {
        ("table" | "", false) => DiskForm::Summary,
        ("table" | "", true) => DiskForm::Verbose,
        ("json", _) => DiskForm::Json,
        (other, _) => {
            return Err(usage(format!(
                "invalid argument `{other}` for --format: use table or json"
            )));
        }
    };
    Ok(UpkeepCommand::DiskUsage(form))
}

/// `prune`
pub(super) fn prune(args: &PruneArgs) -> Result<UpkeepCommand, Failure> {
    let keep = args.keep_duration.as_deref();
    let most = args.max_used_space.as_deref();
    let mut options = PruneOptions {
        most_bytes: most.map(|text| size("max-used-space", text)).transpose()?,
        keep: keep
            .map(|text| duration("keep-duration", text))
            .transpose()?,
        takes_all: args.all,
        is_verbose: args.verbose,
        ..PruneOptions::default()
    };
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("type", kind)) => {
                options.kinds.extend(kinds(kind)?);
                options.takes_all |= matches!(kind, "context" | "source.local");
            }
            Some(("id", id)) => options.name = Some(id.to_owned()),
            Some(("until" | "unused-for", age)) => options.keep = Some(duration("filter", age)?),
            Some(_) | None => {
                return Err(usage(format!(
                    "invalid argument `{filter}` for --filter: use type=, id= or until="
                )));
            }
        }
    }
    Ok(UpkeepCommand::Prune(options))
}

/// Our names of kinds, and BuildKit's record types.
fn kinds(name: &str) -> Result<Vec<Kind>, Failure> {
    Ok(match name {
        "layer" => vec![Kind::Layer],
        "regular" => vec![Kind::Layer, Kind::Blob, Kind::Chunk],
        "blob" => vec![Kind::Blob, Kind::Image],
        "chunk" => vec![Kind::Chunk],
        "cache-mount" | "exec.cachemount" => vec![Kind::CacheMount],
        "context" | "source.local" => vec![Kind::Context],
        "git" | "source.git.checkout" => vec![Kind::Git],
        "log" => vec![Kind::Log],
        other => {
            return Err(usage(format!(
                "invalid argument `type={other}` for --filter: use layer, blob, chunk, cache-mount, context, git or log"
            )));
        }
    })
}

/// `settle`
pub(super) fn settle(environment: &Environment) -> Result<UpkeepCommand, Failure> {
    let cap = cap(environment)?;
    Ok(UpkeepCommand::Settle { cap })
}

/// How big the store may be.
pub(super) fn cap(environment: &Environment) -> Result<Cap, Failure> {
    Ok(match environment.non_empty(CAP).as_deref() {
        None => Cap::Usual,
        Some("0") => Cap::Unlimited,
        Some(text) => Cap::Bytes(size(CAP, text)?),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn typed(filters: &[&str]) -> PruneArgs {
        PruneArgs {
            all: false,
            filter: filters.iter().map(|f| (*f).to_owned()).collect(),
            keep_duration: None,
            max_used_space: Some("1g".to_owned()),
            force: false,
            verbose: false,
        }
    }

    #[test]
    fn filters_are_read() {
        let UpkeepCommand::Prune(options) =
            prune(&typed(&["type=exec.cachemount", "id=ab", "until=24h"])).unwrap()
        else {
            panic!("not a prune");
        };
        assert_eq!(options.most_bytes, Some(1 << 30));
        assert_eq!(options.keep, Some(Duration::from_secs(86_400)));
        assert_eq!(options.kinds, [Kind::CacheMount].into());
        assert_eq!(options.name.as_deref(), Some("ab"));
        for bad in ["x", "type=y", "size=3", "until=soon"] {
            assert!(prune(&typed(&[bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_cap_comes_from_the_environment() {
        let typed = |text: &str| cap(&[(CAP, text)].into_iter().collect()).ok();
        assert_eq!(typed(""), Some(Cap::Usual));
        assert_eq!(typed("0"), Some(Cap::Unlimited));
        assert_eq!(typed("10g"), Some(Cap::Bytes(10 << 30)));
        assert_eq!(typed("much"), None);
    }
}
