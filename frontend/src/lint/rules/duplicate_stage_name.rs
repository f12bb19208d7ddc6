//! Two stages of one name.

use std::collections::BTreeSet;

use crate::ast::InstructionKind;
use crate::gofmt::quote;
use crate::lint::FileView;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "DuplicateStageName",
    description: "Stage names should be unique",
    slug: "duplicate-stage-name",
    is_described: true,
    standing: Standing::Regular,
    check: Check::File(check),
    page: Page {
        text: "Of two stages of one name the later wins, so that the earlier cannot be named any more.",
        bad: "FROM scratch AS build\nLABEL a=b\nFROM scratch AS build\nLABEL c=d\n",
        good: "FROM scratch AS build\nLABEL a=b\nFROM scratch AS test\nLABEL c=d\n",
        ignore: None,
    },
};

fn check(view: &FileView<'_>, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for instruction in view.instructions {
        let InstructionKind::From(from) = &instruction.kind else {
            continue;
        };
        let Some(name) = &from.name else { continue };
        let name = name.value.to_lowercase();
        if seen.contains(&name) {
            let detail = format!(
                "Duplicate stage name {}, stage names should be unique",
                quote(&name)
            );
            report.raise(&RULE, Place::lines(instruction.lines), detail);
        }
        seen.insert(name);
    }
}
