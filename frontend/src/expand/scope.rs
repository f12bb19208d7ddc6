//! Variables in the order in which they were set last.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Variables;
use super::allowance::{Allowance, Exhausted};

/// What a variable costs beside its text.
const OVERHEAD_BYTES: usize = 64;

/// The environment of a place in a Dockerfile: ENV and ARG share it, and who sets a name last wins (features.md 1.7).
/// Setting a name again moves it to the end, as in BuildKit; the order is part of a RUN's definition.
///
/// Looking up and setting do not get slower than the logarithm of the number of variables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// By the turn at which they were set.
    entries: BTreeMap<u64, (Rc<str>, String)>,
    /// The turn of each name.
    turns: BTreeMap<Rc<str>, u64>,
    next: u64,
    allowance: Allowance,
}

impl Scope {
    /// One without variables that draws on the same allowance.
    pub(crate) fn sibling(&self) -> Self {
        Self {
            allowance: self.allowance.clone(),
            ..Self::default()
        }
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        let name = match self.turns.get_key_value(name) {
            Some((known, turn)) => {
                self.entries.remove(turn);
                Rc::clone(known)
            }
            None => Rc::from(name),
        };
        self.turns.insert(Rc::clone(&name), self.next);
        self.entries.insert(self.next, (name, value.into()));
        self.next += 1;
    }

    /// The value of a variable, if it is set.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.entries.get(self.turns.get(name)?)?;
        Some(value)
    }

    /// All variables in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.entries.values();
        entries.map(|(name, value)| (&**name, value.as_str()))
    }

    /// The names of all variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries().map(|(name, _)| name)
    }

    /// Spends of the allowance; whoever can, finds out that nothing is left.
    pub(crate) fn charge(&self, bytes: usize) {
        let _left = self.allowance.spend(bytes);
    }

    /// Whether the allowance has something left.
    ///
    /// # Errors
    ///
    /// If it has not.
    pub(crate) fn check_allowance(&self) -> Result<(), Exhausted> {
        self.allowance.spend(0)
    }

    /// About how many bytes a copy of it takes.
    pub(crate) fn size(&self) -> usize {
        let sizes = self.entries().map(|(name, value)| name.len() + value.len());
        sizes.map(|size| size + OVERHEAD_BYTES).sum()
    }
}

impl Variables for Scope {
    fn lookup(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    fn allowance(&self) -> &Allowance {
        &self.allowance
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
        assert_eq!(scope.names().collect::<Vec<_>>(), ["B", "A"]);
        assert_eq!(scope.size(), 2 * (2 + OVERHEAD_BYTES));
    }

    #[test]
    fn siblings_draw_on_one_allowance() {
        let scope = Scope::default();
        let sibling = scope.sibling();
        assert!(scope.allowance().spend(usize::MAX).is_err());
        assert!(sibling.check_allowance().is_err());
    }
}
