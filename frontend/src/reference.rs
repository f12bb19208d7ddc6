//! Image references as Docker normalises them.
//!
//! Grammar and messages are those of the `distribution/reference` package: users and scripts know them. Matching is by
//! hand and linear; the grammar is
//!
//! ```text
//! reference := [registry "/"] path-component ("/" path-component)* [":" tag] ["@" digest]
//! registry  := host [":" port]        tag := [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
//! path-component := [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*
//! ```

use std::fmt;

use thiserror::Error;

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The name that Docker Hub had before, still accepted.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
/// Where one-word names of the default registry live.
const OFFICIAL_PREFIX: &str = "library/";
/// The longest repository name that registries take.
const MAX_REPOSITORY_BYTES: usize = 255;
/// The longest tag that registries take.
const MAX_TAG_BYTES: usize = 128;

/// A normalised reference: `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`
    pub registry: String,
    /// `library/busybox`
    pub repository: String,
    /// The tag; `latest` is filled in when neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

/// Why a reference was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({repository}) must be lowercase")]
    Uppercase {
        /// The repository, `library/` included.
        repository: String,
    },
    /// It is nothing but 64 hexadecimal digits, which could be an image id.
    #[error("invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId {
        /// The text given.
        name: String,
    },
    /// The repository is too long.
    #[error("repository name must not be more than {MAX_REPOSITORY_BYTES} characters")]
    TooLong,
    /// The digest is not valid.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// Why the text of a digest was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DigestError {
    /// It is not `algorithm:hex`.
    #[error("invalid checksum digest format")]
    Format,
    /// Nobody computes this algorithm.
    #[error("unsupported digest algorithm")]
    Unsupported,
    /// It has too few or too many digits.
    #[error("invalid checksum digest length")]
    Length,
}

impl Reference {
    /// Parses and normalises a reference.
    ///
    /// # Errors
    ///
    /// If the text is no valid reference.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ReferenceError::LooksLikeId {
                name: text.to_owned(),
            });
        }
        let (registry, remainder) = split_registry(text);
        let before_tag = remainder
            .split_once(':')
            .map_or(&*remainder, |(name, _)| name);
        if before_tag.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase {
                repository: before_tag.to_owned(),
            });
        }
        let (named, digest) = match remainder.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (&*remainder, None),
        };
        let (repository, tag) = match named.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (named, None),
        };
        let is_valid = is_registry(registry)
            && repository.split('/').all(is_path_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest_shape);
        if !is_valid {
            return Err(ReferenceError::Format);
        }
        if repository.len() > MAX_REPOSITORY_BYTES {
            return Err(ReferenceError::TooLong);
        }
        if let Some(digest) = digest {
            validate_digest(digest)?;
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The same reference pinned to a digest (the caller has it from a registry or has validated it).
    #[must_use]
    pub fn with_digest(&self, digest: &str) -> Self {
        Self {
            digest: Some(digest.to_owned()),
            ..self.clone()
        }
    }

    /// The short form that users write: without `docker.io/` and `library/`, with tag and digest.
    pub fn familiar(&self) -> String {
        let mut out = self.familiar_name();
        self.push_suffix(&mut out);
        out
    }

    /// The short form without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        match self.repository.strip_prefix(OFFICIAL_PREFIX) {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.repository.clone(),
        }
    }

    fn push_suffix(&self, out: &mut String) {
        if let Some(tag) = &self.tag {
            out.push(':');
            out.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(digest);
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut suffix = String::new();
        self.push_suffix(&mut suffix);
        write!(f, "{}/{}{suffix}", self.registry, self.repository)
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Checks `algorithm:hex` as Go's `digest.Validate` does.
///
/// # Errors
///
/// What is wrong with it, in the order: form, algorithm, length, digits.
pub fn validate_digest(text: &str) -> Result<(), DigestError> {
    let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::Format)?;
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let is_encoded = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    if !algorithm.split(['.', '+', '_', '-']).all(is_word)
        || encoded.is_empty()
        || !encoded.bytes().all(is_encoded)
    {
        return Err(DigestError::Format);
    }
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(DigestError::Unsupported),
    };
    if encoded.len() != digits {
        return Err(DigestError::Length);
    }
    if !encoded.bytes().all(is_lower_hex) {
        return Err(DigestError::Format);
    }
    Ok(())
}

/// Splits a name into its registry and the rest, both made explicit. The first component is a registry if it cannot be a
/// namespace: it has a dot, a colon or an upper-case letter, or is `localhost`.
fn split_registry(name: &str) -> (&str, String) {
    let (registry, remainder) = match name.split_once('/') {
        Some((LEGACY_DEFAULT_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    if registry == DEFAULT_REGISTRY && !remainder.contains('/') {
        return (registry, format!("{OFFICIAL_PREFIX}{remainder}"));
    }
    (registry, remainder.to_owned())
}

fn is_lower_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

/// `host[:port]`; an IPv6 address stands in brackets.
fn is_registry(text: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        let is_address =
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        return is_address && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_path_component(text: &str) -> bool {
    let is_alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_well = |b: Option<&u8>| b.is_some_and(|b| is_alphanumeric(*b));
    if !ends_well(bytes.first()) || !ends_well(bytes.last()) {
        return false;
    }
    bytes
        .split(|b| is_alphanumeric(*b))
        .all(|separator| match separator {
            [] | [b'.' | b'_'] | [b'_', b'_'] => true,
            dashes => dashes.iter().all(|b| *b == b'-'),
        })
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG_BYTES
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

/// What the reference grammar takes for a digest; [`validate_digest`] is stricter.
fn is_digest_shape(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else {
        return false;
    };
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_word)
        && encoded.len() >= 32
        && encoded.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_normalised() {
        for (text, full, familiar) in [
            (
                "busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            (
                "library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("index.docker.io/a/b:t", "docker.io/a/b:t", "a/b:t"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/x",
                "localhost:5000/x:latest",
                "localhost:5000/x:latest",
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("HOST/x", "HOST/x:latest", "HOST/x:latest"),
            (
                "gcr.io/p/a__b-c---d.e:T_1",
                "gcr.io/p/a__b-c---d.e:T_1",
                "gcr.io/p/a__b-c---d.e:T_1",
            ),
            ("a:5000", "docker.io/library/a:5000", "a:5000"),
            ("0", "docker.io/library/0:latest", "0:latest"),
        ] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(Reference::parse(full).expect(full), reference, "{text}");
        }
    }

    #[test]
    fn a_digest_needs_no_tag_and_keeps_one() {
        let pinned = Reference::parse(&format!("a@{DIGEST}")).expect("valid");
        assert_eq!(pinned.tag, None);
        assert_eq!(pinned.to_string(), format!("docker.io/library/a@{DIGEST}"));
        assert_eq!(pinned.familiar(), format!("a@{DIGEST}"));
        let both = Reference::parse(&format!("a:1@{DIGEST}")).expect("valid");
        assert_eq!(
            both,
            Reference::parse("a:1").expect("valid").with_digest(DIGEST)
        );
        assert_eq!(both.to_string(), format!("docker.io/library/a:1@{DIGEST}"));
        assert_eq!(both.familiar_name(), "a");
    }

    #[test]
    fn bad_references_say_why() {
        let invalid = "invalid reference format";
        let long = "a/".repeat(128) + "b";
        let long_tag = format!("a:{}", "t".repeat(129));
        for (text, message) in [
            ("", invalid),
            ("a b", invalid),
            ("a:", invalid),
            ("a:t:u", invalid),
            ("a@sha256:12", invalid),
            ("-a", invalid),
            ("a..b/c/d", invalid),
            ("a/b/", invalid),
            ("a___b", invalid),
            ("a.-b", invalid),
            ("host:port/a", invalid),
            (&long_tag, invalid),
            (
                &long,
                "repository name must not be more than 255 characters",
            ),
            (
                "Base",
                "invalid reference format: repository name (library/Base) must be lowercase",
            ),
            (
                "Busy_Box:latest:x",
                "invalid reference format: repository name (library/Busy_Box) must be lowercase",
            ),
            (
                "a/B:T",
                "invalid reference format: repository name (a/B) must be lowercase",
            ),
            (
                &format!("a@{}", &DIGEST[..50]),
                "invalid checksum digest length",
            ),
            (
                &format!("a@md5:{}", &DIGEST[7..]),
                "unsupported digest algorithm",
            ),
            (
                &DIGEST[7..],
                "invalid repository name (e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855), \
                 cannot specify 64-byte hexadecimal strings",
            ),
        ] {
            let error = Reference::parse(text).expect_err(text).to_string();
            assert_eq!(error, message, "{text}");
        }
    }

    #[test]
    fn digests_are_checked_in_order() {
        assert_eq!(validate_digest(DIGEST), Ok(()));
        assert_eq!(validate_digest("sha256"), Err(DigestError::Format));
        assert_eq!(validate_digest("sha256:"), Err(DigestError::Format));
        assert_eq!(validate_digest("crc:00"), Err(DigestError::Unsupported));
        assert_eq!(validate_digest("sha256:xyz"), Err(DigestError::Length));
        assert_eq!(
            validate_digest(&DIGEST.to_uppercase()),
            Err(DigestError::Format)
        );
        assert_eq!(
            validate_digest(&format!("sha256:{}", "g".repeat(64))),
            Err(DigestError::Format)
        );
    }
}
