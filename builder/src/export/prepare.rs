//! Blobs and manifest of an image in the form that one output wants.

use std::collections::BTreeMap;

use cache::digest::{Descriptor, DiffId};
use frontend::platform::Platform;

use super::activity::Activity;
use super::annotation::{self, AnnotationError};
use super::spec::ImageForm;
use super::{Encoding, ExportError, LayerError, LayerSource};
use crate::image::Image;
use crate::image::history::{ImageLayer, LayerOrigin};
use crate::image::manifest::{self, Annotations, Manifest, MediaTypes};
use crate::parallel;

/// Layers asked for at once. Compression is spread over the cores below this; more than one at a time is for layers that
/// only have to be looked up.
const LAYERS_AT_ONCE: usize = 8;

/// How an output wants its documents and blobs (features.md 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// `compression=`, `compression-level=`, `force-compression=`
    pub encoding: Encoding,
    /// `oci-mediatypes=`
    pub media_types: MediaTypes,
    /// `annotation.NAME=`
    pub annotations: Annotations,
    /// `annotation-manifest-descriptor.NAME=`
    pub descriptor_annotations: Annotations,
}

impl Form {
    /// From what an output asks for, for the image's platform.
    ///
    /// # Errors
    ///
    /// Annotations that this image has no place for.
    pub fn resolve(asked: &ImageForm, platform: &Platform) -> Result<Self, AnnotationError> {
        let (annotations, descriptor_annotations) =
            annotation::resolve(&asked.annotations, platform)?;
        Ok(Self {
            encoding: asked.encoding,
            media_types: asked.media_types,
            annotations,
            descriptor_annotations,
        })
    }
}

/// The layers of an image with the times in new ones clamped to an epoch in seconds (`rewrite-timestamp=`); the base's stay
/// as they are. What comes out goes into the config, so this comes before assembling it.
///
/// # Errors
///
/// A layer's.
pub fn clamp_times(
    layers: &[ImageLayer],
    source: &dyn LayerSource,
    epoch: i64,
) -> Result<Vec<ImageLayer>, LayerError> {
    parallel::map(layers, LAYERS_AT_ONCE, |layer| {
        let diff_id = match layer.origin {
            LayerOrigin::Base => layer.diff_id.clone(),
            LayerOrigin::Step { .. } => source.clamp_times(&layer.diff_id, epoch)?,
        };
        Ok(ImageLayer {
            diff_id,
            origin: layer.origin.clone(),
        })
    })
}

/// Blobs and manifest of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The manifest.
    pub manifest: Manifest,
    /// Every layer once, by its blob's digest.
    pub blobs: Vec<(DiffId, Descriptor)>,
}

/// Makes all blobs, several at once, and the manifest, and tells so.
///
/// # Errors
///
/// A layer's, or the manifest's.
pub fn prepare(
    image: &Image,
    layers: &dyn LayerSource,
    form: &Form,
    activity: &Activity<'_>,
) -> Result<Prepared, ExportError> {
    let descriptors = activity.part("exporting layers", || {
        let ensure = |layer: &DiffId| layers.ensure(layer, form.encoding);
        parallel::map(&image.layers, LAYERS_AT_ONCE, ensure)
    })?;
    let prepared = assemble(image, &descriptors, form)?;
    announce(&prepared.manifest, activity);
    Ok(prepared)
}

/// As [`prepare`], if every blob is described already; does no work and tells nothing.
///
/// # Errors
///
/// The manifest's.
pub fn known(
    image: &Image,
    layers: &dyn LayerSource,
    form: &Form,
) -> Result<Option<Prepared>, ExportError> {
    let known = |layer| layers.known(layer, form.encoding);
    let descriptors: Option<Vec<_>> = image.layers.iter().map(known).collect();
    descriptors
        .map(|descriptors| assemble(image, &descriptors, form))
        .transpose()
}

/// From the descriptors of all layers, bottom first.
///
/// # Errors
///
/// The manifest's.
pub(super) fn assemble(
    image: &Image,
    descriptors: &[Descriptor],
    form: &Form,
) -> Result<Prepared, ExportError> {
    let manifest = manifest::assemble(image, descriptors, form.media_types, &form.annotations)?;
    let blobs: BTreeMap<_, _> = image
        .layers
        .iter()
        .zip(&manifest.layers)
        .map(|(layer, blob)| (blob.digest.clone(), (layer.clone(), blob.clone())))
        .collect();
    Ok(Prepared {
        blobs: blobs.into_values().collect(),
        manifest,
    })
}

/// Tells of the documents, in BuildKit's words.
pub(super) fn announce(manifest: &Manifest, activity: &Activity<'_>) {
    let digests = [
        ("exporting manifest", &manifest.descriptor.digest),
        ("exporting config", &manifest.config.digest),
    ];
    for (what, digest) in digests {
        activity.status(&format!("{what} {digest}"), 0, 0, true);
    }
}

/// Reads a blob to the end through `copy` (which gets the reader and the size) and checks its size.
pub(super) fn copy_blob(
    layers: &dyn LayerSource,
    layer: &DiffId,
    encoding: Encoding,
    blob: &Descriptor,
    output: &mut super::destination::Output<'_>,
) -> Result<(), ExportError> {
    let mut reader = layers.open(layer, encoding)?;
    let found = output.copy(&mut *reader, blob.size, |source| {
        ExportError::Layer(LayerError {
            attempt: "read",
            layer: layer.clone(),
            source,
        })
    })?;
    if found == blob.size {
        Ok(())
    } else {
        Err(ExportError::BlobSize {
            digest: blob.digest.clone(),
            expected: blob.size,
            found,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cache::digest::Digest;
    use frontend::graph::VertexId;

    use super::super::spec;
    use super::super::testing::FakeLayers;
    use super::*;

    #[test]
    fn only_new_layers_are_clamped() {
        let layers = FakeLayers::default();
        let layer = |name: &str, origin| ImageLayer {
            diff_id: DiffId(Digest::of(name.as_bytes())),
            origin,
        };
        let step = LayerOrigin::Step {
            vertex: VertexId(1),
            created: Duration::ZERO,
            name: String::new(),
        };
        let old = [layer("a", LayerOrigin::Base), layer("b", step.clone())];
        let clamped = DiffId(Digest::of(old[1].diff_id.0.as_str().as_bytes()));
        let expected = [
            old[0].clone(),
            ImageLayer {
                diff_id: clamped,
                origin: step,
            },
        ];
        assert_eq!(clamp_times(&old, &layers, 5).unwrap(), expected);
    }

    #[test]
    fn annotations_find_their_place() {
        let platform = Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: String::new(),
            os_version: String::new(),
        };
        let form = |text: &str| {
            let output = spec::parse(text).unwrap();
            Form::resolve(output.form().unwrap(), &platform)
        };
        let text = "type=oci,annotation.a=1,annotation-manifest-descriptor.b=2";
        let resolved = form(text).unwrap();
        assert_eq!(
            resolved.annotations,
            [("a".to_owned(), "1".to_owned())].into()
        );
        let expected = [("b".to_owned(), "2".to_owned())].into();
        assert_eq!(resolved.descriptor_annotations, expected);
        assert!(form("type=oci,annotation-index.a=1").is_err());
    }
}
