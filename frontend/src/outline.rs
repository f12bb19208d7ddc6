//! What a Dockerfile offers: its targets, and what a target takes (BuildKit's `frontend.targets` and `frontend.outline`).
//!
//! Targets are read from the text. An outline needs values and base images, so lowering makes it.

use std::collections::BTreeSet;

use crate::ast::{Dockerfile, InstructionKind};
use crate::source::{LineRange, Spanned};

/// A stage as something to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its lower-case name; empty if it has none.
    pub name: String,
    /// What the comment above it says.
    pub description: String,
    /// Whether it is built if no target is named.
    pub is_default: bool,
    /// Its base as written.
    pub base: String,
    /// Its platform as written; empty if there is none.
    pub platform: String,
    /// The lines of its FROM.
    pub lines: LineRange,
}

/// What a target takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name; empty if it has none.
    pub name: String,
    /// What the comment above the target says.
    pub description: String,
    /// Build arguments, by line.
    pub args: Vec<Parameter>,
    /// Secrets, by line.
    pub secrets: Vec<Credential>,
    /// ssh agents, by line.
    pub ssh: Vec<Credential>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What the comment above its ARG says.
    pub description: String,
    /// Its value in this build, empty if it has none.
    pub value: String,
    /// The lines of its ARG.
    pub lines: LineRange,
}

/// A secret or an ssh agent that some command uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its id.
    pub name: String,
    /// Whether the command fails without it.
    pub is_required: bool,
    /// The lines of the first command that uses it.
    pub lines: LineRange,
}

/// The stages of a file.
pub fn targets(dockerfile: &Dockerfile) -> Vec<Target> {
    let mut targets: Vec<Target> = dockerfile
        .instructions
        .iter()
        .filter_map(|instruction| {
            let InstructionKind::From(from) = &instruction.kind else {
                return None;
            };
            let name = from.name.as_ref().map(|name| name.value.to_lowercase());
            let name = name.unwrap_or_default();
            Some(Target {
                description: description(&instruction.comments, &name),
                name,
                is_default: false,
                base: from.image.value.clone(),
                platform: from
                    .platform
                    .as_ref()
                    .map_or(String::new(), |platform| platform.value.clone()),
                lines: instruction.lines,
            })
        })
        .collect();
    if let Some(last) = targets.last_mut() {
        last.is_default = true;
    }
    targets
}

/// What comments say about a name: the rest of the first that begins with it.
pub(crate) fn description(comments: &[Spanned<String>], name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let mut texts = comments.iter().filter_map(|comment| {
        let rest = comment.value.strip_prefix(name)?;
        rest.strip_prefix(' ')
    });
    texts.next().unwrap_or_default().to_owned()
}

impl Outline {
    /// Puts everything in the order of lines, each name once.
    pub(crate) fn tidy(mut self) -> Self {
        let mut seen = BTreeSet::new();
        self.args.retain(|arg| seen.insert(arg.name.clone()));
        self.args.sort_by_key(|arg| arg.lines.first);
        for credentials in [&mut self.secrets, &mut self.ssh] {
            let mut seen = BTreeSet::new();
            credentials.retain(|credential| seen.insert(credential.name.clone()));
            credentials.sort_by_key(|credential| credential.lines.first);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceFile;

    #[test]
    fn stages_are_listed_with_their_descriptions() {
        let text = "ARG V=1\n# base has the tools\nFROM --platform=$BUILDPLATFORM busybox:$V AS Base\n\
                    # unrelated\nFROM base\n";
        let source = SourceFile::new("Dockerfile", text.as_bytes());
        let found = targets(&crate::parse::parse(&source).expect("valid"));
        let shown: Vec<String> = found
            .iter()
            .map(|t| {
                let lines = t.lines.first;
                format!(
                    "{}|{}|{}|{}|{}|{lines}",
                    t.name, t.description, t.is_default, t.base, t.platform
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "base|has the tools|false|busybox:$V|$BUILDPLATFORM|3",
                "||true|base||5"
            ]
        );
    }
}
