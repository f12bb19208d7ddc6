//! Stage names in upper case.

use crate::ast::InstructionKind;
use crate::lint::FileView;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "StageNameCasing",
    description: "Stage names should be lowercase",
    slug: "stage-name-casing",
    is_described: true,
    standing: Standing::Regular,
    check: Check::File(check),
    page: Page {
        text: "Names of stages are compared without regard to case in some places and not in others: `FROM Base` names an image, not\nthe stage `Base`. Lower case works everywhere.",
        bad: "FROM scratch AS Base\nLABEL a=b\n",
        good: "FROM scratch AS base\nLABEL a=b\n",
        ignore: None,
    },
};

fn check(view: &FileView<'_>, report: &mut Report) {
    for instruction in view.instructions {
        if let InstructionKind::From(from) = &instruction.kind
            && let Some(name) = &from.name
            && name.value != name.value.to_lowercase()
        {
            let detail = format!("Stage name '{}' should be lowercase", name.value);
            report.raise(&RULE, Place::of(instruction), detail);
        }
    }
}
