//! Comments above FROM and ARG that do not begin with the name.

use crate::ast::InstructionKind;
use crate::lint::FileView;
use crate::lint::level::is_directive;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "InvalidDefinitionDescription",
    description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    slug: "invalid-definition-description",
    is_described: true,
    standing: Standing::Experimental,
    check: Check::File(check),
    page: Page {
        text: "A comment directly above a stage or an ARG that begins with its name is its description in `--call=outline` and\n`--call=targets`. Other comments are set off by a line with nothing but `#`.",
        bad: r#"# check=experimental=InvalidDefinitionDescription

# the version to build
ARG VERSION=1
FROM scratch
LABEL a=b
"#,
        good: r#"# check=experimental=InvalidDefinitionDescription

# VERSION is the version to build
ARG VERSION=1
FROM scratch
LABEL a=b
"#,
        ignore: None,
    },
};

fn check(view: &FileView<'_>, report: &mut Report) {
    for instruction in view.instructions {
        let names: Vec<String> = match &instruction.kind {
            InstructionKind::From(from) => {
                from.name.iter().map(|n| n.value.to_lowercase()).collect()
            }
            InstructionKind::Arg(names) => names.iter().map(|n| n.name.value.clone()).collect(),
            InstructionKind::Run(_)
            | InstructionKind::Cmd(_)
            | InstructionKind::Label(_)
            | InstructionKind::Maintainer(_)
            | InstructionKind::Expose(_)
            | InstructionKind::Env(_)
            | InstructionKind::Add(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Entrypoint(_)
            | InstructionKind::Volume(_)
            | InstructionKind::User(_)
            | InstructionKind::Workdir(_)
            | InstructionKind::Onbuild(_)
            | InstructionKind::Stopsignal(_)
            | InstructionKind::Healthcheck(_)
            | InstructionKind::Shell(_) => continue,
        };
        let mut comments = instruction.comments.iter().rev();
        let comment = comments.find(|comment| !is_directive(&comment.value));
        let (Some(first), Some(comment)) = (names.first(), comment) else {
            continue;
        };
        let start = comment.value.split(' ').next().unwrap_or_default();
        if names.iter().any(|name| name == start) {
            continue;
        }
        let example = if names.len() > 1 { "<arg_key>" } else { first };
        let keyword = instruction.keyword().to_uppercase();
        let detail =
            format!("Comment for {keyword} should follow the format: `# {example} <description>`");
        report.raise(&RULE, Place::of(instruction), detail);
    }
}
