//! What `--output`, `--push`, `--load`, `--tag` and `--annotation` ask for, as typed values.
//!
//! Spelling and meaning are buildx's (`util/buildflags/export.go`) and BuildKit's (`exptypes/keys.go`). Attributes that
//! change nothing here are taken; those that would change something that we cannot do are refused, never ignored.

use std::path::PathBuf;

use super::Encoding;
use super::annotation::{Annotation, AnnotationError};
use super::csv::{self, CsvError};
use crate::image::manifest::MediaTypes;

/// An output that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputSpec {
    /// `type=image`, `type=registry`
    Image(ImageSpec),
    /// `type=oci`
    Oci(ImageForm, LayoutPlace),
    /// `type=docker` with a destination.
    Docker(ImageForm, LayoutPlace),
    /// `type=docker` without one: into the Docker daemon.
    Load(ImageForm),
    /// `type=tar`
    Tar(Place),
    /// `type=local`
    Local(PathBuf),
    /// `type=cacheonly`
    CacheOnly,
}

/// `type=image`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// Names and form.
    pub form: ImageForm,
    /// `store=`: whether the local store gets it.
    pub is_stored: bool,
    /// `push=`
    pub push: Option<PushSpec>,
}

/// How to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSpec {
    /// What the manifest is put under.
    pub under: PushUnder,
    /// `registry.insecure=`: plain HTTP and unverified TLS are fine.
    pub is_insecure: bool,
}

/// What a pushed manifest is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushUnder {
    /// The names' tags.
    Tags,
    /// Its digest alone (`push-by-digest=`).
    Digest,
}

/// Names and form of an image document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageForm {
    /// Names as written; `--tag` replaces those of `name=`.
    pub names: Vec<String>,
    /// `compression=`, `compression-level=`, `force-compression=`
    pub encoding: Encoding,
    /// `oci-mediatypes=`
    pub media_types: MediaTypes,
    /// `annotation….NAME=` and `--annotation`
    pub annotations: Vec<Annotation>,
    /// `source-date-epoch=`: for this output instead of the build's.
    pub epoch: Option<i64>,
    /// `rewrite-timestamp=`
    pub file_times: FileTimes,
}

/// Times of files in new layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTimes {
    /// As they are.
    Keep,
    /// None after the epoch, if there is one.
    ClampToEpoch,
}

/// Where a stream of bytes goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// Standard output (`-`).
    Stdout,
}

/// Where an image layout goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutPlace {
    /// A tar.
    Tar(Place),
    /// A directory (`tar=false`).
    Directory(PathBuf),
}

/// An output that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// No CSV.
    #[error("invalid output `{text}`")]
    Csv {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: CsvError,
    },
    /// A field without `=`.
    #[error("invalid value {0}")]
    Field(String),
    /// No type.
    #[error("type is required for output")]
    NoType,
    /// Not one of ours.
    #[error(
        "unknown output type `{0}`: known are image, registry, oci, docker, tar, local, cacheonly"
    )]
    Type(String),
    /// Not an attribute of this type.
    #[error("unknown attribute `{key}` of output type {kind}")]
    Attribute {
        /// Which.
        key: String,
        /// The type.
        kind: &'static str,
    },
    /// Not a value of this attribute.
    #[error("invalid value `{value}` of output attribute `{key}`: {wanted}")]
    Value {
        /// The attribute.
        key: String,
        /// As written.
        value: String,
        /// What it can be.
        wanted: &'static str,
    },
    /// Something that other builders can and we cannot.
    #[error("not supported yet: {0}")]
    Unsupported(String),
    /// An annotation.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// A directory is needed.
    #[error("dest is required for {0} exporter")]
    NoDirectory(&'static str),
    /// A directory cannot be standard output.
    #[error("dest cannot be stdout for {0} exporter")]
    DirectoryToStdout(&'static str),
    /// Bytes of an archive are not for a terminal.
    #[error("dest file is required for {0} exporter. refusing to write to console")]
    Terminal(&'static str),
    /// Two archives on one stream.
    #[error("only one output can go to standard output")]
    TwoOnStdout,
    /// Nothing to push under.
    #[error("tag is needed when pushing to registry")]
    NoName,
    /// A tag where only a repository can be.
    #[error("can't push tagged ref {0} by digest")]
    TaggedByDigest(String),
}

/// The flags that ask for outputs.
#[derive(Clone, Debug, Default)]
pub struct OutputFlags {
    /// Each `--output`.
    pub outputs: Vec<String>,
    /// Each `--tag`.
    pub tags: Vec<String>,
    /// Each `--annotation`.
    pub annotations: Vec<String>,
    /// Shorthands.
    pub shorthands: Vec<Shorthand>,
}

/// A flag that stands for an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorthand {
    /// `--push`
    Push,
    /// `--load`
    Load,
}

/// What standard output is; the caller looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdoutKind {
    /// A terminal: no place for an archive.
    Terminal,
    /// A pipe or a file.
    Stream,
}

/// All outputs that the flags ask for. Without any, the image goes into the local store under its tags.
///
/// # Errors
///
/// buildx's, in its words where scripts may know them.
pub fn resolve(flags: &OutputFlags, stdout: StdoutKind) -> Result<Vec<OutputSpec>, SpecError> {
    let mut outputs = Vec::new();
    for text in flags.outputs.iter().filter(|text| !text.is_empty()) {
        outputs.push(parse(text)?);
    }
    for shorthand in &flags.shorthands {
        apply(*shorthand, &mut outputs)?;
    }
    if outputs.is_empty() {
        outputs.push(parse("type=image")?);
    }
    let mut annotations = Vec::new();
    for text in flags.annotations.iter().filter(|text| !text.is_empty()) {
        annotations.extend(Annotation::parse_flag(text)?);
    }
    for form in outputs.iter_mut().filter_map(OutputSpec::form_mut) {
        if !flags.tags.is_empty() {
            form.names.clone_from(&flags.tags);
        }
        form.annotations.extend(annotations.iter().cloned());
    }
    outputs.iter().try_for_each(check_push)?;
    check_stdout(&outputs, stdout)?;
    Ok(outputs)
}

/// `--push` turns image outputs into pushed ones, or adds one; `--load` adds an output unless there is one.
fn apply(shorthand: Shorthand, outputs: &mut Vec<OutputSpec>) -> Result<(), SpecError> {
    match shorthand {
        Shorthand::Push => {
            let mut has_image = false;
            for output in outputs.iter_mut() {
                if let OutputSpec::Image(image) = output {
                    image.push.get_or_insert(PushSpec {
                        under: PushUnder::Tags,
                        is_insecure: false,
                    });
                    has_image = true;
                }
            }
            if !has_image {
                outputs.push(parse("type=registry")?);
            }
        }
        Shorthand::Load => {
            if !outputs
                .iter()
                .any(|output| matches!(output, OutputSpec::Load(_)))
            {
                outputs.push(parse("type=docker")?);
            }
        }
    }
    Ok(())
}

fn check_push(output: &OutputSpec) -> Result<(), SpecError> {
    let OutputSpec::Image(ImageSpec {
        form,
        push: Some(push),
        ..
    }) = output
    else {
        return Ok(());
    };
    if form.names.is_empty() {
        return Err(SpecError::NoName);
    }
    let is_tagged = |name: &&String| {
        name.rsplit('/')
            .next()
            .is_some_and(|last| last.contains([':', '@']))
    };
    match (push.under, form.names.iter().find(is_tagged)) {
        (PushUnder::Digest, Some(name)) => Err(SpecError::TaggedByDigest(name.clone())),
        (PushUnder::Digest | PushUnder::Tags, _) => Ok(()),
    }
}

fn check_stdout(outputs: &[OutputSpec], stdout: StdoutKind) -> Result<(), SpecError> {
    let mut to_stdout = outputs.iter().filter_map(OutputSpec::stdout_user);
    match (to_stdout.next(), to_stdout.next(), stdout) {
        (Some(kind), _, StdoutKind::Terminal) => Err(SpecError::Terminal(kind)),
        (Some(_), Some(_), StdoutKind::Stream) => Err(SpecError::TwoOnStdout),
        (Some(_) | None, _, StdoutKind::Stream) | (None, _, StdoutKind::Terminal) => Ok(()),
    }
}

impl OutputSpec {
    /// Names and form, if it has them.
    pub fn form(&self) -> Option<&ImageForm> {
        match self {
            Self::Image(ImageSpec { form, .. })
            | Self::Oci(form, _)
            | Self::Docker(form, _)
            | Self::Load(form) => Some(form),
            Self::Tar(_) | Self::Local(_) | Self::CacheOnly => None,
        }
    }

    fn form_mut(&mut self) -> Option<&mut ImageForm> {
        match self {
            Self::Image(ImageSpec { form, .. })
            | Self::Oci(form, _)
            | Self::Docker(form, _)
            | Self::Load(form) => Some(form),
            Self::Tar(_) | Self::Local(_) | Self::CacheOnly => None,
        }
    }

    /// The type, if its bytes go to standard output.
    pub fn stdout_user(&self) -> Option<&'static str> {
        match self {
            Self::Oci(_, LayoutPlace::Tar(Place::Stdout)) => Some("oci"),
            Self::Docker(_, LayoutPlace::Tar(Place::Stdout)) => Some("docker"),
            Self::Tar(Place::Stdout) => Some("tar"),
            Self::Oci(..)
            | Self::Docker(..)
            | Self::Tar(_)
            | Self::Image(_)
            | Self::Load(_)
            | Self::Local(_)
            | Self::CacheOnly => None,
        }
    }
}

/// Parses one `--output`: attributes as CSV, or a directory alone, or `-` (a tar on standard output).
///
/// # Errors
///
/// See [`SpecError`].
pub fn parse(text: &str) -> Result<OutputSpec, SpecError> {
    let fields = csv::fields(text).map_err(|source| SpecError::Csv {
        text: text.to_owned(),
        source,
    })?;
    if let [only] = fields.as_slice()
        && only == text
        && !text.starts_with("type=")
    {
        return Ok(match text {
            "-" => OutputSpec::Tar(Place::Stdout),
            directory => OutputSpec::Local(PathBuf::from(directory)),
        });
    }
    let mut kind = None;
    let mut attributes = Vec::new();
    for field in fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(SpecError::Field(field));
        };
        // buildx lowers every key; the name in an annotation's key is not ours to change.
        let key = key.trim();
        let (known, name) = key.split_at(key.find('.').unwrap_or(key.len()));
        let key = format!("{}{name}", known.to_lowercase());
        match key.as_str() {
            "type" => kind = Some(value.to_owned()),
            _ => attributes.push((key, value.to_owned())),
        }
    }
    super::attributes::output(&kind.ok_or(SpecError::NoType)?, attributes)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
