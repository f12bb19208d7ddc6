//! Layers that are compressed while they are made, because an output wants them so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::image::Image;
use crate::support::{self, Place};

/// A layer of files and one of a command, both big enough to be worth it, and one that is not.
const STEPS: &str = "FROM busybox\nCOPY many /many\nRUN yes | head -c 3000000 > /made && touch -d @9 /made\nRUN echo small > /small && touch -d @9 /small\n";

fn place(steps: &str) -> Place {
    let place = Place::with_dockerfile(steps);
    for number in 0..300_u32 {
        let bytes = number.to_le_bytes().repeat(2000);
        place.file(&format!("many/{number}"), bytes);
    }
    let folder = place.context().join("many");
    for entry in fs::read_dir(&folder).unwrap() {
        set_time(&entry.unwrap().path());
    }
    set_time(&folder);
    place
}

fn set_time(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(support::EPOCH);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Digests of the blobs that the layers of a store have by their records, pulled ones left out.
fn recorded_blobs(root: &Path) -> BTreeSet<String> {
    let mut blobs = BTreeSet::new();
    for layer in fs::read_dir(root.join("layers")).unwrap() {
        let record = fs::read(layer.unwrap().path().join("layer.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        for (codec, blob) in record["blobs"].as_object().into_iter().flatten() {
            if codec != "pulled" {
                blobs.insert(blob["digest"].as_str().unwrap().to_owned());
            }
        }
    }
    blobs
}

/// Exports the image of a place.
fn exported(place: &Place, attributes: &str) -> Image {
    let file = place.path("image.tar");
    let output = format!("--output=type=oci{attributes},dest={}", file.display());
    place.build(&[&output]).success();
    Image::read(&file)
}

fn layers_of(image: &Image) -> Vec<String> {
    let layers = image.manifest["layers"].as_array().unwrap();
    let digest = |layer: &Value| layer["digest"].as_str().unwrap().to_owned();
    layers.iter().map(digest).collect()
}

#[test]
fn they_are_the_blobs_that_are_made_later() {
    let (early, late) = (place(STEPS), place(STEPS));
    late.build(&[]).success();
    assert_eq!(recorded_blobs(&late.root()), BTreeSet::new());
    for attributes in ["", ",compression-level=9"] {
        let fresh = place(STEPS);
        let (one, other) = (exported(&fresh, attributes), exported(&late, attributes));
        assert_eq!(layers_of(&one)[1..], layers_of(&other)[1..], "{attributes}");
    }
    let image = exported(&early, "");
    let own: BTreeSet<String> = layers_of(&image)[1..].iter().cloned().collect();
    assert_eq!(recorded_blobs(&early.root()), own);
}

#[test]
fn only_what_an_output_will_want_is_compressed() {
    // The build fails before anything is exported: what is compressed by then was so while it was made.
    let steps = format!(
        "FROM busybox AS other\nCOPY many /other\n{STEPS}COPY --from=other /other /\nRUN false\n"
    );
    let output = "--output=type=oci,dest=/nowhere/image.tar";
    let count = |arguments: &[&str]| {
        let place = place(&steps);
        place.build(arguments).failure(1);
        recorded_blobs(&place.root()).len()
    };
    assert_eq!(
        count(&[output]),
        3,
        "neither the small layer nor that of the other stage"
    );
    assert_eq!(count(&[]), 0);
    assert_eq!(count(&["--output=type=tar,dest=/nowhere/image.tar"]), 0);
    let clamped = "--output=type=oci,rewrite-timestamp=true,dest=/nowhere/image.tar";
    assert_eq!(count(&[clamped, "--build-arg=SOURCE_DATE_EPOCH=1"]), 0);
}
