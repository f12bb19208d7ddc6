//! Into the local store under its names, to registries, or both (`--output type=image`).
//!
//! In the local store an image is its config: no blob of a layer is made for it (DESIGN D6).

use frontend::reference::Reference;

use super::activity::Activity;
use super::registry::Pusher;
use super::{ExportError, ExportReport, Exporter, Failure, Source};
use crate::image::Image;
use crate::progress::sink::EventSink;

/// The local store, as far as exporting goes.
pub trait ImageStore: Send + Sync {
    /// Keeps the config. An image that is there already is success.
    fn put_image(&self, image: &Image) -> Result<(), Failure>;
    /// Gives an image that is there a name, taking it from any other.
    fn tag(&self, name: &Reference, image: &Image) -> Result<(), Failure>;
}

/// Exports to the local store and to registries.
pub struct ImageExport<'a> {
    /// Names in the local store.
    pub names: Vec<Reference>,
    /// The local store; `None` with `store=false`.
    pub store: Option<&'a dyn ImageStore>,
    /// The push.
    pub pusher: Option<&'a Pusher>,
    /// Whether its vertex was begun before the image was complete.
    pub beginning: Beginning,
}

/// When an export began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With the call.
    Now,
    /// While the image was made.
    Early,
}

/// The name of the vertex.
pub const ACTIVITY: &str = "exporting to image";

impl std::fmt::Debug for ImageExport<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageExport")
            .field("names", &self.names)
            .field("pusher", &self.pusher)
            .finish_non_exhaustive()
    }
}

impl ImageExport<'_> {
    fn keep(
        &self,
        store: &dyn ImageStore,
        image: &Image,
        activity: &Activity<'_>,
    ) -> Result<(), ExportError> {
        store.put_image(image).map_err(ExportError::Store)?;
        for name in &self.names {
            activity.part(&format!("naming to {name}"), || {
                store.tag(name, image).map_err(ExportError::Store)
            })?;
        }
        Ok(())
    }
}

impl Exporter for ImageExport<'_> {
    fn export(
        &self,
        source: &Source<'_>,
        events: &dyn EventSink,
    ) -> Result<ExportReport, ExportError> {
        let activity = match self.beginning {
            Beginning::Now => Activity::begin(events, ACTIVITY, source.output),
            Beginning::Early => Activity::of(events, ACTIVITY, source.output),
        };
        activity.finish(|activity| {
            let mut report = ExportReport {
                names: self.names.iter().map(ToString::to_string).collect(),
                ..ExportReport::default()
            };
            if self.pusher.is_none() {
                activity.status("exporting layers", 0, 0, true);
                let digest = &source.image.digest;
                activity.status(&format!("exporting config {digest}"), 0, 0, true);
            }
            if let Some(store) = self.store {
                self.keep(store, source.image, activity)?;
            }
            if let Some(pusher) = self.pusher {
                let prepared = pusher.finish(source.image, activity)?;
                report.manifest = Some(prepared.manifest.descriptor);
                report.descriptor_annotations = pusher.descriptor_annotations().clone();
            }
            Ok(report)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::testing::{self, FakeLayers, FakeTree, image, layer_tar, name};
    use super::*;

    #[derive(Default)]
    struct FakeStore(Mutex<Vec<String>>);

    impl ImageStore for FakeStore {
        fn put_image(&self, image: &Image) -> Result<(), Failure> {
            self.0.lock().unwrap().push(image.digest.to_string());
            Ok(())
        }

        fn tag(&self, name: &Reference, image: &Image) -> Result<(), Failure> {
            let mut kept = self.0.lock().unwrap();
            assert!(
                kept.contains(&image.digest.to_string()),
                "named before it is there"
            );
            kept.push(name.to_string());
            Ok(())
        }
    }

    #[test]
    fn the_store_gets_config_and_names_and_no_blob_is_made() {
        let mut layers = FakeLayers::default();
        let layer = layers.add(layer_tar("a", b"a"));
        let image = image(&[layer]);
        let store = FakeStore::default();
        let exporter = ImageExport {
            names: vec![name("docker.io", "library/a", "1"), name("h:5", "b", "2")],
            store: Some(&store),
            pusher: None,
            beginning: Beginning::Now,
        };
        let (report, lines) = testing::export(&exporter, &image, &layers, &FakeTree::default());
        let report = report.unwrap();
        let names = ["docker.io/library/a:1", "h:5/b:2"].map(str::to_owned);
        assert_eq!(
            report,
            ExportReport {
                names: names.to_vec(),
                ..ExportReport::default()
            }
        );
        let [first, second] = names.clone();
        assert_eq!(
            *store.0.lock().unwrap(),
            [image.digest.to_string(), first, second]
        );
        assert!(layers.ensured.lock().unwrap().is_empty());
        let [first, second] = names;
        let expected = [
            "exporting to image".to_owned(),
            "start".to_owned(),
            "exporting layers 0/0 done".to_owned(),
            format!("exporting config {} 0/0 done", image.digest),
            format!("naming to {first} 0/0"),
            format!("naming to {first} 0/0 done"),
            format!("naming to {second} 0/0"),
            format!("naming to {second} 0/0 done"),
            "complete".to_owned(),
        ];
        assert_eq!(lines, expected);
    }
}
