//! `FROM … as` and `from … AS`.

use crate::ast::InstructionKind;
use crate::lint::FileView;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "FromAsCasing",
    description: "The 'as' keyword should match the case of the 'from' keyword",
    slug: "from-as-casing",
    is_described: true,
    standing: Standing::Regular,
    check: Check::File(check),
    page: Page {
        text: "Both words belong to one instruction; written alike they are easier to find.",
        bad: "FROM scratch as base\nLABEL a=b\n",
        good: "FROM scratch AS base\nLABEL a=b\n",
        ignore: None,
    },
};

fn check(view: &FileView<'_>, report: &mut Report) {
    for instruction in view.instructions {
        if let InstructionKind::From(from) = &instruction.kind
            && let Some(word) = &from.as_keyword
            && !matches(instruction.keyword(), &word.value)
        {
            let (word, keyword) = (&word.value, instruction.keyword());
            let detail = format!("'{word}' and '{keyword}' keywords' casing do not match");
            report.raise(&RULE, Place::of(instruction), detail);
        }
    }
}

/// A FROM that mixes cases itself is another rule's business.
fn matches(from: &str, word: &str) -> bool {
    if from == from.to_lowercase() {
        return word == word.to_lowercase();
    }
    from != from.to_uppercase() || word == word.to_uppercase()
}
