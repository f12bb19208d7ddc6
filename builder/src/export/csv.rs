//! Fields of one CSV record, as flags like `--output` and `--mount` have them (Go's `encoding/csv`).

/// A text that is no CSV record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// A quote inside a field that does not begin with one.
    #[error("bare \" in non-quoted field")]
    BareQuote,
    /// A quoted field that goes on after its end, or does not end.
    #[error("extraneous or missing \" in quoted field")]
    Quote,
}

/// Splits a record.
pub(super) fn fields(text: &str) -> Result<Vec<String>, CsvError> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, tail) = rest.split_at(end);
                if field.contains('"') {
                    return Err(CsvError::BareQuote);
                }
                (field.to_owned(), tail)
            }
        };
        fields.push(field);
        match tail.strip_prefix(',') {
            Some(next) => rest = next,
            None if tail.is_empty() => return Ok(fields),
            None => return Err(CsvError::Quote),
        }
    }
}

/// The field after its opening quote, and what follows its closing one; `""` is a quote.
fn quoted_field(text: &str) -> Result<(String, &str), CsvError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or(CsvError::Quote)?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(tail) => {
                field.push('"');
                rest = tail;
            }
            None => return Ok((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_go_does() {
        for (text, expected) in [
            ("", vec![""]),
            ("a,b", vec!["a", "b"]),
            ("a,", vec!["a", ""]),
            (
                r#"type=image,"name=a,b",push=true"#,
                vec!["type=image", "name=a,b", "push=true"],
            ),
            (r#""a""b""#, vec![r#"a"b"#]),
        ] {
            assert_eq!(fields(text).unwrap(), expected, "{text}");
        }
        for (text, expected) in [
            (r#"a"b"#, CsvError::BareQuote),
            (r#""a"#, CsvError::Quote),
            (r#""a"b"#, CsvError::Quote),
        ] {
            assert_eq!(fields(text), Err(expected), "{text}");
        }
    }
}
