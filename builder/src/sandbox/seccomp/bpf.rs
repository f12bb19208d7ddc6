//! Answers to system calls as instructions of classic BPF (Linux, `Documentation/networking/filter.rst`).

use super::{Answers, Comparison, Condition, RuleAction};

/// What happens to a system call.
enum Outcome {
    /// The same answer whatever its arguments are.
    Answer(libc::sock_filter),
    /// A block that looks at them and answers.
    Block(Vec<libc::sock_filter>),
}

impl Outcome {
    fn is_same_answer(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Answer(one), Self::Answer(other)) => is_same(one, other),
            (Self::Answer(_) | Self::Block(_), _) => false,
        }
    }
}

/// The part of one architecture: what each number is answered.
pub(super) fn emit_body(
    answers: &Answers,
    unknown: &[(u32, u32)],
    default_errno: u16,
) -> Vec<libc::sock_filter> {
    let mut body = vec![load(OFFSET_NUMBER)];
    body.extend(emit_search(&outcomes(answers, unknown, default_errno)));
    body
}

/// Every number's outcome: where it begins to hold, in order.
fn outcomes(answers: &Answers, unknown: &[(u32, u32)], default_errno: u16) -> Vec<(u32, Outcome)> {
    let default = answer(RuleAction::Errno, default_errno);
    let known = answers.iter().map(|(number, rules)| {
        let unconditional = rules.iter().find(|(conditions, ..)| conditions.is_empty());
        let outcome = match unconditional {
            Some((_, action, errno)) => Outcome::Answer(answer(*action, *errno)),
            None => Outcome::Block(emit_conditional(rules, default)),
        };
        (*number, *number, outcome)
    });
    let missing = || Outcome::Answer(answer(RuleAction::Errno, ENOSYS));
    let mut spans: Vec<(u32, u32, Outcome)> = known
        .chain(
            unknown
                .iter()
                .map(|(first, last)| (*first, *last, missing())),
        )
        .collect();
    spans.sort_by_key(|(first, ..)| *first);
    let mut outcomes: Vec<(u32, Outcome)> = Vec::new();
    let mut push = |first, outcome: Outcome| match outcomes.last() {
        Some((_, last)) if last.is_same_answer(&outcome) => {}
        Some(_) | None => outcomes.push((first, outcome)),
    };
    let mut next = Some(0);
    for (first, last, outcome) in spans {
        if next.is_some_and(|next| next < first) {
            push(next.unwrap_or_default(), Outcome::Answer(default));
        }
        push(first, outcome);
        next = last.checked_add(1);
    }
    if let Some(next) = next {
        push(next, Outcome::Answer(default));
    }
    outcomes
}

/// How far a comparison can jump.
const FARTHEST: usize = u8::MAX as usize;

/// Finds the outcome of the number in the accumulator.
fn emit_search(outcomes: &[(u32, Outcome)]) -> Vec<libc::sock_filter> {
    let leaves = Leaves::of(outcomes);
    if outcomes.len() + leaves.instructions.len() <= FARTHEST {
        return emit_tree(outcomes, leaves);
    }
    let (lower, upper) = outcomes.split_at(outcomes.len() / 2);
    let (lower, first) = (emit_search(lower), upper[0].0);
    let mut out = vec![jump(JGE, first, 0, 1), jump_over(lower.len())];
    out.extend(lower);
    out.extend(emit_search(upper));
    out
}

/// Comparisons, then what they lead to, then the blocks.
fn emit_tree(outcomes: &[(u32, Outcome)], leaves: Leaves<'_>) -> Vec<libc::sock_filter> {
    let mut tree = Tree::default();
    tree.grow(outcomes, &leaves.led_to);
    let mut out = tree.resolved();
    out.extend(leaves.resolved());
    out
}

/// What comparisons lead to: one instruction an answer, however often it is given, and one a block, the jump to it.
#[derive(Default)]
struct Leaves<'a> {
    /// For each outcome its instruction.
    led_to: Vec<usize>,
    instructions: Vec<libc::sock_filter>,
    /// The blocks with the instructions that jump to them.
    blocks: Vec<(usize, &'a [libc::sock_filter])>,
}

impl<'a> Leaves<'a> {
    fn of(outcomes: &'a [(u32, Outcome)]) -> Self {
        let mut leaves = Self::default();
        for (_, outcome) in outcomes {
            let leaf = match outcome {
                Outcome::Answer(answer) => leaves.answer(*answer),
                Outcome::Block(block) => leaves.block(block),
            };
            leaves.led_to.push(leaf);
        }
        leaves
    }

    fn answer(&mut self, answer: libc::sock_filter) -> usize {
        let mut known = self.instructions.iter();
        let found = known.position(|leaf| is_same(leaf, &answer));
        found.unwrap_or_else(|| {
            self.instructions.push(answer);
            self.instructions.len() - 1
        })
    }

    /// The same call of two ABIs has the same block.
    fn block(&mut self, block: &'a [libc::sock_filter]) -> usize {
        let is_same = |other: &[libc::sock_filter]| {
            let pairs = || other.iter().zip(block);
            other.len() == block.len() && pairs().all(|(one, other)| is_same(one, other))
        };
        let found = self.blocks.iter().find(|(_, known)| is_same(known));
        if let Some((leaf, _)) = found {
            return *leaf;
        }
        let leaf = self.instructions.len();
        self.blocks.push((leaf, block));
        self.instructions.push(jump_over(0));
        leaf
    }

    fn resolved(mut self) -> Vec<libc::sock_filter> {
        let count = self.instructions.len();
        let mut behind = 0;
        for (leaf, block) in &self.blocks {
            self.instructions[*leaf] = jump_over(count - leaf - 1 + behind);
            behind += block.len();
        }
        let blocks = self.blocks.iter().flat_map(|(_, block)| *block);
        self.instructions.extend(blocks);
        self.instructions
    }
}

fn is_same(one: &libc::sock_filter, other: &libc::sock_filter) -> bool {
    (one.code, one.jt, one.jf, one.k) == (other.code, other.jt, other.jf, other.k)
}

/// Comparisons by the number that a higher half begins with, each before those it leads to.
#[derive(Default)]
struct Tree {
    nodes: Vec<(u32, Way, Way)>,
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum Way {
    Node(usize),
    Leaf(usize),
}

impl Tree {
    fn grow(&mut self, outcomes: &[(u32, Outcome)], led_to: &[usize]) -> Way {
        if let [leaf] = led_to {
            return Way::Leaf(*leaf);
        }
        let (at, middle) = (self.nodes.len(), outcomes.len() / 2);
        let unknown = Way::Leaf(0);
        self.nodes.push((outcomes[middle].0, unknown, unknown));
        let below = self.grow(&outcomes[..middle], &led_to[..middle]);
        let above = self.grow(&outcomes[middle..], &led_to[middle..]);
        self.nodes[at].1 = above;
        self.nodes[at].2 = below;
        Way::Node(at)
    }

    fn resolved(&self) -> Vec<libc::sock_filter> {
        let leaves = self.nodes.len();
        let nodes = self.nodes.iter().enumerate();
        nodes
            .map(|(at, (number, above, below))| {
                let distance = |way: Way| {
                    let target = match way {
                        Way::Node(node) => node,
                        Way::Leaf(leaf) => leaves + leaf,
                    };
                    u8::try_from(target - at - 1).unwrap_or(u8::MAX)
                };
                jump(JGE, *number, distance(*above), distance(*below))
            })
            .collect()
    }
}

fn jump_over(length: usize) -> libc::sock_filter {
    statement(JA, u32::try_from(length).unwrap_or(u32::MAX))
}

/// The system call does not exist.
pub(super) const ENOSYS: u16 = 38;

/// A block for one system call; it never falls through, so the accumulator's loss of the number does no harm.
fn emit_conditional(
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
    block
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
