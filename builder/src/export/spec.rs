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
mod tests {
    use super::super::{Codec, PulledBlobs};
    use super::*;

    fn all(
        outputs: &[&str],
        tags: &[&str],
        shorthands: &[Shorthand],
    ) -> Result<Vec<OutputSpec>, SpecError> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let flags = OutputFlags {
            outputs: owned(outputs),
            tags: owned(tags),
            annotations: Vec::new(),
            shorthands: shorthands.to_vec(),
        };
        resolve(&flags, StdoutKind::Stream)
    }

    fn one(output: &str) -> Result<OutputSpec, SpecError> {
        parse(output)
    }

    fn form(output: &str) -> ImageForm {
        one(output).unwrap().form().unwrap().clone()
    }

    fn file(path: &str) -> Place {
        Place::File(PathBuf::from(path))
    }

    #[test]
    fn short_forms_are_a_directory_or_standard_output() {
        assert_eq!(one("out/dir").unwrap(), OutputSpec::Local("out/dir".into()));
        assert_eq!(one("-").unwrap(), OutputSpec::Tar(Place::Stdout));
        assert_eq!(
            one("type=local,dest=d,mode=copy").unwrap(),
            OutputSpec::Local("d".into())
        );
        assert_eq!(
            one("type=tar,dest=d,platform-split=false").unwrap(),
            OutputSpec::Tar(file("d"))
        );
        assert_eq!(one("type=cacheonly").unwrap(), OutputSpec::CacheOnly);
    }

    #[test]
    fn layouts_have_defaults_of_their_type() {
        let OutputSpec::Oci(form, place) = one("type=oci").unwrap() else {
            panic!()
        };
        assert_eq!(place, LayoutPlace::Tar(Place::Stdout));
        assert_eq!(
            (form.media_types, form.encoding),
            (MediaTypes::Oci, Encoding::DEFAULT)
        );
        let OutputSpec::Docker(form, place) = one("type=docker,dest=a.tar").unwrap() else {
            panic!()
        };
        assert_eq!(place, LayoutPlace::Tar(file("a.tar")));
        assert_eq!(
            (form.media_types, form.encoding),
            (MediaTypes::Docker, Encoding::DEFAULT)
        );
        let OutputSpec::Oci(_, place) = one("type=oci,tar=false,dest=d").unwrap() else {
            panic!()
        };
        assert_eq!(place, LayoutPlace::Directory("d".into()));
        let OutputSpec::Load(form) = one("type=docker").unwrap() else {
            panic!()
        };
        assert_eq!(form.encoding.codec, Codec::Uncompressed);
    }

    #[test]
    fn images_have_every_attribute() {
        let text = r#"Type=image,"name=a, b:1",push=1,registry.insecure=true,store=F,compression=zstd,compression-level=19,force-compression=true,oci-mediatypes=false,source-date-epoch=5,rewrite-timestamp=true,annotation.Org.X=Y=Z,unpack=true"#;
        let OutputSpec::Image(spec) = one(text).unwrap() else {
            panic!()
        };
        let expected = ImageForm {
            names: vec!["a".into(), "b:1".into()],
            encoding: Encoding {
                codec: Codec::Zstd { level: Some(19) },
                pulled: PulledBlobs::Recompress,
            },
            // There is no Docker type for zstd.
            media_types: MediaTypes::Oci,
            annotations: Annotation::parse_flag("Org.X=Y=Z").unwrap(),
            epoch: Some(5),
            file_times: FileTimes::ClampToEpoch,
        };
        assert_eq!(spec.form, expected);
        assert!(!spec.is_stored);
        let push = PushSpec {
            under: PushUnder::Tags,
            is_insecure: true,
        };
        assert_eq!(spec.push, Some(push));
        assert_eq!(
            form("type=image,oci-mediatypes=false").media_types,
            MediaTypes::Docker
        );
        assert_eq!(
            form("type=docker,oci-mediatypes=").media_types,
            MediaTypes::Oci
        );
    }

    #[test]
    fn tags_go_to_every_image_output_and_shorthands_add_what_is_missing() {
        let outputs = all(&[], &["a", "b"], &[]).unwrap();
        let [OutputSpec::Image(spec)] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!((&spec.push, spec.is_stored), (&None, true));
        assert_eq!(spec.form.names, ["a", "b"]);

        let outputs = all(&["type=image,name=x"], &["a"], &[Shorthand::Push]).unwrap();
        let [OutputSpec::Image(spec)] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert!(spec.push.is_some());
        assert_eq!(spec.form.names, ["a"]);

        let shorthands = [Shorthand::Push, Shorthand::Load];
        let outputs = all(&["out", "type=docker,dest=f"], &["a"], &shorthands).unwrap();
        let kinds: Vec<_> = outputs
            .iter()
            .map(|output| output.form().map(|f| f.names.len()))
            .collect();
        assert_eq!(kinds, [None, Some(1), Some(1), Some(1)]);
        assert!(matches!(
            &outputs[2],
            OutputSpec::Image(ImageSpec { push: Some(_), .. })
        ));
        assert!(matches!(&outputs[3], OutputSpec::Load(_)));
        assert_eq!(
            all(&["type=docker"], &[], &[Shorthand::Load])
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn annotations_of_flags_go_to_every_image_output() {
        let flags = OutputFlags {
            outputs: vec!["type=oci,dest=a,annotation.x=1".into(), "out".into()],
            annotations: vec!["y=2".into()],
            ..OutputFlags::default()
        };
        let outputs = resolve(&flags, StdoutKind::Terminal).unwrap();
        let names: Vec<_> = outputs[0]
            .form()
            .unwrap()
            .annotations
            .iter()
            .map(|a| &a.name)
            .collect();
        assert_eq!(names, ["x", "y"]);
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (output, expected) in [
            (
                "type=",
                "unknown output type ``: known are image, registry, oci, docker, tar, local, cacheonly",
            ),
            ("dest=x,push=1", "type is required for output"),
            ("type=oci,push", "invalid value push"),
            ("type=local", "dest is required for local exporter"),
            (
                "type=local,dest=-",
                "dest cannot be stdout for local exporter",
            ),
            ("type=oci,tar=false", "dest is required for oci exporter"),
            (
                "type=oci,push=true",
                "unknown attribute `push` of output type oci",
            ),
            (
                "type=cacheonly,dest=x",
                "unknown attribute `dest` of output type cacheonly",
            ),
            (
                "type=image,push=yes",
                "invalid value `yes` of output attribute `push`: it is true or false",
            ),
            (
                "type=image,compression=lzma",
                "invalid value `lzma` of output attribute `compression`: it is gzip, zstd or uncompressed",
            ),
            (
                "type=image,compression=estargz",
                "not supported yet: compression=estargz",
            ),
            (
                "type=image,compression-level=10",
                "invalid value `10` of output attribute `compression-level`: it is 0 to 9 for gzip and 0 to 22 for zstd",
            ),
            (
                "type=image,source-date-epoch=now",
                "invalid value `now` of output attribute `source-date-epoch`: it is a number of seconds since 1970",
            ),
            (
                "type=image,name-canonical=true",
                "not supported yet: name-canonical=true",
            ),
            (
                "type=image,attestation-inline=true",
                "not supported yet: output attribute attestation-inline",
            ),
            (
                "type=local,dest=d,mode=delete",
                "not supported yet: mode=delete",
            ),
            (
                "type=docker,context=x",
                "not supported yet: output attribute context",
            ),
            ("type=oci,annotation-x.y=z", "unknown annotation type \"x\""),
            (
                "type=image,push=true",
                "tag is needed when pushing to registry",
            ),
            (
                "type=image,push=true,push-by-digest=true,name=h:5/a:b",
                "can't push tagged ref h:5/a:b by digest",
            ),
            ("\"", "invalid output `\"`"),
        ] {
            let error = all(&[output], &[], &[]).unwrap_err();
            assert_eq!(error.to_string(), expected, "{output}");
        }
        let by_digest = "type=image,push=true,push-by-digest=true,name=h:5/a";
        assert!(all(&[by_digest], &[], &[]).is_ok());
    }

    #[test]
    fn standard_output_takes_one_archive_and_no_terminal() {
        let two = all(&["-", "type=oci"], &[], &[]).unwrap_err().to_string();
        assert_eq!(two, "only one output can go to standard output");
        let flags = |output: &str| OutputFlags {
            outputs: vec![output.into()],
            ..OutputFlags::default()
        };
        let error = resolve(&flags("type=oci"), StdoutKind::Terminal)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "dest file is required for oci exporter. refusing to write to console"
        );
        assert!(resolve(&flags("type=oci,dest=f"), StdoutKind::Terminal).is_ok());
        assert!(resolve(&flags("type=oci,dest=-"), StdoutKind::Stream).is_ok());
    }
}
