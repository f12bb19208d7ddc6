//! Secrets in ARG and ENV, by their names.

use std::borrow::Cow;

use crate::ast::InstructionKind;
use crate::gofmt::quote;
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::lint::step::StepView;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "SecretsUsedInArgOrEnv",
    description: "Sensitive data should not be used in the ARG or ENV commands",
    slug: "secrets-used-in-arg-or-env",
    is_described: true,
    standing: Standing::Regular,
    check: Check::Step(check),
    page: Page {
        text: "Values of ARG and ENV stay in the image, in its config or its history, for everybody who can pull it. Give secrets to the\nstep that needs them with `RUN --mount=type=secret`. The check goes by names.",
        bad: "FROM scratch\nARG API_TOKEN\n",
        good: "FROM scratch\nARG TOKEN_FILE=/run/secrets/token\n",
        ignore: None,
    },
};

/// Words that tell of a secret.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Words beside which they don't.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

fn check(view: &StepView<'_>, report: &mut Report) {
    let (keyword, names): (_, Vec<Cow<'_, str>>) = match &view.instruction.kind {
        InstructionKind::Arg(names) => {
            let names = names.iter().map(|name| name.name.value.as_str().into());
            ("ARG", names.collect())
        }
        InstructionKind::Env(pairs) => {
            let names = pairs.pairs.iter().map(|pair| view.expand(&pair.key.value));
            ("ENV", names.collect())
        }
        InstructionKind::From(_)
        | InstructionKind::Run(_)
        | InstructionKind::Cmd(_)
        | InstructionKind::Label(_)
        | InstructionKind::Maintainer(_)
        | InstructionKind::Expose(_)
        | InstructionKind::Add(_)
        | InstructionKind::Copy(_)
        | InstructionKind::Entrypoint(_)
        | InstructionKind::Volume(_)
        | InstructionKind::User(_)
        | InstructionKind::Workdir(_)
        | InstructionKind::Onbuild(_)
        | InstructionKind::Stopsignal(_)
        | InstructionKind::Healthcheck(_)
        | InstructionKind::Shell(_) => return,
    };
    for name in names {
        if tells_of_secret(&name) {
            let name = quote(&name);
            let detail =
                format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name})");
            report.raise(&RULE, view.place(), detail);
        }
    }
}

/// Whole words count, in any case: `API_TOKEN`, not `TOKENS`.
fn tells_of_secret(name: &str) -> bool {
    let has = |words: &[&str]| {
        let mut parts = name.split('_');
        parts.any(|part| words.iter().any(|word| word.eq_ignore_ascii_case(part)))
    };
    has(&SECRET) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use super::tells_of_secret;

    #[test]
    fn names_tell_by_whole_words() {
        for (name, want) in [
            ("API_KEY", true),
            ("apikey", true),
            ("GITHUB_TOKEN", true),
            ("secret_MESSAGE", true),
            ("AUTH", true),
            ("KEYBOARD", false),
            ("tokens", false),
            ("PUBLIC_KEY", false),
            ("TOKEN_FILE", false),
            ("KEY_VERSION", false),
        ] {
            assert_eq!(tells_of_secret(name), want, "{name}");
        }
    }
}
