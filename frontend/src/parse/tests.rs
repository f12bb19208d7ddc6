//! What the parser makes of whole files: tables of texts, results and errors.

use crate::ast::{
    CommandLine, Dockerfile, Healthcheck, Instruction, InstructionKind, RunNetwork, RunSecurity,
    Source,
};
use crate::source::{LineRange, SourceFile, Spanned};

use super::{parse, parse_trigger};

fn parsed(text: &str) -> Dockerfile {
    parse(&SourceFile::new("Dockerfile", text.as_bytes()))
        .unwrap_or_else(|e| panic!("{text}: {e:?}"))
}

/// The last instruction of a text put behind a FROM.
fn last(text: &str) -> InstructionKind {
    let file = parsed(&format!("FROM a\n{text}\n"));
    file.instructions
        .last()
        .expect("an instruction")
        .kind
        .clone()
}

fn values(words: &[Spanned<String>]) -> Vec<&str> {
    words.iter().map(|word| word.value.as_str()).collect()
}

fn value(word: Option<&Spanned<String>>) -> Option<&str> {
    word.map(|word| word.value.as_str())
}

fn shell(text: &str) -> CommandLine {
    CommandLine::Shell(text.to_owned())
}

fn exec(words: &[&str]) -> CommandLine {
    CommandLine::Exec(words.iter().map(|word| (*word).to_owned()).collect())
}

#[test]
fn an_instruction_knows_where_it_stands() {
    let text = "# syntax=x\n\n# about\n#  more \nFROM a\nrUn --network=none x && \\\n  # no\n\n   y \n# end\n";
    let file = parsed(text);
    assert_eq!(value(file.directives.syntax.as_ref()), Some("x"));
    let [from, run] = &file.instructions[..] else {
        panic!("two instructions");
    };
    assert_eq!(values(&from.comments), ["about", "more"]);
    assert_eq!(run.keyword(), "rUn");
    assert_eq!(run.original, "rUn --network=none x &&    y");
    assert_eq!(run.lines, LineRange { first: 6, last: 9 });
    assert_eq!(run.blank_continuations, [8]);
    assert!(run.comments.is_empty());
    let source = |span: crate::source::Span| &text[span.start..span.end];
    assert_eq!(
        source(run.span),
        "rUn --network=none x && \\\n  # no\n\n   y "
    );
    assert_eq!(source(run.keyword_span), "rUn");
    assert_eq!(source(from.comments[1].span), "more");
}

#[test]
fn a_blank_comment_parts_comments_from_an_instruction() {
    for (text, comments) in [
        ("# a\n# b\nFROM x", vec!["a", "b"]),
        ("# a\n\n# b\n\nFROM x", vec!["a", "b"]),
        ("# a\n#\n# b\nFROM x", vec!["b"]),
        ("# check=skip=A\nFROM x", vec![]),
        ("  ## a\nFROM x", vec!["# a"]),
    ] {
        assert_eq!(
            values(&parsed(text).instructions[0].comments),
            comments,
            "{text:?}"
        );
    }
}

#[test]
fn from_has_a_platform_and_a_name() {
    let file = parsed("from --platform=$P a/b:1 aS Base-1.x\nFROM c\n");
    let InstructionKind::From(from) = &file.instructions[0].kind else {
        panic!("FROM");
    };
    assert_eq!(value(from.platform.as_ref()), Some("$P"));
    assert_eq!(from.image.value, "a/b:1");
    assert_eq!(value(from.as_keyword.as_ref()), Some("aS"));
    assert_eq!(value(from.name.as_ref()), Some("Base-1.x"));
}

#[test]
fn commands_have_two_forms() {
    for (text, command) in [
        ("RUN", shell("")),
        ("RUN   a  'b c'  ", shell("a  'b c'")),
        (r#"RUN ["a", "b c"]"#, exec(&["a", "b c"])),
        ("RUN [ -d /tmp ] && x", shell("[ -d /tmp ] && x")),
        ("RUN ['a']", shell("['a']")),
        ("RUN []", exec(&[])),
        ("RUN [ \\\n \"a\", \\\n# c\n \"b\" \\\n]", exec(&["a", "b"])),
        ("RUN -- --x", shell("--x")),
    ] {
        let InstructionKind::Run(run) = last(text) else {
            panic!("{text}");
        };
        assert_eq!(run.command, command, "{text}");
    }
    assert!(matches!(last("CMD [\"a\"]"), InstructionKind::Cmd(c) if c == exec(&["a"])));
    assert!(matches!(last("ENTRYPOINT a b"), InstructionKind::Entrypoint(c) if c == shell("a b")));
    assert!(matches!(last("SHELL [\"a\", \"-c\"]"), InstructionKind::Shell(c) if c == ["a", "-c"]));
}

#[test]
fn run_has_flags_and_heredocs() {
    let text = r#"RUN --mount=type=cache,"target=/a,b",ro --mount=TYPE=$T --network=host --security=insecure --device=x/y=z cat <<A 3<<-'B'
$x
A
	y
	B"#;
    let InstructionKind::Run(run) = last(&text.replace(",\"target=/a,b\"", ",\\\"target=/a,b\\\""))
    else {
        panic!("RUN");
    };
    let owned = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
    assert_eq!(
        run.mounts[0].options,
        [
            owned("type", Some("cache")),
            owned("target", Some("/a,b")),
            owned("ro", None)
        ]
    );
    assert_eq!(run.mounts[1].options, [owned("type", Some("$T"))]);
    assert_eq!(run.network, Some(RunNetwork::Host));
    assert_eq!(run.security, Some(RunSecurity::Insecure));
    assert_eq!(values(&run.devices), ["x/y=z"]);
    assert_eq!(run.command, shell("cat <<A 3<<-'B'"));
    let heredocs: Vec<_> = run
        .heredocs
        .iter()
        .map(|h| (&*h.name, &*h.content, h.fd))
        .collect();
    assert_eq!(heredocs, [("A", "$x\n", None), ("B", "y\n", Some(3))]);
}

#[test]
fn copy_and_add_have_sources_and_a_destination() {
    let InstructionKind::Copy(copy) = last(
        "COPY --from=s --chown=1:2 --chmod=0755 --link --parents --exclude=a --exclude=$b x <<y z/ /d\nbody\ny",
    ) else {
        panic!("COPY");
    };
    assert!(matches!(
        &copy.sources[..],
        [Source::Path(x), Source::Heredoc(0), Source::Path(z)] if x.value == "x" && z.value == "z/"
    ));
    assert_eq!(copy.destination.value, "/d");
    assert_eq!(copy.heredocs[0].content, "body\n");
    assert_eq!(value(copy.from.as_ref()), Some("s"));
    assert_eq!(value(copy.chown.as_ref()), Some("1:2"));
    assert_eq!(value(copy.chmod.as_ref()), Some("0755"));
    assert!(copy.link && copy.parents);
    assert_eq!(values(&copy.exclude), ["a", "$b"]);

    let InstructionKind::Add(add) =
        last("ADD --checksum=c --keep-git-dir=false --unpack [\"a b\", \"<<x\", \"/d e/\"]")
    else {
        panic!("ADD");
    };
    assert!(
        matches!(&add.sources[..], [Source::Path(a), Source::Path(x)] if a.value == "a b" && x.value == "<<x")
    );
    assert_eq!(add.destination.value, "/d e/");
    assert_eq!(value(add.checksum.as_ref()), Some("c"));
    assert_eq!(
        (add.link, add.keep_git_dir, add.unpack),
        (false, Some(false), Some(true))
    );
}

#[test]
fn a_blank_after_the_marker_makes_paths_of_it_but_the_body_is_read() {
    let InstructionKind::Copy(copy) = last("COPY << F /c\nx\nF") else {
        panic!("COPY");
    };
    assert!(
        matches!(&copy.sources[..], [Source::Path(a), Source::Path(b)] if a.value == "<<" && b.value == "F")
    );
    assert_eq!(copy.heredocs.len(), 1);
}

#[test]
fn names_and_values_are_split_before_expansion() {
    for (text, pairs, is_legacy) in [
        (
            "ENV a=1 b=\"x y\"  c=",
            vec![("a", "1"), ("b", "\"x y\""), ("c", "")],
            false,
        ),
        ("LABEL \"k v\"=1", vec![("\"k v\"", "1")], false),
        ("ENV a b = c ", vec![("a", "b = c")], true),
        ("ENV a\tb", vec![("a", "b")], true),
        ("LABEL a=b=c", vec![("a", "b=c")], false),
    ] {
        let (InstructionKind::Env(found) | InstructionKind::Label(found)) = last(text) else {
            panic!("{text}");
        };
        let words: Vec<_> = found
            .pairs
            .iter()
            .map(|p| (&*p.key.value, &*p.value.value))
            .collect();
        assert_eq!((words, found.is_legacy), (pairs, is_legacy), "{text}");
    }
    let InstructionKind::Arg(names) = last("ARG a b= c=\"1 2\"") else {
        panic!("ARG");
    };
    let found: Vec<_> = names
        .iter()
        .map(|n| (&*n.name.value, value(n.default.as_ref())))
        .collect();
    assert_eq!(
        found,
        [("a", None), ("b", Some("")), ("c", Some("\"1 2\""))]
    );
}

#[test]
fn the_escape_directive_holds_for_words_and_lines() {
    let file = parsed("# escape=`\nFROM a\nENV a=x` y b=\\ `\n c=1\n");
    let InstructionKind::Env(env) = &file.instructions[1].kind else {
        panic!("ENV");
    };
    let found: Vec<_> = env
        .pairs
        .iter()
        .map(|p| (&*p.key.value, &*p.value.value))
        .collect();
    assert_eq!(found, [("a", "x` y"), ("b", "\\"), ("c", "1")]);
}

#[test]
fn the_other_instructions_keep_their_words() {
    assert!(
        matches!(last("EXPOSE 80 $p/udp"), InstructionKind::Expose(w) if values(&w) == ["80", "$p/udp"])
    );
    assert!(
        matches!(last("VOLUME [\"/a b\", \" /c \"]"), InstructionKind::Volume(w) if values(&w) == ["/a b", "/c"])
    );
    assert!(
        matches!(last("VOLUME [\"/a\", \"/b\",]"), InstructionKind::Volume(w) if values(&w) == ["[\"/a\",", "\"/b\",]"])
    );
    assert!(matches!(last("USER a:b c"), InstructionKind::User(w) if w.value == "a:b c"));
    assert!(matches!(last("WORKDIR  /a b "), InstructionKind::Workdir(w) if w.value == "/a b"));
    assert!(matches!(last("STOPSIGNAL 9"), InstructionKind::Stopsignal(w) if w.value == "9"));
    assert!(matches!(last("MAINTAINER a <b>"), InstructionKind::Maintainer(w) if w == "a <b>"));
}

#[test]
fn healthcheck_has_durations_and_a_command() {
    let none = last("HEALTHCHECK none");
    assert!(
        matches!(none, InstructionKind::Healthcheck(check) if matches!(*check, Healthcheck::None))
    );
    let text = "HEALTHCHECK --interval=1m30s --timeout=0 --start-period=5ms --start-interval=1s --retries=3 cmd [\"a\"]";
    let InstructionKind::Healthcheck(check) = last(text) else {
        panic!("HEALTHCHECK");
    };
    let Healthcheck::Cmd {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    } = *check
    else {
        panic!("a command");
    };
    assert_eq!(command, exec(&["a"]));
    assert_eq!((interval, timeout), (90_000_000_000, 0));
    assert_eq!(
        (start_period, start_interval, retries),
        (5_000_000, 1_000_000_000, 3)
    );
}

#[test]
fn onbuild_keeps_its_trigger_verbatim() {
    for (text, trigger) in [
        ("onbuild  copy . /a  ", "copy . /a  "),
        ("ONBUILD RUN a \\\n   b", "RUN a    b"),
        (
            "ONBUILD RUN <<-A cat <<B\n\tx\n\tA\ny\r\nB",
            "RUN <<-A cat <<B\n\tx\nA\ny\r\nB",
        ),
        ("ONBUILD NOPE", "NOPE"),
        ("ONBUILD RUN [\"<<A\"]", "RUN [\"<<A\"]"),
    ] {
        assert!(
            matches!(last(text), InstructionKind::Onbuild(o) if o.text == trigger),
            "{text:?}"
        );
    }
}

#[test]
fn a_trigger_is_an_instruction_of_its_own() {
    let text = "COPY <<-A /a\n\tx\nA";
    let Instruction { kind, lines, .. } = parse_trigger(text).expect("valid");
    let InstructionKind::Copy(copy) = kind else {
        panic!("COPY");
    };
    assert_eq!(
        (
            copy.heredocs[0].content.as_str(),
            copy.heredocs[0].raw(text)
        ),
        ("x\n", "\tx\n")
    );
    assert_eq!(lines, LineRange { first: 1, last: 3 });
    for (text, message) in [
        ("NONSENSE x", "unknown instruction: NONSENSE"),
        ("FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "RUN a\nRUN b",
            "onbuild trigger should be a single expression",
        ),
        ("", "file with no instructions"),
        ("RUN --x a", "unknown flag: --x"),
    ] {
        let error = parse_trigger(text).expect_err(text);
        assert_eq!((error.message.as_str(), error.lines), (message, None));
    }
}
