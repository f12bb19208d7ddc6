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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Level(&'static str, #[source] Option<Box<Self>>);

    #[test]
    fn levels_are_joined_and_not_repeated() {
        let inner = Level("no space", None);
        let same = Level("cannot write `x`", Some(Box::new(inner)));
        let outer = Level("cannot write `x`", Some(Box::new(same)));
        assert_eq!(chain(&outer), "cannot write `x`: no space");
    }
}
