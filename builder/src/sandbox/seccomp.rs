//! Compiles the system call filter: moby's default profile to classic BPF.
//!
//! The profile (`seccomp.json`) and the numbers of its system calls (`syscalls.txt`) are data; [`compile`] evaluates the
//! profile for the capabilities a step has. Installing is `sys::install_filter`'s business.
//!
//! # The program
//!
//! It loads the architecture, jumps to that architecture's part, loads the number and finds its answer by halving: the kernel
//! runs the program for every number when it is installed, so that it need not do so when a call is made whose answer
//! doesn't depend on arguments (a bitmap, since Linux 5.11), and it translates the program for every step. Both are felt: short
//! ways and few instructions halve what a filter costs. An unknown architecture gets the default answer.
//!
//! Numbers above all that are allowed are system calls the profile's authors did not know: they don't exist here (ENOSYS), as with
//! runc. C libraries try the newest call first and fall back to an older one only on that answer.

use std::collections::BTreeMap;

use serde::Deserialize;

use self::bpf::{JA, JEQ, OFFSET_ARCH, answer, emit_body, jump, load, statement};

mod bpf;

const PROFILE: &str = include_str!("seccomp.json");
const NUMBERS: &str = include_str!("syscalls.txt");

/// A compiled filter.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) instructions: Vec<libc::sock_filter>,
}

/// The profile cannot be compiled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CompileError {
    /// This machine's architecture is not in the data.
    #[error("a system call filter for {0}")]
    Architecture(String),
    /// The data is damaged.
    #[error("a system call filter from this profile: {0}")]
    Profile(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_errno_ret: u16,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: RuleAction,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Vec<Condition>,
    #[serde(default)]
    includes: Selector,
    #[serde(default)]
    excludes: Selector,
}

#[derive(Clone, Copy, Deserialize)]
enum RuleAction {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
}

#[derive(Default, Deserialize)]
struct Selector {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Comparison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Comparison {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// `arg & value == value_two`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// An architecture whose calls this machine's kernel accepts.
struct Architecture {
    /// `AUDIT_ARCH_*`
    audit: u32,
    /// The profile's name and column of `syscalls.txt`, and what is added to its numbers. x32 shares x86_64's `audit`.
    abis: &'static [(&'static str, usize, u32)],
}

const X86_64: &[Architecture] = &[
    Architecture {
        audit: 0xc000_003e,
        abis: &[("amd64", 0, 0), ("x32", 1, 0x4000_0000)],
    },
    Architecture {
        audit: 0x4000_0003,
        abis: &[("x86", 2, 0)],
    },
];

const AARCH64: &[Architecture] = &[
    Architecture {
        audit: 0xc000_00b7,
        abis: &[("arm64", 3, 0)],
    },
    Architecture {
        audit: 0x4000_0028,
        abis: &[("arm", 4, 0)],
    },
];

/// Compiles the profile for a step that holds `capabilities` on a machine of `architecture` (Rust's name of it).
pub(super) fn compile(architecture: &str, capabilities: &[&str]) -> Result<Filter, CompileError> {
    let architectures = match architecture {
        "x86_64" => X86_64,
        "aarch64" => AARCH64,
        other => return Err(CompileError::Architecture(other.to_owned())),
    };
    let profile: Profile =
        serde_json::from_str(PROFILE).map_err(|error| CompileError::Profile(error.to_string()))?;
    let numbers = numbers();
    let mut program = vec![load(OFFSET_ARCH)];
    for architecture in architectures {
        let mut answers = BTreeMap::new();
        for abi in architecture.abis {
            collect(&profile, &numbers, *abi, capabilities, &mut answers);
        }
        let unknown = unknown(architecture, &answers);
        let body = emit_body(&answers, &unknown, profile.default_errno_ret);
        let length = u32::try_from(body.len())
            .map_err(|_too_long| CompileError::Profile("too long".to_owned()))?;
        program.push(jump(JEQ, architecture.audit, 1, 0));
        program.push(statement(JA, length));
        program.extend(body);
    }
    program.push(answer(RuleAction::Errno, profile.default_errno_ret));
    Ok(Filter {
        instructions: program,
    })
}

/// What happens to one system call: the first rule whose conditions hold, else the default.
type Answers = BTreeMap<u32, Vec<(Vec<Condition>, RuleAction, u16)>>;

fn collect(
    profile: &Profile,
    numbers: &BTreeMap<&str, Vec<Option<u32>>>,
    (name, column, marker): (&str, usize, u32),
    capabilities: &[&str],
    answers: &mut Answers,
) {
    let holds_any = |caps: &[String]| caps.iter().any(|cap| capabilities.contains(&cap.as_str()));
    let is_one_of = |arches: &[String]| arches.iter().any(|arch| arch == name);
    let rules = profile.syscalls.iter().filter(|rule| {
        (rule.includes.caps.is_empty() || holds_any(&rule.includes.caps))
            && (rule.includes.arches.is_empty() || is_one_of(&rule.includes.arches))
            && !holds_any(&rule.excludes.caps)
            && !is_one_of(&rule.excludes.arches)
    });
    for rule in rules {
        for syscall in &rule.names {
            let Some(number) = numbers
                .get(syscall.as_str())
                .and_then(|columns| columns.get(column).copied().flatten())
            else {
                continue;
            };
            answers.entry(number | marker).or_default().push((
                rule.args.clone(),
                rule.action,
                rule.errno_ret.unwrap_or(profile.default_errno_ret),
            ));
        }
    }
}

/// The numbers above the last one answered of each ABI, up to where the next ABI's begin.
fn unknown(architecture: &Architecture, answers: &Answers) -> Vec<(u32, u32)> {
    let markers = architecture.abis.iter().map(|(_, _, marker)| *marker);
    let ends = markers
        .clone()
        .skip(1)
        .map(|next| next - 1)
        .chain([u32::MAX]);
    markers
        .zip(ends)
        .filter_map(|(first, end)| {
            let (last, _) = answers.range(first..=end).next_back()?;
            Some((last + 1, end))
        })
        .collect()
}

/// One row per system call, one column per ABI.
fn numbers() -> BTreeMap<&'static str, Vec<Option<u32>>> {
    NUMBERS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            Some((name, words.map(|word| word.parse().ok()).collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests;
