//! The ARGs of a stage, with or without a value.

use std::collections::BTreeMap;

/// The ARGs declared so far, each once, in the order of their first declaration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    names: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Declared {
    /// Declares a name, with its value at that point.
    pub(crate) fn declare(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.names.push(name.to_owned());
        }
    }

    /// Whether a name is declared.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value with which a name was declared last; empty for names that are not.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// The names in order.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_first_place_and_take_their_last_value() {
        let mut declared = Declared::default();
        for (name, value) in [("Z", "1"), ("A", "2"), ("Z", "3")] {
            declared.declare(name, value.to_owned());
        }
        assert_eq!(declared.names(), ["Z", "A"]);
        assert_eq!(declared.value("Z"), "3");
        assert!(declared.contains("A") && !declared.contains("B"));
        assert_eq!(declared.value("B"), "");
    }
}
