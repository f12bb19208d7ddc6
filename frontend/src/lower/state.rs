//! What a stage has come to: its file system, environment and image, changed by one instruction after the other.

use std::collections::BTreeMap;

use crate::config::RuntimeConfig;
use crate::expand::{Allowance, Declared, Lexer, Scope, Variables};
use crate::graph::VertexId;
use crate::ignore::clean_path;
use crate::lint::StageMemory;
use crate::platform::Platform;
use crate::secret_name::looks_secret;
use crate::source::LineRange;

use super::from::BaseImage;
use super::notes::Notes;

/// What each text of a state takes beside its bytes, about.
const PART_BYTES: usize = 64;

/// PATH if the base has none (features.md 1.7).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The state of a stage. Stages that start from it take a copy.
#[derive(Clone, Debug, Default)]
pub(super) struct StageState {
    /// The file system; `None` is scratch.
    pub(super) root: Option<VertexId>,
    /// What its base was asked for, if not for the platform built for; steps run there.
    pub(super) platform: Option<Platform>,
    /// ENV and ARG, as steps see them.
    pub(super) scope: Scope,
    /// ARGs declared so far, those of base stages first, with their values at that point.
    pub(super) args: Declared,
    /// The image.
    pub(super) image: StageImage,
    /// What the build checks remember.
    pub(super) memory: StageMemory,
    /// What it takes.
    pub(super) notes: Notes,
    /// Whether this stage itself has a CMD.
    pub(super) has_own_cmd: bool,
    /// Numbering of its steps.
    pub(super) steps: Steps,
}

/// The image that a stage would be.
#[derive(Clone, Debug, Default)]
pub(super) struct StageImage {
    /// The config document of the base image, if there is one.
    pub(super) document: Option<serde_json::Value>,
    /// The `config` member.
    pub(super) config: RuntimeConfig,
    /// The author.
    pub(super) author: Option<String>,
    /// History: `created_by`, and the vertex (of the builder) that makes the layer.
    pub(super) history: Vec<(String, Option<VertexId>)>,
    /// Where each variable stands in `config.env`.
    places: BTreeMap<String, usize>,
}

impl StageImage {
    /// The image of something that is none: scratch or a directory.
    pub(super) fn empty() -> Self {
        let mut image = Self::default();
        image.config.working_dir = "/".to_owned();
        image
    }

    /// An image as its base left it. Triggers are not handed on.
    pub(super) fn of(base: BaseImage) -> Self {
        let mut image = Self {
            document: Some(base.document),
            config: base.config,
            author: base.author,
            ..Self::default()
        };
        image.config.on_build = None;
        for (place, entry) in image.config.env.iter().flatten().enumerate() {
            let (name, _) = split_entry(entry);
            image.places.entry(name.to_owned()).or_insert(place);
        }
        image
    }

    /// The environment as pairs.
    fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.config.env.iter().flatten();
        entries.map(|entry| split_entry(entry))
    }

    /// Sets a variable: a known one keeps its place.
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let env = self.config.env.get_or_insert_default();
        match self.places.get(name).and_then(|place| env.get_mut(*place)) {
            Some(known) => *known = entry,
            None => {
                self.places.insert(name.to_owned(), env.len());
                env.push(entry);
            }
        }
    }
}

/// The name and the value of `K=V`.
fn split_entry(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

impl StageState {
    /// A state to start from, out of a base; `scope` has no variables yet.
    pub(super) fn new(
        root: Option<VertexId>,
        image: StageImage,
        platform: Option<Platform>,
        scope: Scope,
    ) -> Self {
        Self {
            root,
            platform,
            image,
            scope,
            ..Self::default()
        }
    }

    /// About how many bytes a copy of it takes.
    pub(super) fn size(&self) -> usize {
        let config = &self.image.config;
        let history = self.image.history.iter().map(|(text, _)| text.len());
        let labels = config.labels.iter().flatten();
        let labels = labels.map(|(name, value)| name.len() + value.len());
        let names = [&config.exposed_ports, &config.volumes];
        let names = names.into_iter().flatten().flat_map(|names| names.keys());
        let parts = history.chain(labels).chain(names.map(String::len));
        // The environment is there twice.
        2 * self.scope.size() + parts.map(|size| size + PART_BYTES).sum::<usize>()
    }

    /// What later stages that do not start from it still need.
    pub(super) fn remains(&mut self) -> Self {
        Self {
            root: self.root,
            notes: self.notes.clone(),
            ..Self::default()
        }
    }

    /// Makes the state that a stage begins with out of that of its base.
    pub(super) fn begin(mut self, steps: Steps) -> Self {
        self.steps = steps;
        self.has_own_cmd = false;
        self.memory = self.memory.for_child();
        self.image.config.on_build = None;
        if !self.image.places.contains_key("PATH") {
            self.image.set_env("PATH", DEFAULT_PATH);
        }
        for (name, value) in self.image.environment() {
            self.scope.set(name, value);
        }
        self.scope.charge(self.scope.size());
        if !self.image.config.working_dir.is_empty() {
            self.image.config.working_dir = self.resolve_directory("");
        }
        self
    }

    /// The working directory, absolute.
    pub(super) fn directory(&self) -> String {
        self.resolve_directory("")
    }

    /// A path seen from the working directory, clean.
    pub(super) fn resolve_directory(&self, path: &str) -> String {
        if path.starts_with('/') {
            return clean_path(path);
        }
        clean_path(&format!("/{}/{path}", self.image.config.working_dir))
    }

    /// A destination: like a directory, but a slash (or `/.`) at its end stays as a slash, since it says that a
    /// directory is meant. `.` and nothing are directories.
    pub(super) fn resolve_destination(&self, path: &str) -> String {
        let clean = self.resolve_directory(path);
        let is_directory = matches!(path, "" | ".") || path.ends_with('/') || path.ends_with("/.");
        if is_directory && clean != "/" {
            return format!("{clean}/");
        }
        clean
    }

    /// Notes an instruction that adds no layer.
    pub(super) fn record(&mut self, created_by: String) {
        self.scope.charge(created_by.len());
        self.image.history.push((created_by, None));
    }

    /// Notes an instruction whose layer is the new file system.
    pub(super) fn record_layer(&mut self, created_by: String, root: VertexId) {
        self.root = Some(root);
        self.scope.charge(created_by.len());
        self.image.history.push((created_by, Some(root)));
    }
}

/// Numbers the steps of a stage as progress shows them.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    /// The stage's name; empty if there is but one stage.
    pub(super) label: String,
    /// How many steps there are.
    pub(super) total: usize,
    /// How many were shown.
    pub(super) shown: usize,
}

impl Steps {
    /// Counts a step.
    pub(super) fn advance(&mut self) {
        self.shown += 1;
    }

    /// The name of the current step: `[stage 2/10] RUN …`.
    pub(super) fn name(&self, text: &str, is_trigger: bool) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        let label = match self.label.as_str() {
            "" => String::new(),
            label => format!("{label} "),
        };
        let width = self.total.to_string().len();
        let onbuild = if is_trigger { "ONBUILD " } else { "" };
        let Self { total, shown, .. } = self;
        format!("[{label}{shown:>width$}/{total}] {onbuild}{text}")
    }
}

/// An instruction as progress shows it: variables expanded (or, if that fails, as written), the keyword in upper case.
pub(super) fn display(lexer: Lexer, text: &str, scope: &Scope) -> String {
    let shown = lexer
        .expand(text, &Shown(scope))
        .unwrap_or_else(|_unexpandable| text.to_owned());
    match shown.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => shown.to_uppercase(),
    }
}

/// Variables as progress shows them: those that hold secrets by their names stay as they are written.
struct Shown<'a>(&'a Scope);

impl Variables for Shown<'_> {
    fn lookup(&self, name: &str) -> Option<String> {
        let value = self.0.lookup(name)?;
        Some(match looks_secret(name) {
            true => format!("${name}"),
            false => value,
        })
    }

    fn allowance(&self) -> &Allowance {
        self.0.allowance()
    }
}

/// Where a step comes from: lines and the stage's name.
pub(super) fn origin(lines: LineRange, steps: &Steps) -> crate::graph::Origin {
    crate::graph::Origin {
        lines,
        stage: (!steps.label.is_empty()).then(|| steps.label.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_directory(directory: &str) -> StageState {
        let mut state = StageState::default();
        state.image.config.working_dir = directory.to_owned();
        state
    }

    #[test]
    fn values_of_secrets_are_not_shown() {
        let mut scope = Scope::default();
        scope.set("API_TOKEN", "hunter2");
        scope.set("V", "1");
        let shown = display(
            Lexer::new('\\').for_display(),
            "run a $API_TOKEN ${API_TOKEN:-x} $V $W",
            &scope,
        );
        assert_eq!(shown, "RUN a $API_TOKEN $API_TOKEN 1 $W");
    }

    #[test]
    fn destinations_keep_what_says_directory() {
        let state = in_directory("/w");
        for (path, want) in [
            ("a", "/w/a"),
            ("a/", "/w/a/"),
            ("a/.", "/w/a/"),
            (".", "/w/"),
            ("", "/w/"),
            ("..", "/"),
            ("/", "/"),
            ("/.", "/"),
            ("/a//b/../c", "/a/c"),
        ] {
            assert_eq!(state.resolve_destination(path), want, "{path}");
        }
        assert_eq!(in_directory("").resolve_directory("rel"), "/rel");
    }

    #[test]
    fn step_numbers_are_aligned() {
        let mut steps = Steps {
            label: "t".into(),
            total: 11,
            shown: 0,
        };
        steps.advance();
        assert_eq!(steps.name("RUN x", false), "[t  1/11] RUN x");
        assert_eq!(steps.name("RUN x", true), "[t  1/11] ONBUILD RUN x");
        assert_eq!(Steps::default().name("FROM x", false), "FROM x");
    }

    #[test]
    fn instructions_are_shown_expanded() {
        let mut scope = Scope::default();
        scope.set("A", "v");
        let lexer = Lexer::new('\\');
        assert_eq!(display(lexer, "copy $A \"x\"", &scope), "COPY v x");
        assert_eq!(
            display(lexer.for_display(), "run echo \"$A$B\"", &scope),
            "RUN echo \"v$B\""
        );
        assert_eq!(display(lexer, "run echo 'x", &scope), "RUN echo 'x");
    }

    #[test]
    fn known_variables_keep_their_place() {
        let mut image = StageImage::empty();
        image.set_env("A", "1");
        image.set_env("B", "2");
        image.set_env("A", "3");
        assert_eq!(image.config.env.unwrap(), ["A=3", "B=2"]);
    }
}
