//! What layers can have of a member of an archive.

use cache::layer::entry::normalise_capability;
use cache::layer::path::LONGEST_PATH;
use cache::layer::reader::Member;

use super::archive::ArchiveError;
use super::error::shown;
use super::owner::Ids;
use super::plan::PlannedKind;

/// The largest major and minor numbers Linux has; the kernel cuts off what is above.
const MOST_MAJOR: i64 = (1 << 12) - 1;
const MOST_MINOR: i64 = (1 << 20) - 1;

/// The last second that a 64-bit number of nanoseconds since the epoch reaches.
const LAST_SECOND: i64 = i64::MAX / 1_000_000_000;

/// Tells what is wrong with a path or a link's text, if something is.
pub(super) fn check_path(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() {
        Err("it is a link to nothing")
    } else if path.len() > LONGEST_PATH {
        Err("its path or the path that it links to is longer than 4095 bytes")
    } else if path.contains(&0) {
        Err("its path or the path that it links to holds a NUL byte")
    } else {
        Ok(())
    }
}

/// Major and minor number of a device.
pub(super) fn device(major: i64, minor: i64) -> Result<(u32, u32), &'static str> {
    let within = |number: i64, most: i64| u32::try_from(number).ok().filter(|_| number <= most);
    match (within(major, MOST_MAJOR), within(minor, MOST_MINOR)) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        (None, _) | (_, None) => Err("device number out of range"),
    }
}

/// The time that a member gets: 0 for what is before the epoch or too late, as BuildKit has it. File systems cannot keep
/// every time.
pub(super) fn mtime(member: &Member) -> i64 {
    if (0..=LAST_SECOND).contains(&member.mtime) {
        member.mtime
    } else {
        0
    }
}

/// Owner and capability of a member, if layers can have them.
pub(super) fn checked(
    member: &Member,
    kind: &PlannedKind,
) -> Result<(Ids, Option<Vec<u8>>), ArchiveError> {
    let wrong = |problem| ArchiveError::Member {
        path: shown(&member.path),
        problem,
    };
    let (Some(uid), Some(gid)) = (Ids::id(member.uid), Ids::id(member.gid)) else {
        return Err(wrong("owner out of range"));
    };
    let capability = match (&member.capability, kind) {
        (Some(value), PlannedKind::File { .. }) => {
            let normal = normalise_capability(value);
            Some(normal.ok_or_else(|| wrong("malformed security.capability"))?)
        }
        (_, _) => None,
    };
    Ok((Ids { uid, gid }, capability))
}
