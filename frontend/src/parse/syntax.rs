//! Which frontend a file asks for, and whether that is the one that is built in (features.md 1.2).
//!
//! It is looked for before the file is parsed: another frontend may read another language. Beside `# syntax=`, also after a
//! `#!` line, BuildKit knows `// syntax=` and a JSON object with a member `syntax`, for languages with other comments.

use std::collections::BTreeMap;

use crate::reference::Reference;
use crate::source::{Diagnostic, LineRange, SourceFile};

use super::directive::{self, DirectiveReader};
use super::lines::Lines;

/// The build argument that replaces the directive.
const BUILD_ARG: &str = "BUILDKIT_SYNTAX";

/// The name of the frontend that is built into BuildKit.
const BUILT_IN: &str = "dockerfile.v0";

/// The images of the frontend that reads Dockerfiles.
const IMAGES: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// Refuses files that are to be read by another frontend than that for Dockerfiles, whatever its version.
///
/// # Errors
///
/// If the build argument, or else the file, names another one.
pub fn check_syntax(
    source: &SourceFile,
    build_args: &BTreeMap<String, String>,
) -> Result<(), Diagnostic> {
    let (asked, lines, way_out) = match build_args.get(BUILD_ARG) {
        Some(asked) => (asked.clone(), None, "leave the build argument out"),
        None => match requested(source.text()) {
            Some((asked, line)) => {
                let lines = LineRange {
                    first: line,
                    last: line,
                };
                (asked, Some(lines), "remove the directive")
            }
            None => return Ok(()),
        },
    };
    let image = asked.split_whitespace().next().unwrap_or_default();
    if image.is_empty() || is_for_dockerfiles(image) {
        return Ok(());
    }
    Err(Diagnostic {
        message: format!(
            "frontend `{image}` cannot be used: only Dockerfiles can be built, as docker/dockerfile reads them"
        ),
        lines,
        hint: Some(format!(
            "{way_out} if this is a Dockerfile without the extensions of that frontend"
        )),
    })
}

fn is_for_dockerfiles(image: &str) -> bool {
    let is_its_image = |image: Reference| {
        image.registry == "docker.io" && IMAGES.contains(&image.repository.as_str())
    };
    image == BUILT_IN || Reference::parse(image).is_ok_and(is_its_image)
}

/// What the file asks for, and in which line.
fn requested(text: &str) -> Option<(String, usize)> {
    after_hash(text)
        .or_else(|| after_slashes(text))
        .or_else(|| in_json(text))
}

fn after_hash(text: &str) -> Option<(String, usize)> {
    let mut reader = DirectiveReader::new();
    let mut lines = Lines::new(text);
    while let Some(line) = lines.next() {
        // What is wrong with it, the parser tells.
        reader.read(&line).ok()?;
        if let Some(syntax) = reader.found.syntax {
            return Some((syntax.value, line.number));
        }
        if reader.is_done() {
            return None;
        }
    }
    None
}

fn after_slashes(text: &str) -> Option<(String, usize)> {
    let mut lines = Lines::new(text);
    while let Some(line) = lines.next() {
        if line.number == 1 && line.raw.starts_with("#!") {
            continue;
        }
        let (name, value, _) = directive::split(line.content(), "//")?;
        if name.eq_ignore_ascii_case("syntax") {
            return Some((value.to_owned(), line.number));
        }
    }
    None
}

fn in_json(text: &str) -> Option<(String, usize)> {
    let body = text.trim_start();
    if !body.starts_with('{') {
        return None;
    }
    let document: serde_json::Value = serde_json::from_str(body).ok()?;
    let syntax = document.get("syntax")?.as_str()?;
    let start = text.len() - body.len();
    let at = body.find("\"syntax\"").unwrap_or_default();
    let line = text[..start + at].matches('\n').count() + 1;
    Some((syntax.to_owned(), line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, build_args: &[(&str, &str)]) -> Result<(), Diagnostic> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let build_args = build_args.iter().map(owned).collect();
        check_syntax(&SourceFile::new("Dockerfile", text), &build_args)
    }

    #[test]
    fn all_names_of_the_dockerfile_frontend_are_satisfied() {
        let digest = format!("docker/dockerfile:1@sha256:{}", "0".repeat(64));
        for image in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            &digest,
            "docker.io/docker/dockerfile:1",
            "index.docker.io/docker/dockerfile:1",
            "docker/dockerfile-upstream:master-labs",
            "docker/dockerfile:1 with arguments",
            "dockerfile.v0",
        ] {
            assert_eq!(
                check(&format!("# syntax={image}\nFROM a\n"), &[]),
                Ok(()),
                "{image}"
            );
            assert_eq!(check("FROM a\n", &[(BUILD_ARG, image)]), Ok(()), "{image}");
        }
    }

    #[test]
    fn another_frontend_is_refused_where_it_is_named() {
        for (text, line) in [
            ("# syntax=x/y\nFROM a\n", 1),
            ("#!/usr/bin/x\n# Syntax = x/y:1 z\n", 2),
            (
                "# escape=`\n#syntax=localhost:5000/docker/dockerfile:1\n",
                2,
            ),
            ("// syntax=docker/dockerfile/x\nfoo\n", 1),
            ("#!x\n// check=a\n//syntax=dockerfile\n", 3),
            ("\n{\n  \"a\": 1,\n  \"syntax\": \"x/y\"\n}\n", 4),
            ("# syntax=Not An Image\nFROM a\n", 1),
        ] {
            let error = check(text, &[]).expect_err(text);
            assert_eq!(error.lines.map(|lines| lines.first), Some(line), "{text:?}");
            assert_eq!(
                check(text, &[(BUILD_ARG, "docker/dockerfile:1")]),
                Ok(()),
                "{text:?}"
            );
        }
        let error = check(
            "# syntax=docker/dockerfile:1\nFROM a\n",
            &[(BUILD_ARG, "x/y:1 z")],
        );
        let error = error.expect_err("another one");
        assert_eq!(
            error.message,
            "frontend `x/y:1` cannot be used: only Dockerfiles can be built, as docker/dockerfile reads them"
        );
        assert_eq!(error.lines, None);
    }

    #[test]
    fn what_is_no_directive_asks_for_nothing() {
        for text in [
            "",
            "FROM a\n# syntax=x/y\n",
            "\n# syntax=x/y\nFROM a\n",
            "# about this\n# syntax=x/y\n",
            "# syntax=\nFROM a\n",
            "// about this\n// syntax=x/y\n",
            "{\"syntax\": \"x/y\"} FROM a\n",
            "{\"syntax\": 1}",
        ] {
            assert_eq!(check(text, &[]), Ok(()), "{text:?}");
        }
    }
}
