//! Errors and sizes as text.

use std::error::Error;

/// An error and everything that caused it, outermost first, joined by `: `. Levels that say the same are said once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        let level = cause.to_string();
        if level != last {
            text.push_str(": ");
            text.push_str(&level);
        }
        last = level;
        source = cause.source();
    }
    text
}

/// A number of bytes in the largest binary unit that divides it: `64 MiB`, `1000 B`.
pub fn binary_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    let unit = UNITS
        .iter()
        .find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size));
    match unit {
        Some((size, name)) => format!("{} {name}", bytes / size),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Level(&'static str, #[source] Option<Box<Self>>);

    #[test]
    fn sizes_are_whole_numbers() {
        let cases = [
            (0, "0 B"),
            (1000, "1000 B"),
            (1024, "1 KiB"),
            (1 << 26, "64 MiB"),
            (3 << 29, "1536 MiB"),
            (1 << 40, "1 TiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(binary_size(bytes), text);
        }
    }

    #[test]
    fn levels_are_joined_and_not_repeated() {
        let inner = Level("no space", None);
        let same = Level("cannot write `x`", Some(Box::new(inner)));
        let outer = Level("cannot write `x`", Some(Box::new(same)));
        assert_eq!(chain(&outer), "cannot write `x`: no space");
    }
}
