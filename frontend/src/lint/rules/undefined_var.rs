//! Variables without a value where they are expanded.

use std::collections::BTreeSet;

use crate::ast::{Heredoc, InstructionKind, Source};
use crate::expand::{Lexer, watch};
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::lint::step::StepView;
use crate::lower::NOT_ENVIRONMENT;
use crate::source::{Spanned, Suggestion, did_you_mean};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "UndefinedVar",
    description: "Variables should be defined before their use",
    slug: "undefined-var",
    is_described: true,
    standing: Standing::Regular,
    check: Check::Step(check),
    page: Page {
        text: "A variable without a value expands to nothing. Each stage begins anew: an ARG before the first FROM, or one of another\nstage, must be declared again with `ARG NAME` to be seen. Declaring it is also how to say that it may be empty.",
        bad: "FROM scratch\nENV HOME=/home/app\nENV CACHE=$HOEM/cache\n",
        good: "FROM scratch\nENV HOME=/home/app\nENV CACHE=$HOME/cache\n",
        ignore: None,
    },
};

fn check(view: &StepView<'_>, report: &mut Report) {
    let mut declared = BTreeSet::new();
    if let InstructionKind::Arg(names) = &view.instruction.kind {
        // Each default sees the names before it; one that a build argument replaces is not looked at.
        for name in names {
            if let Some(default) = &name.default
                && !view.build_args.contains_key(&name.name.value)
            {
                word(view, view.lexer, &default.value, &declared, report);
            }
            declared.insert(name.name.value.as_str());
        }
        return;
    }
    for written in words(&view.instruction.kind) {
        word(view, view.lexer, written, &declared, report);
    }
    for heredoc in documents(&view.instruction.kind) {
        if heredoc.expand {
            let lexer = Lexer::for_heredocs();
            word(view, lexer, &heredoc.content, &declared, report);
        }
    }
}

fn word(
    view: &StepView<'_>,
    lexer: Lexer,
    word: &str,
    declared: &BTreeSet<&str>,
    report: &mut Report,
) {
    if asks_only_for(word, |name| view.scope.value(name).is_some()) {
        return;
    }
    for name in watch(lexer, word, view.scope).missing {
        let is_declared = declared.contains(name.as_str()) || view.declared.contains(&name);
        if is_declared || NOT_ENVIRONMENT.contains(&name.as_str()) {
            continue;
        }
        let meant = report
            .suggests()
            .then(|| did_you_mean(&name, view.scope.names()));
        let suggestion = Suggestion(meant.flatten().map(|meant| format!("${meant}")));
        let detail = format!("Usage of undefined variable '${name}'{suggestion}");
        report.raise(&RULE, view.place(), detail);
    }
}

/// Whether all that follows a `$`, in whatever quotes, is a name that is known: then the word need not be expanded to see
/// what it asks for, which lowering does anyway.
fn asks_only_for(word: &str, is_known: impl Fn(&str) -> bool) -> bool {
    word.split('$').skip(1).all(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        rest.get(..end).is_some_and(&is_known)
    })
}

/// The words of an instruction that are expanded; ARG and EXPOSE are special.
fn words(kind: &InstructionKind) -> Vec<&str> {
    match kind {
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs
            .pairs
            .iter()
            .flat_map(|pair| [pair.key.value.as_str(), pair.value.value.as_str()])
            .collect(),
        InstructionKind::Copy(copy) => {
            let flags = [&copy.chown, &copy.chmod];
            files(&flags, &copy.sources, &copy.destination.value)
        }
        InstructionKind::Add(add) => {
            let flags = [&add.chown, &add.chmod, &add.checksum];
            files(&flags, &add.sources, &add.destination.value)
        }
        InstructionKind::Run(run) => run
            .mounts
            .iter()
            .flat_map(|mount| &mount.options)
            .filter_map(|(_, value)| value.as_deref())
            .collect(),
        InstructionKind::Volume(words) => words.iter().map(|word| word.value.as_str()).collect(),
        InstructionKind::User(word)
        | InstructionKind::Workdir(word)
        | InstructionKind::Stopsignal(word) => vec![&word.value],
        InstructionKind::From(_)
        | InstructionKind::Cmd(_)
        | InstructionKind::Maintainer(_)
        | InstructionKind::Expose(_)
        | InstructionKind::Entrypoint(_)
        | InstructionKind::Arg(_)
        | InstructionKind::Onbuild(_)
        | InstructionKind::Healthcheck(_)
        | InstructionKind::Shell(_) => Vec::new(),
    }
}

fn files<'a>(
    flags: &[&'a Option<Spanned<String>>],
    sources: &'a [Source],
    destination: &'a str,
) -> Vec<&'a str> {
    let flags = flags.iter().filter_map(|flag| flag.as_ref());
    let mut words: Vec<&str> = flags.map(|flag| flag.value.as_str()).collect();
    for source in sources {
        match source {
            Source::Path(path) => words.push(&path.value),
            Source::Heredoc(_) => {}
        }
    }
    words.push(destination);
    words
}

/// Heredocs that become files; those of RUN are the shell's business.
fn documents(kind: &InstructionKind) -> &[Heredoc] {
    match kind {
        InstructionKind::Copy(copy) => &copy.heredocs,
        InstructionKind::Add(add) => &add.heredocs,
        InstructionKind::From(_)
        | InstructionKind::Run(_)
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
        | InstructionKind::Shell(_) => &[],
    }
}
