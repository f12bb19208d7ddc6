//! Which ids a user namespace maps: `/etc/subuid` and `/etc/subgid` to a map. Pure.

/// One line of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) inside: u32,
    pub(super) outside: u32,
    pub(super) count: u32,
}

/// The subordinate ids that a file gives to a user, by name or by number.
pub(super) fn subordinate(file: &str, user: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    file.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let first = fields.next()?.parse().ok()?;
            let count = fields.next()?.parse().ok()?;
            (Some(owner) == user || owner == uid).then_some((first, count))
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// The user itself becomes 0, its subordinate ids follow from 1.
pub(super) fn map(own: u32, subordinate: &[(u32, u32)]) -> Vec<Range> {
    let mut ranges = vec![Range {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut next = 1_u32;
    for (first, count) in subordinate {
        let count = (*count).min(u32::MAX - next);
        ranges.push(Range {
            inside: next,
            outside: *first,
            count,
        });
        next += count;
    }
    ranges
}

/// How many ids a map file maps (`/proc/self/uid_map`).
pub(super) fn mapped(map: &str) -> u64 {
    let counts = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    counts.filter_map(|count| count.parse::<u64>().ok()).sum()
}

/// Arguments of newuidmap and newgidmap after the pid.
pub(super) fn arguments(ranges: &[Range]) -> Vec<String> {
    ranges
        .iter()
        .flat_map(|range| [range.inside, range.outside, range.count])
        .map(|number| number.to_string())
        .collect()
}

/// Whether `/proc/self/uid_map` is that of the first user namespace, where ids are what they are.
pub(super) fn is_initial(uid_map: &str) -> bool {
    let mut numbers = uid_map.split_whitespace();
    (numbers.next(), numbers.next(), numbers.next()) == (Some("0"), Some("0"), Some("4294967295"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        let file = "# x\nalice:100000:65536\nbob:200000:5\n1000:300000:10\nalice:bad:1\n";
        let mine = subordinate(file, Some("alice"), 1000);
        assert_eq!(mine, [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(
            arguments(&map(1000, &mine)).join(" "),
            "0 1000 1 1 100000 65536 65537 300000 10"
        );
        assert!(subordinate(file, None, 7).is_empty());
    }

    #[test]
    fn the_first_namespace() {
        assert!(is_initial("         0          0 4294967295\n"));
        assert!(!is_initial("         0       1000          1\n"));
        assert_eq!(mapped("         0       1000          1\n"), 1);
        assert_eq!(mapped("0 1000 1\n1 100000 65536\n"), 65_537);
        assert!(!is_initial(""));
    }
}
