//! `os/arch[/variant]`: parsing, normalising, and which platforms can stand in for which.
//!
//! The rules are those of containerd's `platforms` package, because registries, base images and BuildKit compare
//! platforms by them. Not here: asking the host what it is; the caller passes the host's architecture.

use std::fmt;

use thiserror::Error;

/// A platform, normalised (`linux/arm64/v8` has no variant, `linux/arm` is `linux/arm/v7`; containerd's `platforms`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`
    pub architecture: String,
    /// `v7`, empty if none
    pub variant: String,
    /// Empty if none
    pub os_version: String,
}

/// Why a platform specifier was refused. The texts are containerd's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlatformError {
    /// It has a `*`.
    #[error("{specifier:?}: wildcards not yet supported: invalid argument")]
    Wildcard {
        /// The text given.
        specifier: String,
    },
    /// The part before the first `/` is no `os` or `os(version)`.
    #[error(
        "{component:?} is an invalid OS component of {specifier:?}: OSAndVersion specifier component must match \
         `os` or `os(version)` of letters, digits, `_`, `-`: invalid argument"
    )]
    OsComponent {
        /// The part.
        component: String,
        /// The text given.
        specifier: String,
    },
    /// Another part has a character that no part may have.
    #[error(
        "{component:?} is an invalid component of {specifier:?}: platform specifier component must match \
         \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Component {
        /// The part.
        component: String,
        /// The text given.
        specifier: String,
    },
    /// A single word that is neither.
    #[error("{specifier:?}: unknown operating system or architecture: invalid argument")]
    Unknown {
        /// The text given.
        specifier: String,
    },
    /// More than three parts.
    #[error("{specifier:?}: cannot parse platform specifier: invalid argument")]
    TooManyParts {
        /// The text given.
        specifier: String,
    },
}

/// Operating systems that may stand alone in a specifier.
const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// Architectures that may stand alone in a specifier.
const KNOWN_ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// Linux on an architecture given by any of its usual names (`x86_64`, `amd64`, `aarch64`, …).
    pub fn linux(architecture: &str) -> Self {
        Self::normalised("linux", architecture, "", "")
    }

    /// Parses a specifier such as `linux/arm/v6`, `linux`, `arm64`, `windows(10.0.17763)/amd64`. What it leaves out is
    /// taken from the host: Linux, and `host_architecture` (any usual name of it).
    ///
    /// # Errors
    ///
    /// If the text is no platform specifier.
    pub fn parse(specifier: &str, host_architecture: &str) -> Result<Self, PlatformError> {
        let given = || specifier.to_owned();
        if specifier.contains('*') {
            return Err(PlatformError::Wildcard { specifier: given() });
        }
        let parts: Vec<&str> = specifier.splitn(4, '/').collect();
        let (os, os_version) = parse_os(parts[0]).ok_or_else(|| PlatformError::OsComponent {
            component: parts[0].to_owned(),
            specifier: given(),
        })?;
        if let Some(bad) = parts[1..].iter().find(|part| !is_component(part)) {
            return Err(PlatformError::Component {
                component: (*bad).to_owned(),
                specifier: given(),
            });
        }
        match parts[1..] {
            [] => Self::from_word(os, os_version, host_architecture)
                .ok_or_else(|| PlatformError::Unknown { specifier: given() }),
            [architecture] => Ok(Self::normalised(os, architecture, "", os_version)),
            [architecture, variant] => Ok(Self::normalised(os, architecture, variant, os_version)),
            _ => Err(PlatformError::TooManyParts { specifier: given() }),
        }
    }

    /// A specifier of one word: an operating system, else an architecture.
    fn from_word(word: &str, os_version: &str, host_architecture: &str) -> Option<Self> {
        let as_os = Self::normalised(word, host_architecture, "", os_version);
        if KNOWN_OS.contains(&as_os.os.as_str()) {
            return Some(as_os);
        }
        let as_architecture = Self::normalised("linux", word, "", os_version);
        KNOWN_ARCHITECTURES
            .contains(&as_architecture.architecture.as_str())
            .then_some(as_architecture)
    }

    /// Makes the one spelling of a platform from its parts, as they stand in a specifier or an image config.
    pub fn normalised(os: &str, architecture: &str, variant: &str, os_version: &str) -> Self {
        let os = match os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant.to_lowercase();
        let architecture = architecture.to_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", String::new()),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", String::new()),
            ("x86_64" | "x86-64" | "amd64", _) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", String::new()),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9".to_owned()),
            ("aarch64" | "arm64", _) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7".to_owned()),
            ("armel", _) => ("arm", "v6".to_owned()),
            ("arm", "5" | "6" | "8") => ("arm", format!("v{variant}")),
            (other, _) => (other, variant),
        };
        Self {
            os,
            architecture: architecture.to_owned(),
            variant,
            os_version: os_version.to_owned(),
        }
    }

    /// The platforms whose images run on this one, best first (containerd's `Only`): itself, then lower variants,
    /// then the 32-bit architectures that its processors also execute.
    pub fn candidates(&self) -> Vec<Self> {
        let with = |architecture: &str, variant: &str| {
            Self::normalised(&self.os, architecture, variant, &self.os_version)
        };
        let mut found = vec![self.clone()];
        match self.architecture.as_str() {
            "amd64" => {
                let version = version_of(&self.variant, 1);
                found.extend((1..version).rev().map(|v| with("amd64", &format!("v{v}"))));
                found.push(with("386", ""));
            }
            "arm" => {
                let version = version_of(&self.variant, 0);
                found.extend((5..version).rev().map(|v| with("arm", &format!("v{v}"))));
            }
            "arm64" => {
                found.extend(lower_arm64(&self.variant).iter().map(|v| with("arm64", v)));
                found.extend((5..=8).rev().map(|v| with("arm", &format!("v{v}"))));
            }
            _ => {}
        }
        found
    }

    /// How well an image for `offered` serves a build for this platform: 0 is best, `None` is not at all.
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        self.candidates().iter().position(|candidate| {
            (&candidate.os, &candidate.architecture, &candidate.variant)
                == (&offered.os, &offered.architecture, &offered.variant)
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// `os` or `os(version)`, split.
fn parse_os(part: &str) -> Option<(&str, &str)> {
    let is_os = |s: &str| is_component(s) && !s.contains('.');
    match part.split_once('(') {
        None => is_os(part).then_some((part, "")),
        Some((os, rest)) => {
            let version = rest.strip_suffix(')')?;
            (is_os(os) && (version.is_empty() || is_component(version))).then_some((os, version))
        }
    }
}

fn is_component(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The number of a variant such as `v7`; `default` for anything else. No processor has a two-digit one, and a specifier
/// must not be able to ask for a long list.
fn version_of(variant: &str, default: u8) -> u8 {
    match variant.strip_prefix('v').unwrap_or(variant).as_bytes() {
        [digit @ b'0'..=b'9'] => digit - b'0',
        _ => default,
    }
}

/// Variants of arm64 below `variant`, best first. v9.N includes v8.(N+5), as the architecture manuals have it.
fn lower_arm64(variant: &str) -> Vec<String> {
    let (major, minor) = match variant.strip_prefix('v').unwrap_or(variant).as_bytes() {
        [b'9'] => (9, 0),
        [major @ (b'8' | b'9'), b'.', minor @ b'0'..=b'9'] => (major - b'0', minor - b'0'),
        _ => return Vec::new(),
    };
    let name = |major: u8, minor: u8| match minor {
        0 => format!("v{major}"),
        _ => format!("v{major}.{minor}"),
    };
    let mut lower: Vec<String> = (0..minor).rev().map(|m| name(major, m)).collect();
    if major == 9 {
        lower.extend((0..=(minor + 5).min(9)).rev().map(|m| name(8, m)));
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_are_normalised() {
        for (specifier, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            ("linux/new_arch", "linux/new_arch"),
            ("linux", "linux/arm64"),
            ("arm", "linux/arm/v7"),
            ("s390x", "linux/s390x"),
        ] {
            let platform = Platform::parse(specifier, "aarch64").expect(specifier);
            assert_eq!(platform.to_string(), expected, "{specifier}");
        }
    }

    #[test]
    fn bad_specifiers_are_named() {
        for (specifier, message) in [
            (
                "lin ux",
                r#""lin ux" is an invalid OS component of "lin ux""#,
            ),
            ("", r#""" is an invalid OS component"#),
            ("linux/", r#""" is an invalid component of "linux/""#),
            (
                "linux/a m",
                r#""a m" is an invalid component of "linux/a m""#,
            ),
            ("linux/*", "wildcards not yet supported"),
            ("nope", "unknown operating system or architecture"),
            ("linux/arm/v7/x", "cannot parse platform specifier"),
            ("linux(1/arm", "is an invalid OS component"),
        ] {
            let error = Platform::parse(specifier, "amd64")
                .expect_err(specifier)
                .to_string();
            assert!(error.contains(message), "{specifier}: {error}");
        }
    }

    #[test]
    fn candidates_go_from_best_to_worst() {
        for (specifier, expected) in [
            ("linux/amd64", "linux/amd64 linux/386"),
            (
                "linux/amd64/v3",
                "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386",
            ),
            ("linux/arm/v7", "linux/arm/v7 linux/arm/v6 linux/arm/v5"),
            ("linux/arm/v5", "linux/arm/v5"),
            (
                "linux/arm64",
                "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5",
            ),
            ("linux/s390x", "linux/s390x"),
        ] {
            let platform = Platform::parse(specifier, "amd64").expect(specifier);
            let names: Vec<_> = platform
                .candidates()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(names.join(" "), expected);
        }
        assert_eq!(
            lower_arm64("v9.1"),
            ["v9", "v8.6", "v8.5", "v8.4", "v8.3", "v8.2", "v8.1", "v8"]
        );
        assert_eq!(lower_arm64("v8.2"), ["v8.1", "v8"]);
    }

    #[test]
    fn rank_tells_the_better_image() {
        let wanted = Platform::linux("arm");
        assert_eq!(
            wanted.rank(&Platform::normalised("linux", "arm", "v7", "")),
            Some(0)
        );
        assert_eq!(
            wanted.rank(&Platform::normalised("linux", "arm", "v6", "")),
            Some(1)
        );
        assert_eq!(wanted.rank(&Platform::linux("amd64")), None);
    }
}
