//! Tests of `spec`.

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
