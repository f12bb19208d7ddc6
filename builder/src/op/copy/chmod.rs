//! `--chmod`, octal and symbolic.
//!
//! Symbolic modes are those of chmod(1) with umask 0, as BSD's `setmode` reads them: `X` asks the mode before the change,
//! permissions copied from another class (`g=u`) ask the mode so far.

use frontend::graph::Chmod;

use super::error::CopyError;

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o0007;
const STICKY: u32 = 0o1000;

/// A mode to be set on what is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ModeChange {
    /// These bits.
    Octal(u32),
    /// These clauses in order.
    Symbolic(Vec<Change>),
}

/// One `+x` of `u=r+x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    who: u32,
    action: Action,
    permissions: Permissions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permissions {
    /// Bits for all classes, of which `who` chooses.
    Bits { bits: u32, is_conditional_x: bool },
    /// Those of a class: its shift.
    Of(u32),
}

impl ModeChange {
    /// Reads what the frontend has checked.
    pub(super) fn of(chmod: &Chmod) -> Result<Self, CopyError> {
        match chmod {
            Chmod::Octal(bits) => Ok(Self::Octal(bits & 0o7777)),
            Chmod::Symbolic(text) => parse(text)
                .map(Self::Symbolic)
                .ok_or_else(|| CopyError::Chmod(text.clone())),
        }
    }

    /// The mode of something copied that had `mode`.
    pub(super) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(changes) => {
                let has_x = is_directory || mode & 0o111 != 0;
                let apply = |mode, change: &Change| change.apply(mode, has_x);
                changes.iter().fold(mode, apply)
            }
        }
    }

    /// The mode of directories made on the way: no special bits, and symbolic modes don't reach them.
    pub(super) fn of_created_directory(change: Option<&Self>) -> u32 {
        match change {
            Some(Self::Octal(bits)) => bits & 0o777,
            Some(Self::Symbolic(_)) | None => 0o755,
        }
    }
}

impl Change {
    fn apply(self, mode: u32, has_x: bool) -> u32 {
        let bits = match self.permissions {
            Permissions::Bits {
                bits,
                is_conditional_x,
            } => bits | if is_conditional_x && has_x { 0o111 } else { 0 },
            Permissions::Of(shift) => {
                let class = (mode >> shift) & 7;
                class << 6 | class << 3 | class
            }
        };
        let bits = bits & self.who;
        match self.action {
            Action::Add => mode | bits,
            Action::Remove => mode & !bits,
            // `=` leaves the sticky bit unless it names it.
            Action::Set => (mode & !(self.who & !STICKY)) | bits,
        }
    }
}

fn parse(text: &str) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    for clause in text.split(',') {
        let mut rest = clause.chars().peekable();
        let mut who = 0;
        while let Some(class) = rest.peek().and_then(|c| class_of(*c)) {
            who |= class;
            rest.next();
        }
        let is_other_alone = who == OTHER;
        if who == 0 {
            who = USER | GROUP | OTHER;
        }
        rest.peek()?;
        while let Some(operator) = rest.next() {
            let action = match operator {
                '+' => Action::Add,
                '-' => Action::Remove,
                '=' => Action::Set,
                _ => return None,
            };
            let (permissions, names_sticky) = permissions(&mut rest)?;
            let sticky = if names_sticky && !is_other_alone {
                STICKY
            } else {
                0
            };
            changes.push(Change {
                who: who | sticky,
                action,
                permissions,
            });
        }
    }
    Some(changes)
}

fn class_of(letter: char) -> Option<u32> {
    match letter {
        'u' => Some(USER),
        'g' => Some(GROUP),
        'o' => Some(OTHER),
        'a' => Some(USER | GROUP | OTHER),
        _ => None,
    }
}

/// The permissions up to the next operator, and whether `t` is among them.
fn permissions(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<(Permissions, bool)> {
    let shift = match rest.peek() {
        Some('u') => Some(6),
        Some('g') => Some(3),
        Some('o') => Some(0),
        Some(_) | None => None,
    };
    if let Some(shift) = shift {
        rest.next();
        return Some((Permissions::Of(shift), false));
    }
    let (mut bits, mut is_conditional_x, mut names_sticky) = (0, false, false);
    while let Some(letter) = rest.peek().copied() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => is_conditional_x = true,
            's' => bits |= 0o6000,
            't' => (bits, names_sticky) = (bits | STICKY, true),
            '+' | '-' | '=' => break,
            _ => return None,
        }
        rest.next();
    }
    let permissions = Permissions::Bits {
        bits,
        is_conditional_x,
    };
    Some((permissions, names_sticky))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes() {
        let cases = [
            ("u+x,g-w", 0o664, false, 0o744),
            ("go-rwx", 0o664, false, 0o600),
            ("u=rw,go=r", 0o777, false, 0o644),
            ("+x", 0o664, false, 0o775),
            ("a=rX", 0o600, false, 0o444),
            ("a=rX", 0o750, false, 0o555),
            ("a=rX", 0o700, true, 0o555),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("u+s,g+s", 0o754, false, 0o6754),
            ("+t", 0o644, false, 0o1644),
            ("o+t", 0o644, false, 0o644),
            ("g=u,o=g", 0o754, false, 0o777),
            ("u=rw+x", 0o000, false, 0o700),
            ("a=", 0o7777, false, 0o1000),
            ("u-x,u+X", 0o700, false, 0o700),
            ("go-w", 0o1777, true, 0o1755),
        ];
        for (text, mode, is_directory, expected) in cases {
            let change = ModeChange::of(&Chmod::Symbolic(text.into())).unwrap();
            let found = change.apply(mode, is_directory);
            assert_eq!(found, expected, "{text} on {mode:o} gives {found:o}");
        }
        for bad in ["foo", "u", "u+q", "=,"] {
            assert!(
                ModeChange::of(&Chmod::Symbolic(bad.into())).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn octal_modes_reach_created_directories_without_special_bits() {
        let octal = ModeChange::of(&Chmod::Octal(0o7751)).unwrap();
        assert_eq!(octal.apply(0o644, false), 0o7751);
        assert_eq!(ModeChange::of_created_directory(Some(&octal)), 0o751);
        let symbolic = ModeChange::of(&Chmod::Symbolic("a=rX".into())).unwrap();
        assert_eq!(ModeChange::of_created_directory(Some(&symbolic)), 0o755);
        assert_eq!(ModeChange::of_created_directory(None), 0o755);
    }
}
