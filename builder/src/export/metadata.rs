//! What a build tells scripts: `--iidfile`, `--metadata-file` and the line of `--quiet` (features.md 3.3, 5.7).
//!
//! An image is its config's digest; a manifest is told of when some output made one.

use std::path::Path;

use cache::digest::Digest;
use serde_json::{Map, Value, json};

use super::destination;
use super::{ExportError, ExportReport};
use crate::image::json as go_json;

/// Writes the image's digest, without a line end, as buildx does.
///
/// # Errors
///
/// The file's.
pub fn write_iid_file(path: &Path, image: &Digest) -> Result<(), ExportError> {
    destination::write_bytes(path, image.as_str().as_bytes())
}

/// What `--quiet` prints.
pub fn quiet_line(image: Option<&Digest>) -> String {
    image.map_or_else(String::new, |digest| format!("{digest}\n"))
}

/// Writes the metadata file: the image (if the build made one) and what its outputs made of it. `build_ref` is how this
/// build is called in its record.
///
/// # Errors
///
/// The file's.
pub fn write_metadata_file(
    path: &Path,
    build_ref: &str,
    image: Option<&Digest>,
    reports: &[ExportReport],
) -> Result<(), ExportError> {
    let document = metadata(build_ref, image, reports);
    let bytes = go_json::indented(&document).map_err(|source| ExportError::Json {
        document: "the metadata file",
        source,
    })?;
    destination::write_bytes(path, &bytes)
}

/// The metadata, keys sorted. Of several outputs the first that made a manifest counts; names of all.
pub fn metadata(
    build_ref: &str,
    image: Option<&Digest>,
    reports: &[ExportReport],
) -> std::collections::BTreeMap<String, Value> {
    let mut members = Map::new();
    members.insert("buildx.build.ref".to_owned(), json!(build_ref));
    if let Some(digest) = image {
        members.insert("containerimage.config.digest".to_owned(), json!(digest));
    }
    let made = reports
        .iter()
        .find_map(|report| Some((report.manifest.as_ref()?, &report.descriptor_annotations)));
    if let Some((manifest, annotations)) = made {
        let mut descriptor = Map::new();
        if !annotations.is_empty() {
            descriptor.insert("annotations".to_owned(), json!(annotations));
        }
        descriptor.insert("digest".to_owned(), json!(manifest.digest));
        descriptor.insert("mediaType".to_owned(), json!(manifest.media_type));
        descriptor.insert("size".to_owned(), json!(manifest.size));
        let descriptor = Value::Object(descriptor);
        members.insert("containerimage.descriptor".to_owned(), descriptor);
        members.insert("containerimage.digest".to_owned(), json!(manifest.digest));
    }
    let mut names: Vec<&str> = Vec::new();
    for name in reports.iter().flat_map(|report| &report.names) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if !names.is_empty() {
        members.insert("image.name".to_owned(), json!(names.join(",")));
    }
    members.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use cache::digest::Descriptor;

    use super::*;

    #[test]
    fn files_have_what_scripts_read() {
        let dir = tempfile::tempdir().unwrap();
        let image = Digest::of(b"{}");
        let iid = dir.path().join("iid");
        write_iid_file(&iid, &image).unwrap();
        assert_eq!(std::fs::read_to_string(&iid).unwrap(), image.as_str());
        assert_eq!(quiet_line(Some(&image)), format!("{image}\n"));
        assert_eq!(quiet_line(None), "");

        let report = |manifest: Option<&[u8]>, name: &str| ExportReport {
            manifest: manifest.map(|bytes| Descriptor {
                media_type: "m".into(),
                digest: Digest::of(bytes),
                size: 1,
            }),
            descriptor_annotations: [("k".to_owned(), "v".to_owned())].into(),
            names: vec![name.into()],
        };
        let reports = [
            report(None, "a"),
            report(Some(b"x"), "b"),
            report(Some(b"y"), "a"),
        ];
        let path = dir.path().join("metadata");
        write_metadata_file(&path, "r/1", Some(&image), &reports).unwrap();
        let expected = format!(
            r#"{{
  "buildx.build.ref": "r/1",
  "containerimage.config.digest": "{image}",
  "containerimage.descriptor": {{
    "annotations": {{
      "k": "v"
    }},
    "digest": "{manifest}",
    "mediaType": "m",
    "size": 1
  }},
  "containerimage.digest": "{manifest}",
  "image.name": "a,b"
}}"#,
            manifest = Digest::of(b"x")
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);

        write_metadata_file(&path, "r/1", None, &[]).unwrap();
        let expected = "{\n  \"buildx.build.ref\": \"r/1\"\n}";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}
