//! What was examined, as data, as text and as JSON.

use serde::Serialize;

use crate::outcome::{Failure, FailureKind};
use crate::sandbox::Rung;

/// Version of the JSON form.
const VERSION: u32 = 1;

/// One thing that builds need or use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What the machine answered.
    pub found: String,
    /// The smallest change that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Builds work without it, with less.
    Limited,
    /// Builds don't work without it.
    Missing,
}

/// A rung and its prerequisites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RungReport {
    /// Which.
    pub rung: Rung,
    /// In the order in which they matter.
    pub checks: Vec<Check>,
}

impl RungReport {
    /// Whether builds work at it.
    pub fn is_usable(&self) -> bool {
        self.checks.iter().all(|check| check.state < State::Missing)
    }
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    rungs: Vec<RungReport>,
}

#[derive(Serialize)]
struct Shown<'a> {
    version: u32,
    /// The rung that a build would use.
    chosen: Option<&'static str>,
    rungs: Vec<ShownRung<'a>>,
}

#[derive(Serialize)]
struct ShownRung<'a> {
    rung: &'static str,
    usable: bool,
    checks: &'a [Check],
}

impl Report {
    /// A report; the better rung comes first.
    pub fn new(rungs: Vec<RungReport>) -> Self {
        Self { rungs }
    }

    /// The rung that a build would use.
    pub fn chosen(&self) -> Option<Rung> {
        let usable = self.rungs.iter().find(|rung| rung.is_usable());
        usable.map(|rung| rung.rung)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for rung in &self.rungs {
            let verdict = if rung.is_usable() {
                "works"
            } else {
                "does not work"
            };
            text.push_str(&format!("isolation {}: {verdict}\n", rung.rung.name()));
            for check in &rung.checks {
                let mark = match check.state {
                    State::Ok => "ok     ",
                    State::Limited => "limited",
                    State::Missing => "MISSING",
                };
                text.push_str(&format!("  {mark}  {}: {}\n", check.name, check.found));
                if let Some(remedy) = &check.remedy {
                    text.push_str(&format!("           -> {remedy}\n"));
                }
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let shown = Shown {
            version: VERSION,
            chosen: self.chosen().map(Rung::name),
            rungs: self
                .rungs
                .iter()
                .map(|rung| ShownRung {
                    rung: rung.rung.name(),
                    usable: rung.is_usable(),
                    checks: &rung.checks,
                })
                .collect(),
        };
        // Text and numbers only: there is nothing that could not be written.
        serde_json::to_string_pretty(&shown).unwrap_or_default() + "\n"
    }

    /// Whether anything can be built here.
    ///
    /// # Errors
    ///
    /// Of kind `Environment` if not.
    pub fn verdict(&self) -> Result<(), Failure> {
        match self.chosen() {
            Some(_) => Ok(()),
            None => Err(Failure::new(
                FailureKind::Environment,
                "commands cannot be run here; what would help stands above",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(state: State, remedy: Option<&str>) -> Check {
        Check {
            name: "thing",
            state,
            found: "answer".into(),
            remedy: remedy.map(str::to_owned),
        }
    }

    fn rung(rung: Rung, checks: Vec<Check>) -> RungReport {
        RungReport { rung, checks }
    }

    #[test]
    fn the_first_rung_that_works_is_chosen() {
        let report = Report::new(vec![
            rung(Rung::Root, vec![check(State::Missing, Some("do it"))]),
            rung(Rung::UserNamespace, vec![check(State::Limited, None)]),
        ]);
        assert_eq!(report.chosen(), Some(Rung::UserNamespace));
        assert!(report.verdict().is_ok());
        assert_eq!(
            report.text(),
            "isolation root: does not work\n  MISSING  thing: answer\n           -> do it\n\
             isolation userns: works\n  limited  thing: answer\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"version": 1, "chosen": "userns", "rungs": [
                {"rung": "root", "usable": false, "checks": [
                    {"name": "thing", "state": "missing", "found": "answer", "remedy": "do it"}]},
                {"rung": "userns", "usable": true, "checks": [
                    {"name": "thing", "state": "limited", "found": "answer"}]},
            ]})
        );
    }

    #[test]
    fn nothing_usable_is_a_failure_of_the_environment() {
        let report = Report::new(vec![rung(Rung::Root, vec![check(State::Missing, None)])]);
        assert_eq!(
            report.verdict().unwrap_err().kind(),
            FailureKind::Environment
        );
    }
}
