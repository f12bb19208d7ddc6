//! Words and what they expand to.

use super::super::Scope;
use super::*;

fn scope() -> Scope {
    let mut scope = Scope::default();
    for (name, value) in [
        ("A", "v"),
        ("E", ""),
        ("S", "set"),
        ("D", "deep"),
        ("V", "banana"),
        ("F", "a/b/c"),
        ("W", "two words"),
    ] {
        scope.set(name, value);
    }
    scope
}

fn expand(word: &str) -> String {
    match Lexer::new('\\').expand(word, &scope()) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn expands_all_forms() {
    for (word, want) in [
        ("5$", "5$"),
        ("\"$ x\"", "$ x"),
        ("$A$A${A}x$Ax", "vvvx"),
        ("$1.", "."),
        ("\"$@$*$#$?$-$!$0.\"", "."),
        ("$$", ""),
        ("\"a$-b\"", "ab"),
        ("$.x", "$.x"),
        ("%$A%", "%v%"),
        ("\\$A \\${A}", "$A ${A}"),
        ("\"\\$A\"", "$A"),
        ("'\\$A'", "\\$A"),
        ("\\\\$A", "\\v"),
        ("\"\\x\\\"\"", "\\x\""),
        ("\\x", "x"),
        ("\"c:\\\\d\"", "c:\\d"),
        ("'c:\\\\d'", "c:\\\\d"),
        ("${N:-${M:-${D}}}", "deep"),
        ("${S:+<${S}>}", "<set>"),
        ("\"${N:-a ${E:-$D} b}\"", "a deep b"),
        ("${S#${S%t}}", "t"),
        ("${N:-'s q'}", "s q"),
        ("\"${N:-\\}}\"", "}"),
        ("${E-w}|${E:-w}|${N-w}|${N+w}|${E+w}|${E:+w}", "|w|w||w|"),
        (
            "${V/a/o} ${V//a/o} ${V/n*/X} ${V/?a/Y}",
            "bonana bonono baX Ynana",
        ),
        ("${V/zz/y} ${F/\\//-} ${F//\\//-}", "banana a-b/c a-b-c"),
        ("${V/ana/[&]}", "b[&]na"),
        ("x'$A'\"$A\"y", "x$Avy"),
    ] {
        assert_eq!(expand(word), want, "{word}");
    }
}

#[test]
fn names_what_is_wrong() {
    for (word, want) in [
        (
            "${A",
            "failed to process \"${A\": syntax error: missing '}'",
        ),
        ("${", "failed to process \"${\": syntax error: missing '}'"),
        (
            "${}",
            "failed to process \"${}\": syntax error: bad substitution",
        ),
        (
            "${{A}",
            "failed to process \"${{A}\": syntax error: bad substitution",
        ),
        (
            "${A:=x}",
            "failed to process \"${A:=x}\": unsupported modifier (:=) in substitution",
        ),
        (
            "${A^}",
            "failed to process \"${A^}\": unsupported modifier (^) in substitution",
        ),
        (
            "${N:?please set N}",
            "failed to process \"${N:?please set N}\": N: please set N",
        ),
        (
            "${N?}",
            "failed to process \"${N?}\": N: is not allowed to be unset",
        ),
        (
            "${E:?}",
            "failed to process \"${E:?}\": E: is not allowed to be empty",
        ),
        (
            "${A/x",
            "failed to process \"${A/x\": syntax error: missing '/' in ${}",
        ),
        (
            "\"a",
            "failed to process \"\\\"a\": unexpected end of statement while looking for matching \
             double-quote",
        ),
        (
            "'a",
            "failed to process \"'a\": unexpected end of statement while looking for matching \
             single-quote",
        ),
        (
            "${A#\\ }",
            "failed to process \"${A#\\\\ }\": invalid pattern (\\ ) in substitution: invalid \
             escape '\\ '",
        ),
    ] {
        assert_eq!(expand(word), format!("error: {want}"), "{word}");
    }
}

#[test]
fn splits_values_but_not_quotes() {
    let lexer = Lexer::new('\\');
    let words = |word| lexer.expand_words(word, &scope()).unwrap().words;
    assert_eq!(words("$W x"), ["two", "words", "x"]);
    assert_eq!(words("\"$W\" x\\ y"), ["two words", "x y"]);
    assert_eq!(words("$E"), [""; 0]);
}

#[test]
fn shows_commands_with_quotes_and_unset_names() {
    let lexer = Lexer::new('\\').for_display();
    let show = |word| lexer.expand(word, &scope()).unwrap();
    assert_eq!(
        show("echo \"$A $N\" '$A' ${N:-x} ${N}"),
        "echo \"v $N\" '$A' ${N:-x} ${N}"
    );
}

#[test]
fn heredocs_keep_quotes() {
    let lexer = Lexer::for_heredocs();
    assert_eq!(
        lexer.expand("'$A' \"$A\" \\$A", &scope()).unwrap(),
        "'v' \"v\" $A"
    );
}

#[test]
fn another_escape_character() {
    assert_eq!(
        Lexer::new('`')
            .expand("`$A \\$A ${N:-`}}", &scope())
            .unwrap(),
        "$A \\v }"
    );
}

#[test]
fn deep_nesting_is_an_error() {
    let word = format!("{}x{}", "${N:-".repeat(60), "}".repeat(60));
    assert_eq!(expand(&word), "x");
    assert!(expand(&"${N:-".repeat(20_000)).ends_with("nested too deeply"));
}

proptest::proptest! {
    #[test]
    fn no_word_panics(word in "[${}A:#%/*?+'\"\\\\ @0é`-]{0,40}") {
        for lexer in [Lexer::new('\\'), Lexer::new('`').for_display(), Lexer::for_heredocs()] {
            drop(lexer.expand_words(&word, &scope()));
        }
    }
}
