//! Sizes as people read them.

/// Bytes as Docker shows them: decimal units, four digits at most.
pub fn shown(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut scale = 1000u64;
    for (number, unit) in UNITS.iter().enumerate() {
        let is_last = number + 1 == UNITS.len();
        if is_last || bytes / scale < 1000 {
            let tenths = bytes / (scale / 10);
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
        scale = scale.saturating_mul(1000);
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (1_234_567, "1.2MB"),
            (999_999, "999.9kB"),
            (50_000_000_000, "50.0GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(shown(bytes), text);
        }
    }
}
