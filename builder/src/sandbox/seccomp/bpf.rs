//! Answers to system calls as instructions of classic BPF (Linux, `Documentation/networking/filter.rst`).

use super::{Answers, Comparison, Condition, RuleAction};

/// The part of one architecture: what each number is answered.
pub(super) fn emit_body(
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
pub(super) const ENOSYS: u16 = 38;

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
pub(super) const OFFSET_NUMBER: u32 = 0;
pub(super) const OFFSET_ARCH: u32 = 4;
pub(super) const OFFSET_ARGUMENTS: u32 = 16;

// Instruction codes of classic BPF.
pub(super) const LD_ABS: u16 = 0x20;
pub(super) const JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const AND: u16 = 0x54;
pub(super) const RET: u16 = 0x06;

pub(super) fn statement(code: u16, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

pub(super) fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn is_jump(instruction: &libc::sock_filter) -> bool {
    matches!(instruction.code, JEQ | JGT | JGE)
}

pub(super) fn load(offset: u32) -> libc::sock_filter {
    statement(LD_ABS, offset)
}

pub(super) fn answer(action: RuleAction, errno: u16) -> libc::sock_filter {
    statement(
        RET,
        match action {
            RuleAction::Allow => libc::SECCOMP_RET_ALLOW,
            RuleAction::Errno => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        },
    )
}
