//! Stages called `scratch` or `context`.

use crate::ast::InstructionKind;
use crate::gofmt::quote;
use crate::lint::FileView;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "ReservedStageName",
    description: "Reserved words should not be used as stage names",
    slug: "reserved-stage-name",
    is_described: true,
    standing: Standing::Regular,
    check: Check::File(check),
    page: Page {
        text: "`scratch` is the empty base and `context` the build context: a stage of that name hides them.",
        bad: "FROM busybox AS scratch\nLABEL a=b\n",
        good: "FROM busybox AS base\nLABEL a=b\n",
        ignore: None,
    },
};

/// Names that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

fn check(view: &FileView<'_>, report: &mut Report) {
    for instruction in view.instructions {
        if let InstructionKind::From(from) = &instruction.kind
            && let Some(name) = &from.name
            && let name = name.value.to_lowercase()
            && RESERVED.contains(&name.as_str())
        {
            let name = quote(&name);
            let detail =
                format!("Stage name should not use the same name as reserved stage {name}");
            report.raise(&RULE, Place::lines(instruction.lines), detail);
        }
    }
}
