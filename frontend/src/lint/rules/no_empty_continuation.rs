//! Blank lines inside an instruction.

use crate::ast::InstructionKind;
use crate::lint::FileView;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};
use crate::source::LineRange;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "NoEmptyContinuation",
    description: "Empty continuation lines will become errors in a future release",
    slug: "no-empty-continuation",
    is_described: true,
    standing: Standing::Regular,
    check: Check::File(check),
    page: Page {
        text: "A blank line inside an instruction that goes on over several lines is passed over today, and hides where the instruction\nends. Comments may stand there.",
        bad: r#"FROM busybox
RUN echo a && \

    echo b
"#,
        good: r#"FROM busybox
RUN echo a && \
    # then
    echo b
"#,
        ignore: None,
    },
};

fn check(view: &FileView<'_>, report: &mut Report) {
    for instruction in view.instructions {
        if instruction.blank_continuations.is_empty() {
            continue;
        }
        // The last line of the instruction itself: bodies of heredocs come after it.
        let line = match first_body(&instruction.kind) {
            Some(start) => view.source.line_at(start).saturating_sub(1),
            None => instruction.lines.last,
        };
        let place = Place::lines(LineRange {
            first: line,
            last: line,
        });
        report.raise(&RULE, place, "Empty continuation line".to_owned());
    }
}

fn first_body(kind: &InstructionKind) -> Option<usize> {
    let heredocs = match kind {
        InstructionKind::Run(run) => &run.heredocs,
        InstructionKind::Copy(copy) => &copy.heredocs,
        InstructionKind::Add(add) => &add.heredocs,
        InstructionKind::From(_)
        | InstructionKind::Cmd(_)
        | InstructionKind::Label(_)
        | InstructionKind::Maintainer(_)
        | InstructionKind::Expose(_)
        | InstructionKind::Env(_)
        | InstructionKind::Entrypoint(_)
        | InstructionKind::Volume(_)
        | InstructionKind::User(_)
        | InstructionKind::Workdir(_)
        | InstructionKind::Arg(_)
        | InstructionKind::Onbuild(_)
        | InstructionKind::Stopsignal(_)
        | InstructionKind::Healthcheck(_)
        | InstructionKind::Shell(_) => return None,
    };
    heredocs.first().map(|heredoc| heredoc.span.start)
}
