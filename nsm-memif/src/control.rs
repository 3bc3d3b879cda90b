//! The socket between two peers: messages of 128 octets, each with at most one descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::protocol::{MESSAGE_LENGTH, Message};
use crate::watched::watched;
use crate::{Closed, Error, Result, Violation};

#[derive(Debug)]
pub(crate) struct Control {
    socket: AsyncFd<OwnedFd>,
}

impl Control {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(socket: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(|error| Error::system("prepare a memif socket", error))?;
        Ok(Self { socket: watched(socket, Interest::READABLE | Interest::WRITABLE)? })
    }

    pub(crate) async fn send(&self, message: &Message, file: Option<BorrowedFd<'_>>) -> Result<()> {
        loop {
            let mut ready =
                self.socket.writable().await.map_err(|error| Error::system("write a memif socket", error))?;
            match ready.try_io(|socket| transmit(socket.as_fd(), message, file)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if is_gone(&error) => return Err(Error::Closed(Closed::PeerGone)),
                Ok(Err(error)) => return Err(Error::system("write a memif socket", error)),
                Err(_would_block) => {}
            }
        }
    }

    /// Says why it is over, if the peer's socket takes it at once. Others things can no longer be done about it.
    pub(crate) fn disconnect(&self, reason: &dyn std::fmt::Display) {
        let message = Message::Disconnect { code: 0, reason: reason.to_string() };
        let _best_effort = transmit(self.socket.get_ref().as_fd(), &message, None);
    }

    pub(crate) async fn receive(&self) -> Result<(Message, Option<OwnedFd>)> {
        loop {
            let mut ready =
                self.socket.readable().await.map_err(|error| Error::system("read a memif socket", error))?;
            match ready.try_io(|socket| take(socket.as_fd())) {
                Ok(Ok(Some((octets, file)))) => return Ok((Message::decode(&octets)?, file)),
                Ok(Ok(None)) => return Err(Error::Closed(Closed::PeerGone)),
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(Violation::Message(error.to_string()).into());
                }
                // The peer closed without reading all. What it said before is there to be read all the same.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Ok(Err(error)) => return Err(Error::system("read a memif socket", error)),
                Err(_would_block) => {}
            }
        }
    }
}

/// Waits for `step`, but not longer than it may take.
pub(crate) async fn within<T>(
    limit: Duration,
    waiting_for: &'static str,
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    let outcome = tokio::time::timeout(limit, step).await;
    outcome.unwrap_or_else(|_| Err(Error::TimedOut { waiting_for, millis: limit.as_millis() }))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn transmit(socket: BorrowedFd<'_>, message: &Message, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let files = file.as_slice();
    if !files.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(files));
    }
    sendmsg(socket, &[IoSlice::new(&message.encode())], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

type Packet = ([u8; MESSAGE_LENGTH], Option<OwnedFd>);

/// One message as it came; `None` at the end. With room for one descriptor: of others the kernel makes none.
fn take(socket: BorrowedFd<'_>) -> io::Result<Option<Packet>> {
    let mut octets = [0; MESSAGE_LENGTH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut octets)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let files = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let file = files.flatten().next();
    let invalid = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    match message.bytes {
        0 => Ok(None),
        _ if message.flags.contains(ReturnFlags::CTRUNC) => invalid("more than one descriptor".to_owned()),
        MESSAGE_LENGTH if !message.flags.contains(ReturnFlags::TRUNC) => Ok(Some((octets, file))),
        other => invalid(format!("{other} octets or more, where {MESSAGE_LENGTH} are expected")),
    }
}
