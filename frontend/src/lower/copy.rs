//! COPY, and what COPY and ADD have in common: sources, documents, `--link`, history.

use crate::ast::{self, Heredoc, Source};
use crate::expand::Lexer;
use crate::graph::{
    Chmod, CopyAction, FileAction, FileOp, InputIndex, MergeOp, Op, Owner, Unpack, VertexId,
};
use crate::source::Spanned;

use super::chmod::parse_chmod;
use super::emit::{Emitter, NotEmitted, Step};
use super::error::{CopyError, InstructionError, StageError};
use super::git::GitReference;
use super::run::{Inputs, document};
use super::state::StageState;
use super::strict::check_copy;

/// What a COPY or ADD says, expanded.
#[derive(Debug)]
pub(super) struct Request {
    /// `COPY` or `ADD`.
    pub(super) keyword: &'static str,
    /// Paths, URLs and repositories in order.
    pub(super) paths: Vec<String>,
    /// Heredocs in order: name and content.
    documents: Vec<(String, String)>,
    destination: String,
    chown: String,
    chmod: String,
    owner: Option<Owner>,
    mode: Option<Chmod>,
    is_link: bool,
    keeps_parents: bool,
    exclude: Vec<String>,
}

/// The flags and words of a COPY or ADD, as written.
pub(super) struct Written<'w> {
    pub(super) keyword: &'static str,
    pub(super) sources: &'w [Source],
    pub(super) heredocs: &'w [Heredoc],
    pub(super) destination: &'w str,
    pub(super) chown: Option<&'w Spanned<String>>,
    pub(super) chmod: Option<&'w Spanned<String>>,
    pub(super) is_link: bool,
    pub(super) keeps_parents: bool,
    pub(super) exclude: &'w [Spanned<String>],
}

/// The file operation under way.
#[derive(Debug)]
pub(super) struct Files<'r> {
    request: &'r Request,
    destination: String,
    inputs: Inputs,
    base: Option<InputIndex>,
    actions: Vec<FileAction>,
}

/// Lowers a COPY.
pub(super) fn lower(
    emitter: &mut Emitter<'_>,
    state: &mut StageState,
    step: Step<'_>,
    copy: &ast::Copy,
) -> Result<(), InstructionError> {
    let written = Written {
        keyword: "COPY",
        sources: &copy.sources,
        heredocs: &copy.heredocs,
        destination: &copy.destination.value,
        chown: copy.chown.as_ref(),
        chmod: copy.chmod.as_ref(),
        is_link: copy.link,
        keeps_parents: copy.parents,
        exclude: &copy.exclude,
    };
    let request = Request::read(emitter, state, &written)?;
    for path in &request.paths {
        check_local(path)?;
    }
    let mut files = Files::new(state, &request);
    if !request.paths.is_empty() {
        let vertex = copy_source(emitter, step, copy)?;
        files.copy(emitter, vertex, request.paths.clone(), Unpack::Never);
    }
    files.finish(emitter, state, step);
    Ok(())
}

/// The file system that is copied from.
fn copy_source(
    emitter: &mut Emitter<'_>,
    step: Step<'_>,
    copy: &ast::Copy,
) -> Result<Option<VertexId>, StageError> {
    let Some(Some(source)) = step.command.sources.first() else {
        return Ok(Some(emitter.build_context()));
    };
    emitter
        .source_root(*source)
        .map_err(|NotEmitted| StageError::CopyFromLater {
            from: copy
                .from
                .as_ref()
                .map_or(String::new(), |from| from.value.clone()),
            current: step.stage.to_owned(),
        })
}

/// COPY takes nothing from the network.
fn check_local(path: &str) -> Result<(), CopyError> {
    match GitReference::parse(path) {
        Some(Err(error)) => Err(error.into()),
        Some(Ok(_)) => Err(CopyError::GitInCopy),
        None if is_http(path) => Err(CopyError::UrlInCopy),
        None => Ok(()),
    }
}

/// Whether a source is a URL to fetch; a repository has been told apart before.
pub(super) fn is_http(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}

/// `user[:group]`, unresolved.
pub(super) fn parse_owner(text: &str) -> Owner {
    match text.split_once(':') {
        Some((user, group)) => Owner {
            user: user.to_owned(),
            group: Some(group.to_owned()),
        },
        None => Owner {
            user: text.to_owned(),
            group: None,
        },
    }
}

/// A name that is meant literally, as a pattern.
pub(super) fn literal_pattern(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Request {
    /// Expands everything but `--exclude`.
    pub(super) fn read(
        emitter: &Emitter<'_>,
        state: &StageState,
        written: &Written<'_>,
    ) -> Result<Self, InstructionError> {
        let flag = |flag: Option<&Spanned<String>>| {
            flag.map_or(Ok(String::new()), |flag| emitter.expand(state, &flag.value))
        };
        let chown = flag(written.chown)?;
        let chmod = flag(written.chmod)?;
        let mut paths = Vec::new();
        let mut documents = Vec::new();
        for source in written.sources {
            match source {
                Source::Path(path) => paths.push(emitter.expand(state, &path.value)?),
                Source::Heredoc(index) => documents.extend(written.heredocs.get(*index)),
            }
        }
        let destination = emitter.expand(state, written.destination)?;
        let documents = documents
            .into_iter()
            .map(|heredoc| Ok((heredoc.name.clone(), content(state, heredoc)?)))
            .collect::<Result<Vec<_>, InstructionError>>()?;
        let request = Self {
            keyword: written.keyword,
            paths,
            documents,
            destination,
            owner: (!chown.is_empty()).then(|| parse_owner(&chown)),
            mode: parse_chmod(&chmod).map_err(CopyError::from)?,
            chown,
            chmod,
            // With --chmod, --link means nothing.
            is_link: written.is_link && written.chmod.is_none_or(|mode| mode.value.is_empty()),
            keeps_parents: written.keeps_parents,
            exclude: written
                .exclude
                .iter()
                .map(|pattern| pattern.value.clone())
                .collect(),
        };
        check_copy(emitter.options.strictness, written, &request)?;
        Ok(request)
    }

    /// Whether the destination says that it is a directory.
    pub(super) fn is_into_directory(&self) -> bool {
        let destination = self.destination.as_str();
        matches!(destination, "" | "." | "..")
            || ["/", "/.", "/.."]
                .iter()
                .any(|end| destination.ends_with(end))
    }

    /// Whether it is linked, not copied.
    pub(super) fn is_link(&self) -> bool {
        self.is_link
    }

    /// `created_by`: paths, then documents, whatever their order was.
    fn history(&self) -> String {
        let mut text = self.keyword.to_owned();
        if self.keeps_parents {
            text.push_str(" --parents");
        }
        for (flag, value) in [("chown", &self.chown), ("chmod", &self.chmod)] {
            if !value.is_empty() {
                text.push_str(&format!(" --{flag}={value}"));
            }
        }
        for path in &self.paths {
            text.push(' ');
            text.push_str(path);
        }
        for (name, _) in &self.documents {
            text.push_str(" <<");
            text.push_str(name);
        }
        format!("{text} {} # buildkit", self.destination)
    }
}

/// The content of a document: expanded unless its word was quoted.
fn content(state: &StageState, heredoc: &Heredoc) -> Result<String, InstructionError> {
    if !heredoc.expand {
        return Ok(heredoc.content.clone());
    }
    Ok(Lexer::for_heredocs().expand(&heredoc.content, &state.scope)?)
}

impl<'r> Files<'r> {
    /// Starts an operation on a stage's file system, or on scratch for `--link`.
    pub(super) fn new(state: &StageState, request: &'r Request) -> Self {
        let mut inputs = Inputs::default();
        let root = if request.is_link { None } else { state.root };
        let base = root.map(|root| inputs.add(root));
        Self {
            request,
            destination: state.resolve_destination(&request.destination),
            inputs,
            base,
            actions: Vec::new(),
        }
    }

    /// Copies paths of a file system; `None` is scratch.
    pub(super) fn copy(
        &mut self,
        emitter: &Emitter<'_>,
        source: Option<VertexId>,
        paths: Vec<String>,
        unpack: Unpack,
    ) {
        let keeps_owner = source.is_none_or(|source| match emitter.builder.op(source) {
            Op::Local(_) | Op::Git(_) | Op::Http(_) => false,
            Op::Image(_) | Op::Exec(_) | Op::File(_) | Op::Merge(_) => true,
        });
        let action = CopyAction {
            input: source.map(|source| self.inputs.add(source)),
            sources: paths,
            destination: self.destination.clone(),
            owner: self.request.owner.clone(),
            mode: self.request.mode.clone(),
            keeps_parents: self.request.keeps_parents,
            exclude: self.request.exclude.clone(),
            unpack,
            keeps_owner,
        };
        self.actions.push(FileAction::Copy(action));
    }

    /// Adds the documents and the vertices.
    pub(super) fn finish(
        mut self,
        emitter: &mut Emitter<'_>,
        state: &mut StageState,
        step: Step<'_>,
    ) {
        for (name, content) in &self.request.documents {
            let file = document(emitter, name, 0o644, content.as_bytes());
            let before = self.actions.len();
            self.copy(
                emitter,
                Some(file),
                vec![literal_pattern(name)],
                Unpack::Never,
            );
            if let Some(FileAction::Copy(action)) = self.actions.get_mut(before) {
                action.keeps_parents = false;
            }
        }
        state.steps.advance();
        let text = emitter.shown(state, step);
        let op = Op::File(FileOp {
            base: self.base,
            actions: self.actions,
        });
        let shown = emitter.present(state, step, &text);
        let copied = emitter.builder.add(op, self.inputs.into_vertices(), shown);
        let vertex = match state.root {
            Some(root) if self.request.is_link => {
                let op = Op::Merge(MergeOp {
                    base: Some(InputIndex(0)),
                    upper: InputIndex(1),
                });
                let shown = emitter.present(state, step, &format!("LINK {text}"));
                emitter.builder.add(op, vec![root, copied], shown)
            }
            Some(_) | None => copied,
        };
        state.record_layer(self.request.history(), vertex);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_literals() {
        assert_eq!(
            parse_owner("a:b"),
            Owner {
                user: "a".into(),
                group: Some("b".into())
            }
        );
        assert_eq!(parse_owner("7").group, None);
        assert_eq!(literal_pattern("a[1]*.x"), "a\\[1]\\*.x");
    }

    #[test]
    fn copy_takes_local_paths_only() {
        for (path, want) in [
            ("https://h/f", "source can't be a URL for COPY"),
            ("https://h/r.git", "source can't be a git ref for COPY"),
            ("git@h:r", "source can't be a git ref for COPY"),
        ] {
            assert_eq!(check_local(path).unwrap_err().to_string(), want);
        }
        assert!(check_local("a/https://x").is_ok());
    }
}
