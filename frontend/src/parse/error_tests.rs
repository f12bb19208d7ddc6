//! Which error a file has, in which words, and at which line.

use crate::source::{LineRange, SourceFile};

use super::parse;

/// Messages and first lines (0: none) of all errors.
fn errors(text: &str) -> Vec<(String, usize)> {
    let errors = parse(&SourceFile::new("Dockerfile", text.as_bytes())).expect_err(text);
    let first = |lines: Option<LineRange>| lines.map_or(0, |lines| lines.first);
    errors
        .into_iter()
        .map(|e| (e.message, first(e.lines)))
        .collect()
}

/// Checks the only error of an instruction on line 2.
fn check_instruction(table: &[(&str, &str)]) {
    for (text, message) in table {
        let message = format!("dockerfile parse error on line 2: {message}");
        assert_eq!(
            errors(&format!("FROM a\n{text}\n")),
            [(message, 2)],
            "{text}"
        );
    }
}

/// Checks the only error, found while reading lines or coming to a step, of an instruction on line 2.
fn check_text(table: &[(&str, &str)]) {
    for (text, message) in table {
        assert_eq!(
            errors(&format!("FROM a\n{text}\n")),
            [((*message).to_owned(), 2)],
            "{text}"
        );
    }
}

#[test]
fn files_without_instructions_or_stages() {
    for (text, message, line) in [
        ("", "the Dockerfile cannot be empty", 0),
        ("\n", "file with no instructions", 1),
        ("\u{feff}", "file with no instructions", 1),
        ("# a\n\n# b", "file with no instructions", 3),
        (
            "ARG a\nARG b=1\n",
            "dockerfile contains no stages to build",
            0,
        ),
        (
            "ARG a\n\nRUN x\nRUN y\n",
            "no build stage in current context",
            3,
        ),
    ] {
        assert_eq!(errors(text), [(message.to_owned(), line)], "{text:?}");
    }
}

#[test]
fn directives_are_reported_a_line_early() {
    let message = "only one syntax parser directive can be used".to_owned();
    assert_eq!(errors("# syntax=a\n# syntax=b\nFROM a"), [(message, 1)]);
    let message = "invalid escape token '\\\\' does not match ` or \\".to_owned();
    assert_eq!(errors("# escape=\\\\\nFROM a"), [(message, 0)]);
}

#[test]
fn long_lines_are_reported_a_line_early() {
    let message = "dockerfile line greater than max allowed size of 65535".to_owned();
    let long = "x".repeat(65_536);
    assert_eq!(
        errors(&format!("FROM a\n\nRUN {long}\n")),
        [(message.clone(), 2)]
    );
    assert_eq!(errors(&format!("# {long}\n")), [(message.clone(), 0)]);
    let found = errors(&format!("FROM a\nRUN <<E\n{long}\nE\n"));
    assert_eq!(
        found,
        [("unterminated heredoc".to_owned(), 2), (message, 2)]
    );
}

#[test]
fn errors_of_words_and_heredocs() {
    check_text(&[
        ("LABEL a", "LABEL must have two arguments"),
        (
            "ENV a=1 b",
            "Syntax error - can't find = in \"b\". Must be of the form: name=value",
        ),
        (
            "LABEL a=${x:-b c}",
            "Syntax error - can't find = in \"c}\". Must be of the form: name=value",
        ),
        (
            "CMD [1]",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        (
            "HEALTHCHECK CMD [null]",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("ONBUILD ENV a", "ENV must have two arguments"),
        ("RUN cat <<A <<B\nB\nA\nx", "unterminated heredoc"),
        ("ONBUILD RUN <<A", "unterminated heredoc"),
    ]);
    let errors = parse(&SourceFile::new("f", b"FROM a\nRUN <<EOF\nx\n")).expect_err("open");
    assert_eq!(errors[0].lines, Some(LineRange { first: 2, last: 3 }));
    assert_eq!(
        errors[0].hint.as_deref(),
        Some("end it with a line that is exactly `EOF`")
    );
}

#[test]
fn errors_of_keywords_and_flags() {
    check_instruction(&[
        ("RUNN x", "unknown instruction: RUNN (did you mean RUN?)"),
        ("cpoy a b", "unknown instruction: cpoy (did you mean copy?)"),
        ("NONSENSE", "unknown instruction: NONSENSE"),
        ("\\\n\n", "unknown instruction: "),
        (
            "RUN --mont=x y",
            "unknown flag: --mont (did you mean mount?)",
        ),
        ("CMD --x y", "unknown flag: --x"),
        ("ADD --from=x a b", "unknown flag: --from"),
        (
            "COPY --link=1 a b",
            "expecting boolean value for flag --link, not: 1",
        ),
        (
            "COPY --chown=1 --chown=1 a b",
            "duplicate flag specified: --chown",
        ),
        ("FROM --platform a", "missing a value on flag: --platform"),
        ("RUN --network= x", "invalid network mode \"\""),
        ("RUN --security=x y", "security \"x\" is not valid"),
    ]);
}

#[test]
fn errors_of_arguments() {
    check_instruction(&[
        ("ENV", "ENV requires at least one argument"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        (
            "VOLUME [\" \"]",
            "VOLUME specified can not be an empty string",
        ),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR ", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("LABEL =x", "LABEL names can not be blank"),
        ("ARG a =x", "ARG names can not be blank"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL a", "SHELL requires the arguments to be in JSON form"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a of b", "FROM requires either one or three arguments"),
        (
            "FROM a AS 1st",
            "invalid name for build stage: \"1st\", name can't start with a number or contain symbols",
        ),
        (
            "COPY --chown=\"1 a b",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "ADD a <<E\nE",
            "ADD cannot accept a heredoc as a destination",
        ),
    ]);
}

#[test]
fn errors_of_healthcheck_and_onbuild() {
    check_instruction(&[
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        (
            "HEALTHCHECK CMD []",
            "Missing command after HEALTHCHECK CMD",
        ),
        (
            "HEALTHCHECK curl x",
            "Unknown type \"CURL\" in HEALTHCHECK (try CMD)",
        ),
        (
            "HEALTHCHECK --interval=1us CMD x",
            "Interval \"interval\" cannot be less than 1ms",
        ),
        (
            "HEALTHCHECK --timeout=-1s CMD x",
            "Interval \"timeout\" cannot be less than 1ms",
        ),
        (
            "HEALTHCHECK --timeout=5 CMD x",
            "time: missing unit in duration \"5\"",
        ),
        (
            "HEALTHCHECK --retries=-2 CMD x",
            "--retries cannot be negative (-2)",
        ),
        (
            "HEALTHCHECK --retries=many CMD x",
            "invalid value for --retries: \"many\" is not a number of 32 bits",
        ),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        (
            "ONBUILD onbuild RUN x",
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("ONBUILD FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "ONBUILD maintainer a",
            "MAINTAINER isn't allowed as an ONBUILD trigger",
        ),
    ]);
}

#[test]
fn errors_of_mounts_that_are_found_while_parsing() {
    let quote = "\\\"";
    check_instruction(&[
        (
            "RUN --mount=from=$s,target=/a x",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("RUN --mount= x", "failed to parse csv mounts: EOF"),
        (
            &format!("RUN --mount=a{quote}b x"),
            "failed to parse csv mounts: bare \" in non-quoted field",
        ),
        (
            &format!("RUN --mount={quote}a x"),
            "failed to parse csv mounts: extraneous or missing \" in quoted-field",
        ),
    ]);
}

#[test]
fn errors_of_mounts_that_no_expansion_can_change() {
    check_text(&[
        (
            "RUN --mount=foo=bar x",
            "unexpected key 'foo' in 'foo=bar' (did you mean from?)",
        ),
        (
            "RUN --mount=target x",
            "invalid field 'target' must be a key=value pair",
        ),
        (
            "RUN --mount=type=cash x",
            "unsupported mount type \"cash\" (did you mean cache?)",
        ),
        (
            "RUN --mount=type=cache,sharing=x y",
            "unsupported sharing value \"x\"",
        ),
        (
            "RUN --mount=required x",
            "unexpected key 'required' for mount type 'bind'",
        ),
        (
            "RUN --mount=size=1,type=tmpfs x",
            "unexpected key 'size' for mount type 'bind'",
        ),
        (
            "RUN --mount=uid=$u x",
            "uid not allowed for \"bind\" type mounts",
        ),
        (
            "RUN --mount=type=secret,id=a,from=b x",
            "secret mount should not have a from",
        ),
        (
            "RUN --mount=type=secret,id=a,sharing=locked x",
            "secret mount should not define sharing",
        ),
        (
            "RUN --mount=type=secret,env=A x",
            "invalid secret mount. one of source, target required",
        ),
        (
            "RUN --mount=type=secret,id=a,src=b x",
            "both source and id can't be set",
        ),
        (
            "RUN --mount=type=ssh,sharing=locked x",
            "invalid cache sharing set for ssh mount",
        ),
    ]);
}

#[test]
fn what_expansion_may_change_is_no_error() {
    for text in [
        "RUN --mount=type=$t,size=1,required,uid=1,sharing=locked x",
        "RUN --mount=type=secret,id=$i,source=$s x",
        "RUN --mount=type=cache,sharing=$s,target=/c x",
        "RUN --mount=type=Tmpfs,Target=/c,size=1 x",
        "RUN --mount=from=a$,target=/c x",
        "ARG --x y",
    ] {
        let text = format!("FROM a\n{text}\n");
        assert!(
            parse(&SourceFile::new("f", text.as_bytes())).is_ok(),
            "{text}"
        );
    }
}

#[test]
fn independent_errors_come_in_the_order_of_their_phases() {
    let text = "FROM a\nRUN --mount=foo=1 x\nCOPYY a b\nUSER\nLABEL a\nARG b\nCMD [1]\n";
    let lines: Vec<usize> = errors(text).into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, [5, 7, 3, 4, 2]);
}

#[test]
fn a_misspelt_from_does_not_make_more_errors() {
    let found = errors("FORM a\nRUN x\n");
    let message =
        "dockerfile parse error on line 1: unknown instruction: FORM (did you mean FROM?)";
    assert_eq!(found, [(message.to_owned(), 1)]);
    assert_eq!(errors("FROM a b\nRUN x\n").len(), 1);
}
