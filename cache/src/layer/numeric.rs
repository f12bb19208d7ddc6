//! Numbers in tar headers: octal text, or base 256 where the first bit is set (GNU).

/// Reads a field; blank means 0. `None` if it is no number or out of range.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => parse_binary(field),
        Some(_) | None => parse_octal(field),
    }
}

fn parse_octal(field: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field
        .iter()
        .position(|byte| !is_blank(byte))
        .unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    digits[..end]
        .iter()
        .try_fold(0_i64, |number, digit| match digit {
            b'0'..=b'7' => number.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
            _ => None,
        })
}

/// Two's complement, big-endian; the first bit is the marker and the second the sign.
fn parse_binary(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let is_negative = first & 0x40 != 0;
    let start = i128::from(first & 0x7f) - if is_negative { 0x80 } else { 0 };
    let number = rest.iter().try_fold(start, |number, byte| {
        number.checked_mul(256)?.checked_add(i128::from(*byte))
    })?;
    i64::try_from(number).ok()
}

/// Writes octal digits with leading zeros and a closing NUL. The number must fit.
pub(super) fn write_octal(field: &mut [u8], mut number: u64) {
    let Some((last, digits)) = field.split_last_mut() else {
        return;
    };
    *last = 0;
    for digit in digits.iter_mut().rev() {
        let [low, ..] = (number & 7).to_le_bytes();
        *digit = b'0' + low;
        number >>= 3;
    }
    debug_assert_eq!(number, 0, "a number that does not fit needs a PAX record");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let cases: [(&[u8], Option<i64>); 12] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"", Some(0)),
            (b"77777777777", Some(0o77_777_777_777)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (
                b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                Some(i64::MAX),
            ),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\x88\xdd\x38\x00",
                Some(-1_998_768_128),
            ),
        ];
        for (field, expected) in cases {
            assert_eq!(parse(field), expected, "{field:?}");
        }
        let mut field = [b'x'; 8];
        write_octal(&mut field, 0o7_777_777);
        assert_eq!(&field, b"7777777\0");
    }
}
