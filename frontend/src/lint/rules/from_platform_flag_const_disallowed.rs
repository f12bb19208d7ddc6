//! `FROM --platform=linux/amd64`.

use crate::expand::watch;
use crate::gofmt::quote;
use crate::lint::from::FromView;
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::platform::Platform;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "FromPlatformFlagConstDisallowed",
    description: "FROM --platform flag should not use a constant value",
    slug: "from-platform-flag-const-disallowed",
    is_described: true,
    standing: Standing::Regular,
    check: Check::From(check),
    page: Page {
        text: "A constant platform makes an image for one platform whatever is asked for. Leave the flag out, use `$BUILDPLATFORM` for\nstages that compile for another platform, or, for a stage that is meant for one platform only, say so in its name.",
        bad: "FROM --platform=linux/amd64 busybox AS base\nLABEL a=b\n",
        good: "FROM --platform=linux/amd64 busybox AS base-amd64\nLABEL a=b\n",
        ignore: None,
    },
};

fn check(view: &FromView<'_>, report: &mut Report) {
    let Some(platform) = &view.from.platform else {
        return;
    };
    let globals = view.globals;
    let asked = watch(globals.lexer, &platform.value, globals.scope);
    let Some(text) = asked.text else { return };
    if !asked.found.is_empty() || !asked.missing.is_empty() {
        return;
    }
    let Ok(platform) = Platform::parse(&text, globals.architecture) else {
        return;
    };
    let name = view
        .from
        .name
        .as_ref()
        .map(|name| name.value.to_lowercase());
    let name = name.unwrap_or_default();
    if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        let text = quote(&text);
        let detail = format!("FROM --platform flag should not use constant value {text}");
        report.raise(&RULE, view.place, detail);
    }
}
