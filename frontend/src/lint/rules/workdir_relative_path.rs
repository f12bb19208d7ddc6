//! A first WORKDIR that is relative.

use crate::ast::InstructionKind;
use crate::gofmt::quote;
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::lint::step::StepView;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "WorkdirRelativePath",
    description: "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    slug: "workdir-relative-path",
    is_described: true,
    standing: Standing::Regular,
    check: Check::Step(check),
    page: Page {
        text: "A relative WORKDIR starts from the base image's, which the next version of the base may change. Only the first WORKDIR of\na stage and those it starts from is looked at: those after it start from it.",
        bad: "FROM busybox\nWORKDIR app\n",
        good: "FROM busybox\nWORKDIR /app\n",
        ignore: None,
    },
};

fn check(view: &StepView<'_>, report: &mut Report) {
    let InstructionKind::Workdir(path) = &view.instruction.kind else {
        return;
    };
    let path = view.expand(&path.value);
    if !view.memory.has_workdir && !path.starts_with('/') {
        let detail = format!(
            "Relative workdir {} can have unexpected results if the base image changes",
            quote(&path)
        );
        report.raise(&RULE, view.place(), detail);
    }
}
