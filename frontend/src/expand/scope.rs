//! Variables in the order in which they were set last.

use super::Variables;

/// The environment of a place in a Dockerfile: ENV and ARG share it, and who sets a name last wins (features.md 1.7).
/// Setting a name again moves it to the end, as in BuildKit; the order is part of a RUN's definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    entries: Vec<(String, String)>,
}

impl Scope {
    /// Sets a variable.
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.entries.retain(|(known, _)| *known != name);
        self.entries.push((name, value.into()));
    }

    /// The value of a variable, if it is set.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// All variables in order.
    pub(crate) fn entries(&self) -> &[(String, String)] {
        &self.entries
    }
}

impl Variables for Scope {
    fn lookup(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_set_again_moves_to_the_end() {
        let mut scope = Scope::default();
        scope.set("A", "1");
        scope.set("B", "2");
        scope.set("A", "3");
        assert_eq!(scope.value("A"), Some("3"));
        assert_eq!(scope.value("C"), None);
        let names: Vec<&str> = scope.entries().iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["B", "A"]);
    }
}
