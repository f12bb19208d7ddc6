//! Addresses as they are shown: without what may be a secret in them.
//!
//! Signed addresses and tokens are in queries, passwords before the host. What is shown ends in logs that others read; what
//! is fetched, and the image's history, are not changed by this.

/// What stands for something that is not shown.
const HIDDEN: &str = "***";

/// Parameters of a repository's address that say what is fetched of it.
const GIT_PARAMETERS: [&str; 10] = [
    "branch",
    "checksum",
    "commit",
    "fetch-by-commit",
    "keep-git-dir",
    "mtime",
    "ref",
    "subdir",
    "submodules",
    "tag",
];

/// An instruction with the values in the queries of its addresses, and who they log in, hidden.
pub fn without_secrets(text: &str) -> String {
    let ends_word = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
    let mut shown = String::with_capacity(text.len());
    let words = text.split_inclusive(ends_word);
    for piece in words {
        let word = piece.trim_end_matches(ends_word);
        match word.split_once("://") {
            Some((scheme, rest)) => shown.push_str(&address(scheme, rest)),
            None => shown.push_str(word),
        }
        shown.push_str(&piece[word.len()..]);
    }
    shown
}

fn address(scheme: &str, rest: &str) -> String {
    let (rest, fragment) = match rest.find('#') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    // A name without a password is a token over http; over ssh it is `git`, as everybody's.
    let is_web = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https");
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) if is_web || user.contains(':') => format!("{HIDDEN}@{host}"),
        Some(_) | None => authority.to_owned(),
    };
    let query = query.map(|query| {
        let pairs: Vec<String> = query.split('&').map(pair).collect();
        format!("?{}", pairs.join("&"))
    });
    let query = query.unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}{fragment}")
}

fn pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if GIT_PARAMETERS.contains(&name) => pair.to_owned(),
        Some((name, _)) => format!("{name}={HIDDEN}"),
        None if pair.is_empty() || GIT_PARAMETERS.contains(&pair) => pair.to_owned(),
        None => HIDDEN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_hidden() {
        for (text, want) in [
            ("ADD a b", "ADD a b"),
            (
                "ADD https://h/a?sig=x%3D&exp=1 /d",
                "ADD https://h/a?sig=***&exp=*** /d",
            ),
            (
                "ADD https://h/a?x=y=z#f?g /d",
                "ADD https://h/a?x=***#f?g /d",
            ),
            ("ADD https://h/a?token /d", "ADD https://h/a?*** /d"),
            ("ADD https://h/a? /d", "ADD https://h/a? /d"),
            ("ADD http://u:p@h:8/a@b /d", "ADD http://***@h:8/a@b /d"),
            ("ADD https://token@h/a /d", "ADD https://***@h/a /d"),
            ("ADD https://a@b@h /d", "ADD https://***@h /d"),
            (
                "ADD [\"https://h/a?s=1\",\"/d\"]",
                "ADD [\"https://h/a?s=***\",\"/d\"]",
            ),
            (
                "ADD ssh://git@h/r.git#main /d",
                "ADD ssh://git@h/r.git#main /d",
            ),
            ("ADD ssh://git:p@h/r.git /d", "ADD ssh://***@h/r.git /d"),
            ("ADD git@h:o/r.git?tag=v1 /d", "ADD git@h:o/r.git?tag=v1 /d"),
            (
                "ADD https://h/r.git?tag=v1&subdir=a&key=k /d",
                "ADD https://h/r.git?tag=v1&subdir=a&key=*** /d",
            ),
        ] {
            assert_eq!(without_secrets(text), want);
        }
    }
}
