//! The instructions of a file as text and as JSON, for people and tools (`builder debug parse`).
//!
//! As JSON, an object a line and instruction:
//!
//! | member | what |
//! |---|---|
//! | `start`, `end` | first and last line, from 1, heredoc bodies included |
//! | `name` | the instruction in lower case |
//! | `flags` | `--name=value` in a fixed order, values as written |
//! | `args` | the arguments as written, unexpanded; pairs as `name=value`; a shell form is one argument; COPY and ADD have the destination last and `<<NAME` for a heredoc; ONBUILD has its trigger |
//! | `json` | whether the arguments were a JSON array (of COPY, ADD and VOLUME this cannot be told any more: `false`) |
//! | `heredocs` | `name`, `expand` (the word was not quoted), `chomp` (`<<-`), `content` |
//!
//! Members are never removed or renamed; new ones may come.

use serde_json::{Value, json};

use crate::ast::{
    Add, CommandLine, Copy, Dockerfile, From, Healthcheck, Heredoc, Instruction, InstructionKind,
    KeyValues, Run, RunNetwork, RunSecurity, Source,
};
use crate::gofmt::duration;
use crate::source::Spanned;

/// What an instruction says, flattened.
#[derive(Default)]
struct Said<'a> {
    name: &'static str,
    flags: Vec<String>,
    args: Vec<String>,
    is_json: bool,
    heredocs: &'a [Heredoc],
}

/// An instruction a paragraph.
pub fn to_text(dockerfile: &Dockerfile) -> String {
    let mut text = String::new();
    for instruction in &dockerfile.instructions {
        let said = said(&instruction.kind);
        let (first, last) = (instruction.lines.first, instruction.lines.last);
        text.push_str(&format!("{first}-{last} {}\n", said.name));
        for flag in &said.flags {
            text.push_str(&format!("    flag {flag}\n"));
        }
        let form = if said.is_json { "json" } else { "arg" };
        for arg in &said.args {
            text.push_str(&format!("    {form} {arg}\n"));
        }
        for heredoc in said.heredocs {
            text.push_str(&format!("    heredoc {}\n", heredoc.name));
            for line in heredoc.content.lines() {
                text.push_str(&format!("        {line}\n"));
            }
        }
    }
    text
}

/// An object a line.
pub fn to_json_lines(dockerfile: &Dockerfile) -> String {
    let lines = dockerfile.instructions.iter().map(object);
    lines.map(|object| format!("{object}\n")).collect()
}

fn object(instruction: &Instruction) -> Value {
    let said = said(&instruction.kind);
    let heredocs: Vec<Value> = said
        .heredocs
        .iter()
        .map(|heredoc| {
            json!({
                "name": heredoc.name,
                "expand": heredoc.expand,
                "chomp": heredoc.chomp,
                "content": heredoc.content,
            })
        })
        .collect();
    json!({
        "start": instruction.lines.first,
        "end": instruction.lines.last,
        "name": said.name,
        "flags": said.flags,
        "args": said.args,
        "json": said.is_json,
        "heredocs": heredocs,
    })
}

fn said(kind: &InstructionKind) -> Said<'_> {
    match kind {
        InstructionKind::From(from) => said_from(from),
        InstructionKind::Run(run) => said_run(run),
        InstructionKind::Copy(copy) => said_copy(copy),
        InstructionKind::Add(add) => said_add(add),
        InstructionKind::Cmd(command) => said_command("cmd", command),
        InstructionKind::Entrypoint(command) => said_command("entrypoint", command),
        InstructionKind::Healthcheck(check) => said_healthcheck(check),
        InstructionKind::Label(pairs) => said_pairs("label", pairs),
        InstructionKind::Env(pairs) => said_pairs("env", pairs),
        InstructionKind::Arg(names) => {
            let args = names.iter().map(|name| match &name.default {
                Some(default) => format!("{}={}", name.name.value, default.value),
                None => name.name.value.clone(),
            });
            plain("arg", args.collect())
        }
        InstructionKind::Expose(words) => plain("expose", values(words)),
        InstructionKind::Volume(words) => plain("volume", values(words)),
        InstructionKind::Maintainer(author) => plain("maintainer", vec![author.clone()]),
        InstructionKind::User(user) => plain("user", vec![user.value.clone()]),
        InstructionKind::Workdir(path) => plain("workdir", vec![path.value.clone()]),
        InstructionKind::Stopsignal(signal) => plain("stopsignal", vec![signal.value.clone()]),
        InstructionKind::Onbuild(onbuild) => plain("onbuild", vec![onbuild.text.clone()]),
        InstructionKind::Shell(words) => Said {
            is_json: true,
            ..plain("shell", words.clone())
        },
    }
}

fn plain(name: &'static str, args: Vec<String>) -> Said<'static> {
    Said {
        name,
        args,
        ..Said::default()
    }
}

fn values(words: &[Spanned<String>]) -> Vec<String> {
    words.iter().map(|word| word.value.clone()).collect()
}

fn flag(name: &str, value: &Option<Spanned<String>>) -> Option<String> {
    let value = value.as_ref()?;
    Some(format!("--{name}={}", value.value))
}

fn switch(name: &str, value: Option<bool>) -> Option<String> {
    value.map(|value| format!("--{name}={value}"))
}

fn each(name: &str, words: &[Spanned<String>]) -> Vec<String> {
    let words = words.iter();
    words
        .map(|word| format!("--{name}={}", word.value))
        .collect()
}

fn said_command(name: &'static str, command: &CommandLine) -> Said<'static> {
    match command {
        CommandLine::Shell(text) => plain(name, vec![text.clone()]),
        CommandLine::Exec(words) => Said {
            is_json: true,
            ..plain(name, words.clone())
        },
    }
}

fn said_pairs(name: &'static str, pairs: &KeyValues) -> Said<'static> {
    let pairs = pairs.pairs.iter();
    let args = pairs.map(|pair| format!("{}={}", pair.key.value, pair.value.value));
    plain(name, args.collect())
}

fn said_from(from: &From) -> Said<'static> {
    let mut args = vec![from.image.value.clone()];
    if let Some(name) = &from.name {
        args.extend(["AS".to_owned(), name.value.clone()]);
    }
    Said {
        flags: flag("platform", &from.platform).into_iter().collect(),
        ..plain("from", args)
    }
}

fn said_run(run: &Run) -> Said<'_> {
    let mut flags: Vec<String> = run
        .mounts
        .iter()
        .map(|mount| format!("--mount={}", mount.text.value))
        .collect();
    flags.extend(run.network.map(|network| {
        let network = match network {
            RunNetwork::Default => "default",
            RunNetwork::None => "none",
            RunNetwork::Host => "host",
        };
        format!("--network={network}")
    }));
    flags.extend(run.security.map(|security| {
        let security = match security {
            RunSecurity::Sandbox => "sandbox",
            RunSecurity::Insecure => "insecure",
        };
        format!("--security={security}")
    }));
    flags.extend(each("device", &run.devices));
    Said {
        flags,
        heredocs: &run.heredocs,
        ..said_command("run", &run.command)
    }
}

fn files(sources: &[Source], heredocs: &[Heredoc], destination: &Spanned<String>) -> Vec<String> {
    let mut args: Vec<String> = sources
        .iter()
        .filter_map(|source| match source {
            Source::Path(path) => Some(path.value.clone()),
            Source::Heredoc(index) => Some(format!("<<{}", heredocs.get(*index)?.name)),
        })
        .collect();
    args.push(destination.value.clone());
    args
}

fn said_copy(copy: &Copy) -> Said<'_> {
    let flags = [
        flag("from", &copy.from),
        flag("chown", &copy.chown),
        flag("chmod", &copy.chmod),
        switch("link", copy.link.then_some(true)),
        switch("parents", copy.parents.then_some(true)),
    ];
    let flags = flags.into_iter().flatten();
    Said {
        flags: flags.chain(each("exclude", &copy.exclude)).collect(),
        heredocs: &copy.heredocs,
        ..plain(
            "copy",
            files(&copy.sources, &copy.heredocs, &copy.destination),
        )
    }
}

fn said_add(add: &Add) -> Said<'_> {
    let flags = [
        flag("chown", &add.chown),
        flag("chmod", &add.chmod),
        flag("checksum", &add.checksum),
        switch("link", add.link.then_some(true)),
        switch("keep-git-dir", add.keep_git_dir),
        switch("unpack", add.unpack),
    ];
    let flags = flags.into_iter().flatten();
    Said {
        flags: flags.chain(each("exclude", &add.exclude)).collect(),
        heredocs: &add.heredocs,
        ..plain("add", files(&add.sources, &add.heredocs, &add.destination))
    }
}

fn said_healthcheck(check: &Healthcheck) -> Said<'static> {
    let Healthcheck::Cmd {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    } = check
    else {
        return plain("healthcheck", vec!["NONE".to_owned()]);
    };
    let times = [
        ("interval", *interval),
        ("timeout", *timeout),
        ("start-period", *start_period),
        ("start-interval", *start_interval),
    ];
    let times = times.into_iter().filter(|(_, time)| *time != 0);
    let mut flags: Vec<String> = times
        .map(|(name, time)| format!("--{name}={}", duration(time)))
        .collect();
    if *retries > 0 {
        flags.push(format!("--retries={retries}"));
    }
    let mut said = said_command("healthcheck", command);
    said.args.insert(0, "CMD".to_owned());
    said.flags = flags;
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceFile;

    fn parsed(text: &str) -> Dockerfile {
        crate::parse::parse(&SourceFile::new("Dockerfile", text.as_bytes())).expect(text)
    }

    #[test]
    fn every_instruction_is_an_object() {
        let text = "FROM --platform=a b AS c\nRUN --mount=type=tmpfs,target=/x --network=none <<-E cat\n\tx\n\tE\n\
                    COPY --link --from=c --exclude=y a <<'F' /d/\nz\nF\nENV A=1 B=\"2 3\"\nCMD [\"x\",\"y\"]\n\
                    HEALTHCHECK --interval=1m --retries=2 CMD [\"h\"]\nONBUILD RUN x\n";
        let lines = to_json_lines(&parsed(text));
        let want = [
            r#"{"start":1,"end":1,"name":"from","flags":["--platform=a"],"args":["b","AS","c"],"json":false,"heredocs":[]}"#,
            r#"{"start":2,"end":4,"name":"run","flags":["--mount=type=tmpfs,target=/x","--network=none"],"args":["<<-E cat"],"json":false,"heredocs":[{"name":"E","expand":true,"chomp":true,"content":"x\n"}]}"#,
            r#"{"start":5,"end":7,"name":"copy","flags":["--from=c","--link=true","--exclude=y"],"args":["a","<<F","/d/"],"json":false,"heredocs":[{"name":"F","expand":false,"chomp":false,"content":"z\n"}]}"#,
            r#"{"start":8,"end":8,"name":"env","flags":[],"args":["A=1","B=\"2 3\""],"json":false,"heredocs":[]}"#,
            r#"{"start":9,"end":9,"name":"cmd","flags":[],"args":["x","y"],"json":true,"heredocs":[]}"#,
            r#"{"start":10,"end":10,"name":"healthcheck","flags":["--interval=1m0s","--retries=2"],"args":["CMD","h"],"json":true,"heredocs":[]}"#,
            r#"{"start":11,"end":11,"name":"onbuild","flags":[],"args":["RUN x"],"json":false,"heredocs":[]}"#,
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), want);
    }

    #[test]
    fn the_text_has_a_paragraph_for_each() {
        let text = "FROM a\nRUN <<E\nx\nE\nSHELL [\"b\", \"-c\"]\n";
        assert_eq!(
            to_text(&parsed(text)),
            "1-1 from\n    arg a\n2-4 run\n    arg <<E\n    heredoc E\n        x\n5-5 shell\n    json b\n    json -c\n"
        );
    }
}
