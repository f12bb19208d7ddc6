//! Explanations as text and as JSON: `--explain` and the verb `explain`.

use serde_json::{Value, json};

use super::{PlanState, PlannedStep};
use crate::outcome::{Failure, FailureKind};
use crate::progress::tracker::Tracker;

/// How explanations are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainForm {
    /// One line a step.
    Text,
    /// One JSON object, on one line.
    Json,
}

impl ExplainForm {
    /// Reads `--explain`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "" | "text" | "true" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(Failure::new(
                FailureKind::Usage,
                format!("invalid argument `{other}` for --explain: use text or json"),
            )),
        }
    }
}

/// Why each step that ran did: nothing if none did.
pub(super) fn of_build(tracker: &Tracker, form: ExplainForm) -> String {
    let missed = tracker
        .vertices()
        .iter()
        .filter_map(|vertex| Some((vertex.name.as_str(), vertex.miss.as_deref()?)));
    match form {
        ExplainForm::Text => missed.map(|(name, why)| line(name, why)).collect(),
        ExplainForm::Json => {
            let steps: Vec<Value> = missed
                .map(|(name, why)| json!({ "step": name, "reason": why }))
                .collect();
            object("ran", steps)
        }
    }
}

/// What a build would do.
pub(super) fn of_plan(plan: &[PlannedStep], form: ExplainForm) -> String {
    match form {
        ExplainForm::Text => plan
            .iter()
            .map(|step| {
                let why = step.reason.as_deref();
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                format!("{}: {}{why}\n", step.name, state(step.state))
            })
            .collect(),
        ExplainForm::Json => {
            let steps = plan.iter().map(|step| {
                let mut value = json!({ "step": step.name, "state": word(step.state) });
                if let Some(reason) = &step.reason {
                    value["reason"] = json!(reason);
                }
                if let PlanState::Pulled { layers, bytes } = step.state {
                    value["layers"] = json!(layers);
                    value["bytes"] = json!(bytes);
                }
                value
            });
            object("plan", steps.collect())
        }
    }
}

fn object(name: &str, steps: Vec<Value>) -> String {
    let mut value = json!({ "version": 1 });
    value[name] = Value::Array(steps);
    format!("{value}\n")
}

/// Without the numbers: they are no help to who knows the line.
fn line(name: &str, why: &str) -> String {
    let instruction = match name
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    {
        Some((_, instruction)) => instruction,
        None => name,
    };
    format!("{instruction}: {why}\n")
}

fn state(state: PlanState) -> String {
    match state {
        PlanState::Cached => "cached".to_owned(),
        PlanState::Runs => "would run".to_owned(),
        PlanState::Depends => "not known before it runs".to_owned(),
        PlanState::Unneeded => "not needed".to_owned(),
        PlanState::Present => "in the store".to_owned(),
        PlanState::Pulled { layers, bytes } => {
            let plural = if layers == 1 { "" } else { "s" };
            format!("would pull {layers} layer{plural}, {bytes} bytes")
        }
    }
}

fn word(state: PlanState) -> &'static str {
    match state {
        PlanState::Cached => "cached",
        PlanState::Runs => "runs",
        PlanState::Depends => "depends",
        PlanState::Unneeded => "unneeded",
        PlanState::Present => "present",
        PlanState::Pulled { .. } => "pulls",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_told_in_both_forms() {
        let step = |name: &str, state, reason: Option<&str>| PlannedStep {
            name: name.to_owned(),
            state,
            reason: reason.map(str::to_owned),
        };
        let pulled = PlanState::Pulled {
            layers: 1,
            bytes: 5,
        };
        let plan = [
            step("[1/3] FROM a", pulled, None),
            step("[2/3] COPY b .", PlanState::Cached, None),
            step("[3/3] RUN c", PlanState::Runs, Some("b changed")),
        ];
        assert_eq!(
            of_plan(&plan, ExplainForm::Text),
            "[1/3] FROM a: would pull 1 layer, 5 bytes\n[2/3] COPY b .: cached\n\
             [3/3] RUN c: would run: b changed\n"
        );
        let told: Value = serde_json::from_str(&of_plan(&plan, ExplainForm::Json)).unwrap();
        assert_eq!(told["plan"][0]["layers"], 1);
        assert_eq!(
            told["plan"][2],
            json!({ "step": "[3/3] RUN c", "state": "runs", "reason": "b changed" })
        );
    }
}
