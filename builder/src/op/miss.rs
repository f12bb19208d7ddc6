//! Why a step was not found in the cache, for people: what differs between the parts of its key and those of the last
//! time it ran.
//!
//! Pure: which earlier record to compare with, and what an earlier step was changed by, the caller finds (`op::cause`).

use std::collections::BTreeSet;

use cache::key::builder::{Difference, Part, Parts};

/// As many causes are told of one step, and as many files by name.
const TOLD: usize = 3;

/// What differs in a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// What the step itself has different, one phrase each.
    pub(super) own: Vec<String>,
    /// Whether the file system below it is another.
    pub(super) has_other_base: bool,
}

impl Differences {
    /// The step's own differences in one line; `None` if there are none.
    pub(super) fn line(&self) -> Option<String> {
        let told = self.own.iter().take(TOLD).cloned().collect::<Vec<_>>();
        let more = self.own.len().saturating_sub(TOLD);
        match (told.is_empty(), more) {
            (true, _) => None,
            (false, 0) => Some(told.join("; ")),
            (false, more) => Some(format!("{}; and {more} more", told.join("; "))),
        }
    }
}

/// What differs from the last time; `args` are the names that ARG declares.
pub(super) fn differences(now: &Parts, before: &Parts, args: &BTreeSet<String>) -> Differences {
    let (now, before) = comparable(now, before);
    let mut found = Differences::default();
    let mut files: Vec<(String, Vec<Difference>)> = Vec::new();
    for difference in now.differences_from(&before) {
        let name = name_of(&difference).to_owned();
        if let Some((scope, _)) = name.split_once("file /").filter(|(s, _)| is_scope(s)) {
            match files.iter_mut().find(|(known, _)| known == scope) {
                Some((_, list)) => list.push(difference),
                None => files.push((scope.to_owned(), vec![difference])),
            }
        } else if name == "base" {
            found.has_other_base = true;
        } else {
            found.own.push(phrase(&name, &difference, args));
        }
    }
    for (scope, list) in files {
        // Told by its files, which say more.
        found
            .own
            .retain(|told| *told != format!("{scope}content changed"));
        found.own.push(format!("{scope}{}", files_phrase(&list)));
    }
    // How many there are shows in what there is.
    let counts = ["arguments", "variables", "mounts", "actions"];
    if found.own.len() > 1 {
        let is_count = |told: &String| counts.iter().any(|count| told.starts_with(*count));
        found.own.retain(|told| !is_count(told));
    }
    let mut seen = BTreeSet::new();
    found.own.retain(|told| seen.insert(told.clone()));
    found
}

fn is_scope(text: &str) -> bool {
    text.is_empty() || (text.starts_with("mount ") && text.ends_with(": "))
}

/// Lists of files are only compared where both sides have them: a key found by definition lists none.
fn comparable(now: &Parts, before: &Parts) -> (Parts, Parts) {
    let is_file = |part: &Part| {
        let scope = part.name.split_once("file /").map(|(scope, _)| scope);
        scope.is_some_and(is_scope)
    };
    let has_files = |parts: &Parts| parts.0.iter().any(is_file);
    if has_files(now) && has_files(before) {
        return (now.clone(), before.clone());
    }
    let without = |parts: &Parts| {
        let rest = parts.0.iter().filter(|part| !is_file(part));
        Parts(rest.cloned().collect())
    };
    (without(now), without(before))
}

fn name_of(difference: &Difference) -> &str {
    match difference {
        Difference::Changed { name, .. } => name,
        Difference::Added(part) | Difference::Removed(part) => &part.name,
        Difference::Reordered => "order",
    }
}

fn phrase(name: &str, difference: &Difference, args: &BTreeSet<String>) -> String {
    let shown = match name.strip_prefix("variable ") {
        Some(variable) if args.contains(variable) => format!("ARG {variable}"),
        Some(variable) => format!("ENV {variable}"),
        None => match name {
            "argument" | "arguments" => return "the command changed".to_owned(),
            "data" => return "the text of the here-document changed".to_owned(),
            "working directory" => "WORKDIR".to_owned(),
            "user" => "USER".to_owned(),
            "extra host" => "--add-host".to_owned(),
            "shm size" => "--shm-size".to_owned(),
            "ulimit" => "--ulimit".to_owned(),
            "cgroup parent" => "--cgroup-parent".to_owned(),
            "network" => "--network".to_owned(),
            "security" => "--security".to_owned(),
            "chown" | "group" => "--chown".to_owned(),
            "chmod" => "--chmod".to_owned(),
            "exclude" => "--exclude".to_owned(),
            "parents" => "--parents".to_owned(),
            other => other.to_owned(),
        },
    };
    match difference {
        Difference::Changed { before, now, .. } => match is_hidden(name, before, now) {
            true => format!("{shown} changed"),
            false => format!("{shown}: {before} → {now}"),
        },
        Difference::Added(part) => match is_hidden(name, "", &part.value) {
            true => format!("{shown} is new"),
            false => format!("{shown} is new: {}", part.value),
        },
        Difference::Removed(_) => format!("{shown} is gone"),
        Difference::Reordered => "the order of its variables or options changed".to_owned(),
    }
}

/// Whether values say nothing to a person, or are not to be shown.
fn is_hidden(name: &str, before: &str, now: &str) -> bool {
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_digest(before) || is_digest(now) || looks_secret(name) || now.starts_with("(hidden")
}

/// `src/a.rs changed`, `mode of run.sh: 0644 → 0755`, `3 files changed, 1 added: src/a.rs, src/b.rs, …`
fn files_phrase(list: &[Difference]) -> String {
    let path = |difference: &Difference| {
        let name = name_of(difference);
        name.split_once("file /")
            .map_or(name, |(_, path)| path)
            .to_owned()
    };
    if let [single] = list {
        let path = match path(single).as_str() {
            "" => "the directory".to_owned(),
            path => path.to_owned(),
        };
        return match single {
            Difference::Changed { before, now, .. } => change_of(&path, before, now),
            Difference::Added(_) => format!("{path} is new"),
            Difference::Removed(_) => format!("{path} is gone"),
            Difference::Reordered => "the order of files changed".to_owned(),
        };
    }
    let count = |kind: fn(&Difference) -> bool| list.iter().filter(|d| kind(d)).count();
    let counts = [
        (
            count(|d| matches!(d, Difference::Changed { .. })),
            "changed",
        ),
        (count(|d| matches!(d, Difference::Added(_))), "added"),
        (count(|d| matches!(d, Difference::Removed(_))), "removed"),
    ];
    let mut told: Vec<String> = Vec::new();
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        told.push(match told.is_empty() {
            true if count == 1 => format!("1 file {what}"),
            true => format!("{count} files {what}"),
            false => format!("{count} {what}"),
        });
    }
    let mut names: Vec<String> = list.iter().take(TOLD).map(path).collect();
    if list.len() > TOLD {
        names.push("…".to_owned());
    }
    format!("{}: {}", told.join(", "), names.join(", "))
}

/// What changed of one file: `type mode owner digest`, or only a digest for many files at once.
fn change_of(path: &str, before: &str, now: &str) -> String {
    let fields = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (before, now) = (fields(before), fields(now));
    match (&before[..], &now[..]) {
        ([kind, ..], [other, ..]) if kind != other && before.len() == 4 && now.len() == 4 => {
            format!("{path} was a {kind}, is a {other}")
        }
        ([_, mode, owner, content], [_, other, same_owner, same_content])
            if owner == same_owner && content == same_content =>
        {
            format!("mode of {path}: {mode} → {other}")
        }
        ([_, mode, owner, content], [_, same_mode, other, same_content])
            if mode == same_mode && content == same_content =>
        {
            format!("owner of {path}: {owner} → {other}")
        }
        _ => format!("{path} changed"),
    }
}

/// Whether a name is that of something whose value should not be shown.
pub(super) fn looks_secret(name: &str) -> bool {
    const WORDS: [&str; 12] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "pass",
        "passphrase",
        "password",
        "passwd",
        "pat",
        "secret",
        "token",
    ];
    let name = name.to_ascii_lowercase();
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| WORDS.contains(&word) || word.ends_with("password") || word.ends_with("token"))
}

#[cfg(test)]
#[path = "miss_tests.rs"]
mod tests;
