//! `EXPOSE 8080:80`.

use super::expose_proto_casing::ports;
use crate::lint::page::Page;
use crate::lint::report::Report;
use crate::lint::step::StepView;

use super::{Check, Rule, Standing};

/// The rule.
pub(super) const RULE: Rule = Rule {
    name: "ExposeInvalidFormat",
    description: "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    slug: "expose-invalid-format",
    is_described: true,
    standing: Standing::Regular,
    check: Check::Step(check),
    page: Page {
        text: "EXPOSE says which ports the container listens on. Where they are reached from outside is said when it is started, with\n`docker run --publish`.",
        bad: "FROM scratch\nEXPOSE 127.0.0.1:8080:80\n",
        good: "FROM scratch\nEXPOSE 80\n",
        ignore: None,
    },
};

fn check(view: &StepView<'_>, report: &mut Report) {
    for port in ports(view) {
        let mapping = port.rsplit_once(':');
        if mapping.is_some_and(|(outside, _)| !outside.trim_matches(':').is_empty()) {
            let detail = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            );
            report.raise(&RULE, view.place(), detail);
        }
    }
}
