//! Compiles the system call filter: moby's default profile to classic BPF.
//!
//! The profile (`seccomp.json`) and the numbers of its system calls (`syscalls.txt`) are data; [`compile`] evaluates the
//! profile for the capabilities a step has. Installing is `sys::install_filter`'s business.
//!
//! # The program
//!
//! It loads the architecture, jumps to that architecture's part, loads the number and goes down a list: system calls with
//! conditions first, then ranges of numbers with one answer. A linear list is fast enough: since Linux 5.11 the kernel
//! keeps a bitmap of the numbers whose answer doesn't depend on arguments and doesn't run the program for them. An unknown
//! architecture gets the default answer.
//!
//! Numbers above all that are allowed are system calls the profile's authors did not know: they don't exist here (ENOSYS), as with
//! runc. C libraries try the newest call first and fall back to an older one only on that answer.

use std::collections::BTreeMap;

use serde::Deserialize;

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

fn emit_body(
    answers: &Answers,
    unknown: &[(u32, u32)],
    default_errno: u16,
) -> Vec<libc::sock_filter> {
    let default = answer(RuleAction::Errno, default_errno);
    let mut body = vec![load(OFFSET_NUMBER)];
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for (number, rules) in answers {
        match rules.iter().find(|(conditions, ..)| conditions.is_empty()) {
            Some((_, RuleAction::Allow, _)) => match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *number => *last = *number,
                Some(_) | None => ranges.push((*number, *number)),
            },
            Some((_, RuleAction::Errno, errno)) => {
                body.push(jump(JEQ, *number, 0, 1));
                body.push(answer(RuleAction::Errno, *errno));
            }
            None => body.extend(emit_conditional(*number, rules, default)),
        }
    }
    for (first, last) in ranges {
        body.extend(emit_range(first, last, answer(RuleAction::Allow, 0)));
    }
    for (first, last) in unknown {
        body.extend(emit_range(*first, *last, answer(RuleAction::Errno, ENOSYS)));
    }
    body.push(default);
    body
}

/// The answer to the numbers from `first` to `last`.
fn emit_range(first: u32, last: u32, answer: libc::sock_filter) -> [libc::sock_filter; 3] {
    [jump(JGE, first, 0, 2), jump(JGT, last, 1, 0), answer]
}

/// The system call does not exist.
const ENOSYS: u16 = 38;

/// A block for one system call; it never falls through, so the accumulator's loss of the number does no harm.
fn emit_conditional(
    number: u32,
    rules: &[(Vec<Condition>, RuleAction, u16)],
    default: libc::sock_filter,
) -> Vec<libc::sock_filter> {
    let mut block = Vec::new();
    for (conditions, action, errno) in rules {
        let checks = conditions.iter().map(emit_check).collect::<Vec<_>>();
        // A failed check jumps behind this rule's answer: over the checks after it and one instruction.
        let mut remaining: usize = checks.iter().map(Vec::len).sum();
        for check in checks {
            remaining -= check.len();
            let mut left_in_check = check.len();
            for mut instruction in check {
                left_in_check -= 1;
                let behind = u8::try_from(left_in_check + remaining + 1).unwrap_or(u8::MAX);
                // TO_FAIL and TO_PASS stand for the two ways out until the distances are known.
                let resolve = |target: u8| match target {
                    TO_FAIL => behind,
                    TO_PASS => u8::try_from(left_in_check).unwrap_or(u8::MAX),
                    near => near,
                };
                if is_jump(&instruction) {
                    instruction.jt = resolve(instruction.jt);
                    instruction.jf = resolve(instruction.jf);
                }
                block.push(instruction);
            }
        }
        block.push(answer(*action, *errno));
    }
    block.push(default);
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
    let mut out = vec![jump(JEQ, number, 1, 0), statement(JA, length)];
    out.extend(block);
    out
}

const TO_FAIL: u8 = 254;
const TO_PASS: u8 = 255;

/// Arguments are 64 bits and the accumulator 32: two comparisons.
fn emit_check(condition: &Condition) -> Vec<libc::sock_filter> {
    let argument = OFFSET_ARGUMENTS + 8 * u32::from(condition.index);
    let half = |value: u64, shift: u32| u32::try_from((value >> shift) & 0xffff_ffff).unwrap_or(0);
    let (low, high) = (half(condition.value, 0), half(condition.value, 32));
    match condition.op {
        Comparison::Equal => vec![
            load(argument),
            jump(JEQ, low, 0, TO_FAIL),
            load(argument + 4),
            jump(JEQ, high, TO_PASS, TO_FAIL),
        ],
        Comparison::Less => vec![
            load(argument + 4),
            jump(JGT, high, TO_FAIL, 0),
            jump(JEQ, high, 0, TO_PASS),
            load(argument),
            jump(JGE, low, TO_FAIL, TO_PASS),
        ],
        Comparison::MaskedEqual => vec![
            load(argument),
            statement(AND, low),
            jump(JEQ, half(condition.value_two, 0), 0, TO_FAIL),
            load(argument + 4),
            statement(AND, high),
            jump(JEQ, half(condition.value_two, 32), TO_PASS, TO_FAIL),
        ],
    }
}

// Offsets in struct seccomp_data; both architectures are little endian.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

// Instruction codes of classic BPF.
const LD_ABS: u16 = 0x20;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const AND: u16 = 0x54;
const RET: u16 = 0x06;

fn statement(code: u16, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn is_jump(instruction: &libc::sock_filter) -> bool {
    matches!(instruction.code, JEQ | JGT | JGE)
}

fn load(offset: u32) -> libc::sock_filter {
    statement(LD_ABS, offset)
}

fn answer(action: RuleAction, errno: u16) -> libc::sock_filter {
    statement(
        RET,
        match action {
            RuleAction::Allow => libc::SECCOMP_RET_ALLOW,
            RuleAction::Errno => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | super::ENOSYS as u32;

    /// Interprets the program as the kernel does.
    fn run(filter: &Filter, arch: u32, number: u32, args: [u64; 3]) -> u32 {
        let mut data = [0; 64];
        data[0..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        for (index, arg) in args.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_le_bytes());
        }
        let (mut at, mut a) = (0_usize, 0_u32);
        loop {
            let i = &filter.instructions[at];
            at += 1;
            let taken = match i.code {
                LD_ABS => {
                    let k = i.k as usize;
                    a = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
                    continue;
                }
                AND => {
                    a &= i.k;
                    continue;
                }
                JA => {
                    at += i.k as usize;
                    continue;
                }
                RET => return i.k,
                JEQ => a == i.k,
                JGT => a > i.k,
                JGE => a >= i.k,
                code => panic!("unknown instruction {code:#x}"),
            };
            at += usize::from(if taken { i.jt } else { i.jf });
        }
    }

    const CAPS: &[&str] = &["CAP_SYS_CHROOT", "CAP_MKNOD"];

    #[test]
    fn answers_on_x86_64() {
        let filter = compile("x86_64", CAPS).unwrap();
        let (x64, x86, x32) = (0xc000_003e, 0x4000_0003, 0x4000_0000);
        let cases = [
            ("read", x64, 0, [0; 3], ALLOW),
            ("mount", x64, 165, [0; 3], EPERM),
            ("unshare", x64, 272, [0; 3], EPERM),
            ("chroot, by capability", x64, 161, [0; 3], ALLOW),
            ("clone3", x64, 435, [0; 3], ENOSYS),
            ("io_uring_setup", x64, 425, [0; 3], EPERM),
            ("keyctl", x64, 250, [0; 3], EPERM),
            ("clone of a thread", x64, 56, [0x003d_0f00, 0, 0], ALLOW),
            (
                "clone into a user namespace",
                x64,
                56,
                [0x1000_0011, 0, 0],
                EPERM,
            ),
            ("socket inet", x64, 41, [2, 1, 0], ALLOW),
            ("socket netlink", x64, 41, [16, 3, 0], ALLOW),
            ("socket x25", x64, 41, [9, 1, 0], ALLOW),
            ("socket rds", x64, 41, [21, 1, 0], ALLOW),
            ("socket key", x64, 41, [12, 3, 0], EPERM),
            ("socket alg", x64, 41, [38, 5, 0], EPERM),
            ("socket vsock", x64, 41, [40, 1, 0], EPERM),
            (
                "socket alg with a high half",
                x64,
                41,
                [1 << 32 | 38, 5, 0],
                EPERM,
            ),
            (
                "socket inet with a high half",
                x64,
                41,
                [1 << 32 | 2, 1, 0],
                EPERM,
            ),
            (
                "pidfd_getfd, which wants a capability",
                x64,
                438,
                [0; 3],
                EPERM,
            ),
            ("pkey_alloc", x64, 330, [0; 3], ALLOW),
            ("listmount", x64, 458, [0; 3], ALLOW),
            ("personality 0", x64, 135, [0; 3], ALLOW),
            ("personality query", x64, 135, [0xffff_ffff, 0, 0], ALLOW),
            ("personality no aslr", x64, 135, [0x0004_0000, 0, 0], EPERM),
            ("lsm_list_modules", x64, 461, [0; 3], EPERM),
            ("the last number", x64, 466, [0; 3], ALLOW),
            ("a number beyond", x64, 467, [0; 3], ENOSYS),
            ("a number far beyond", x64, x32 - 1, [0; 3], ENOSYS),
            ("x32 beyond", x64, x32 | 999, [0; 3], ENOSYS),
            ("i386 beyond", x86, 999, [0; 3], ENOSYS),
            ("no number", x64, u32::MAX, [0; 3], ENOSYS),
            ("x32 read", x64, x32, [0; 3], ALLOW),
            ("x32 mount", x64, x32 | 165, [0; 3], EPERM),
            ("i386 read", x86, 3, [0; 3], ALLOW),
            ("i386 mount", x86, 21, [0; 3], EPERM),
            ("i386 socketcall", x86, 102, [0; 3], ALLOW),
            ("another architecture", 0xc000_00b7, 63, [0; 3], EPERM),
        ];
        for (name, arch, number, args, expected) in cases {
            assert_eq!(run(&filter, arch, number, args), expected, "{name}");
        }
        assert!(filter.instructions.len() < 4096);
    }

    #[test]
    fn answers_on_aarch64() {
        let filter = compile("aarch64", CAPS).unwrap();
        assert_eq!(run(&filter, 0xc000_00b7, 63, [0; 3]), ALLOW);
        assert_eq!(run(&filter, 0xc000_00b7, 40, [0; 3]), EPERM);
        assert_eq!(run(&filter, 0x4000_0028, 3, [0; 3]), ALLOW);
        assert_eq!(run(&filter, 0x4000_0028, 0x000f_0002, [0; 3]), ALLOW);
    }

    #[test]
    fn capabilities_open_their_calls() {
        let filter = compile("x86_64", &["CAP_SYS_ADMIN"]).unwrap();
        assert_eq!(run(&filter, 0xc000_003e, 165, [0; 3]), ALLOW);
        assert_eq!(run(&filter, 0xc000_003e, 435, [0; 3]), ALLOW);
        assert_eq!(run(&filter, 0xc000_003e, 161, [0; 3]), EPERM);
    }

    #[test]
    fn other_machines_are_told_so() {
        assert_eq!(
            compile("riscv64", CAPS).unwrap_err().to_string(),
            "a system call filter for riscv64"
        );
    }
}
