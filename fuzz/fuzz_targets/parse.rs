//! Parsing, checking and listing any bytes.

#![no_main]

use frontend::lint::{Levels, Report, check_file};
use frontend::parse::{parse, parse_trigger};
use frontend::source::SourceFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let source = SourceFile::new("Dockerfile", bytes);
    drop(parse_trigger(source.text()));
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
    let mut end = 0;
    for instruction in &dockerfile.instructions {
        let span = instruction.span;
        assert!(end <= span.start);
        let slice = source.text().get(span.start..span.end);
        assert!(slice.is_some_and(|text| text.starts_with(instruction.keyword())));
        end = span.end;
    }
    let levels = Levels::parse("experimental=all").unwrap_or_default();
    let mut report = Report::new(levels);
    check_file(&source, &dockerfile, &mut report);
    for warning in report.warnings() {
        assert!(!source.excerpt(warning.lines).is_empty());
    }
    drop(frontend::listing::to_json_lines(&dockerfile));
});
