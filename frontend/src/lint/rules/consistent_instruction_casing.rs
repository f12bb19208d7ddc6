//! Instructions in other casing than most.

use crate::ast::{Instruction, InstructionKind};
use crate::lint::FileView;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "ConsistentInstructionCasing",
    description: "All commands within the Dockerfile should use the same casing (either upper or lower)",
    slug: "consistent-instruction-casing",
    is_described: true,
    standing: Standing::Regular,
    check: Check::File(check),
    page: Page {
        text: "Instructions are written in upper case by convention; lower case is as good, a mixture is not. What most instructions\nof the file have is taken for meant.",
        bad: "FROM scratch\nLABEL a=b\nlabel c=d\n",
        good: "FROM scratch\nLABEL a=b\nLABEL c=d\n",
        ignore: None,
    },
};

fn check(view: &FileView<'_>, report: &mut Report) {
    // Global ARGs are not counted.
    let start = view.instructions.iter().position(is_from);
    let instructions = &view.instructions[start.unwrap_or(view.instructions.len())..];
    let mut lower = 0_usize;
    let mut upper = 0_usize;
    for instruction in instructions {
        let keyword = instruction.keyword();
        if is_lower(keyword) {
            lower += 1;
        } else if is_upper(keyword) {
            upper += 1;
        }
    }
    if lower.max(upper) == instructions.len() {
        return;
    }
    let (is_right, majority): (fn(&str) -> bool, _) = if lower > upper {
        (is_lower, "lowercase")
    } else {
        (is_upper, "uppercase")
    };
    for instruction in instructions {
        let keyword = instruction.keyword();
        if !is_right(keyword) {
            let detail = format!(
                "Command '{keyword}' should match the case of the command majority ({majority})"
            );
            report.raise(&RULE, Place::lines(instruction.lines), detail);
        }
    }
}

fn is_from(instruction: &Instruction) -> bool {
    matches!(instruction.kind, InstructionKind::From(_))
}

// Keywords are ASCII: what is none is no instruction.
fn is_lower(keyword: &str) -> bool {
    !keyword.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_upper(keyword: &str) -> bool {
    !keyword.bytes().any(|b| b.is_ascii_lowercase())
}
