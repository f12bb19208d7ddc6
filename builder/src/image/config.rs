//! The image config document: the draft of the frontend, with layers, history and times (features.md 5.4).
//!
//! Top-level members are sorted by name, because BuildKit patches the document as a Go map; `config` has the order of
//! Docker's struct. Members of the base image that we know nothing of survive.

use std::collections::BTreeMap;

use cache::digest::Digest;
use frontend::config::{DraftImage, RuntimeConfig};
use serde_json::{Map, Value, json};

use super::history::{self, ImageLayer};
use super::time::Timestamp;
use super::{Image, json as go_json};

/// Members of `config` that Go omits when they are empty (`omitempty`), although lowering may have set them.
const OMITTED_WHEN_EMPTY: &[&str] = &[
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "Labels",
    "OnBuild",
    "Shell",
];

/// A config could not be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the image config")]
pub struct ConfigError(#[from] serde_json::Error);

/// Assembles an image.
///
/// `layers` are all layers, the base's first. With an `epoch` (seconds, `SOURCE_DATE_EPOCH`) it is the image's time, and
/// no new history entry is younger; entries of the base stay as they are.
///
/// # Errors
///
/// None for what lowering makes; a value that JSON cannot express is passed on rather than dropped.
pub fn assemble(
    draft: &DraftImage,
    layers: &[ImageLayer],
    epoch: Option<i64>,
) -> Result<Image, ConfigError> {
    let epoch = epoch.map(Timestamp::from_seconds);
    let base_created = draft
        .base
        .as_ref()
        .and_then(|base| base.get("created"))
        .and_then(Value::as_str)
        .and_then(Timestamp::parse);
    let history = history::assemble(
        draft.base.as_ref().and_then(|base| base.get("history")),
        base_created.as_ref(),
        &draft.history,
        layers,
        epoch.as_ref(),
    );
    let created = epoch.or_else(|| {
        let last = history.iter().rev();
        last.filter_map(|entry| entry.created.clone()).next()
    });

    let mut document = base_members(draft.base.as_ref());
    set_platform(&mut document, draft);
    set(
        &mut document,
        "author",
        draft.author.as_deref().unwrap_or_default(),
    );
    document.insert("config".to_owned(), runtime_config(&draft.config)?);
    match &created {
        Some(created) => document.insert("created".to_owned(), json!(created)),
        None => document.remove("created"),
    };
    document.insert("history".to_owned(), serde_json::to_value(&history)?);
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    document.insert(
        "rootfs".to_owned(),
        json!({"type": "layers", "diff_ids": diff_ids}),
    );

    let config = go_json::compact(&document)?;
    Ok(Image {
        digest: Digest::of(&config),
        config,
        layers: diff_ids,
        created,
    })
}

fn base_members(base: Option<&Value>) -> BTreeMap<String, Value> {
    let members = base.and_then(Value::as_object).into_iter().flatten();
    members
        // An inline cache describes the base's layers, not ours.
        .filter(|(name, _)| *name != "moby.buildkit.cache.v0")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn set_platform(document: &mut BTreeMap<String, Value>, draft: &DraftImage) {
    let platform = &draft.platform;
    document.insert("architecture".to_owned(), json!(platform.architecture));
    document.insert("os".to_owned(), json!(platform.os));
    // Normalising drops a variant that goes without saying (`arm64/v8`); a base that says it is not contradicted.
    for (name, value) in [
        ("os.version", &platform.os_version),
        ("variant", &platform.variant),
    ] {
        if !value.is_empty() {
            set(document, name, value);
        }
    }
}

/// Sets a text member; an empty one is left out.
fn set(document: &mut BTreeMap<String, Value>, name: &str, value: &str) {
    if value.is_empty() {
        document.remove(name);
    } else {
        document.insert(name.to_owned(), json!(value));
    }
}

fn runtime_config(config: &RuntimeConfig) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(config)?;
    if let Some(members) = value.as_object_mut() {
        members.retain(|name, value| {
            let is_empty = value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty);
            !(is_empty && OMITTED_WHEN_EMPTY.contains(&name.as_str()))
        });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cache::digest::DiffId;
    use frontend::config::{DraftHistory, Empty, HealthConfig};
    use frontend::graph::VertexId;
    use frontend::platform::Platform;

    use super::super::history::LayerOrigin;
    use super::*;

    fn draft(base: Option<Value>, history: &[(&str, Option<usize>)]) -> DraftImage {
        DraftImage {
            platform: Platform {
                os: "linux".into(),
                architecture: "amd64".into(),
                variant: String::new(),
                os_version: String::new(),
            },
            base,
            config: RuntimeConfig::default(),
            author: None,
            history: history
                .iter()
                .map(|(created_by, vertex)| DraftHistory {
                    created_by: (*created_by).to_owned(),
                    vertex: vertex.map(VertexId),
                })
                .collect(),
        }
    }

    fn base_layer(name: &str) -> ImageLayer {
        ImageLayer {
            diff_id: DiffId(Digest::of(name.as_bytes())),
            origin: LayerOrigin::Base,
        }
    }

    fn step(vertex: usize, seconds: u64) -> ImageLayer {
        ImageLayer {
            diff_id: DiffId(Digest::of(&[0])),
            origin: LayerOrigin::Step {
                vertex: VertexId(vertex),
                created: Duration::new(seconds, 500_000_000),
                name: format!("step {vertex}"),
            },
        }
    }

    fn document(image: &Image) -> Value {
        serde_json::from_slice(&image.config).unwrap()
    }

    /// (created, created_by, comment, empty_layer)
    fn entries(image: &Image) -> Vec<(String, String, String, bool)> {
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        document(image)["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                (
                    text(entry, "created"),
                    text(entry, "created_by"),
                    text(entry, "comment"),
                    entry["empty_layer"] == true,
                )
            })
            .collect()
    }

    fn entry(
        created: &str,
        by: &str,
        comment: &str,
        is_empty: bool,
    ) -> (String, String, String, bool) {
        (created.into(), by.into(), comment.into(), is_empty)
    }

    const NEW: &str = "buildkit.dockerfile.v0";
    const FILLER: &str = "buildkit.exporter.image.v0";

    #[test]
    fn a_config_has_the_bytes_that_go_writes() {
        let base = json!({
            "variant": "v8", "zzz": {"b": 1, "a": "<&>"}, "os": "linux", "architecture": "amd64",
            "created": "2019-01-01T00:00:00.10Z", "rootfs": {}, "docker_version": "20.10",
            "history": [
                {"created": "2020-01-01T00:00:00.00Z", "created_by": "base & rootfs"},
                {"created_by": "ENV A=b", "empty_layer": true, "junk": 1, "author": "me"},
            ],
            "moby.buildkit.cache.v0": "e30=",
        });
        let mut draft = draft(
            Some(base),
            &[
                ("ENV X=<1>", None),
                ("RUN /bin/sh -c true # buildkit", Some(3)),
                ("CMD [\"a\"]", None),
            ],
        );
        draft.author = Some("Someone <a@b>".into());
        draft.config = RuntimeConfig {
            user: "u".into(),
            exposed_ports: Some([("80/tcp".to_owned(), Empty {})].into()),
            env: Some(vec!["PATH=/bin".into(), "X=<1>".into()]),
            entrypoint: Some(vec![]),
            cmd: Some(vec!["a".into()]),
            volumes: Some(BTreeMap::new()),
            working_dir: "/w".into(),
            labels: Some(
                [
                    ("b".to_owned(), "2".to_owned()),
                    ("a".to_owned(), "1".to_owned()),
                ]
                .into(),
            ),
            stop_signal: "SIGUSR1".into(),
            args_escaped: true,
            healthcheck: Some(HealthConfig {
                test: vec!["NONE".into()],
                interval: 5,
                ..HealthConfig::default()
            }),
            on_build: Some(vec!["RUN x".into()]),
            shell: Some(vec!["/bin/bash".into(), "-c".into()]),
            other: [("Hostname".to_owned(), json!("h"))].into(),
        };
        let image = assemble(&draft, &[base_layer("b"), step(3, 1_600_000_000)], None).unwrap();
        let expected = concat!(
            r#"{"architecture":"amd64","author":"Someone \u003ca@b\u003e","config":{"User":"u","#,
            r#""ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin","X=\u003c1\u003e"],"Cmd":["a"],"#,
            r#""WorkingDir":"/w","Labels":{"a":"1","b":"2"},"StopSignal":"SIGUSR1","ArgsEscaped":true,"#,
            r#""Healthcheck":{"Test":["NONE"],"Interval":5},"OnBuild":["RUN x"],"Shell":["/bin/bash","-c"],"#,
            r#""Hostname":"h"},"created":"2020-09-13T12:26:40.5Z","docker_version":"20.10","history":["#,
            r#"{"created":"2020-01-01T00:00:00Z","created_by":"base \u0026 rootfs"},"#,
            r#"{"created_by":"ENV A=b","author":"me","empty_layer":true},"#,
            r#"{"created":"2020-09-13T12:26:40.5Z","created_by":"ENV X=\u003c1\u003e","#,
            r#""comment":"buildkit.dockerfile.v0","empty_layer":true},"#,
            r#"{"created":"2020-09-13T12:26:40.5Z","created_by":"RUN /bin/sh -c true # buildkit","#,
            r#""comment":"buildkit.dockerfile.v0"},"#,
            r#"{"created":"2020-09-13T12:26:40.5Z","created_by":"CMD [\"a\"]","#,
            r#""comment":"buildkit.dockerfile.v0","empty_layer":true}],"os":"linux","#,
            r#""rootfs":{"type":"layers","diff_ids":["#,
            r#""sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d","#,
            r#""sha256:6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"]},"#,
            r#""variant":"v8","zzz":{"b":1,"a":"\u003c\u0026\u003e"}}"#,
        );
        assert_eq!(String::from_utf8(image.config.clone()).unwrap(), expected);
        assert_eq!(image.digest, Digest::of(expected.as_bytes()));
        assert_eq!(image.layers.len(), 2);
        assert_eq!(image.created.unwrap().to_string(), "2020-09-13T12:26:40.5Z");
    }

    #[test]
    fn empty_steps_take_the_time_before() {
        let draft = draft(
            None,
            &[
                ("A", None),
                ("B", Some(1)),
                ("C", None),
                ("D", Some(2)),
                ("E", None),
            ],
        );
        let image = assemble(&draft, &[step(1, 10), step(2, 20)], None).unwrap();
        let (ten, twenty) = ("1970-01-01T00:00:10.5Z", "1970-01-01T00:00:20.5Z");
        let expected = vec![
            entry(ten, "A", NEW, true),
            entry(ten, "B", NEW, false),
            entry(ten, "C", NEW, true),
            entry(twenty, "D", NEW, false),
            entry(twenty, "E", NEW, true),
        ];
        assert_eq!(entries(&image), expected);
        assert_eq!(document(&image)["created"], twenty);
    }

    #[test]
    fn an_epoch_clamps_new_entries_and_is_the_images_time() {
        let base = json!({"history": [{"created": "2030-01-01T00:00:00Z", "created_by": "base"}]});
        let draft = draft(Some(base), &[("A", Some(1)), ("B", Some(2))]);
        let layers = [base_layer("b"), step(1, 10), step(2, 2000)];
        let image = assemble(&draft, &layers, Some(1000)).unwrap();
        let expected = vec![
            entry("2030-01-01T00:00:00Z", "base", "-", false),
            entry("1970-01-01T00:00:10.5Z", "A", NEW, false),
            entry("1970-01-01T00:16:40Z", "B", NEW, false),
        ];
        assert_eq!(entries(&image), expected);
        assert_eq!(document(&image)["created"], "1970-01-01T00:16:40Z");
    }

    #[test]
    fn layers_without_entry_get_fillers_at_the_end() {
        let base = json!({"created": "2020-01-01T00:00:00Z"});
        let draft = draft(
            Some(base),
            &[("A", Some(2)), ("gone", Some(9)), ("B", Some(4))],
        );
        let layers = [
            base_layer("b"),
            step(1, 1),
            step(2, 2),
            step(3, 3),
            step(4, 4),
            step(5, 5),
        ];
        let image = assemble(&draft, &layers, None).unwrap();
        let time = |n: u32| format!("1970-01-01T00:00:0{n}.5Z");
        let expected = vec![
            entry("2020-01-01T00:00:00Z", "-", FILLER, false),
            entry(&time(2), "A", NEW, false),
            entry(&time(2), "gone", NEW, true),
            entry(&time(4), "B", NEW, false),
            entry(&time(3), "step 3", FILLER, false),
            entry(&time(4), "step 4", FILLER, false),
            entry(&time(5), "step 5", FILLER, false),
        ];
        assert_eq!(entries(&image), expected);
    }

    #[test]
    fn a_base_that_claims_more_layers_than_it_has_is_put_right() {
        let base = json!({"history": [{"created_by": "a"}, {"created_by": "b"}, 7]});
        let image = assemble(&draft(Some(base), &[("C", None)]), &[base_layer("b")], None).unwrap();
        let expected = vec![
            entry("-", "a", "-", false),
            entry("-", "b", "-", true),
            entry("-", "-", "-", true),
            entry("-", "C", NEW, true),
        ];
        assert_eq!(entries(&image), expected);
        assert_eq!(image.created, None);
    }

    #[test]
    fn nothing_from_nothing_is_a_config_still() {
        let image = assemble(&draft(None, &[]), &[], None).unwrap();
        let expected = r#"{"architecture":"amd64","config":{},"history":[],"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert_eq!(String::from_utf8(image.config).unwrap(), expected);
    }
}
