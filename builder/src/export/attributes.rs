//! Attributes of an `--output`, type by type (features.md 5.1, 5.2).

use std::path::PathBuf;

use super::annotation::Annotation;
use super::spec::{
    FileTimes, ImageForm, ImageSpec, LayoutPlace, OutputSpec, Place, PushSpec, PushUnder, SpecError,
};
use super::{Codec, Encoding, PulledBlobs};
use crate::image::manifest::MediaTypes;

/// Attributes that are not read yet. Of one given twice the last counts, as in a Go map.
struct Attributes {
    kind: &'static str,
    left: Vec<(String, String)>,
}

/// Makes the output of a type.
pub(super) fn output(
    kind: &str,
    attributes: Vec<(String, String)>,
) -> Result<OutputSpec, SpecError> {
    let attributes = |kind| Attributes {
        kind,
        left: attributes,
    };
    match kind {
        "image" => image(attributes("image"), false),
        "registry" => image(attributes("registry"), true),
        "oci" => layout(attributes("oci"), MediaTypes::Oci),
        "docker" => layout(attributes("docker"), MediaTypes::Docker),
        "tar" => tar(attributes("tar")),
        "local" => local(attributes("local")),
        "cacheonly" => {
            let attributes = attributes("cacheonly");
            attributes.finish()?;
            Ok(OutputSpec::CacheOnly)
        }
        _ => Err(SpecError::Type(kind.to_owned())),
    }
}

impl Attributes {
    fn take(&mut self, key: &str) -> Option<String> {
        let mut value = None;
        self.left.retain_mut(|(name, given)| {
            let is_it = name == key;
            if is_it {
                value = Some(std::mem::take(given));
            }
            !is_it
        });
        value
    }

    /// A boolean as Go's `strconv.ParseBool` reads it; empty is true, as BuildKit has it.
    fn take_bool(&mut self, key: &'static str) -> Result<Option<bool>, SpecError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(wrong(key, value, "it is true or false")),
        }
    }

    /// An attribute of which only one value works.
    fn only(&mut self, key: &'static str, supported: bool) -> Result<(), SpecError> {
        match self.take_bool(key)? {
            Some(value) if value != supported => {
                Err(SpecError::Unsupported(format!("{key}={value}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Attributes that do not work at all.
    fn refuse(&mut self, keys: &[&str]) -> Result<(), SpecError> {
        match keys.iter().find(|key| self.take(key).is_some()) {
            Some(key) => Err(SpecError::Unsupported(format!("output attribute {key}"))),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<(), SpecError> {
        match self.left.into_iter().next() {
            Some((key, _)) => Err(SpecError::Attribute {
                key,
                kind: self.kind,
            }),
            None => Ok(()),
        }
    }
}

fn wrong(key: &str, value: String, wanted: &'static str) -> SpecError {
    SpecError::Value {
        key: key.to_owned(),
        value,
        wanted,
    }
}

fn image(mut attributes: Attributes, is_pushed: bool) -> Result<OutputSpec, SpecError> {
    let form = form(&mut attributes, MediaTypes::Oci)?;
    let is_pushed = attributes.take_bool("push")?.unwrap_or(is_pushed);
    let by_digest = attributes.take_bool("push-by-digest")?.unwrap_or(false);
    let is_insecure = attributes.take_bool("registry.insecure")?.unwrap_or(false);
    let is_stored = attributes.take_bool("store")?.unwrap_or(true);
    // Our store has trees already; nothing needs unpacking.
    attributes.take_bool("unpack")?;
    attributes.only("name-canonical", false)?;
    attributes.refuse(&["dangling-name-prefix", "danging-name-empty-only"])?;
    attributes.finish()?;
    let under = if by_digest {
        PushUnder::Digest
    } else {
        PushUnder::Tags
    };
    Ok(OutputSpec::Image(ImageSpec {
        form,
        is_stored,
        push: is_pushed.then_some(PushSpec { under, is_insecure }),
    }))
}

fn layout(mut attributes: Attributes, types: MediaTypes) -> Result<OutputSpec, SpecError> {
    let kind = attributes.kind;
    let mut form = form(&mut attributes, types)?;
    let is_tar = attributes.take_bool("tar")?.unwrap_or(true);
    let destination = attributes.take("dest");
    attributes.refuse(&["context"])?;
    attributes.finish()?;
    let place = match (destination, is_tar) {
        (None, true) if kind == "docker" => {
            // A daemon unpacks what it loads: compressing for it costs time on both sides.
            if form.encoding == Encoding::DEFAULT {
                form.encoding.codec = Codec::Uncompressed;
            }
            return Ok(OutputSpec::Load(form));
        }
        (destination, true) => LayoutPlace::Tar(place(destination)),
        (destination, false) => LayoutPlace::Directory(directory(destination, kind)?),
    };
    Ok(match kind {
        "docker" => OutputSpec::Docker(form, place),
        _ => OutputSpec::Oci(form, place),
    })
}

fn tar(mut attributes: Attributes) -> Result<OutputSpec, SpecError> {
    let destination = attributes.take("dest");
    tree_attributes(&mut attributes)?;
    attributes.finish()?;
    Ok(OutputSpec::Tar(place(destination)))
}

fn local(mut attributes: Attributes) -> Result<OutputSpec, SpecError> {
    let directory = directory(attributes.take("dest"), "local")?;
    tree_attributes(&mut attributes)?;
    match attributes.take("mode").as_deref() {
        None | Some("" | "copy") => {}
        Some("delete") => return Err(SpecError::Unsupported("mode=delete".to_owned())),
        Some(other) => return Err(wrong("mode", other.to_owned(), "it is copy or delete")),
    }
    attributes.finish()?;
    Ok(OutputSpec::Local(directory))
}

/// What `tar` and `local` have in common.
fn tree_attributes(attributes: &mut Attributes) -> Result<(), SpecError> {
    attributes.only("platform-split", false)?;
    attributes.refuse(&["attestation-prefix", "source-date-epoch"])
}

fn place(destination: Option<String>) -> Place {
    match destination.as_deref() {
        None | Some("" | "-") => Place::Stdout,
        Some(path) => Place::File(PathBuf::from(path)),
    }
}

fn directory(destination: Option<String>, kind: &'static str) -> Result<PathBuf, SpecError> {
    match destination.as_deref() {
        None | Some("") => Err(SpecError::NoDirectory(kind)),
        Some("-") => Err(SpecError::DirectoryToStdout(kind)),
        Some(path) => Ok(PathBuf::from(path)),
    }
}

fn form(attributes: &mut Attributes, types: MediaTypes) -> Result<ImageForm, SpecError> {
    let names = attributes.take("name").unwrap_or_default();
    let names = names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let encoding = encoding(attributes)?;
    let media_types = match (attributes.take_bool("oci-mediatypes")?, encoding.codec) {
        // As BuildKit: Docker has no type for zstd, so asking for it asks for OCI types.
        (_, Codec::Zstd { .. }) | (Some(true), _) => MediaTypes::Oci,
        (Some(false), Codec::Gzip { .. } | Codec::Uncompressed) => MediaTypes::Docker,
        (None, Codec::Gzip { .. } | Codec::Uncompressed) => types,
    };
    attributes.only("prefer-nondist-layers", false)?;
    attributes.refuse(&["oci-artifact", "attestation-inline", "buildinfo"])?;
    Ok(ImageForm {
        names: names.map(str::to_owned).collect(),
        encoding,
        media_types,
        annotations: annotations(attributes)?,
        epoch: epoch(attributes)?,
        file_times: match attributes.take_bool("rewrite-timestamp")? {
            Some(true) => FileTimes::ClampToEpoch,
            Some(false) | None => FileTimes::Keep,
        },
    })
}

fn encoding(attributes: &mut Attributes) -> Result<Encoding, SpecError> {
    let given = attributes.take("compression-level");
    let level = |max: u8| match &given {
        None => Ok(None),
        Some(text) => match text.parse::<u8>() {
            Ok(level) if level <= max => Ok(Some(level)),
            Ok(_) | Err(_) => Err(wrong(
                "compression-level",
                text.clone(),
                "it is 0 to 9 for gzip and 0 to 22 for zstd",
            )),
        },
    };
    let codec = match attributes.take("compression").as_deref() {
        None | Some("gzip") => Codec::Gzip { level: level(9)? },
        Some("zstd") => Codec::Zstd { level: level(22)? },
        Some("uncompressed") => Codec::Uncompressed,
        Some("estargz") => {
            return Err(SpecError::Unsupported("compression=estargz".to_owned()));
        }
        Some(other) => {
            return Err(wrong(
                "compression",
                other.to_owned(),
                "it is gzip, zstd or uncompressed",
            ));
        }
    };
    let pulled = match attributes.take_bool("force-compression")? {
        Some(true) => PulledBlobs::Recompress,
        Some(false) | None => PulledBlobs::Keep,
    };
    Ok(Encoding { codec, pulled })
}

fn annotations(attributes: &mut Attributes) -> Result<Vec<Annotation>, SpecError> {
    let mut annotations = Vec::new();
    let mut others = Vec::new();
    for (key, value) in std::mem::take(&mut attributes.left) {
        match Annotation::parse_attribute(&key, &value)? {
            Some(annotation) => annotations.push(annotation),
            None => others.push((key, value)),
        }
    }
    attributes.left = others;
    Ok(annotations)
}

fn epoch(attributes: &mut Attributes) -> Result<Option<i64>, SpecError> {
    match attributes.take("source-date-epoch").as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_not_a_number: std::num::ParseIntError| {
                let wanted = "it is a number of seconds since 1970";
                wrong("source-date-epoch", text.to_owned(), wanted)
            }),
    }
}
