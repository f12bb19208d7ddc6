//! Sizes in memory (`units.RAMInBytes`): `64m`, `1.5g`, `10 kib`; units are powers of 1024.

/// Bytes, if the text is a size.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits_end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, suffix) = text.split_at(digits_end + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let suffix = suffix.to_lowercase();
    let unit = match suffix
        .strip_suffix("ib")
        .or_else(|| suffix.strip_suffix('b'))
    {
        Some("") if suffix.len() > 1 => return None,
        Some(unit) => unit,
        None => &suffix,
    };
    let exponent = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1_u64 << (10 * exponent);
    scale(number, factor)
}

/// `number * factor` for a decimal number, fractions of a byte cut.
fn scale(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut part = 0_u128;
    let mut weight = u128::from(factor) * 1_000_000_000_000;
    for digit in fraction.bytes() {
        weight /= 10;
        part += u128::from(digit - b'0') * weight;
    }
    let part = u64::try_from(part / 1_000_000_000_000).ok()?;
    whole.checked_mul(factor)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn reads_sizes() {
        for (text, want) in [
            ("10", Some(10)),
            ("64m", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("10 KiB", Some(10 << 10)),
            ("1kb", Some(1024)),
            ("8b", Some(8)),
            ("lots", None),
            ("1x", None),
            ("1ib", None),
            ("-1", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(parse_size(text), want, "{text}");
        }
    }
}
