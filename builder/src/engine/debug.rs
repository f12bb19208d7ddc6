//! Views of what is made of a Dockerfile, without running anything.

use frontend::graph::ImageSource;
use frontend::lower::{ImageName, ImageResolver, LowerOptions, ResolveError, ResolvedImage};
use frontend::platform::Platform;
use frontend::source::SourceFile;

use crate::cli::{DebugView, GraphFormat, ParseFormat};
use crate::outcome::Failure;

/// Gives every image a digest made of its name, so that the graph needs no network and is the same everywhere.
struct NamesOnly;

impl ImageResolver for NamesOnly {
    fn resolve(
        &self,
        image: &ImageName<'_>,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        let reference = match image {
            ImageName::Reference(reference) => reference.to_string(),
            ImageName::OciLayout {
                context: _,
                location,
            } => format!("oci-layout://{location}"),
        };
        let config = serde_json::json!({
            "os": platform.os, "architecture": platform.architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let manifest = cache::digest::Digest::of(reference.as_bytes()).to_string();
        let config = config.to_string().into_bytes();
        Ok(ResolvedImage {
            reference,
            manifest,
            config,
            source: ImageSource::Registry,
        })
    }
}

/// Shows a view of a Dockerfile.
pub(crate) fn show(view: DebugView, source: &SourceFile) -> Result<String, Failure> {
    let parsed = frontend::parse::parse(source).map_err(Failure::of_dockerfile)?;
    match view {
        DebugView::Parse(ParseFormat::Text) => Ok(frontend::listing::to_text(&parsed)),
        DebugView::Parse(ParseFormat::Json) => Ok(frontend::listing::to_json_lines(&parsed)),
        DebugView::Graph(format) => {
            let platform = Platform::linux(std::env::consts::ARCH);
            let options = LowerOptions::new(platform);
            let lowered = frontend::lower::lower(source, &parsed, &options, &NamesOnly)
                .map_err(Failure::of_dockerfile)?;
            Ok(match format {
                GraphFormat::Text => lowered.graph.to_text(),
                GraphFormat::Json => format!("{:#}\n", lowered.graph.to_json()),
                GraphFormat::Dot => lowered.graph.to_dot(),
            })
        }
    }
}
