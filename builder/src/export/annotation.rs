//! Annotations as flags and attributes give them, and what of them an image for one platform gets (features.md 5.1).

use frontend::platform::Platform;

use crate::image::manifest::Annotations;

/// An annotation that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// On what.
    pub target: AnnotationTarget,
    /// For which platform only, as written; `None` is any.
    pub platform: Option<String>,
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// What an annotation stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationTarget {
    /// The image's manifest.
    Manifest,
    /// The descriptor of the manifest, in an index.
    ManifestDescriptor,
    /// An index of several platforms.
    Index,
    /// The descriptor of an index of several platforms.
    IndexDescriptor,
}

/// An annotation that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// No `=`.
    #[error("invalid annotation \"{0}\", expected key=value")]
    NoValue(String),
    /// What stands before the colon or dot.
    #[error("unknown annotation type \"{0}\"")]
    Type(String),
    /// Brackets that are not in order.
    #[error(
        "invalid annotation type \"{0}\", expected type and optional platform in square brackets"
    )]
    Form(String),
    /// We make no index for one platform.
    #[error("index annotations not supported for single platform export: `{0}`")]
    Index(String),
}

impl AnnotationTarget {
    fn parse(text: &str) -> Result<Self, AnnotationError> {
        match text {
            "" | "manifest" => Ok(Self::Manifest),
            "manifest-descriptor" => Ok(Self::ManifestDescriptor),
            "index" => Ok(Self::Index),
            "index-descriptor" => Ok(Self::IndexDescriptor),
            _ => Err(AnnotationError::Type(text.to_owned())),
        }
    }
}

/// `type[platform]`, both optional.
fn parse_target(text: &str) -> Result<(AnnotationTarget, Option<String>), AnnotationError> {
    let is_platform_char = |c: char| c.is_ascii_alphanumeric() || "_/-".contains(c);
    let (kind, platform) = match text.split_once('[') {
        None => (text, None),
        Some((kind, rest)) => match rest.strip_suffix(']') {
            Some(platform) if !platform.is_empty() && platform.chars().all(is_platform_char) => {
                (kind, Some(platform.to_owned()))
            }
            Some(_) | None => return Err(AnnotationError::Form(text.to_owned())),
        },
    };
    Ok((AnnotationTarget::parse(kind)?, platform))
}

impl Annotation {
    /// A value of `--annotation`: `[type[platform],…:]name=value`.
    ///
    /// # Errors
    ///
    /// buildx's, in its words.
    pub fn parse_flag(text: &str) -> Result<Vec<Self>, AnnotationError> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(AnnotationError::NoValue(text.to_owned()));
        };
        let (targets, name) = key.split_once(':').unwrap_or(("", key));
        targets
            .split(',')
            .map(|target| {
                let (target, platform) = parse_target(target)?;
                Ok(Self {
                    target,
                    platform,
                    name: name.to_owned(),
                    value: value.to_owned(),
                })
            })
            .collect()
    }

    /// An attribute `annotation[-type][[platform]].name`; `None` if it is another attribute.
    ///
    /// # Errors
    ///
    /// If it is one but of an unknown type.
    pub fn parse_attribute(key: &str, value: &str) -> Result<Option<Self>, AnnotationError> {
        let Some(rest) = key.strip_prefix("annotation") else {
            return Ok(None);
        };
        let Some((target, name)) = rest.split_once('.') else {
            return Ok(None);
        };
        let target = match target.strip_prefix('-') {
            Some(target) => target,
            None if target.is_empty() || target.starts_with('[') => target,
            None => return Ok(None),
        };
        let (target, platform) = parse_target(target)?;
        Ok(Some(Self {
            target,
            platform,
            name: name.to_owned(),
            value: value.to_owned(),
        }))
    }

    fn is_for(&self, platform: &Platform) -> bool {
        let short = format!("{}/{}", platform.os, platform.architecture);
        let long = format!("{short}/{}", platform.variant);
        self.platform
            .as_ref()
            .is_none_or(|wanted| *wanted == short || *wanted == long)
    }
}

/// Those for the manifest and those for its descriptor; one for the platform wins over one for any.
///
/// # Errors
///
/// An image for one platform has no index to annotate.
pub fn resolve(
    annotations: &[Annotation],
    platform: &Platform,
) -> Result<(Annotations, Annotations), AnnotationError> {
    let mut manifest = Annotations::new();
    let mut descriptor = Annotations::new();
    let general = annotations.iter().filter(|a| a.platform.is_none());
    let special = annotations.iter().filter(|a| a.platform.is_some());
    for annotation in general.chain(special) {
        let into = match annotation.target {
            AnnotationTarget::Manifest => &mut manifest,
            AnnotationTarget::ManifestDescriptor => &mut descriptor,
            AnnotationTarget::Index | AnnotationTarget::IndexDescriptor => {
                return Err(AnnotationError::Index(annotation.name.clone()));
            }
        };
        if annotation.is_for(platform) {
            into.insert(annotation.name.clone(), annotation.value.clone());
        }
    }
    Ok((manifest, descriptor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform() -> Platform {
        Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: String::new(),
            os_version: String::new(),
        }
    }

    fn resolved(flags: &[&str]) -> Result<(Annotations, Annotations), AnnotationError> {
        let mut all = Vec::new();
        for flag in flags {
            all.extend(Annotation::parse_flag(flag)?);
        }
        resolve(&all, &platform())
    }

    fn map(pairs: &[(&str, &str)]) -> Annotations {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn flags_go_where_they_say() {
        let flags = [
            "manifest[linux/amd64]:a=mine",
            "a=any",
            "b=x=y",
            "manifest[linux/arm64]:b=other",
            "manifest,manifest-descriptor:c=both",
        ];
        let (manifest, descriptor) = resolved(&flags).unwrap();
        assert_eq!(manifest, map(&[("a", "mine"), ("b", "x=y"), ("c", "both")]));
        assert_eq!(descriptor, map(&[("c", "both")]));
    }

    #[test]
    fn wrong_flags_are_told() {
        for (flag, expected) in [
            ("a", "invalid annotation \"a\", expected key=value"),
            ("x:a=b", "unknown annotation type \"x\""),
            (
                "manifest[]:a=b",
                "invalid annotation type \"manifest[]\", expected type and optional platform in square brackets",
            ),
            (
                "index:a=b",
                "index annotations not supported for single platform export: `a`",
            ),
        ] {
            assert_eq!(resolved(&[flag]).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn attributes_have_types_and_platforms_too() {
        let parse = |key| Annotation::parse_attribute(key, "v").unwrap();
        let plain = parse("annotation.org.x").unwrap();
        assert_eq!(
            (plain.name.as_str(), plain.target),
            ("org.x", AnnotationTarget::Manifest)
        );
        let typed = parse("annotation-manifest-descriptor[linux/arm/v7].x").unwrap();
        assert_eq!(typed.target, AnnotationTarget::ManifestDescriptor);
        assert_eq!(typed.platform.as_deref(), Some("linux/arm/v7"));
        for other in ["name", "annotation", "annotations.x"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert!(Annotation::parse_attribute("annotation-x.y", "").is_err());
    }
}
