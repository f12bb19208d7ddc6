//! The typed instructions of a Dockerfile, as written: nothing is expanded, no stage is resolved.
//!
//! Words keep their quotes, escapes and `$`: expansion happens in lowering, with the scope that holds at that place.
//! Text that no rule expands (RUN, CMD, HEALTHCHECK) is kept as the user sees it in the history.

use crate::source::{LineRange, Span, Spanned};

/// A parsed Dockerfile. It has at least one instruction.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// Parser directives found at the top.
    pub directives: Directives,
    /// All instructions in order, those before the first FROM included.
    pub instructions: Vec<Instruction>,
}

/// The three parser directives (features.md 1.2).
#[derive(Clone, Debug)]
pub struct Directives {
    /// `# syntax=`: the frontend image asked for, with its trailing arguments.
    pub syntax: Option<Spanned<String>>,
    /// `# check=`: configuration of the build checks, unparsed.
    pub check: Option<Spanned<String>>,
    /// `# escape=`: the escape character, `\` unless changed.
    pub escape: char,
}

/// One instruction with everything that was written for it.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// From the first byte of the keyword to the end of the last line (heredoc bodies included).
    pub span: Span,
    /// The lines it covers, heredoc bodies included.
    pub lines: LineRange,
    /// Where the keyword stands.
    pub keyword_span: Span,
    /// The instruction on one line: continuations joined, comments dropped, inner indentation kept, heredoc bodies
    /// not included. It is what progress shows.
    pub original: String,
    /// The comment lines above, without `#`: those since the last instruction or bare `#`.
    pub comments: Vec<Spanned<String>>,
    /// Lines of blank continuations inside the instruction (for the NoEmptyContinuation check).
    pub blank_continuations: Vec<usize>,
    /// What it says.
    pub kind: InstructionKind,
}

impl Instruction {
    /// The keyword in the casing that was written.
    pub fn keyword(&self) -> &str {
        let end = self.original.find(char::is_whitespace);
        &self.original[..end.unwrap_or(self.original.len())]
    }
}

/// The eighteen instructions. The large ones are boxed: a file has many instructions, most of them small.
#[derive(Clone, Debug)]
pub enum InstructionKind {
    /// `FROM`
    From(Box<From>),
    /// `RUN`
    Run(Box<Run>),
    /// `CMD`
    Cmd(CommandLine),
    /// `LABEL`
    Label(KeyValues),
    /// `MAINTAINER`
    Maintainer(String),
    /// `EXPOSE`: unexpanded words.
    Expose(Vec<Spanned<String>>),
    /// `ENV`
    Env(KeyValues),
    /// `ADD`
    Add(Box<Add>),
    /// `COPY`
    Copy(Box<Copy>),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `VOLUME`: unexpanded words.
    Volume(Vec<Spanned<String>>),
    /// `USER`
    User(Spanned<String>),
    /// `WORKDIR`
    Workdir(Spanned<String>),
    /// `ARG`
    Arg(Vec<ArgDeclaration>),
    /// `ONBUILD`
    Onbuild(Onbuild),
    /// `STOPSIGNAL`
    Stopsignal(Spanned<String>),
    /// `HEALTHCHECK`
    Healthcheck(Box<Healthcheck>),
    /// `SHELL`
    Shell(Vec<String>),
}

/// `FROM [--platform=P] image [AS name]`
#[derive(Clone, Debug)]
pub struct From {
    /// `--platform`, unexpanded.
    pub platform: Option<Spanned<String>>,
    /// The image, stage or `scratch`, unexpanded.
    pub image: Spanned<String>,
    /// The stage name as written.
    pub name: Option<Spanned<String>>,
    /// The `AS` keyword as written (for the FromAsCasing check).
    pub as_keyword: Option<Spanned<String>>,
}

/// Shell or exec form of RUN, CMD, ENTRYPOINT and HEALTHCHECK CMD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// The text handed to the shell.
    Shell(String),
    /// A JSON array.
    Exec(Vec<String>),
}

/// `RUN [flags] command`
#[derive(Clone, Debug)]
pub struct Run {
    /// The command. For a shell form with heredocs this is the first line's text only (`<<EOF cat`).
    pub command: CommandLine,
    /// Heredocs in the order of their bodies.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order.
    pub mounts: Vec<RunMount>,
    /// `--network`
    pub network: Option<RunNetwork>,
    /// `--security`
    pub security: Option<RunSecurity>,
    /// `--device`, in order, as written.
    pub devices: Vec<Spanned<String>>,
}

/// `RUN --network`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunNetwork {
    /// `default`
    Default,
    /// `none`
    None,
    /// `host`
    Host,
}

/// `RUN --security`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunSecurity {
    /// `sandbox`
    Sandbox,
    /// `insecure`
    Insecure,
}

/// One `RUN --mount`: its keys and values in the order written, CSV unquoted, values unexpanded. Keys, types and
/// combinations that no expansion can change are checked by the parser; [`crate::lower`] expands the values and checks
/// the rest.
#[derive(Clone, Debug)]
pub struct RunMount {
    /// The text of the flag's value as written.
    pub text: Spanned<String>,
    /// `key` or `key=value`, the key in lower case.
    pub options: Vec<(String, Option<String>)>,
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// The digits before `<<`, if any (a file descriptor for the shell).
    pub fd: Option<u32>,
    /// Whether variables are to be expanded: the delimiter was not quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are stripped.
    pub chomp: bool,
    /// The body, each line with its line end, tabs already stripped if `chomp`.
    pub content: String,
    /// Where the body stands, without the line that ends it.
    pub span: Span,
}

impl Heredoc {
    /// The body as it stands in the text that was parsed (the file, or the trigger), tabs included: what is handed on
    /// when the shell or a later build reads the heredoc again.
    pub fn raw<'a>(&self, source: &'a str) -> &'a str {
        source
            .get(self.span.start..self.span.end)
            .unwrap_or_default()
    }
}

/// A source of COPY or ADD.
#[derive(Clone, Debug)]
pub enum Source {
    /// A path, pattern, URL or git reference, unexpanded.
    Path(Spanned<String>),
    /// A heredoc: an index into the instruction's heredocs.
    Heredoc(usize),
}

/// `COPY [flags] source… destination`
#[derive(Clone, Debug)]
pub struct Copy {
    /// The sources in order.
    pub sources: Vec<Source>,
    /// The destination, unexpanded.
    pub destination: Spanned<String>,
    /// Heredocs in the order of their bodies.
    pub heredocs: Vec<Heredoc>,
    /// `--from`, as written.
    pub from: Option<Spanned<String>>,
    /// `--chown`, unexpanded.
    pub chown: Option<Spanned<String>>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Spanned<String>>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, never expanded.
    pub exclude: Vec<Spanned<String>>,
}

/// `ADD [flags] source… destination`
#[derive(Clone, Debug)]
pub struct Add {
    /// The sources in order.
    pub sources: Vec<Source>,
    /// The destination, unexpanded.
    pub destination: Spanned<String>,
    /// Heredocs in the order of their bodies.
    pub heredocs: Vec<Heredoc>,
    /// `--chown`, unexpanded.
    pub chown: Option<Spanned<String>>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Spanned<String>>,
    /// `--checksum`, unexpanded.
    pub checksum: Option<Spanned<String>>,
    /// `--link`
    pub link: bool,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--unpack`
    pub unpack: Option<bool>,
    /// `--exclude`, never expanded.
    pub exclude: Vec<Spanned<String>>,
}

/// The words of ENV or LABEL.
#[derive(Clone, Debug)]
pub struct KeyValues {
    /// Pairs in order; keys and values unexpanded, quotes kept.
    pub pairs: Vec<KeyValue>,
    /// `KEY rest of line`: the legacy form.
    pub is_legacy: bool,
}

/// One pair of ENV or LABEL.
#[derive(Clone, Debug)]
pub struct KeyValue {
    /// The key.
    pub key: Spanned<String>,
    /// The value.
    pub value: Spanned<String>,
}

/// One name of an ARG instruction.
#[derive(Clone, Debug)]
pub struct ArgDeclaration {
    /// The name, never expanded.
    pub name: Spanned<String>,
    /// The default, unexpanded.
    pub default: Option<Spanned<String>>,
}

/// `ONBUILD instruction`
#[derive(Clone, Debug)]
pub struct Onbuild {
    /// The trigger verbatim, as it goes into the image config (heredoc bodies included).
    pub text: String,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`
    None,
    /// `HEALTHCHECK [flags] CMD …`
    Cmd {
        /// The command.
        command: CommandLine,
        /// `--interval` in nanoseconds, 0 if unset; likewise the next three.
        interval: i64,
        /// `--timeout`
        timeout: i64,
        /// `--start-period`
        start_period: i64,
        /// `--start-interval`
        start_interval: i64,
        /// `--retries`, 0 if unset.
        retries: u32,
    },
}
