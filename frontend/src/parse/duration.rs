//! Durations as Go writes them (`1h30m`, `1.5s`, `-3ms`), for HEALTHCHECK.

use thiserror::Error;

/// Why a duration was refused; the texts are Go's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum DurationError {
    #[error("time: invalid duration {text:?}")]
    Invalid { text: String },
    #[error("time: missing unit in duration {text:?}")]
    MissingUnit { text: String },
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit { unit: String, text: String },
}

/// Parses a duration into nanoseconds.
pub(super) fn parse(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid {
        text: text.to_owned(),
    };
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(DurationError::MissingUnit {
                text: text.to_owned(),
            });
        }
        let scale = nanoseconds(unit).ok_or_else(|| DurationError::UnknownUnit {
            unit: unit.to_owned(),
            text: text.to_owned(),
        })?;
        total += scaled(whole, fraction, scale).ok_or_else(invalid)?;
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = after;
    }
    let total = if is_negative { -total } else { total };
    i64::try_from(total).map_err(|_overflow| invalid())
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `whole.fraction` times `scale`; digits too small to matter are dropped. `None` if it is out of range.
fn scaled(whole: &str, fraction: &str, scale: i64) -> Option<i128> {
    let whole: i64 = match whole {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let (mut parts, mut divisor): (i128, i128) = (0, 1);
    // More digits than eighteen are below a nanosecond in any unit, and the products fit.
    for digit in fraction.bytes().take(18) {
        parts = parts * 10 + i128::from(digit - b'0');
        divisor *= 10;
    }
    Some(i128::from(whole) * i128::from(scale) + parts * i128::from(scale) / divisor)
}

fn nanoseconds(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("1.s", 1_000_000_000),
            ("0.000000001s", 1),
            ("0.0000000019s", 1),
            ("2\u{b5}s", 2_000),
            ("-3ms", -3_000_000),
            ("+1s", 1_000_000_000),
            ("2540400h10m10s", 9_145_440_610_000_000_000),
            (&format!("1.{}s", "9".repeat(1000)), 1_999_999_999),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_durations_are_named() {
        for (text, message) in [
            ("", r#"time: invalid duration """#),
            ("-", r#"time: invalid duration "-""#),
            ("x", r#"time: invalid duration "x""#),
            (".s", r#"time: invalid duration ".s""#),
            ("5", r#"time: missing unit in duration "5""#),
            ("1s5", r#"time: missing unit in duration "1s5""#),
            ("5d", r#"time: unknown unit "d" in duration "5d""#),
            ("9999999999h", r#"time: invalid duration "9999999999h""#),
            (
                "99999999999999999999s",
                r#"time: invalid duration "99999999999999999999s""#,
            ),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), message);
        }
    }
}
