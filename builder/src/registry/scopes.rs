//! What a token is good for: `repository:NAME:ACTIONS` (the distribution spec's token scope).

use std::collections::{BTreeMap, BTreeSet};

/// What a request needs: `repository:NAME` → actions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    pub(crate) fn pull(repository: &str) -> Self {
        Self::default().with(repository, &["pull"])
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self::default().with(repository, &["pull", "push"])
    }

    pub(crate) fn with(mut self, repository: &str, actions: &[&str]) -> Self {
        let known = self
            .0
            .entry(format!("repository:{repository}"))
            .or_default();
        known.extend(actions.iter().map(|action| (*action).to_owned()));
        self
    }

    /// Adds what a challenge names.
    pub(crate) fn add(&mut self, text: &str) {
        for scope in text.split_ascii_whitespace() {
            if let Some((resource, actions)) = scope.rsplit_once(':') {
                let known = self.0.entry(resource.to_owned()).or_default();
                known.extend(actions.split(',').map(str::to_owned));
            }
        }
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        let mut wanted = other.0.iter();
        wanted.all(|(resource, actions)| {
            let known = self.0.get(resource);
            known.is_some_and(|known| known.is_superset(actions))
        })
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        let join = |actions: &BTreeSet<String>| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            actions.join(",")
        };
        let all = self.0.iter();
        all.map(|(resource, actions)| format!("{resource}:{}", join(actions)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_sorted_and_compared() {
        let mut scopes = Scopes::push("b").with("a", &["pull"]);
        scopes.add("repository:a:push registry:catalog:* nonsense");
        let texts = [
            "registry:catalog:*",
            "repository:a:pull,push",
            "repository:b:pull,push",
        ];
        assert_eq!(scopes.texts(), texts);
        assert!(scopes.covers(&Scopes::pull("a")));
        assert!(!Scopes::pull("a").covers(&scopes));
        assert!(!scopes.covers(&Scopes::pull("c")));
    }
}
