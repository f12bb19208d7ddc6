//! What holds for any text: no panics, places within the file and in order, and time linear in length.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::ast::{Heredoc, Instruction, InstructionKind, Source};
use crate::source::{SourceFile, Span};

use super::{parse, parse_trigger};

/// Texts of pieces that matter to the parser, so that random ones get far.
fn dockerfile() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "LABEL",
        "ARG",
        "ONBUILD",
        "HEALTHCHECK",
        "CMD",
        "VOLUME",
        "SHELL",
        "EXPOSE",
        "USER",
        "AS",
        "NONE",
        "a",
        "b=1",
        "<<EOF",
        "<<-'A'",
        "<< A",
        "EOF",
        "A",
        "\\",
        "`",
        "\n",
        "\r\n",
        "\n",
        "\n",
        " ",
        " ",
        "\t",
        "#",
        "# escape=`",
        "\"",
        "'",
        "$",
        "${",
        "}",
        "[",
        "]",
        "[\"a\"]",
        ",",
        "--",
        "--mount=type=cache,target=/a",
        "--from=",
        "--chown=\"",
        "=",
        "\u{feff}",
        "é",
        "\u{2003}",
        "1s",
    ]);
    prop::collection::vec(words, 0..40).prop_map(|words| words.concat())
}

fn heredocs(kind: &InstructionKind) -> &[Heredoc] {
    match kind {
        InstructionKind::Run(run) => &run.heredocs,
        InstructionKind::Copy(copy) => &copy.heredocs,
        InstructionKind::Add(add) => &add.heredocs,
        _ => &[],
    }
}

/// The places of an instruction's words, in order.
fn words(kind: &InstructionKind) -> Vec<Span> {
    match kind {
        InstructionKind::From(from) => {
            let rest = [&from.as_keyword, &from.name];
            let image = std::iter::once(from.image.span);
            image
                .chain(rest.into_iter().flatten().map(|word| word.span))
                .collect()
        }
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs
            .pairs
            .iter()
            .flat_map(|pair| [pair.key.span, pair.value.span])
            .collect(),
        InstructionKind::Arg(names) => names.iter().map(|name| name.name.span).collect(),
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => {
            words.iter().map(|word| word.span).collect()
        }
        InstructionKind::Copy(copy) => copy
            .sources
            .iter()
            .filter_map(|source| match source {
                Source::Path(path) => Some(path.span),
                Source::Heredoc(_) => None,
            })
            .chain([copy.destination.span])
            .collect(),
        _ => Vec::new(),
    }
}

fn check_places(text: &str, instructions: &[Instruction]) {
    let mut end = 0;
    for instruction in instructions {
        let Instruction {
            span,
            keyword_span,
            lines,
            ..
        } = instruction;
        assert!(end <= span.start && span.start <= span.end && span.end <= text.len());
        assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
        assert!(lines.first <= lines.last);
        assert_eq!(span.start, keyword_span.start);
        let mut at = keyword_span.end;
        let bodies = heredocs(&instruction.kind)
            .iter()
            .map(|heredoc| heredoc.span);
        for word in words(&instruction.kind).into_iter().chain(bodies) {
            assert!(
                at <= word.start && word.start <= word.end && word.end <= span.end,
                "{word:?}"
            );
            assert!(text.get(word.start..word.end).is_some(), "{word:?}");
            at = word.end;
        }
        end = span.end;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn places_are_in_the_file_and_in_order(text in dockerfile()) {
        let text = format!("FROM a\n{text}");
        let source = SourceFile::new("Dockerfile", text.as_bytes());
        match parse(&source) {
            Ok(file) => check_places(&text, &file.instructions),
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                let last = text.split('\n').count();
                for lines in errors.iter().filter_map(|error| error.lines) {
                    prop_assert!(1 <= lines.first && lines.first <= lines.last && lines.last <= last);
                    prop_assert!(!source.excerpt(lines).is_empty());
                }
            }
        }
    }

    #[test]
    fn an_instruction_cut_out_of_the_file_says_the_same(text in dockerfile()) {
        let text = format!("FROM a\n{text}");
        let source = SourceFile::new("Dockerfile", text.as_bytes());
        let Ok(file) = parse(&source) else { return Ok(()) };
        let all = crate::listing::to_json_lines(&file);
        for (instruction, said) in file.instructions.iter().zip(all.lines()) {
            let slice = &text[instruction.span.start..instruction.span.end];
            let alone = format!("FROM a\n{slice}");
            let alone = parse(&SourceFile::new("Dockerfile", alone.as_bytes()));
            let alone = alone.map(|file| crate::listing::to_json_lines(&file));
            let without_lines = |object: &str| object.split_once("\"name\"").map(|(_, rest)| rest.to_owned());
            let alone = alone.ok().and_then(|objects| without_lines(objects.lines().nth(1)?));
            prop_assert_eq!(alone, without_lines(said), "{:?}", slice);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in dockerfile()) {
        drop(parse(&SourceFile::new("Dockerfile", bytes)));
        drop(parse_trigger(&text));
    }
}

/// Generous for a linear parser in a debug build on a busy machine; a quadratic one needs many minutes for these texts.
fn check_time(name: &str, text: &str) {
    let source = SourceFile::new("Dockerfile", text.as_bytes());
    let start = Instant::now();
    let result = parse(&source);
    let took = start.elapsed();
    assert!(result.is_ok(), "{name}: {:?}", result.err());
    assert!(took < Duration::from_secs(20), "{name} took {took:?}");
}

#[test]
fn long_files_take_linear_time() {
    let mut heredocs = "FROM a\n".to_owned();
    let mut copy = "FROM a\nCOPY \\\n".to_owned();
    let mut bodies = String::new();
    for i in 0..50_000 {
        let _ = write!(heredocs, "RUN <<E{i}\nx\nE{i}\n");
        let _ = writeln!(copy, "<<E{i} \\");
        let _ = write!(bodies, "x\nE{i}\n");
    }
    copy.push_str("/d/\n");
    check_time("heredocs", &heredocs);
    check_time("heredocs of one COPY", &(copy + &bodies));
    let continued = format!("FROM a\nENV x=1 {}b=2\n", "\\\n  a=1 ".repeat(300_000));
    check_time("continuations", &continued);
    let blank = format!("FROM a\nRUN x \\\n{}y\n", "\n# c\n".repeat(300_000));
    check_time("blank continuations", &blank);
    let flags = format!("FROM a\nCOPY {}a b\n", "--exclude=x \\\n".repeat(100_000));
    check_time("flags", &flags);
    let chained = format!("FROM a\nRUN {}\n", "${x:-\\\n".repeat(100_000));
    check_time("nested substitutions", &chained);
}
