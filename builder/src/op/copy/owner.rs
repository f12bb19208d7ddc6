//! `--chown`: names to numbers, by the passwd and group files of the destination.
//!
//! As BuildKit: a bare number is user and group; `root` is the number 0, whatever the files say, and so is what is left out
//! before or after the colon; an unknown user is 0, an unknown group the user's own; names without a file system to look in
//! are an error.

use frontend::graph::Owner;

use super::error::{CopyError, SourceError};
use super::resolve::{Step, resolve};
use super::source::{Destination, resolved};

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Ids {
    /// A number that `chown` can set: -1 would mean "as it is".
    pub(super) fn id(number: i64) -> Option<u32> {
        u32::try_from(number).ok().filter(|id| *id != u32::MAX)
    }
}

/// What is no name to look up.
fn parse(text: &str) -> Option<u32> {
    match text {
        "" | "root" => Some(0),
        _ => number(text),
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().and_then(|id| Ids::id(id.into()))
}

/// Looks an owner up.
pub(super) fn resolve_owner(
    owner: &Owner,
    base: Option<&dyn Destination>,
) -> Result<Ids, CopyError> {
    let user = match parse(&owner.user) {
        Some(uid) => Ids { uid, gid: uid },
        None => {
            let base = base.ok_or_else(|| CopyError::NoUsers {
                name: owner.user.clone(),
            })?;
            // name:password:uid:gid:…
            let fields = find(base, b"etc/passwd", &owner.user)?;
            Ids {
                uid: field(&fields, 2),
                gid: field(&fields, 3),
            }
        }
    };
    let gid = match owner.group.as_deref() {
        None => user.gid,
        Some(group) => match parse(group) {
            Some(gid) => gid,
            None => {
                let base = base.ok_or_else(|| CopyError::NoGroups {
                    name: group.to_owned(),
                })?;
                // name:password:gid:members
                match find(base, b"etc/group", group)? {
                    None => user.gid,
                    found => field(&found, 2),
                }
            }
        },
    };
    Ok(Ids { uid: user.uid, gid })
}

/// Whether a user is a number, `root`, or in the passwd file.
pub(super) fn is_user(base: &dyn Destination, name: &str) -> Result<bool, CopyError> {
    Ok(parse(name).is_some() || find(base, b"etc/passwd", name)?.is_some())
}

/// Whether a group is a number, `root`, or in the group file.
pub(super) fn is_group(base: &dyn Destination, name: &str) -> Result<bool, CopyError> {
    Ok(parse(name).is_some() || find(base, b"etc/group", name)?.is_some())
}

fn field(fields: &Option<Vec<String>>, at: usize) -> u32 {
    let field = fields.as_ref().and_then(|fields| fields.get(at));
    field.and_then(|text| number(text)).unwrap_or(0)
}

/// The fields of the first line that starts with a name.
fn find(base: &dyn Destination, path: &[u8], name: &str) -> Result<Option<Vec<String>>, CopyError> {
    let step = |path: &[u8]| Ok::<_, SourceError>(base.lookup(path)?.map(|entry| entry.kind));
    let file = resolved(path, resolve(path, step))?;
    if !file.is_there || step(&file.path)? != Some(Step::Other) {
        return Ok(None);
    }
    let bytes = base.read(&file.path)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(|line| line.trim().split(':'));
    let found = lines.find(|fields| fields.clone().next() == Some(name));
    Ok(found.map(|fields| fields.map(str::to_owned).collect()))
}
