//! `FROM --platform=$TARGETPLATFORM`.

use crate::expand::watch;
use crate::lint::from::FromView;
use crate::lint::page::Page;
use crate::lint::report::Report;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "RedundantTargetPlatform",
    description: "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    slug: "redundant-target-platform",
    is_described: true,
    standing: Standing::Regular,
    check: Check::From(check),
    page: Page {
        text: "Images are taken for the platform that is built for anyway.",
        bad: "FROM --platform=$TARGETPLATFORM busybox\nLABEL a=b\n",
        good: "FROM busybox\nLABEL a=b\n",
        ignore: None,
    },
};

/// The platform that is built for.
const TARGET: &str = "TARGETPLATFORM";

fn check(view: &FromView<'_>, report: &mut Report) {
    let Some(platform) = &view.from.platform else {
        return;
    };
    let globals = view.globals;
    let asked = watch(globals.lexer, &platform.value, globals.scope);
    let is_target_alone = asked.found == [TARGET] && asked.missing.is_empty();
    if is_target_alone && asked.text.as_deref() == globals.scope.value(TARGET) {
        let detail = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            platform.value
        );
        report.raise(&RULE, view.place, detail);
    }
}
