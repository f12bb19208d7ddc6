//! PAX extended headers: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
//!
//! The tar crate's parser splits at newlines and so misreads binary values: `CAP_DAC_OVERRIDE` with `CAP_FOWNER` is
//! the byte 0x0a. This one goes by the lengths.

/// Reads all records in order; `None` if one is malformed.
pub(super) fn parse(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let blank = data.iter().position(|byte| *byte == b' ')?;
        let length = std::str::from_utf8(&data[..blank])
            .ok()?
            .parse::<usize>()
            .ok()?;
        let (record, rest) = data.split_at_checked(length)?;
        let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
        let equals = body.iter().position(|byte| *byte == b'=')?;
        records.push((&body[..equals], &body[equals + 1..]));
        data = rest;
    }
    Some(records)
}

/// Appends a record.
pub(super) fn write(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let content = key.len() + value.len() + 3;
    let mut length = content + 1;
    while content + length.to_string().len() != length {
        length = content + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The whole seconds of a time such as `-1.5`: rounded down.
pub(super) fn seconds(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let is_below = whole.starts_with('-') && fraction.bytes().any(|byte| byte != b'0');
    seconds.checked_sub(i64::from(is_below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let long = vec![b'x'; 95];
        for value in [
            &b""[..],
            b"a\nb=c",
            &[10; 20],
            &long,
            &long[..91],
            &long[..92],
            &long[..93],
        ] {
            let mut data = Vec::new();
            write(&mut data, b"path", value);
            write(&mut data, b"uid", b"7");
            assert_eq!(
                parse(&data).unwrap(),
                [(&b"path"[..], value), (b"uid", b"7")]
            );
        }
        for bad in [
            &b"5 a=b"[..],
            b"6 a=b",
            b"x a=b\n",
            b"7 a=bc",
            b"99 a=b\n",
            b"4 ab\n",
            b"0 ",
            b"1 ",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_round_down() {
        let cases: [(&[u8], Option<i64>); 8] = [
            (b"12", Some(12)),
            (b"12.999", Some(12)),
            (b"-1.5", Some(-2)),
            (b"-1.0", Some(-1)),
            (b"-0.5", Some(-1)),
            (b"1.x", None),
            (b"", None),
            (b"9223372036854775808", None),
        ];
        for (value, expected) in cases {
            assert_eq!(seconds(value), expected, "{value:?}");
        }
    }
}
