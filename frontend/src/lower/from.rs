//! Base images and named contexts: from a name to something that can be a vertex.

use crate::config::RuntimeConfig;
use crate::graph::{HttpOp, ImageOp, LocalOp, Op};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::source::Suggestion;

use super::context::Contexts;
use super::error::{BaseError, suggest};
use super::git::GitReference;
use super::{ImageName, ImageResolver, NamedContext, ResolvedImage};

/// Images that people misspell.
const COMMON_IMAGES: [&str; 7] = [
    "alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora",
];

/// What a stage starts from, or what files are taken from.
#[derive(Clone, Debug)]
pub(super) enum Base {
    /// Nothing.
    Scratch,
    /// An image of a registry or the local store.
    Image(Box<BaseImage>),
    /// What a named context gave.
    Context(Box<ContextBase>),
}

/// A resolved image.
#[derive(Clone, Debug)]
pub(super) struct BaseImage {
    /// The op; `None` if the image has no layers.
    pub(super) op: Option<ImageOp>,
    /// The reference with the digest, for display.
    pub(super) shown: String,
    /// The config document.
    pub(super) document: serde_json::Value,
    /// Its `config` member.
    pub(super) config: RuntimeConfig,
    /// Its author.
    pub(super) author: Option<String>,
}

/// A named context, ready to be a vertex.
#[derive(Clone, Debug)]
pub(super) struct ContextBase {
    /// The op; `None` for an empty one.
    pub(super) op: Option<Op>,
    /// The vertex's name.
    pub(super) shown: String,
    /// The image, if it is one.
    pub(super) image: Option<BaseImage>,
}

/// Resolves names.
pub(super) struct Bases<'a> {
    pub(super) contexts: &'a Contexts<'a>,
    pub(super) resolver: &'a dyn ImageResolver,
    /// Names of stages, for suggestions.
    pub(super) labels: Vec<String>,
}

impl Bases<'_> {
    /// The base of a stage, or the source of `--from`, that is no stage.
    pub(super) fn resolve(&self, name: &str, platform: &Platform) -> Result<Base, BaseError> {
        if name == "scratch" {
            return Ok(Base::Scratch);
        }
        let reference = parse_reference(name)?;
        if let Some(context) = self.contexts.find(name, platform) {
            let base = self.context(context, platform)?;
            return Ok(Base::Context(Box::new(base)));
        }
        let resolved = self
            .resolver
            .resolve(&ImageName::Reference(&reference), platform)
            .map_err(|error| BaseError::Resolve {
                name: name.to_owned(),
                message: error.message,
                suggestion: self.suggestion(name),
                hint: error.hint,
            })?;
        Ok(Base::Image(Box::new(base_image(resolved, platform)?)))
    }

    /// A named context by its name as given.
    pub(super) fn context(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<ContextBase, BaseError> {
        let files = |op: Op, what: &str| ContextBase {
            op: Some(op),
            shown: format!("[context {name}] {what}"),
            image: None,
        };
        Ok(match self.contexts.get(name) {
            Some(NamedContext::Directory) | None => files(
                Op::Local(LocalOp {
                    name: name.to_owned(),
                }),
                "load from client",
            ),
            Some(NamedContext::Git(url)) => {
                let git = GitReference::parse_context(url)
                    .ok_or_else(|| BaseError::NoGit(url.clone()))??;
                files(Op::Git(git.into_op()?), url)
            }
            Some(NamedContext::Http(url)) => files(http_context(url)?, url),
            Some(NamedContext::Image(text)) if text == "scratch" => ContextBase {
                op: None,
                shown: String::new(),
                image: None,
            },
            Some(NamedContext::Image(text)) => {
                let reference =
                    Reference::parse(text).map_err(|reason| BaseError::ContextReference {
                        name: name.to_owned(),
                        reason,
                    })?;
                let image = self.image(&ImageName::Reference(&reference), platform)?;
                let shown = format!("[context {name}] {}", image.shown);
                image_context(image, shown)
            }
            Some(NamedContext::OciLayout(location)) => {
                let question = ImageName::OciLayout {
                    context: name,
                    location,
                };
                let image = self.image(&question, platform)?;
                image_context(image, format!("[context {name}] OCI load from client"))
            }
        })
    }

    fn image(&self, question: &ImageName<'_>, platform: &Platform) -> Result<BaseImage, BaseError> {
        let resolved = self
            .resolver
            .resolve(question, platform)
            .map_err(BaseError::Context)?;
        base_image(resolved, platform)
    }

    fn suggestion(&self, name: &str) -> Suggestion {
        let labels = self.labels.iter().map(String::as_str);
        suggest(name, labels.chain(COMMON_IMAGES))
    }
}

/// Parses the name of a base image.
pub(super) fn parse_reference(name: &str) -> Result<Reference, BaseError> {
    Reference::parse(name).map_err(|reason| BaseError::Reference {
        name: name.to_owned(),
        reason,
    })
}

fn image_context(image: BaseImage, shown: String) -> ContextBase {
    ContextBase {
        op: image.op.clone().map(Op::Image),
        shown,
        image: Some(image),
    }
}

/// An http context: a repository if it looks like one, else a file named by the URL.
fn http_context(url: &str) -> Result<Op, BaseError> {
    if let Some(git) = GitReference::parse(url) {
        return Ok(Op::Git(git?.into_op()?));
    }
    Ok(Op::Http(HttpOp {
        url: url.to_owned(),
        checksum: None,
        filename: super::add::file_name(url),
    }))
}

/// Reads what the resolver found.
fn base_image(resolved: ResolvedImage, platform: &Platform) -> Result<BaseImage, BaseError> {
    let document: serde_json::Value = serde_json::from_slice(&resolved.config)?;
    let config = RuntimeConfig::from_document(&document)?;
    let author = document
        .get("author")
        .and_then(serde_json::Value::as_str)
        .filter(|author| !author.is_empty())
        .map(str::to_owned);
    let has_digest = resolved.reference.contains('@') || resolved.manifest.is_empty();
    let shown = if has_digest {
        resolved.reference.clone()
    } else {
        format!("{}@{}", resolved.reference, resolved.manifest)
    };
    let op = has_layers(&document).then(|| ImageOp {
        reference: resolved.reference,
        platform: platform.clone(),
        manifest: resolved.manifest,
        source: resolved.source,
    });
    Ok(BaseImage {
        op,
        shown,
        document,
        config,
        author,
    })
}

/// An image without diff ids is scratch, unless its history tells of layers (old formats have no diff ids).
fn has_layers(document: &serde_json::Value) -> bool {
    let list = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(serde_json::Value::as_array)
    };
    let is_layer = |entry: &serde_json::Value| {
        entry
            .get("empty_layer")
            .and_then(serde_json::Value::as_bool)
            != Some(true)
    };
    list("/rootfs/diff_ids").is_some_and(|ids| !ids.is_empty())
        || list("/history").is_some_and(|history| history.iter().any(is_layer))
}

impl Base {
    /// The triggers of the image.
    pub(super) fn triggers(&self) -> Vec<String> {
        let image = match self {
            Self::Scratch => None,
            Self::Image(image) => Some(image.as_ref()),
            Self::Context(context) => context.image.as_ref(),
        };
        image
            .and_then(|image| image.config.on_build.clone())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::ImageSource;

    #[test]
    fn images_without_layers_are_scratch() {
        for (document, want) in [
            (r#"{"rootfs":{"diff_ids":["sha256:a"]}}"#, true),
            (r#"{"rootfs":{"diff_ids":[]}}"#, false),
            (r#"{"history":[{"empty_layer":true}]}"#, false),
            (r#"{"history":[{"created_by":"x"}]}"#, true),
        ] {
            let document = serde_json::from_str(document).unwrap();
            assert_eq!(has_layers(&document), want);
        }
        let resolved = ResolvedImage {
            reference: "docker.io/library/x:latest".into(),
            manifest: "sha256:1".into(),
            config: b"{}".to_vec(),
            source: ImageSource::Registry,
        };
        let image = base_image(resolved, &Platform::linux("amd64")).unwrap();
        assert_eq!(image.shown, "docker.io/library/x:latest@sha256:1");
        assert_eq!(image.op, None);
    }
}
