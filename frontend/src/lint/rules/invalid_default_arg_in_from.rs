//! FROM that names no image if no build argument is given.

use crate::lint::from::FromView;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};
use crate::reference::Reference;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "InvalidDefaultArgInFrom",
    description: "Default value for global ARG results in an empty or invalid base image name",
    slug: "invalid-default-arg-in-from",
    is_described: true,
    standing: Standing::Regular,
    check: Check::From(check),
    page: Page {
        text: "A build without build arguments should find its base images: give each ARG that FROM uses a default that makes a name.",
        bad: "ARG TAG\nFROM busybox:${TAG}\n",
        good: "ARG TAG=latest\nFROM busybox:${TAG}\n",
        ignore: None,
    },
};

fn check(view: &FromView<'_>, report: &mut Report) {
    let globals = view.globals;
    let image = &view.from.image.value;
    let Some(base) = globals
        .defaults
        .and_then(|scope| globals.lexer.expand(image, scope).ok())
    else {
        return;
    };
    if Reference::parse(&base).is_err() {
        let detail =
            format!("Default value for ARG {image} results in empty or invalid base image name");
        report.raise(&RULE, Place::lines(view.place.lines), detail);
    }
}
