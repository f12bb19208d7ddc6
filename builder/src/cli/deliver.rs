//! What a build leaves besides the image: id and metadata files, the id on standard output.

use std::io::{self, Write as _};
use std::path::Path;

use super::Streams;
use super::request::Presentation;
use crate::outcome::{Failure, FailureKind, Outcome};

/// An id file of an earlier build must not pass for this one's, should this one fail.
pub(super) fn remove_stale(presentation: &Presentation) -> Result<(), Failure> {
    let Some(path) = &presentation.iidfile else {
        return Ok(());
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(unwritable("remove", path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Hands the outcome to those who asked for it.
pub(super) fn deliver(
    outcome: &Outcome,
    presentation: &Presentation,
    streams: &mut Streams,
) -> Result<(), Failure> {
    if let Some((path, id)) = presentation.iidfile.as_ref().zip(outcome.image_id.as_ref()) {
        write_file(path, id.as_bytes())?;
    }
    if let Some(path) = &presentation.metadata_file {
        let mut text = serde_json::to_vec_pretty(&outcome.metadata).map_err(|error| {
            let message = format!("cannot write metadata: {error}");
            Failure::new(FailureKind::Internal, message)
        })?;
        text.push(b'\n');
        write_file(path, &text)?;
    }
    match outcome.image_id.as_ref().filter(|_| presentation.is_quiet) {
        Some(id) => streams.print(&format!("{id}\n")),
        None => Ok(()),
    }
}

/// Writes a file in one go, so that nobody reads half of it. What is no regular file, such as a pipe, is written to.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let is_special = std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        return std::fs::write(path, bytes).map_err(|error| unwritable("write", path, &error));
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let written = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .and_then(|mut file| file.write_all(bytes).map(|()| file))
        .and_then(|file| file.persist(path).map_err(|error| error.error));
    match written {
        Ok(_) => Ok(()),
        Err(error) => Err(unwritable("write", path, &error)),
    }
}

fn unwritable(what: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot {what} `{}`: {error}", path.display());
    Failure::new(FailureKind::Environment, message)
}
