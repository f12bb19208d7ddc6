//! FROM with a variable that no ARG before the first FROM declares.

use crate::expand::watch;
use crate::lint::from::FromView;
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::source::{Suggestion, did_you_mean};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "UndefinedArgInFrom",
    description: "FROM command must use declared ARGs",
    slug: "undefined-arg-in-from",
    is_described: true,
    standing: Standing::Regular,
    check: Check::From(check),
    page: Page {
        text: "FROM sees the ARGs before the first FROM and the predefined ones, nothing else: an ARG inside a stage does not reach a\nlater FROM. What is not declared expands to nothing.",
        bad: "ARG VERSION=latest\nFROM busybox:latest${VERSON}\n",
        good: "ARG VERSION=latest\nFROM busybox:${VERSION}\n",
        ignore: None,
    },
};

fn check(view: &FromView<'_>, report: &mut Report) {
    let globals = view.globals;
    let words = [Some(&view.from.image), view.from.platform.as_ref()];
    for word in words.into_iter().flatten() {
        for name in watch(globals.lexer, &word.value, globals.scope).missing {
            if globals.declared.contains(name.as_str()) {
                continue;
            }
            let known = || {
                globals
                    .declared
                    .iter()
                    .copied()
                    .chain(globals.scope.names())
            };
            let meant = report.suggests().then(|| did_you_mean(&name, known()));
            let suggestion = Suggestion(meant.flatten().map(str::to_owned));
            let detail = format!("FROM argument '{name}' is not declared{suggestion}");
            report.raise(&RULE, view.place, detail);
        }
    }
}
