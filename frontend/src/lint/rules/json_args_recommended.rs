//! CMD and ENTRYPOINT in shell form.

use crate::ast::{CommandLine, InstructionKind};
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::lint::step::StepView;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "JSONArgsRecommended",
    description: "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    slug: "json-args-recommended",
    is_described: true,
    standing: Standing::Regular,
    check: Check::Step(check),
    page: Page {
        text: "In shell form the shell is the container's first process, and signals such as that of `docker stop` reach the shell, not\nthe program. Who wants a shell can say so with SHELL; after it the check is silent.",
        bad: "FROM busybox\nCMD httpd -f\n",
        good: r#"FROM busybox
CMD ["httpd", "-f"]
"#,
        ignore: None,
    },
};

fn check(view: &StepView<'_>, report: &mut Report) {
    let (InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command)) =
        &view.instruction.kind
    else {
        return;
    };
    if matches!(command, CommandLine::Shell(_)) && !view.has_shell {
        let detail = format!(
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
            view.keyword()
        );
        report.raise(&RULE, view.place(), detail);
    }
}
