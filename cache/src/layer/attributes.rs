//! Attributes of an upper directory being frozen: reads those that count, removes the rest.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, XattrFlags};

use super::entry::normalise_capability;
use super::error::{EntryProblem, LayerError};
use super::tree::{self, OverlayXattrs};

/// Strips attributes in an upper directory.
#[derive(Clone, Copy)]
pub(super) struct Strip<'a> {
    /// The upper directory.
    pub(super) upper: &'a Path,
    /// The names of overlayfs's attributes there.
    pub(super) xattrs: OverlayXattrs,
}

impl Strip<'_> {
    fn shown(&self, at: &[u8]) -> PathBuf {
        self.upper.join(OsStr::from_bytes(at))
    }

    /// Removes a directory's attributes; tells whether it was opaque.
    pub(super) fn directory(&self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<bool, LayerError> {
        let strip = || -> rustix::io::Result<(Vec<Vec<u8>>, bool)> {
            let names = tree::xattr_names(dir)?;
            let opaque = self.xattrs.opaque();
            let is_opaque = names.iter().any(|name| name == opaque.as_bytes())
                && tree::xattr(dir, opaque)?.is_some_and(|value| value == b"y");
            for name in names.iter().filter(|name| !is_host_label(name)) {
                fs::fremovexattr(dir, name.as_slice())?;
            }
            Ok((names, is_opaque))
        };
        let (names, is_opaque) =
            strip().map_err(LayerError::os("remove attributes of", self.shown(at)))?;
        refuse_references(&names, at)?;
        Ok(is_opaque)
    }

    /// Removes a file's attributes but for its capabilities, which it normalises and gives.
    pub(super) fn file(
        &self,
        file: BorrowedFd<'_>,
        at: &[u8],
    ) -> Result<Option<Vec<u8>>, LayerError> {
        let failed = |attempt| LayerError::os(attempt, self.shown(at));
        let names = tree::xattr_names(file).map_err(failed("read attributes of"))?;
        refuse_references(&names, at)?;
        let mut capability = None;
        for name in names.iter().filter(|name| !is_host_label(name)) {
            if name == tree::CAPABILITY.as_bytes() {
                capability = self.capability(file, at)?;
            } else {
                fs::fremovexattr(file, name.as_slice()).map_err(failed("remove attributes of"))?;
            }
        }
        Ok(capability)
    }

    fn capability(&self, file: BorrowedFd<'_>, at: &[u8]) -> Result<Option<Vec<u8>>, LayerError> {
        let value = tree::xattr(file, tree::CAPABILITY)
            .map_err(LayerError::os("read capabilities of", self.shown(at)))?;
        let Some(value) = value else {
            return Ok(None);
        };
        let normal = normalise_capability(&value)
            .ok_or_else(|| LayerError::entry(at, EntryProblem::Capability))?;
        if normal != value {
            fs::fsetxattr(file, tree::CAPABILITY, &normal, XattrFlags::empty())
                .map_err(LayerError::os("set capabilities of", self.shown(at)))?;
        }
        Ok(Some(normal))
    }

    /// Removes the attributes of what cannot be opened.
    pub(super) fn special(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        at: &[u8],
    ) -> Result<(), LayerError> {
        // There are no such calls from a directory, and a whole path may be too long for one call.
        let mut place = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        place.extend_from_slice(name);
        let place = Path::new(OsStr::from_bytes(&place));
        let strip = || -> rustix::io::Result<()> {
            for name in tree::link_xattr_names(place)? {
                if !is_host_label(&name) {
                    fs::lremovexattr(place, name.as_slice())?;
                }
            }
            Ok(())
        };
        strip().map_err(LayerError::os("remove attributes of", self.shown(at)))
    }
}

/// Labels that the host's kernel puts on every file and that nobody may remove: no part of any layer.
fn is_host_label(name: &[u8]) -> bool {
    name.starts_with(b"security.") && name != tree::CAPABILITY.as_bytes()
}

/// Overlays are mounted so that these never appear; with them the tree would not be the layer.
fn refuse_references(names: &[Vec<u8>], at: &[u8]) -> Result<(), LayerError> {
    const REFERENCES: [&[u8]; 4] = [
        b"trusted.overlay.redirect",
        b"trusted.overlay.metacopy",
        b"user.overlay.redirect",
        b"user.overlay.metacopy",
    ];
    if names
        .iter()
        .any(|name| REFERENCES.contains(&name.as_slice()))
    {
        return Err(LayerError::entry(at, EntryProblem::OverlayRedirect));
    }
    Ok(())
}
