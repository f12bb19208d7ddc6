//! JSON as Go's `encoding/json` writes it: the bytes that digests of configs and manifests are made of.
//!
//! Go escapes `<`, `>`, `&`, U+2028 and U+2029 inside strings (`json.Marshal`, "HTML escaping"); `serde_json` does not. All
//! else is equal: the short escapes, lower-case `\u00xx`, empty arrays and objects without a line break.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// `json.Marshal`.
///
/// # Errors
///
/// When a map key is no string or the value's own serialisation fails.
pub fn compact<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    write(value, CompactFormatter)
}

/// `json.MarshalIndent` with two blanks.
///
/// # Errors
///
/// As [`compact`].
pub fn indented<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    write(value, PrettyFormatter::with_indent(b"  "))
}

fn write<T: Serialize>(value: &T, inner: impl Formatter) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(
        &mut bytes,
        GoFormatter(inner),
    ))?;
    Ok(bytes)
}

/// Another formatter with Go's escapes.
struct GoFormatter<F>(F);

const ESCAPED: &[char] = &['<', '>', '&', '\u{2028}', '\u{2029}'];

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(ESCAPED) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn escapes_what_go_escapes() {
        let value = json!({"a&b": "<x> \u{2028}\u{2029} \u{7f} \u{1} \n\t\"\\ é"});
        let expected = concat!(
            r#"{"a\u0026b":"\u003cx\u003e \u2028\u2029 "#,
            "\u{7f}",
            r#" \u0001 \n\t\"\\ é"}"#
        );
        assert_eq!(text(compact(&value).unwrap()), expected);
    }

    #[test]
    fn indents_by_two_and_keeps_empty_values_on_one_line() {
        let value = json!({"b": [1, "<"], "a": [], "c": {}});
        let expected = "{\n  \"b\": [\n    1,\n    \"\\u003c\"\n  ],\n  \"a\": [],\n  \"c\": {}\n}";
        assert_eq!(text(indented(&value).unwrap()), expected);
    }
}
