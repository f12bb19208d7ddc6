//! `ENV key value`.

use crate::ast::InstructionKind;
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::lint::step::StepView;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "LegacyKeyValueFormat",
    description: "Legacy key/value format with whitespace separator should not be used",
    slug: "legacy-key-value-format",
    is_described: true,
    standing: Standing::Regular,
    check: Check::Step(check),
    page: Page {
        text: "Without `=` all that follows the first blank is the value, so that a second pair on the line silently becomes part of the\nfirst.",
        bad: "FROM scratch\nENV MODE fast\n",
        good: "FROM scratch\nENV MODE=fast\n",
        ignore: None,
    },
};

fn check(view: &StepView<'_>, report: &mut Report) {
    if let InstructionKind::Env(pairs) | InstructionKind::Label(pairs) = &view.instruction.kind
        && pairs.is_legacy
    {
        let keyword = view.keyword();
        let detail = format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        );
        report.raise(&RULE, view.place(), detail);
    }
}
