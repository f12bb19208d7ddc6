//! Names of images in the forms that documents and people want.

use frontend::reference::Reference;

/// `docker.io/library/busybox:latest`, as annotations and progress have it.
pub fn full(name: &Reference) -> String {
    let tag = name.tag.as_ref().map(|tag| format!(":{tag}"));
    let digest = name.digest.as_ref().map(|digest| format!("@{digest}"));
    format!(
        "{}/{}{}{}",
        name.registry,
        name.repository,
        tag.unwrap_or_default(),
        digest.unwrap_or_default()
    )
}

/// `busybox:latest`, as Docker shows it and `docker load` wants it.
pub fn familiar(name: &Reference) -> String {
    let full = full(name);
    match full.strip_prefix("docker.io/") {
        // `library/` goes without saying only directly before the name.
        Some(short) => match short.strip_prefix("library/") {
            Some(official) if !official.contains('/') => official.to_owned(),
            Some(_) | None => short.to_owned(),
        },
        None => full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_own_parts_are_left_out_of_familiar_names() {
        for (registry, repository, tag, expected_full, expected_familiar) in [
            (
                "docker.io",
                "library/a",
                Some("1"),
                "docker.io/library/a:1",
                "a:1",
            ),
            ("docker.io", "me/a", Some("1"), "docker.io/me/a:1", "me/a:1"),
            (
                "docker.io",
                "library/a/b",
                None,
                "docker.io/library/a/b",
                "library/a/b",
            ),
            ("h:5", "library/a", None, "h:5/library/a", "h:5/library/a"),
        ] {
            let name = Reference {
                registry: registry.into(),
                repository: repository.into(),
                tag: tag.map(str::to_owned),
                digest: None,
            };
            assert_eq!(full(&name), expected_full);
            assert_eq!(familiar(&name), expected_familiar);
        }
    }
}
