//! A base image of another platform.

use crate::gofmt::quote;
use crate::lint::from::BaseView;
use crate::lint::page::Page;
use crate::lint::report::{Place, Report};

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    description: "Base image platform does not match expected target platform",
    slug: "invalid-base-image-platform",
    is_described: false,
    standing: Standing::Regular,
    check: Check::Base(check),
    page: Page {
        text: "The base image is there for one platform only, and not for the one that is asked for. Its programs will not run, or run\nslowly by emulation. Name an image for the platform, or ask for the platform that the image has.",
        bad: "FROM --platform=linux/arm64 busybox AS arm64\nLABEL a=b\n",
        good: "FROM --platform=linux/amd64 busybox AS amd64\nLABEL a=b\n",
        ignore: None,
    },
};

fn check(view: &BaseView<'_>, report: &mut Report) {
    let (wanted, found) = (view.wanted, view.found);
    if (&wanted.os, &wanted.architecture) != (&found.os, &found.architecture) {
        let detail = format!(
            "Base image {} was pulled with platform {}, expected {} for current build",
            view.name,
            quote(&found.to_string()),
            quote(&wanted.to_string())
        );
        report.raise(&RULE, Place::lines(view.lines), detail);
    }
}
