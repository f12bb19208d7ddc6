//! Parsing, checking and listing any bytes.

#![no_main]

use frontend::ast::Dockerfile;
use frontend::lint::{Levels, Report, check_file};
use frontend::listing::to_json_lines;
use frontend::parse::{check_syntax, parse, parse_trigger};
use frontend::source::SourceFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let source = SourceFile::new("Dockerfile", bytes);
    drop(parse_trigger(source.text()));
    drop(check_syntax(&source, &Default::default()));
    let dockerfile = match parse(&source) {
        Ok(dockerfile) => dockerfile,
        Err(errors) => {
            assert!(!errors.is_empty());
            for lines in errors.iter().filter_map(|error| error.lines) {
                assert!(!source.excerpt(lines).is_empty());
            }
            return;
        }
    };
    check_places(&source, &dockerfile);
    let levels = Levels::parse("experimental=all").unwrap_or_default();
    let mut report = Report::new(levels);
    check_file(&source, &dockerfile, &mut report);
    for warning in report.warnings() {
        assert!(!source.excerpt(warning.lines).is_empty());
    }
});

/// Places lie inside the file, one after the other, and what stands there says by itself what the instruction says.
fn check_places(source: &SourceFile, dockerfile: &Dockerfile) {
    let text = source.text();
    let listed = to_json_lines(dockerfile);
    let mut end = 0;
    for (instruction, said) in dockerfile.instructions.iter().zip(listed.lines()) {
        let (span, keyword) = (instruction.span, instruction.keyword_span);
        assert!(end <= span.start && span.start == keyword.start && keyword.end <= span.end);
        assert_eq!(source.line_at(span.start), instruction.lines.first);
        end = span.end;
        let slice = text.get(span.start..span.end).expect("in the file");
        let escape = dockerfile.directives.escape;
        let alone = format!("# escape={escape}\nFROM a\n{slice}");
        let alone =
            parse(&SourceFile::new("Dockerfile", alone.as_bytes())).expect("an instruction");
        let alone = to_json_lines(&alone);
        // All but the lines, which come first.
        let what = |object: &str| {
            object
                .split_once("\"name\"")
                .map(|(_, rest)| rest.to_owned())
        };
        assert_eq!(alone.lines().nth(1).and_then(what), what(said));
    }
}
