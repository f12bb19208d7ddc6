//! `--call=METHOD[,format=text|json][,ignorestatus=BOOL]`, as `docker buildx build` reads it.

use std::str::FromStr as _;

use super::args::Switch;
use super::build_args::ProgressArgs;
use super::request::{AnswerFormat, Call, Inquiry};
use super::values::csv;
use crate::outcome::{Failure, FailureKind};

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

/// What is asked instead of a build, if anything is.
pub(super) fn resolve(args: &ProgressArgs) -> Result<Option<Call>, Failure> {
    let typed = args.call.as_deref().unwrap_or_default().trim();
    match (args.check.0, typed) {
        (true, "") => parse("check").map(Some),
        (_, "" | "build") => Ok(None),
        (_, typed) => {
            let call = parse(typed)?;
            if args.check.0 && call.inquiry != Inquiry::Check {
                return Err(usage(format!(
                    "--check and --call={typed} cannot be used together"
                )));
            }
            Ok(Some(call))
        }
    }
}

fn parse(text: &str) -> Result<Call, Failure> {
    let mut inquiry = None;
    let mut format = AnswerFormat::Text;
    let mut ignores_status = false;
    for field in csv(text)? {
        match field.split_once('=') {
            None => inquiry = Some(method(&field)?),
            Some(("format", "text")) => format = AnswerFormat::Text,
            Some(("format", "json")) => format = AnswerFormat::Json,
            Some(("ignorestatus", value)) => {
                ignores_status = Switch::from_str(value)
                    .map_err(|why| usage(format!("invalid value in `{field}`: {why}")))?
                    .0;
            }
            Some(_) => {
                return Err(usage(format!(
                    "invalid value `{field}` for --call: use format=text, format=json or ignorestatus=true"
                )));
            }
        }
    }
    let inquiry =
        inquiry.ok_or_else(|| usage(format!("--call={text} does not say what to call")))?;
    Ok(Call {
        inquiry,
        format,
        ignores_status,
    })
}

fn method(name: &str) -> Result<Inquiry, Failure> {
    match name {
        "check" | "lint" => Ok(Inquiry::Check),
        "outline" => Ok(Inquiry::Outline),
        "targets" => Ok(Inquiry::Targets),
        _ => Err(Failure::not_supported(format!("--call={name}"))
            .hint("there are build, check, outline and targets")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(call: Option<&str>, check: bool) -> ProgressArgs {
        ProgressArgs {
            progress: None,
            quiet: Switch(false),
            check: Switch(check),
            call: call.map(str::to_owned),
            debug: Switch(false),
            explain: None,
        }
    }

    #[test]
    fn methods_and_formats_are_read() {
        let call = |inquiry, format, ignores_status| {
            Some(Call {
                inquiry,
                format,
                ignores_status,
            })
        };
        use AnswerFormat::{Json, Text};
        for (typed, check, want) in [
            (None, false, None),
            (Some("build"), false, None),
            (None, true, call(Inquiry::Check, Text, false)),
            (
                Some("lint,format=json"),
                true,
                call(Inquiry::Check, Json, false),
            ),
            (Some("outline"), false, call(Inquiry::Outline, Text, false)),
            (
                Some("targets,format=json,ignorestatus=1"),
                false,
                call(Inquiry::Targets, Json, true),
            ),
        ] {
            assert_eq!(
                resolve(&args(typed, check)).unwrap(),
                want,
                "{typed:?} {check}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (typed, check, want) in [
            (
                "subrequests.describe",
                false,
                "not supported yet: --call=subrequests.describe",
            ),
            (
                "format=json",
                false,
                "--call=format=json does not say what to call",
            ),
            (
                "outline",
                true,
                "--check and --call=outline cannot be used together",
            ),
            (
                "check,format=xml",
                false,
                "invalid value `format=xml` for --call: use format=text, format=json or ignorestatus=true",
            ),
        ] {
            let error = resolve(&args(Some(typed), check)).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
    }
}
