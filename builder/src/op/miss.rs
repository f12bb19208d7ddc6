//! Why a step was not found in the cache, for people: what differs between the parts of its key and those of the last
//! time it ran.
//!
//! Pure: which earlier record to compare with, and what an earlier step was changed by, the caller finds (`op::cause`).

use std::collections::{BTreeMap, BTreeSet};

use cache::key::builder::{Difference, Part, Parts};
use frontend::secret_name::looks_secret;

/// The value of a part that says that something is not there.
const ABSENT: &str = "absent";

/// As many causes are told of one step, and as many files by name.
const TOLD: usize = 3;

/// What differs in a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// What the step itself has different, one phrase each.
    pub(super) own: Vec<String>,
    /// Whether the file system below it is another.
    pub(super) has_other_base: bool,
    /// The step that it came after, and the one that it comes after now, if they are not the same.
    pub(super) moved: Option<(String, String)>,
    /// How many parts are not the same.
    pub(super) distance: usize,
}

/// The part that says which step a step comes after: shown only, for a step whose own parts are the same.
pub(super) const AFTER: &str = "after";

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
    let all = now.differences_from(&before);
    let mut found = Differences {
        distance: all.len(),
        ..Differences::default()
    };
    let mut files: Vec<(String, Vec<Difference>)> = Vec::new();
    let whole = whole_mounts(&all);
    for difference in all {
        let name = name_of(&difference).to_owned();
        let scope = scope_of(&name);
        if let Some(told) = whole.get(scope) {
            found.own.push(told.clone());
        } else if name[scope.len()..].starts_with("file /") {
            match files.iter_mut().find(|(known, _)| known == scope) {
                Some((_, list)) => list.push(difference),
                None => files.push((scope.to_owned(), vec![difference])),
            }
        } else if name == "base" {
            found.has_other_base = true;
        } else if name == AFTER {
            if let Difference::Changed { before, now, .. } = difference {
                found.moved = Some((before, now));
            }
        } else if name == "argument" {
            found.own.push(command_phrase(&now, &before));
        } else {
            let told = phrase(&name[scope.len()..], &difference, args);
            found.own.push(format!("{scope}{told}"));
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

/// Mounts that are new or gone as a whole, by the scope of their parts.
fn whole_mounts(all: &[Difference]) -> BTreeMap<String, String> {
    let mut whole = BTreeMap::new();
    for difference in all {
        let name = name_of(difference);
        let scope = scope_of(name);
        let Some(mount) = scope
            .strip_suffix(": ")
            .filter(|_| name.ends_with(" mount"))
        else {
            continue;
        };
        match difference {
            Difference::Added(_) => whole.insert(scope.to_owned(), format!("{mount} is new")),
            Difference::Removed(_) => whole.insert(scope.to_owned(), format!("{mount} is gone")),
            Difference::Changed { .. } | Difference::Reordered => None,
        };
    }
    whole
}

/// What of a command changed: its shell, if the rest is the same.
fn command_phrase(now: &Parts, before: &Parts) -> String {
    let words = |parts: &Parts| -> Vec<String> {
        let words = parts.0.iter().filter(|part| part.name == "argument");
        words.map(|part| part.value.clone()).collect()
    };
    let (now, before) = (words(now), words(before));
    match (now.split_last(), before.split_last()) {
        (Some((text, shell)), Some((same, earlier)))
            if text == same && !shell.is_empty() && !earlier.is_empty() =>
        {
            format!("SHELL: {} → {}", earlier.join(" "), shell.join(" "))
        }
        _ => "the command changed".to_owned(),
    }
}

/// What stands before the own name of a part: `mount /m: `, or nothing.
fn scope_of(name: &str) -> &str {
    let end = name.find(": ").filter(|_| name.starts_with("mount "));
    end.map_or("", |end| &name[..end + 2])
}

/// Lists of files are only compared where both sides have them: a key found by definition lists none.
fn comparable(now: &Parts, before: &Parts) -> (Parts, Parts) {
    let is_file = |part: &Part| part.name[scope_of(&part.name).len()..].starts_with("file /");
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
            "arguments" => return "the command changed".to_owned(),
            "data" => return "the text of the here-document changed".to_owned(),
            "working directory" => "WORKDIR",
            "user" => "USER",
            "extra host" => "--add-host",
            "shm size" => "--shm-size",
            "ulimit" => "--ulimit",
            "cgroup parent" => "--cgroup-parent",
            "network" => "--network",
            "security" => "--security",
            "platform" => "--platform",
            "device" => "--device",
            "chown" | "group" => "--chown",
            "chmod" => "--chmod",
            "exclude" => "--exclude",
            "parents" => "--parents",
            "unpack" => "--unpack",
            "checksum" => "--checksum",
            other => other,
        }
        .to_owned(),
    };
    let is_flag = matches!(
        name,
        "read-only" | "required" | "parents" | "unpack" | "keeps owner"
    );
    let value = |value: &str| match (name, value) {
        ("mode" | "chmod", number) => number
            .parse::<u32>()
            .map_or_else(|_symbolic| number.to_owned(), |mode| format!("{mode:04o}")),
        (_, "0") if is_flag => "no".to_owned(),
        (_, "1") if is_flag => "yes".to_owned(),
        (_, other) => other.to_owned(),
    };
    let added = |now: &str| match is_hidden(name, "", now) {
        true => format!("{shown} is new"),
        false => format!("{shown} is new: {}", value(now)),
    };
    match difference {
        Difference::Changed { before, now, .. } if before == ABSENT => added(now),
        Difference::Changed { now, .. } if now == ABSENT => format!("{shown} is gone"),
        Difference::Changed { before, now, .. } => match is_hidden(name, before, now) {
            true => format!("{shown} changed"),
            false => format!("{shown}: {} → {}", value(before), value(now)),
        },
        Difference::Added(part) => added(&part.value),
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

/// What changed of one file: `type mode owner digest`, and the first name of a file that has several; or only a digest for
/// many files at once.
fn change_of(path: &str, before: &str, now: &str) -> String {
    let fields = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (mut before, mut now) = (fields(before), fields(now));
    let links = (before.get(4).cloned(), now.get(4).cloned());
    before.truncate(4);
    now.truncate(4);
    if before == now {
        return match links {
            (_, Some(first)) => {
                let first = first.trim_start_matches('/');
                format!("{path} is a hard link of {first} now")
            }
            (_, None) => format!("{path} is no hard link any more"),
        };
    }
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

#[cfg(test)]
#[path = "miss_tests.rs"]
mod tests;
