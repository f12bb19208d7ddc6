//! Which devices a step may use, and that rule as a program for the kernel.
//!
//! Everything may be made (`mknod`), little may be opened: runc's defaults.

/// A device that may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Name in `/dev`, if the step gets a node.
    pub(super) node: Option<&'static str>,
    pub(super) major: u32,
    /// `None` is any.
    pub(super) minor: Option<u32>,
}

const fn device(node: &'static str, major: u32, minor: u32) -> Device {
    Device {
        node: Some(node),
        major,
        minor: Some(minor),
    }
}

const fn without_node(major: u32, minor: Option<u32>) -> Device {
    Device {
        node: None,
        major,
        minor,
    }
}

/// The character devices of every step. The last three are console, ptmx and the ptys of its own `/dev/pts`.
pub(super) const DEVICES: &[Device] = &[
    device("null", 1, 3),
    device("zero", 1, 5),
    device("full", 1, 7),
    device("random", 1, 8),
    device("urandom", 1, 9),
    device("tty", 5, 0),
    without_node(5, Some(1)),
    without_node(5, Some(2)),
    without_node(136, None),
];

/// What is written to `devices.allow` of the v1 hierarchy after everything was denied.
pub(super) fn legacy_lines() -> Vec<String> {
    let mut lines = vec!["b *:* m".to_owned(), "c *:* m".to_owned()];
    lines.extend(DEVICES.iter().map(|device| {
        let minor = device
            .minor
            .map_or_else(|| "*".to_owned(), |minor| minor.to_string());
        format!("c {}:{minor} rwm", device.major)
    }));
    lines
}

/// The program for the v2 hierarchy: answers 1 to allow.
pub(super) fn program() -> Vec<u64> {
    // r2 = type, r3 = access, r4 = major, r5 = minor; struct bpf_cgroup_dev_ctx holds access << 16 | type first.
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    rule(&mut program, &[(JUMP_UNLESS, 3, ACCESS_MKNOD)]);
    for device in DEVICES {
        let mut checks = vec![(JUMP_UNLESS, 2, TYPE_CHAR), (JUMP_UNLESS, 4, device.major)];
        if let Some(minor) = device.minor {
            checks.push((JUMP_UNLESS, 5, minor));
        }
        rule(&mut program, &checks);
    }
    program.extend([instruction(SET, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

/// Allows if all checks hold, else goes on behind itself.
fn rule(program: &mut Vec<u64>, checks: &[(u8, u8, u32)]) {
    for (index, (code, register, value)) in checks.iter().enumerate() {
        let behind = i16::try_from(checks.len() - index + 1).unwrap_or(i16::MAX);
        program.push(instruction(*code, *register, 0, behind, *value));
    }
    program.extend([instruction(SET, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
}

const ACCESS_MKNOD: u32 = 1;
const TYPE_CHAR: u32 = 2;

// Instruction codes of eBPF.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_UNLESS: u8 = 0x55;
const SET: u8 = 0xb7;
const EXIT: u8 = 0x95;

/// `struct bpf_insn` on a little-endian machine.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: u32) -> u64 {
    u64::from(code)
        | u64::from(destination | source << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(value) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the program.
    fn allows(kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let program = program();
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u32; 6];
        let mut at = 0_usize;
        loop {
            let bytes = program[at].to_le_bytes();
            let (to, from) = (usize::from(bytes[1] & 15), usize::from(bytes[1] >> 4));
            let offset = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
            let value = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
            at += 1;
            match bytes[0] {
                LOAD_WORD => registers[to] = context[offset / 4],
                MOVE => registers[to] = registers[from],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                SET => registers[to] = value,
                JUMP_UNLESS => at += if registers[to] == value { 0 } else { offset },
                EXIT => return registers[0] == 1,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn opened_and_made() {
        let (block, char) = (1, 2);
        let (mknod, read, write) = (1, 2, 4);
        let cases = [
            ("null", char, read | write, 1, 3, true),
            ("null made and opened", char, mknod | read, 1, 3, true),
            ("mem", char, read, 1, 1, false),
            ("mem made", char, mknod, 1, 1, true),
            ("mem made and opened", char, mknod | read, 1, 1, false),
            ("disk", block, read, 254, 0, false),
            ("a disk numbered as null", block, read, 1, 3, false),
            ("disk made", block, mknod, 254, 0, true),
            ("a pty", char, read | write, 136, 77, true),
            ("ptmx", char, read | write, 5, 2, true),
            ("kvm", char, read, 10, 232, false),
        ];
        for (name, kind, access, major, minor, expected) in cases {
            assert_eq!(allows(kind, access, major, minor), expected, "{name}");
        }
    }

    #[test]
    fn legacy() {
        let lines = legacy_lines();
        assert_eq!(lines[..3], ["b *:* m", "c *:* m", "c 1:3 rwm"]);
        assert!(lines.contains(&"c 136:* rwm".to_owned()));
    }
}
