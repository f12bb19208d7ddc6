//! Finds the user a command runs as, in the passwd and group files of its root.
//!
//! The rules are runc's (and so BuildKit's): a number is always an id; an unknown number runs with group 0; an explicit
//! group means no supplementary groups; `HOME` is looked up by uid.

use serde::{Deserialize, Serialize};

/// Who a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Supplementary groups, as the group file orders them.
    pub(super) groups: Vec<u32>,
    /// Home directory; `/` if unknown.
    pub(super) home: String,
}

/// USER cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum UserError {
    /// No such name.
    #[error("unable to find {} {name}: no matching entries in {} file", file.subject(), file.name())]
    Unknown {
        /// Where it was looked up.
        file: UserFile,
        /// The name.
        name: String,
    },
    /// A number no id can have.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
}

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserFile {
    /// `/etc/passwd`
    Passwd,
    /// `/etc/group`
    Group,
}

impl UserFile {
    fn subject(self) -> &'static str {
        match self {
            Self::Passwd => "user",
            Self::Group => "group",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Passwd => "passwd",
            Self::Group => "group",
        }
    }
}

/// Resolves `user` as written in USER. The files' contents are empty where the root has none.
pub(super) fn resolve(user: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, UserError> {
    let mut parts = user.split(':');
    let user = parts.next().unwrap_or_default();
    // What comes after a second colon is passed over, as in a line of passwd.
    let group_name = parts.next().unwrap_or_default();
    // Without a user it is root, and as root it is looked up.
    let user = if user.is_empty() { "0" } else { user };
    let (entry, uid, mut gid) = find_user(user, passwd)?;
    let mut groups = Vec::new();
    if group_name.is_empty() {
        if let Some(entry) = &entry {
            groups = memberships(&entry.name, group);
        }
    } else {
        gid = find_group(group_name, group)?;
    }
    // As containerd's ensureAdditionalGids: the group is among the supplementary ones too.
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    let home = passwd_entries(passwd)
        .find(|entry| entry.uid == uid)
        .map(|entry| entry.home)
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    Ok(Identity {
        uid,
        gid,
        groups,
        home,
    })
}

/// The name of a uid.
pub(super) fn name_of(uid: u32, passwd: &[u8]) -> Option<String> {
    passwd_entries(passwd)
        .find(|entry| entry.uid == uid)
        .map(|entry| entry.name)
}

fn find_user(user: &str, passwd: &[u8]) -> Result<(Option<PasswdEntry>, u32, u32), UserError> {
    let number = user.parse::<i64>().ok();
    let entry = passwd_entries(passwd).find(|entry| match number {
        Some(number) => i64::from(entry.uid) == number,
        None => entry.name == user,
    });
    match (entry, number) {
        (Some(entry), _) => {
            let (uid, gid) = (entry.uid, entry.gid);
            Ok((Some(entry), uid, gid))
        }
        (None, Some(number)) => Ok((None, in_range(number)?, 0)),
        (None, None) => Err(UserError::Unknown {
            file: UserFile::Passwd,
            name: user.to_owned(),
        }),
    }
}

fn find_group(name: &str, group: &[u8]) -> Result<u32, UserError> {
    if let Ok(number) = name.parse::<i64>() {
        return in_range(number);
    }
    group_entries(group)
        .find(|entry| entry.name == name)
        .map(|entry| entry.gid)
        .ok_or_else(|| UserError::Unknown {
            file: UserFile::Group,
            name: name.to_owned(),
        })
}

fn memberships(user: &str, group: &[u8]) -> Vec<u32> {
    group_entries(group)
        .filter(|entry| entry.members.iter().any(|member| member == user))
        .map(|entry| entry.gid)
        .collect()
}

fn in_range(number: i64) -> Result<u32, UserError> {
    i32::try_from(number)
        .ok()
        .and_then(|id| u32::try_from(id).ok())
        .ok_or(UserError::Range)
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct GroupEntry {
    name: String,
    gid: u32,
    members: Vec<String>,
}

fn passwd_entries(passwd: &[u8]) -> impl Iterator<Item = PasswdEntry> {
    lines(passwd).map(|line| {
        let mut fields = line.split(':').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        let (name, _password) = (next(), next());
        // Ids that are no numbers read as 0, as everywhere else.
        let (uid, gid) = (number(&next()), number(&next()));
        let (_comment, home) = (next(), next());
        PasswdEntry {
            name,
            uid,
            gid,
            home,
        }
    })
}

fn group_entries(group: &[u8]) -> impl Iterator<Item = GroupEntry> {
    lines(group).map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        let gid = number(fields.nth(1).unwrap_or_default());
        let members = fields.next().unwrap_or_default();
        GroupEntry {
            name,
            gid,
            members: members.split(',').map(str::to_owned).collect(),
        }
    })
}

fn lines(file: &[u8]) -> impl Iterator<Item = String> {
    file.split(|byte| *byte == b'\n')
        .map(|line| String::from_utf8_lossy(line).trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn number(field: &str) -> u32 {
    field.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"# comment\nroot:x:0:0:root:/root:/bin/sh\nbin:x:2:2::/bin:\n\nwww:x:33:34:w:/home:\nhomeless:x:7:7::\n";
    const GROUP: &[u8] =
        b"root:x:0:\nwww:x:34:\ng1:x:801:www,bin\ng2:x:802:bin\ng3:x:803:www\nw:x:10:root\n";

    #[test]
    fn users() {
        type Expected = (u32, u32, &'static [u32], &'static str);
        let cases: [(&str, Expected); 14] = [
            ("", (0, 0, &[0, 10], "/root")),
            ("root", (0, 0, &[0, 10], "/root")),
            ("0", (0, 0, &[0, 10], "/root")),
            ("www", (33, 34, &[34, 801, 803], "/home")),
            ("33", (33, 34, &[34, 801, 803], "/home")),
            ("www:www", (33, 34, &[34], "/home")),
            ("www:g2", (33, 802, &[802], "/home")),
            ("www:g2:x", (33, 802, &[802], "/home")),
            ("33:5", (33, 5, &[5], "/home")),
            ("999", (999, 0, &[0], "/")),
            ("1234:2345", (1234, 2345, &[2345], "/")),
            (":50", (0, 50, &[50], "/root")),
            (":g1", (0, 801, &[801], "/root")),
            ("homeless", (7, 7, &[7], "/")),
        ];
        for (user, (uid, gid, groups, home)) in cases {
            let found = resolve(user, PASSWD, GROUP).unwrap();
            let expected = Identity {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.to_owned(),
            };
            assert_eq!(found, expected, "{user}");
        }
    }

    #[test]
    fn a_root_without_files_has_numbers_only() {
        assert_eq!(resolve("", b"", b"").unwrap().home, "/");
        assert_eq!(resolve("5:6", b"", b"").unwrap().gid, 6);
    }

    #[test]
    fn unknown_names() {
        let text = |user| resolve(user, PASSWD, GROUP).unwrap_err().to_string();
        assert_eq!(
            text("ghost"),
            "unable to find user ghost: no matching entries in passwd file"
        );
        assert_eq!(
            text("www:ghosts"),
            "unable to find group ghosts: no matching entries in group file"
        );
        assert_eq!(text("-1"), "uids and gids must be in range 0-2147483647");
        assert_eq!(text("4294967295"), text("-1"));
    }
}
