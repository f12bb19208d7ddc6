//! The documentation page of a rule, in Markdown.

use super::rules::{Rule, Standing};

/// Where BuildKit's rules are described.
const SITE: &str = "https://docs.docker.com/go/dockerfile/rule/";

/// What a page tells beside the rule itself. Examples are checked by tests: the bad one is warned of, the good one not.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Why the rule is there and what to do, in Markdown.
    pub text: &'static str,
    /// A Dockerfile that goes against it.
    pub bad: &'static str,
    /// The same done well.
    pub good: &'static str,
    /// The `.dockerignore` of the examples, if they need one.
    pub ignore: Option<&'static str>,
}

impl Rule {
    /// The address of BuildKit's description; some have none.
    pub fn url(&self) -> Option<String> {
        self.is_described.then(|| format!("{SITE}{}/", self.slug))
    }

    /// Its page.
    pub fn page(&self) -> String {
        let Self { name, page, .. } = self;
        let description = self.description.trim_end_matches('.');
        let mut text = format!("# {name}\n\n{description}.\n\n{}\n", page.text);
        if let Some(ignore) = page.ignore {
            text += &format!("\nThe examples have this `.dockerignore`:\n\n```text\n{ignore}```\n");
        }
        text += &format!("\nNot so:\n\n```dockerfile\n{}```\n", page.bad);
        text += &format!("\nBut so:\n\n```dockerfile\n{}```\n", page.good);
        text += &match self.standing {
            Standing::Regular => format!(
                "\nTo do without this check, begin the Dockerfile with `# check=skip={name}`."
            ),
            Standing::Experimental => format!(
                "\nThis check is experimental: begin the Dockerfile with `# check=experimental={name}` to have it."
            ),
        };
        if let Some(url) = self.url() {
            text += &format!("\n\nBuildKit's description: <{url}>");
        }
        text.push('\n');
        text
    }
}
