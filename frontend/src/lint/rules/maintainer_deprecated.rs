//! MAINTAINER.

use crate::ast::InstructionKind;
use crate::lint::FileView;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "MaintainerDeprecated",
    description: "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    slug: "maintainer-deprecated",
    is_described: true,
    standing: Standing::Regular,
    check: Check::File(check),
    page: Page {
        text: "MAINTAINER sets one field of the image that few tools read. A label does the same and more.",
        bad: "FROM scratch\nMAINTAINER jane@example.com\n",
        good: r#"FROM scratch
LABEL org.opencontainers.image.authors="jane@example.com"
"#,
        ignore: None,
    },
};

fn check(view: &FileView<'_>, report: &mut Report) {
    for instruction in view.instructions {
        if matches!(instruction.kind, InstructionKind::Maintainer(_)) {
            let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
            report.raise(&RULE, Place::of(instruction), detail);
        }
    }
}
