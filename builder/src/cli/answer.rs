//! Answers to `--call`, as text and as JSON: BuildKit's documents (`frontend/subrequests`), buildx's texts.

use base64::Engine as _;
use frontend::lint::{RULES, Rule, Warning};
use frontend::outline::{Credential, Outline, Target};
use frontend::source::{Diagnostic, LineRange, SourceFile};
use serde_json::{Map, Value, json};

use super::request::AnswerFormat;
use crate::outcome::{Failure, FailureKind};

/// An answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// What the build checks say.
    Check(CheckAnswer),
    /// What the target takes.
    Outline(Outline),
    /// What targets there are.
    Targets(Vec<Target>),
}

/// What the build checks say.
#[derive(Clone, Debug, Default)]
pub struct CheckAnswer {
    /// Warnings by line.
    pub warnings: Vec<Warning>,
    /// Errors.
    pub problems: Vec<Diagnostic>,
}

/// The text for standard output.
pub fn render(answer: &Answer, format: AnswerFormat, source: &SourceFile) -> String {
    match (answer, format) {
        (Answer::Check(check), AnswerFormat::Text) => check_text(check, source),
        (Answer::Outline(outline), AnswerFormat::Text) => outline_text(outline),
        (Answer::Targets(targets), AnswerFormat::Text) => targets_text(targets),
        (Answer::Check(check), AnswerFormat::Json) => pretty(&check_json(check, source)),
        (Answer::Outline(outline), AnswerFormat::Json) => pretty(&outline_json(outline, source)),
        (Answer::Targets(targets), AnswerFormat::Json) => pretty(&targets_json(targets, source)),
    }
}

/// The page of a build check, or the list of all.
///
/// # Errors
///
/// Of kind `Usage` if there is no check of that name.
pub(super) fn rules(name: Option<&str>) -> Result<String, Failure> {
    let Some(name) = name else {
        let rows: Vec<[String; 2]> = RULES
            .iter()
            .map(|rule| [rule.name.to_owned(), rule.description.to_owned()])
            .collect();
        return Ok(table(&rows, 2));
    };
    let is_it = |rule: &&Rule| rule.name.eq_ignore_ascii_case(name) || rule.slug == name;
    RULES
        .into_iter()
        .find(is_it)
        .map(Rule::page)
        .ok_or_else(|| {
            let message = format!("there is no build check `{name}`");
            Failure::new(FailureKind::Usage, message).hint("`builder debug rules` lists them")
        })
}

fn check_text(check: &CheckAnswer, source: &SourceFile) -> String {
    let mut text = match check.warnings.len() {
        0 if check.problems.is_empty() => "Check complete, no warnings found.\n".to_owned(),
        0 => String::new(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for warning in &check.warnings {
        text.push_str("\nWARNING: ");
        text.push_str(warning.rule.name);
        if let Some(url) = warning.rule.url() {
            text.push_str(" - ");
            text.push_str(&url);
        }
        text.push('\n');
        text.push_str(&warning.detail);
        text.push('\n');
        text.push_str(&source.excerpt(warning.lines));
    }
    text
}

fn check_json(check: &CheckAnswer, source: &SourceFile) -> Value {
    let warnings = check.warnings.iter().map(|warning| {
        let mut object = Map::new();
        object.insert("ruleName".into(), json!(warning.rule.name));
        object.insert("description".into(), json!(warning.rule.description));
        if let Some(url) = warning.rule.url() {
            object.insert("url".into(), json!(url));
        }
        object.insert("detail".into(), json!(warning.detail));
        object.insert("location".into(), location(warning.lines));
        Value::Object(object)
    });
    let mut object = Map::new();
    object.insert("warnings".into(), warnings.collect());
    let file = json!({
        "filename": source.name(), "data": data(source), "language": "Dockerfile",
    });
    object.insert("sources".into(), json!([file]));
    if let Some(problem) = check.problems.first() {
        let place = problem.lines.map_or_else(|| json!({}), location);
        let error = json!({ "message": problem.message, "location": place });
        object.insert("buildError".into(), error);
    }
    Value::Object(object)
}

fn outline_text(outline: &Outline) -> String {
    let mut text = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let mut rows = vec![["TARGET:".to_owned(), outline.name.clone()]];
        if !outline.description.is_empty() {
            rows.push(["DESCRIPTION:".to_owned(), outline.description.clone()]);
        }
        text.push_str(&table(&rows, 1));
        text.push('\n');
    }
    if !outline.args.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned)];
        for arg in &outline.args {
            rows.push([arg.name.clone(), arg.value.clone(), arg.description.clone()]);
        }
        text.push_str(&table(&rows, 3));
        text.push('\n');
    }
    for (heading, credentials) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if credentials.is_empty() {
            continue;
        }
        let mut rows = vec![[heading, "REQUIRED"].map(str::to_owned)];
        for credential in credentials {
            let required = if credential.is_required { "true" } else { "" };
            rows.push([credential.name.clone(), required.to_owned()]);
        }
        text.push_str(&table(&rows, 3));
        text.push('\n');
    }
    text
}

fn outline_json(outline: &Outline, source: &SourceFile) -> Value {
    let mut object = Map::new();
    insert_text(&mut object, "name", &outline.name);
    insert_text(&mut object, "description", &outline.description);
    let args: Vec<Value> = outline
        .args
        .iter()
        .map(|arg| {
            let mut object = Map::new();
            object.insert("name".into(), json!(arg.name));
            insert_text(&mut object, "description", &arg.description);
            insert_text(&mut object, "value", &arg.value);
            object.insert("location".into(), location(arg.lines));
            Value::Object(object)
        })
        .collect();
    if !args.is_empty() {
        object.insert("args".into(), Value::Array(args));
    }
    for (name, credentials) in [("secrets", &outline.secrets), ("ssh", &outline.ssh)] {
        if !credentials.is_empty() {
            let credentials = credentials.iter().map(credential_json).collect();
            object.insert(name.into(), credentials);
        }
    }
    object.insert("sources".into(), json!([data(source)]));
    Value::Object(object)
}

fn credential_json(credential: &Credential) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), json!(credential.name));
    if credential.is_required {
        object.insert("required".into(), json!(true));
    }
    object.insert("location".into(), location(credential.lines));
    Value::Object(object)
}

fn targets_text(targets: &[Target]) -> String {
    let mut rows = vec![["TARGET", "DESCRIPTION"].map(str::to_owned)];
    for target in targets {
        let name = match (target.name.as_str(), target.is_default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push([name, target.description.clone()]);
    }
    table(&rows, 1)
}

fn targets_json(targets: &[Target], source: &SourceFile) -> Value {
    let targets: Vec<Value> = targets
        .iter()
        .map(|target| {
            let mut object = Map::new();
            insert_text(&mut object, "name", &target.name);
            if target.is_default {
                object.insert("default".into(), json!(true));
            }
            insert_text(&mut object, "description", &target.description);
            insert_text(&mut object, "base", &target.base);
            insert_text(&mut object, "platform", &target.platform);
            object.insert("location".into(), location(target.lines));
            Value::Object(object)
        })
        .collect();
    json!({ "targets": targets, "sources": [data(source)] })
}

fn insert_text(object: &mut Map<String, Value>, name: &str, value: &str) {
    if !value.is_empty() {
        object.insert(name.to_owned(), json!(value));
    }
}

/// A range for each line, as BuildKit has them.
fn location(lines: LineRange) -> Value {
    let ranges: Vec<Value> = (lines.first..=lines.last)
        .map(|line| {
            let position = json!({ "line": line, "character": 0 });
            json!({ "start": position, "end": position })
        })
        .collect();
    json!({ "ranges": ranges })
}

fn data(source: &SourceFile) -> String {
    base64::engine::general_purpose::STANDARD.encode(source.text())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Aligned columns, as Go's tabwriter has them: all but the last padded to the longest and `gap` blanks.
fn table<const N: usize>(rows: &[[String; N]], gap: usize) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + gap);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            if at + 1 == N {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{cell:width$}"));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use frontend::lint::find_rule;
    use frontend::outline::Parameter;

    use super::*;

    fn source() -> SourceFile {
        SourceFile::new("Dockerfile", b"FROM scratch as Base\nLABEL a b\n")
    }

    fn lines(first: usize, last: usize) -> LineRange {
        LineRange { first, last }
    }

    fn warning(rule: &str, line: usize) -> Warning {
        Warning {
            rule: find_rule(rule).unwrap(),
            detail: format!("{rule} it is"),
            lines: lines(line, line),
        }
    }

    #[test]
    fn checks_read_as_in_buildx() {
        let mut check = CheckAnswer::default();
        let text = |check: &CheckAnswer| {
            render(&Answer::Check(check.clone()), AnswerFormat::Text, &source())
        };
        assert_eq!(text(&check), "Check complete, no warnings found.\n");
        check.warnings.push(warning("StageNameCasing", 1));
        assert_eq!(
            text(&check),
            "Check complete, 1 warning has been found!\n\nWARNING: StageNameCasing - \
             https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\nStageNameCasing it is\nDockerfile:1\n\
             --------------------\n   1 | >>> FROM scratch as Base\n   2 |     LABEL a b\n   3 |     \n\
             --------------------\n"
        );
        check.warnings.push(warning("InvalidBaseImagePlatform", 1));
        let both = text(&check);
        assert!(both.starts_with("Check complete, 2 warnings have been found!\n"));
        assert!(both.contains("\nWARNING: InvalidBaseImagePlatform\n"));
    }

    #[test]
    fn checks_as_json_have_a_range_for_each_line() {
        let problem = Diagnostic {
            message: "wrong".into(),
            lines: Some(lines(1, 2)),
            hint: None,
        };
        let check = CheckAnswer {
            warnings: vec![warning("InvalidBaseImagePlatform", 2)],
            problems: vec![problem],
        };
        let value = check_json(&check, &source());
        assert_eq!(
            value.to_string(),
            r#"{"warnings":[{"ruleName":"InvalidBaseImagePlatform","description":"Base image platform does not match expected target platform","detail":"InvalidBaseImagePlatform it is","location":{"ranges":[{"start":{"line":2,"character":0},"end":{"line":2,"character":0}}]}}],"sources":[{"filename":"Dockerfile","data":"RlJPTSBzY3JhdGNoIGFzIEJhc2UKTEFCRUwgYSBiCg==","language":"Dockerfile"}],"buildError":{"message":"wrong","location":{"ranges":[{"start":{"line":1,"character":0},"end":{"line":1,"character":0}},{"start":{"line":2,"character":0},"end":{"line":2,"character":0}}]}}}"#
        );
    }

    #[test]
    fn outlines_are_tables() {
        let outline = Outline {
            name: "base".into(),
            description: "has it".into(),
            args: vec![Parameter {
                name: "VERSION".into(),
                description: "to build".into(),
                value: "1".into(),
                lines: lines(1, 1),
            }],
            secrets: vec![Credential {
                name: "token".into(),
                is_required: true,
                lines: lines(2, 2),
            }],
            ssh: Vec::new(),
        };
        assert_eq!(
            outline_text(&outline),
            "TARGET:      base\nDESCRIPTION: has it\n\nBUILD ARG   VALUE   DESCRIPTION\n\
             VERSION     1       to build\n\nSECRET   REQUIRED\ntoken    true\n\n"
        );
        let value = outline_json(&outline, &source());
        assert_eq!(value["args"][0]["value"], "1");
        assert_eq!(value["secrets"][0]["required"], true);
        assert_eq!(value.get("ssh"), None);
    }

    #[test]
    fn targets_are_a_table() {
        let target = |name: &str, is_default| Target {
            name: name.into(),
            description: "x".into(),
            is_default,
            base: "busybox".into(),
            platform: String::new(),
            lines: lines(1, 1),
        };
        let targets = [target("base", false), target("", true)];
        assert_eq!(
            targets_text(&targets),
            "TARGET    DESCRIPTION\nbase      x\n(default) x\n"
        );
        let value = targets_json(&targets, &source());
        assert_eq!(value["targets"][1]["default"], true);
        assert_eq!(value["targets"][0].get("default"), None);
    }
}
