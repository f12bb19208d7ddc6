//! CMD, ENTRYPOINT or HEALTHCHECK twice in a stage.

use crate::ast::InstructionKind;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};
use crate::lint::step::StepView;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "MultipleInstructionsDisallowed",
    description: "Multiple instructions of the same type should not be used in the same stage",
    slug: "multiple-instructions-disallowed",
    is_described: true,
    standing: Standing::Regular,
    check: Check::Step(check),
    page: Page {
        text: "Of several CMD, ENTRYPOINT or HEALTHCHECK instructions of a stage only the last counts. The warning points at the earlier\none, which has no effect.",
        bad: r#"FROM busybox
CMD ["a"]
CMD ["b"]
"#,
        good: r#"FROM busybox
CMD ["b"]
"#,
        ignore: None,
    },
};

fn check(view: &StepView<'_>, report: &mut Report) {
    let memory = view.memory;
    let earlier = match &view.instruction.kind {
        InstructionKind::Cmd(_) => memory.cmd,
        InstructionKind::Entrypoint(_) => memory.entrypoint,
        InstructionKind::Healthcheck(_) => memory.healthcheck,
        InstructionKind::From(_)
        | InstructionKind::Run(_)
        | InstructionKind::Label(_)
        | InstructionKind::Maintainer(_)
        | InstructionKind::Expose(_)
        | InstructionKind::Env(_)
        | InstructionKind::Add(_)
        | InstructionKind::Copy(_)
        | InstructionKind::Volume(_)
        | InstructionKind::User(_)
        | InstructionKind::Workdir(_)
        | InstructionKind::Arg(_)
        | InstructionKind::Onbuild(_)
        | InstructionKind::Stopsignal(_)
        | InstructionKind::Shell(_) => None,
    };
    if let Some(lines) = earlier {
        let detail = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            view.keyword()
        );
        // The earlier one is the one without effect.
        let place = Place {
            lines,
            ..view.place()
        };
        report.raise(&RULE, place, detail);
    }
}
