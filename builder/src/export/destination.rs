//! Where an archive goes: a file that appears whole or not at all, or a stream.
//!
//! A file is written under a temporary name beside its own and renamed at the end. What is no regular file (a named pipe,
//! `/dev/null`) is written in place; a symbolic link stays and what it names is replaced.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::error::Wanted;
use super::{ExportError, Failure};
use crate::lock::locked;

/// Large enough that system calls do not count, small enough for the cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// As the kernel limits them (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// Where an archive goes.
pub enum Destination {
    /// A file.
    File(PathBuf),
    /// A stream, such as standard output.
    Stream(Mutex<Box<dyn Write + Send>>),
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Destination {
    /// A stream.
    pub fn stream(writer: impl Write + Send + 'static) -> Self {
        Self::Stream(Mutex::new(Box::new(writer)))
    }

    /// Has `fill` write the archive. A file appears only if it succeeds.
    ///
    /// # Errors
    ///
    /// Those of `fill`, and those of making the file.
    pub fn write(
        &self,
        fill: impl FnOnce(&mut Output<'_>) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        match self {
            Self::File(path) => write_file(path, fill),
            Self::Stream(writer) => {
                let mut writer = locked(writer);
                through(&mut **writer, None, fill)
            }
        }
    }
}

/// Writes some bytes to a file that appears whole or not at all.
///
/// # Errors
///
/// Those of making the file.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    write_file(path, |output| output.put(bytes))
}

fn through(
    writer: &mut dyn Write,
    path: Option<&Path>,
    fill: impl FnOnce(&mut Output<'_>) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, writer);
    let mut output = Output {
        writer: &mut buffered,
        path,
    };
    fill(&mut output)?;
    output.writer.flush().map_err(|error| output.failed(error))
}

fn write_file(
    named: &Path,
    fill: impl FnOnce(&mut Output<'_>) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let path = &follow_links(named)?;
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(ExportError::WrongKind {
            path: named.to_owned(),
            wanted: Wanted::File,
        }),
        Ok(found) if !found.is_file() => {
            let mut file = OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(ExportError::file("open", path))?;
            through(&mut file, Some(path), fill)
        }
        Ok(found) => replace_file(path, found.permissions().mode() & 0o777, fill),
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace_file(path, 0o666, fill),
        Err(error) => Err(ExportError::file("examine", path)(error)),
    }
}

/// Dropping the temporary file removes it.
fn replace_file(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut Output<'_>) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".build-export-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(directory)
        .map_err(ExportError::file("create a file beside", path))?;
    through(file.as_file_mut(), Some(path), fill)?;
    file.persist(path)
        .map_err(|error| ExportError::file("rename a finished file to", path)(error.error))?;
    Ok(())
}

/// The path that a chain of symbolic links leads to.
fn follow_links(path: &Path) -> Result<PathBuf, ExportError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_not_a_link) => return Ok(path),
        }
    }
    let error = io::Error::from(rustix::io::Errno::LOOP);
    Err(ExportError::file("follow", path)(error))
}

/// Takes the bytes of an archive and names the destination in errors.
pub struct Output<'a> {
    writer: &'a mut dyn Write,
    path: Option<&'a Path>,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Output").field(&self.path).finish()
    }
}

impl<'a> Output<'a> {
    /// Writes to a stream without a name.
    pub fn stream(writer: &'a mut dyn Write) -> Self {
        Self { writer, path: None }
    }

    /// Writes to a file, which errors name.
    pub(super) fn file(writer: &'a mut dyn Write, path: &'a Path) -> Self {
        Self {
            writer,
            path: Some(path),
        }
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// The destination's.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.writer
            .write_all(bytes)
            .map_err(|error| self.failed(error))
    }

    /// Copies everything there is to read, but no more than one byte beyond `size`; gives the number of bytes.
    ///
    /// # Errors
    ///
    /// The destination's; reading errors as `unreadable` makes them.
    pub fn copy(
        &mut self,
        from: &mut dyn Read,
        size: u64,
        unreadable: impl FnOnce(Failure) -> ExportError,
    ) -> Result<u64, ExportError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut from = from.take(size.saturating_add(1));
        let mut copied = 0;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(copied),
                Ok(read) => {
                    self.put(&buffer[..read])?;
                    copied += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(Box::new(error))),
            }
        }
    }

    fn failed(&self, source: io::Error) -> ExportError {
        match self.path {
            Some(path) => ExportError::file("write", path)(source),
            None => ExportError::Stdout(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_only_by_a_finished_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        let failed = write_file(&path, |output| {
            output.put(b"half")?;
            Err(ExportError::NoName)
        });
        assert!(matches!(failed, Err(ExportError::NoName)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["out"]);
        write_bytes(&path, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn links_stay_and_special_files_are_written_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("target", &link).unwrap();
        write_bytes(&link, b"x").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(dir.path().join("target")).unwrap(), b"x");
        write_bytes(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let looped = dir.path().join("loop");
        std::os::unix::fs::symlink("loop", &looped).unwrap();
        let message = write_bytes(&looped, b"x").unwrap_err().to_string();
        assert!(message.starts_with("cannot follow `"), "{message}");
    }

    #[test]
    fn wrong_places_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = write_bytes(dir.path(), b"x").unwrap_err().to_string();
        let expected = format!(
            "destination file \"{}\" is a directory",
            dir.path().display()
        );
        assert_eq!(message, expected);
        let path = dir.path().join("no/file");
        let message = write_bytes(&path, b"x").unwrap_err().to_string();
        let expected = format!("cannot create a file beside `{}`", path.display());
        assert_eq!(message, expected);
    }
}
