//! COPY and ADD of ignored files.

use crate::ast::{InstructionKind, Source};
use crate::gofmt::quote;
use crate::ignore::clean_path;
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::lint::step::StepView;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "CopyIgnoredFile",
    description: "Attempting to Copy file that is excluded by .dockerignore",
    slug: "copy-ignored-file",
    is_described: true,
    standing: Standing::Regular,
    check: Check::Step(check),
    page: Page {
        text: "What the ignore file excludes is not part of the build context: copying it fails, or, with wildcards, copies nothing.\nThe check is silent if the ignore file has exceptions (`!`), because then it takes the files to know.",
        bad: "FROM scratch\nCOPY app.log /log\n",
        good: "FROM scratch\nCOPY app.txt /log\n",
        ignore: Some("*.log\n"),
    },
};

fn check(view: &StepView<'_>, report: &mut Report) {
    // With exceptions a directory may be ignored and a file in it not: that cannot be told from the rules alone.
    let Some(rules) = view.ignore.filter(|rules| !rules.has_exceptions()) else {
        return;
    };
    let (verb, sources) = match &view.instruction.kind {
        InstructionKind::Copy(copy) if copy.from.is_none() => ("Copy", &copy.sources),
        InstructionKind::Add(add) => ("Add", &add.sources),
        InstructionKind::From(_)
        | InstructionKind::Run(_)
        | InstructionKind::Cmd(_)
        | InstructionKind::Label(_)
        | InstructionKind::Maintainer(_)
        | InstructionKind::Expose(_)
        | InstructionKind::Env(_)
        | InstructionKind::Copy(_)
        | InstructionKind::Entrypoint(_)
        | InstructionKind::Volume(_)
        | InstructionKind::User(_)
        | InstructionKind::Workdir(_)
        | InstructionKind::Arg(_)
        | InstructionKind::Onbuild(_)
        | InstructionKind::Stopsignal(_)
        | InstructionKind::Healthcheck(_)
        | InstructionKind::Shell(_) => return,
    };
    for source in sources {
        let Source::Path(path) = source else { continue };
        let path = view.expand(&path.value);
        if (view.is_remote)(&path) {
            continue;
        }
        let path = clean_path(&path);
        if rules.is_excluded(&path) {
            let path = quote(&path);
            let detail =
                format!("Attempting to {verb} file {path} that is excluded by .dockerignore");
            report.raise(&RULE, view.place(), detail);
        }
    }
}
