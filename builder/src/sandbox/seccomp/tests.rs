//! What the profile answers to each call.

use super::bpf::{AND, JGE, JGT, LD_ABS, RET};
use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | super::bpf::ENOSYS as u32;

/// Interprets the program as the kernel does.
fn run(filter: &Filter, arch: u32, number: u32, args: [u64; 3]) -> u32 {
    interpret(filter, arch, number, args).0
}

/// The answer, and how many instructions it took.
fn interpret(filter: &Filter, arch: u32, number: u32, args: [u64; 3]) -> (u32, usize) {
    let mut data = [0; 64];
    data[0..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&arch.to_le_bytes());
    for (index, arg) in args.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_le_bytes());
    }
    let (mut at, mut a, mut count) = (0_usize, 0_u32, 0);
    loop {
        let i = &filter.instructions[at];
        at += 1;
        count += 1;
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
            RET => return (i.k, count),
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

/// What the rules say, without any program.
fn expected(rules: &Answers, unknown: &[(u32, u32)], number: u32, args: [u64; 3]) -> u32 {
    if unknown
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&number))
    {
        return ENOSYS;
    }
    let rules = rules.get(&number).map(Vec::as_slice).unwrap_or_default();
    let holds = |condition: &Condition| {
        let value = args[usize::from(condition.index)];
        match condition.op {
            Comparison::Equal => value == condition.value,
            Comparison::Less => value < condition.value,
            Comparison::MaskedEqual => value & condition.value == condition.value_two,
        }
    };
    let unconditional = rules.iter().find(|(conditions, ..)| conditions.is_empty());
    let first = rules
        .iter()
        .find(|(conditions, ..)| conditions.iter().all(holds));
    match unconditional.or(first) {
        Some((_, RuleAction::Allow, _)) => ALLOW,
        Some((_, RuleAction::Errno, errno)) => libc::SECCOMP_RET_ERRNO | u32::from(*errno),
        None => EPERM,
    }
}

#[test]
fn every_number_gets_the_answer_of_its_rules() {
    let profile: Profile = serde_json::from_str(PROFILE).unwrap();
    let numbers = numbers();
    let args = [
        [0; 3],
        [1, 0, 0],
        [2, 1, 0],
        [16, 3, 0],
        [38, 5, 0],
        [40, 1, 0],
        [8, 0, 0],
        [0x2_0000, 0, 0],
        [0xffff_ffff, 0, 0],
        [0x7e02_0000, 0, 0],
        [u64::MAX; 3],
    ];
    for (name, architectures) in [("x86_64", X86_64), ("aarch64", AARCH64)] {
        let filter = compile(name, CAPS).unwrap();
        for architecture in architectures {
            let mut answers = BTreeMap::new();
            for abi in architecture.abis {
                collect(&profile, &numbers, *abi, CAPS, &mut answers);
            }
            let unknown = unknown(architecture, &answers);
            let near = answers.keys().flat_map(|number| {
                let around = number.saturating_sub(1)..=number.saturating_add(1);
                around.chain([number ^ (1 << 31)])
            });
            let near = near
                .chain(0..1000)
                .chain([u32::MAX, u32::MAX - 1, 0x4000_0000]);
            for number in near.collect::<std::collections::BTreeSet<_>>() {
                for args in args {
                    assert_eq!(
                        run(&filter, architecture.audit, number, args),
                        expected(&answers, &unknown, number, args),
                        "{name} {:#x} {number:#x} {args:x?}",
                        architecture.audit
                    );
                }
            }
        }
    }
}

#[test]
fn a_step_is_not_kept_waiting_for_its_filter() {
    let filter = compile("x86_64", CAPS).unwrap();
    assert!(
        filter.instructions.len() < 800,
        "{}",
        filter.instructions.len()
    );
    let taken = |number| interpret(&filter, 0xc000_003e, number, [0; 3]).1;
    let longest = (0..500).map(taken).max();
    assert!(longest < Some(64), "{longest:?}");
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
