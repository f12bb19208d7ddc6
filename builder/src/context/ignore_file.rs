//! The ignore file of a context, as the walk asks it.

use frontend::ignore::IgnoreRules;

use super::walk::Excludes;

/// Rules with the name of the file they were read from.
#[derive(Clone, Debug)]
pub struct IgnoreFile {
    name: String,
    rules: IgnoreRules,
}

impl IgnoreFile {
    /// Takes the file's name as people know it (`.dockerignore`, `Dockerfile.dockerignore`) and its rules.
    pub fn new(name: impl Into<String>, rules: IgnoreRules) -> Self {
        Self {
            name: name.into(),
            rules,
        }
    }
}

impl Excludes for IgnoreFile {
    fn is_excluded(&self, path: &str) -> bool {
        self.rules.is_excluded(path)
    }

    fn can_skip_directory(&self, path: &str) -> bool {
        self.rules.can_skip_directory(path)
    }

    fn why(&self, path: &str) -> Option<String> {
        let decision = self.rules.decide(path)?;
        decision
            .is_excluded
            .then(|| format!("{}:{} (`{}`)", self.name, decision.line, decision.pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_decided_is_told() {
        let rules = IgnoreRules::parse("# built\ndist\n!dist/keep\n").unwrap();
        let file = IgnoreFile::new(".dockerignore", rules);
        assert_eq!(file.why("dist/app").unwrap(), ".dockerignore:2 (`dist`)");
        assert_eq!(file.why("dist/keep"), None);
        assert_eq!(file.why("src"), None);
        assert!(file.is_excluded("dist") && !file.can_skip_directory("dist"));
    }
}
