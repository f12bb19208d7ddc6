//! `--build-context`: which named context replaces a stage or an image (features.md 1.9).

use std::collections::BTreeMap;

use crate::platform::Platform;
use crate::reference::Reference;

use super::NamedContext;

/// The named contexts of a build, by normalised name.
#[derive(Debug)]
pub(super) struct Contexts<'a> {
    given: &'a BTreeMap<String, NamedContext>,
    /// Normalised name to the name as given.
    names: BTreeMap<String, &'a str>,
}

impl<'a> Contexts<'a> {
    /// Takes the contexts as given.
    pub(super) fn new(given: &'a BTreeMap<String, NamedContext>) -> Self {
        let names = given
            .keys()
            .map(|name| {
                let (image, platform) = name.split_once("::").unwrap_or((name, ""));
                let mut key = normalise(image).unwrap_or_else(|| image.to_owned());
                if !platform.is_empty() {
                    key = format!("{key}::{platform}");
                }
                (key, name.as_str())
            })
            .collect();
        Self { given, names }
    }

    /// The name, as given, of the context that stands for a stage or an image; one for the platform
    /// (`name::os/arch`) goes first. `scratch` and `context` are never replaced.
    pub(super) fn find(&self, name: &str, platform: &Platform) -> Option<&'a str> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let name = normalise(name)?;
        self.names
            .get(&format!("{name}::{platform}"))
            .or_else(|| self.names.get(&name))
            .copied()
    }

    /// What a context is.
    pub(super) fn get(&self, name: &str) -> Option<&'a NamedContext> {
        self.given.get(name)
    }
}

/// The familiar form of an image name without `:latest`.
fn normalise(name: &str) -> Option<String> {
    let familiar = Reference::parse(name).ok()?.familiar();
    Some(
        familiar
            .strip_suffix(":latest")
            .map_or(familiar.clone(), str::to_owned),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_in_familiar_form_and_by_platform() {
        let given: BTreeMap<String, NamedContext> = [
            "dep",
            "docker.io/library/alpine:latest",
            "busybox:1",
            "dep::linux/arm64",
            "context",
        ]
        .into_iter()
        .map(|name| (name.to_owned(), NamedContext::Directory))
        .collect();
        let contexts = Contexts::new(&given);
        let amd64 = Platform::linux("amd64");
        for (name, want) in [
            ("dep", Some("dep")),
            ("docker.io/library/dep:latest", Some("dep")),
            ("alpine", Some("docker.io/library/alpine:latest")),
            ("busybox", None),
            ("busybox:1", Some("busybox:1")),
            ("context", None),
            ("Not A Name", None),
        ] {
            assert_eq!(contexts.find(name, &amd64), want, "{name}");
        }
        let arm64 = Platform::linux("arm64");
        assert_eq!(contexts.find("dep", &arm64), Some("dep::linux/arm64"));
    }
}
