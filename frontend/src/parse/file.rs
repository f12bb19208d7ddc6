//! The whole file: comments, instructions one after the other, and what must hold between them.

use crate::ast::{Dockerfile, Instruction, InstructionKind};
use crate::source::{LineRange, Span, Spanned};

use super::directive::DirectiveReader;
use super::error::{Failure, InstructionError, ParseError, StructureError, SyntaxError, in_order};
use super::instruction::{self, Keyword, mount};
use super::lines::{Lines, Logical, Physical};
use super::statement::Statement;

/// Parses a Dockerfile; the errors are in the order in which they were found.
pub(super) fn parse(text: &str) -> Result<Dockerfile, Vec<Failure>> {
    let mut parser = Parser::new(text);
    if text.is_empty() {
        parser
            .failures
            .push(Failure::at_line(SyntaxError::Empty, 0));
    } else {
        parser.read(true);
    }
    if parser.failures.is_empty() {
        Ok(Dockerfile {
            directives: parser.directives.found,
            instructions: parser.instructions,
        })
    } else {
        Err(parser.failures)
    }
}

/// Parses the one instruction of a trigger.
pub(super) fn parse_trigger(text: &str) -> Result<Instruction, Failure> {
    let mut parser = Parser::new(text);
    parser.read(false);
    in_order(&mut parser.failures);
    if let Some(first) = parser.failures.into_iter().next() {
        return Err(first);
    }
    let mut instructions = parser.instructions.into_iter();
    let (Some(instruction), None) = (instructions.next(), instructions.next()) else {
        return Err(Failure::at_line(StructureError::SeveralTriggers, 0));
    };
    if matches!(instruction.kind, InstructionKind::From(_)) {
        let keyword = Keyword::From.name();
        return Err(Failure::at_line(
            InstructionError::ForbiddenTrigger { keyword },
            0,
        ));
    }
    Ok(instruction)
}

/// What is known about stages while instructions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StageState {
    /// No FROM so far.
    Before,
    /// There was a FROM, or something that may have been meant as one.
    Within,
}

struct Parser<'a> {
    lines: Lines<'a>,
    directives: DirectiveReader,
    comments: Vec<Spanned<String>>,
    stage: StageState,
    count: usize,
    instructions: Vec<Instruction>,
    failures: Vec<Failure>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            lines: Lines::new(text),
            directives: DirectiveReader::new(),
            comments: Vec::new(),
            stage: StageState::Before,
            count: 0,
            instructions: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Reads everything; a file needs stages, a trigger has none.
    fn read(&mut self, needs_stages: bool) {
        if !needs_stages {
            self.stage = StageState::Within;
        }
        while let Some(line) = self.lines.next() {
            let is_directive = match self.directives.read(&line) {
                Ok(is_directive) => is_directive,
                Err(error) => {
                    // BuildKit counts the line only after it has looked for directives.
                    self.failures.push(Failure::at_line(error, line.number - 1));
                    true
                }
            };
            let content = line.content().trim_start();
            if content.starts_with('#') {
                self.comment(&line, is_directive);
            } else if !content.is_empty() {
                // Blank lines do not come between a comment and its instruction; a bare `#` does.
                self.instruction(line);
            }
        }
        if self.lines.is_too_long {
            let error = SyntaxError::LineTooLong;
            self.failures
                .push(Failure::at_line(error, self.lines.number));
        } else if self.count == 0 {
            let error = SyntaxError::NoInstructions;
            self.failures
                .push(Failure::at_line(error, self.lines.number));
        } else if self.stage == StageState::Before && self.failures.is_empty() {
            self.failures
                .push(Failure::at_line(StructureError::NoStages, 0));
        }
    }

    fn comment(&mut self, line: &Physical<'a>, is_directive: bool) {
        let content = line.content();
        let text = content.trim_start();
        let text = text.strip_prefix('#').unwrap_or(text).trim_start();
        let start = line.start + (content.len() - text.len());
        let text = text.trim_end();
        if text.is_empty() {
            self.comments.clear();
        } else if !is_directive {
            self.comments.push(Spanned {
                value: text.to_owned(),
                span: Span {
                    start,
                    end: start + text.len(),
                },
            });
        }
    }

    fn instruction(&mut self, first: Physical<'a>) {
        self.count += 1;
        let escape = self.directives.found.escape;
        let comments = std::mem::take(&mut self.comments);
        let line = Logical::read(&mut self.lines, first, escape);
        let statement = Statement::read(&line, escape).and_then(|mut statement| {
            statement.read_heredocs(&mut self.lines)?;
            Ok(statement)
        });
        let lines = LineRange {
            first: line.lines.first,
            last: self.lines.number,
        };
        let statement = match statement {
            Ok(statement) => statement,
            Err(error) => return self.failures.push(Failure::at(error, lines)),
        };
        let known = statement.known;
        let keyword_span = statement.keyword_span;
        match instruction::parse(statement, escape) {
            Ok(kind) => {
                self.check(&kind, lines);
                self.instructions.push(Instruction {
                    span: Span {
                        start: keyword_span.start,
                        end: self.lines.content_end,
                    },
                    lines,
                    keyword_span,
                    original: line.text.trim().to_owned(),
                    comments,
                    blank_continuations: line.blank_continuations,
                    kind,
                });
            }
            Err(error) => {
                if matches!(known, None | Some(Keyword::From)) {
                    self.stage = StageState::Within;
                }
                self.failures.push(Failure::at(error, lines));
            }
        }
    }

    /// Checks what BuildKit checks after an instruction has been understood.
    fn check(&mut self, kind: &InstructionKind, lines: LineRange) {
        match (kind, self.stage) {
            (InstructionKind::From(_), _) => self.stage = StageState::Within,
            (InstructionKind::Arg(_), _) | (_, StageState::Within) => {}
            (_, StageState::Before) => {
                self.failures
                    .push(Failure::at(StructureError::NoStage, lines));
                self.stage = StageState::Within;
            }
        }
        if let InstructionKind::Run(run) = kind {
            let escape = self.directives.found.escape;
            let checks = run.mounts.iter().map(|mount| mount::check(mount, escape));
            if let Some(error) = checks.filter_map(Result::err).next() {
                self.failures
                    .push(Failure::at(ParseError::Mount(error), lines));
            }
        }
    }
}
