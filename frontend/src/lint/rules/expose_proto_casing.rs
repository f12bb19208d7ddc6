//! `EXPOSE 80/TCP`.

use crate::ast::InstructionKind;
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::lint::step::StepView;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "ExposeProtoCasing",
    description: "Protocol in EXPOSE instruction should be lowercase",
    slug: "expose-proto-casing",
    is_described: true,
    standing: Standing::Regular,
    check: Check::Step(check),
    page: Page {
        text: "`tcp`, `udp` and `sctp` are written in lower case, as the image's config has them.",
        bad: "FROM scratch\nEXPOSE 80/TCP\n",
        good: "FROM scratch\nEXPOSE 80/tcp\n",
        ignore: None,
    },
};

fn check(view: &StepView<'_>, report: &mut Report) {
    for port in ports(view) {
        let protocol = port
            .rsplit(':')
            .next()
            .and_then(|port| port.split_once('/'));
        if protocol.is_some_and(|(_, protocol)| protocol != protocol.to_lowercase()) {
            let detail =
                format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            report.raise(&RULE, view.place(), detail);
        }
    }
}

/// The ports of EXPOSE: the words sorted as written, then expanded and split at blanks.
pub(super) fn ports(view: &StepView<'_>) -> Vec<String> {
    let InstructionKind::Expose(words) = &view.instruction.kind else {
        return Vec::new();
    };
    let mut words: Vec<&str> = words.iter().map(|word| word.value.as_str()).collect();
    words.sort_unstable();
    let expanded = |word: &str| match view.lexer.is_plain(word) {
        true => vec![word.to_owned()],
        false => {
            let expanded = view.lexer.expand_words(word, view.scope);
            expanded.map_or_else(|_unexpandable| Vec::new(), |expanded| expanded.words)
        }
    };
    words.into_iter().flat_map(expanded).collect()
}
