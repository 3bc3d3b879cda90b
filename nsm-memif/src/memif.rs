use std::sync::{Arc, Weak};

use crate::link::Link;
use crate::{Closed, Receiver, Result, Sender};

/// An interface that is up: packets to receive, and packets to send.
///
/// It ends with the last of its queues; the peer is told. Its memory and descriptors are given back with it.
#[derive(Debug)]
pub struct Memif {
    pub(crate) link: Arc<Link>,
    pub(crate) receivers: Vec<Receiver>,
    pub(crate) senders: Vec<Sender>,
    pub(crate) peer: Peer,
}

/// What the peer says of itself. For people only: nobody checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Name of its program.
    pub program: String,
    /// Its name of the interface.
    pub interface: String,
}

impl Memif {
    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The queues: one receiver and one sender for each thread that works on the interface. There may be none of a direction
    /// if the client made none.
    #[must_use]
    pub fn split(self) -> (Vec<Receiver>, Vec<Sender>) {
        (self.receivers, self.senders)
    }

    /// The first receiver and the first sender, to be used alone or together.
    ///
    /// # Errors
    /// [`Error::NoQueue`](crate::Error::NoQueue) if the client made none of a direction.
    pub fn pair(&mut self) -> Result<(&mut Receiver, &mut Sender)> {
        let receiver = self.receivers.first_mut().ok_or(crate::Error::NoQueue { verb: "receive" })?;
        let sender = self.senders.first_mut().ok_or(crate::Error::NoQueue { verb: "send" })?;
        Ok((receiver, sender))
    }

    /// Waits until the first queue has packets: [`Receiver::ready`].
    ///
    /// # Errors
    /// As there, and as [`pair`](Self::pair).
    pub async fn ready(&mut self) -> Result<()> {
        self.pair()?.0.ready().await
    }

    /// Takes packets from the first queue: [`Receiver::recv_burst`].
    ///
    /// # Errors
    /// As there, and as [`pair`](Self::pair).
    pub fn recv_burst(&mut self, max: usize, each: impl FnMut(&mut [u8])) -> Result<usize> {
        self.pair()?.0.recv_burst(max, each)
    }

    /// Sends packets by the first queue: [`Sender::send_burst`].
    ///
    /// # Errors
    /// As there, and as [`pair`](Self::pair).
    pub fn send_burst<P: AsRef<[u8]>>(&mut self, packets: impl IntoIterator<Item = P>) -> Result<usize> {
        self.pair()?.1.send_burst(packets)
    }

    /// Answers packets until the interface is closed: `answer` edits each one where it is and says whether the outcome goes
    /// back to the peer. What does not fit into the ring then is dropped.
    ///
    /// # Errors
    /// [`Error::Violation`](crate::Error::Violation) if that is why it was closed.
    pub async fn answer(&mut self, mut answer: impl FnMut(&mut [u8]) -> bool) -> Result<Closed> {
        let (receiver, sender) = self.pair()?;
        loop {
            let step = async {
                receiver.ready().await?;
                let mut outcome = Ok(true);
                receiver.recv_burst(BURST, |packet| {
                    if outcome.is_ok() && answer(packet) {
                        outcome = sender.push(packet);
                    }
                })?;
                outcome?;
                sender.flush()
            };
            match step.await {
                // Others of this thread have their turn even if packets never end.
                Ok(()) => tokio::task::yield_now().await,
                Err(crate::Error::Closed(closed)) => return Ok(closed),
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns once the interface is closed: why.
    pub async fn closed(&self) -> Closed {
        self.link.until_closed().await
    }

    /// Closes it, also for queues that were split off.
    pub fn close(&self) {
        self.link.close();
    }

    /// What closes it from elsewhere, wherever its queues are by then.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.link))
    }
}

/// Closes an interface; does not keep it up.
#[derive(Debug, Clone)]
pub struct Closer(Weak<Link>);

impl Closer {
    /// Closes it, if it is still there: whoever works on its queues gets [`Error::Closed`](crate::Error::Closed).
    pub fn close(&self) {
        if let Some(link) = self.0.upgrade() {
            link.close();
        }
    }
}

/// Packets between two looks at anything else.
const BURST: usize = 256;
