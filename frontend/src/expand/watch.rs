//! Which variables an expansion asks for.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::{Allowance, Lexer, Scope, Variables};

/// What a word asks for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Variables that are set, each once.
    pub(crate) found: Vec<String>,
    /// Variables that are not, each once.
    pub(crate) missing: Vec<String>,
    /// What the word expands to; `None` if it cannot be expanded, which lowering reports.
    pub(crate) text: Option<String>,
}

struct Watch<'a> {
    scope: &'a Scope,
    asked: RefCell<Asked>,
    seen: RefCell<BTreeSet<String>>,
}

impl Variables for Watch<'_> {
    fn lookup(&self, name: &str) -> Option<String> {
        let value = self.scope.lookup(name);
        if !self.seen.borrow_mut().insert(name.to_owned()) {
            return value;
        }
        let mut asked = self.asked.borrow_mut();
        let names = match value {
            Some(_) => &mut asked.found,
            None => &mut asked.missing,
        };
        names.push(name.to_owned());
        value
    }

    fn allowance(&self) -> &Allowance {
        self.scope.allowance()
    }
}

/// Expands a word and notes what it asks for.
pub(crate) fn watch(lexer: Lexer, word: &str, scope: &Scope) -> Asked {
    if !word.contains('$') {
        return Asked {
            text: lexer.expand(word, scope).ok(),
            ..Asked::default()
        };
    }
    let watch = Watch {
        scope,
        asked: RefCell::default(),
        seen: RefCell::default(),
    };
    let text = lexer.expand(word, &watch).ok();
    Asked {
        text,
        ..watch.asked.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let mut scope = Scope::default();
        scope.set("A", "x");
        let asked = watch(Lexer::new('\\'), "$A$B${B:-$A}${C:-d}$", &scope);
        assert_eq!(asked.found, ["A"]);
        assert_eq!(asked.missing, ["B", "C"]);
        assert_eq!(asked.text.as_deref(), Some("xxd$"));
        assert_eq!(watch(Lexer::new('\\'), "${", &scope).text, None);
    }
}
