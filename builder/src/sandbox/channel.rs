//! Messages between builder, `sandbox-init` and steps.
//!
//! - Control socket (builder → init): one message per step, its content the descriptors of [`Request`].
//! - Step channel (init → builder): [`Report::Started`] with the step's pidfd, then [`Report::Finished`].
//! - Report pipe (step → init): one [`Ready`] before exec, or an error; it closes at exec.
//!
//! Sockets keep message borders (`SOCK_SEQPACKET`), so several threads may write to the control socket. A spec travels in a
//! memory file: it may be larger than a message, and holds secrets, which thus never touch a disk.

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::SetupError;
use super::spec::Exit;
use super::stubs::Stubs;

/// Descriptors of a request that are not held for the caller: spec, channel, stdout, stderr.
pub(super) const REQUEST_FDS: usize = 4;

/// The kernel's limit on descriptors in one message (SCM_MAX_FD).
pub(super) const MAX_FDS: usize = 253;

/// The largest message: an error with two long paths.
const MAX_MESSAGE: usize = 64 * 1024;

/// What init tells the builder of a step.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Its process runs; comes with its pidfd.
    Started,
    /// It is over, all its processes are gone.
    Finished(Result<Exit, SetupError>),
}

/// What a step tells init before exec.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ready {
    /// All is set up; what was made for it.
    Stubs(Stubs),
    /// It is not going to run.
    Failed(SetupError),
}

/// A connected pair of message sockets.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let content = [IoSlice::new(message)];
    rustix::io::retry_on_intr(|| sendmsg(socket, &content, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one message; `None` at the end.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut message = vec![0; MAX_MESSAGE];
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut message)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    message.truncate(received.bytes);
    Ok(Some((message, fds)))
}

/// Sends a report.
pub(super) fn report(
    channel: BorrowedFd<'_>,
    report: &Report,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send(channel, &serde_json::to_vec(report)?, fds)
}

/// A memory file holding `value`.
pub(super) fn memory_file(value: &impl Serialize) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("spec", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&serde_json::to_vec(value)?)?;
    Ok(file.into())
}

/// The value in a memory file.
pub(super) fn read_memory_file<T: DeserializeOwned>(fd: OwnedFd) -> io::Result<T> {
    let mut file = std::fs::File::from(fd);
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Writes all of `bytes`.
pub(super) fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_carry_descriptors() {
        let (left, right) = pair().unwrap();
        let file = memory_file(&"content").unwrap();
        send(left.as_fd(), b"hello", &[file.as_fd(), left.as_fd()]).unwrap();
        drop(left);
        let (message, mut fds) = receive(right.as_fd()).unwrap().unwrap();
        assert_eq!((message.as_slice(), fds.len()), (b"hello".as_slice(), 2));
        assert_eq!(
            read_memory_file::<String>(fds.remove(0)).unwrap(),
            "content"
        );
        drop(fds);
        assert!(receive(right.as_fd()).unwrap().is_none());
    }
}
