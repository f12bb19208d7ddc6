//! What is asked of a registry, and what it is sent.

use super::*;
use crate::export::ExportReport;
use crate::export::store::{Beginning, ImageExport};
use crate::export::testing::{
    self, FakeLayers, FakeRegistry, FakeTree, Recorder, form, image, layer_tar, name,
};
use crate::image::manifest::MediaTypes;

struct Fixture {
    layers: Arc<FakeLayers>,
    image: Image,
    registry: FakeRegistry,
}

impl Fixture {
    fn new() -> Self {
        let mut layers = FakeLayers::default();
        let a = layers.add(layer_tar("a", b"a"));
        let b = layers.add(layer_tar("b", b"b"));
        let image = image(&[a.clone(), b, a]);
        Self {
            layers: Arc::new(layers),
            image,
            registry: FakeRegistry::default(),
        }
    }

    fn pusher(&self, names: &[Reference], under: PushUnder) -> Pusher {
        let target = || Box::new(self.registry.clone());
        let repositories = by_repository(names)
            .into_iter()
            .map(|names| Repository {
                names,
                target: target(),
            })
            .collect();
        let form = form(MediaTypes::Oci);
        Pusher::new(repositories, self.layers.clone(), form, under)
    }

    fn push(&self, pusher: &Pusher) -> (Result<ExportReport, ExportError>, Vec<String>) {
        let exporter = ImageExport {
            names: Vec::new(),
            store: None,
            pusher: Some(pusher),
            beginning: Beginning::Now,
        };
        testing::export(&exporter, &self.image, &*self.layers, &FakeTree::default())
    }

    /// What was asked since the last call, sorted but for manifests.
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut self.registry.0.lock().unwrap().asked);
        let blobs = asked
            .iter()
            .take_while(|line| !line.starts_with("put"))
            .count();
        asked[..blobs].sort();
        asked
    }

    fn hex(&self, layer: usize) -> String {
        self.image.layers[layer].0.hex()[..4].to_owned()
    }
}

fn app(tag: &str) -> Reference {
    name("h:5", "team/app", tag)
}

#[test]
fn what_is_missing_is_sent_once_and_the_manifest_last() {
    let fixture = Fixture::new();
    let names = [app("1"), app("2"), app("1")];
    let (report, lines) = fixture.push(&fixture.pusher(&names, PushUnder::Tags));
    let manifest = report.unwrap().manifest.unwrap();
    let (a, b, config) = (
        fixture.hex(0),
        fixture.hex(1),
        &fixture.image.digest.hex()[..4],
    );
    let mut expected: Vec<String> = [&a[..], &b, config]
        .iter()
        .map(|blob| format!("upload {blob}"))
        .collect();
    // What was compressed for this is not asked for.
    expected.push(format!("head {config}"));
    expected.sort();
    expected.extend(["put 1", "put 2"].map(str::to_owned));
    assert_eq!(fixture.asked(), expected);

    let state = fixture.registry.0.lock().unwrap();
    let (media_type, bytes) = &state.manifests["1"];
    assert_eq!(media_type, crate::image::OCI_MANIFEST);
    assert_eq!(Digest::of(bytes), manifest.digest);
    assert_eq!(state.manifests["1"], state.manifests["2"]);
    drop(state);
    assert_eq!(lines[0], "exporting to image");
    for part in [
        "pushing layers 0/0 done".to_owned(),
        format!("pushing layer {} 2048/2048 done", fixture.image.layers[1]),
        format!("exporting config {} 0/0 done", fixture.image.digest),
        format!(
            "pushing manifest for h:5/team/app:2@{} 0/0 done",
            manifest.digest
        ),
    ] {
        assert!(lines.contains(&part), "{part}: {lines:?}");
    }

    // Again: a look at each tag is all.
    let (report, again) = fixture.push(&fixture.pusher(&names, PushUnder::Tags));
    assert_eq!(report.unwrap().manifest.unwrap(), manifest);
    assert_eq!(fixture.asked(), ["manifest 1", "manifest 2"]);
    assert!(again.contains(&"pushing layers 0/0 done".to_owned()));
    // Under a new tag: nothing but the manifest is sent.
    let names = [app("3")];
    fixture
        .push(&fixture.pusher(&names, PushUnder::Tags))
        .0
        .unwrap();
    let asked = fixture.asked();
    assert!(
        !asked.iter().any(|line| line.starts_with("upload")),
        "{asked:?}"
    );
    assert_eq!(asked.last().unwrap(), "put 3");
}

#[test]
fn layers_that_were_uploaded_early_are_not_asked_for_again() {
    let fixture = Fixture::new();
    let pusher = fixture.pusher(&[app("1")], PushUnder::Digest);
    let recorder = Recorder::default();
    let early: Result<_, ExportError> = Activity::run(&recorder, "early", 0, |activity| {
        for _ in 0..2 {
            pusher.upload_layer(&fixture.image.layers[0], activity)?;
        }
        Ok(())
    });
    early.unwrap();
    let a = fixture.hex(0);
    assert_eq!(fixture.asked(), [format!("upload {a}")]);
    let manifest = fixture.push(&pusher).0.unwrap().manifest.unwrap();
    let asked = fixture.asked();
    assert!(!asked.iter().any(|line| line.ends_with(&a)), "{asked:?}");
    assert!(
        !asked.iter().any(|line| line.starts_with("head")),
        "{asked:?}"
    );
    let state = fixture.registry.0.lock().unwrap();
    let references: Vec<_> = state.manifests.keys().collect();
    assert_eq!(references, [manifest.digest.as_str()]);
}

#[test]
fn blobs_are_mounted_from_the_nearest_repository_of_the_registry() {
    let mut fixture = Fixture::new();
    let digest = fixture.image.layers[0].0.clone();
    let origin = |registry: &str, repository: &str| BlobOrigin {
        registry: registry.into(),
        repository: repository.into(),
        digest: digest.clone(),
    };
    Arc::get_mut(&mut fixture.layers).unwrap().origins = vec![
        origin("h:5", "a/base"),
        origin("other", "team/app2"),
        origin("h:5", "team/base"),
        origin("h:5", "team/app"),
    ];
    let pusher = fixture.pusher(&[app("1")], PushUnder::Tags);
    let elsewhere = ("team/base".to_owned(), digest);
    fixture
        .registry
        .0
        .lock()
        .unwrap()
        .elsewhere
        .extend([elsewhere]);
    fixture.push(&pusher).0.unwrap();
    let (asked, a) = (fixture.asked(), fixture.hex(0));
    assert!(
        asked.contains(&format!("mount {a} from team/base")),
        "{asked:?}"
    );
    assert!(!asked.contains(&format!("upload {a}")));
    assert!(asked.contains(&format!("upload {}", fixture.hex(1))));
}

#[test]
fn a_failed_push_names_the_repository_and_puts_no_manifest() {
    let fixture = Fixture::new();
    fixture.registry.0.lock().unwrap().fail_uploads = true;
    let (result, lines) = fixture.push(&fixture.pusher(&[app("1")], PushUnder::Tags));
    assert_eq!(
        result.unwrap_err().to_string(),
        "failed to push h:5/team/app"
    );
    assert_eq!(
        lines.last().unwrap(),
        "fail failed to push h:5/team/app: connection reset"
    );
    let state = fixture.registry.0.lock().unwrap();
    assert!(state.manifests.is_empty());
}

#[test]
fn names_are_grouped_by_repository() {
    let other = name("h:6", "team/app", "1");
    let names = [app("1"), other.clone(), app("2"), app("1")];
    assert_eq!(
        by_repository(&names),
        [vec![app("1"), app("2")], vec![other]]
    );
}
