//! Steps that need to be allowed: `--allow network.host`, `--allow security.insecure`.

use std::collections::BTreeSet;

use crate::graph::{Graph, NetworkMode, Op, SecurityMode};
use crate::source::Diagnostic;

/// Refuses what was not allowed. As in BuildKit, messages have no place.
pub(super) fn check(graph: &Graph, allowed: &BTreeSet<String>) -> Result<(), Vec<Diagnostic>> {
    let mut missing = BTreeSet::new();
    for (_, vertex) in graph.vertices() {
        let Op::Exec(exec) = &vertex.op else {
            continue;
        };
        let is_host = exec.network == NetworkMode::Host;
        let is_insecure = exec.security == SecurityMode::Insecure;
        missing.extend(is_host.then_some("network.host"));
        missing.extend(is_insecure.then_some("security.insecure"));
    }
    let errors: Vec<Diagnostic> = missing
        .into_iter()
        .filter(|entitlement| !allowed.contains(*entitlement))
        .map(|entitlement| Diagnostic {
            message: format!("{entitlement} is not allowed"),
            lines: None,
            hint: Some(format!("allow it with `--allow {entitlement}`")),
        })
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors)
}
