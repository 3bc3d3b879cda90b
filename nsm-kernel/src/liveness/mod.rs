//! Is the other end of a wire alive? ICMP echo, answered by the kernel of the other end.
//!
//! One ICMP datagram socket for each namespace and address family carries all probes of that namespace,
//! told apart by sequence number, source and a nonce. The source address is given with each packet
//! (`IP_PKTINFO`), so there is no socket for each address pair. There is no task either: the futures that
//! wait for an answer read the socket, each handing others' answers over; when nobody waits nobody reads.
//! Datagram sockets rather than raw ones, since a raw socket gets a copy of every ICMP packet of the
//! namespace, and since they need no privilege, also in a user namespace.

mod channel;
mod packet;

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{sync::OnceCell, time::Instant};

use crate::{
    Error, Netns, Result,
    netns::{Lane, work},
};
use channel::Channel;

/// The sockets of one namespace, made when first needed, closed with the last [`Pinger`].
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    v4: OnceCell<Channel>,
    v6: OnceCell<Channel>,
}

/// Sends ICMP echo requests from within a namespace. Cloning is cheap, and all pingers of a namespace share
/// its sockets.
#[derive(Debug, Clone)]
pub struct Pinger {
    netns: Netns,
    sockets: Arc<Sockets>,
}

/// A source address and the address it should reach.
///
/// An unspecified source (`0.0.0.0`, `::`) lets the kernel choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProbePair {
    /// Our end.
    pub src: IpAddr,
    /// The end that should answer.
    pub dst: IpAddr,
}

/// The outcome of a [`probe`](Pinger::probe).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Every pair answered; with the longest round trip time.
    Alive(Duration),
    /// This pair, the first of those that did not answer, did not.
    Dead(ProbePair),
}

impl Pinger {
    /// A pinger for `netns`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::NoPrivileges`] or [`Error::Kernel`] if ICMP sockets cannot be allowed in the namespace.
    pub async fn new(netns: &Netns) -> Result<Self> {
        let target = netns.clone();
        work(Lane::Quick, move |here| target.allow_ping(here)).await?;
        let mut shared = netns.liveness().lock().await;
        let sockets = shared.upgrade().unwrap_or_default();
        *shared = Arc::downgrade(&sockets);
        Ok(Self { netns: netns.clone(), sockets })
    }

    /// Sends one echo request and waits for its answer; returns the round trip time.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] after `timeout`; [`Error::Kernel`] if it cannot be sent, as without a route.
    pub async fn ping(&self, src: IpAddr, dst: IpAddr, timeout: Duration) -> Result<Duration> {
        let answers = self.round(&[ProbePair { src, dst }], timeout).await?;
        answers.into_iter().next().unwrap_or(Err(Error::NoAnswer { target: dst, millis: 0 }))
    }

    /// Checks all pairs at once: alive as soon as each has answered once, dead if one leaves `missed`
    /// requests, sent every `interval`, unanswered. Takes at most `interval` × `missed`.
    ///
    /// # Errors
    /// Only if the sockets cannot be made: a packet that cannot be sent counts as unanswered.
    pub async fn probe(&self, pairs: &[ProbePair], interval: Duration, missed: u32) -> Result<Liveness> {
        let mut waiting = pairs.to_vec();
        let mut longest = Duration::ZERO;
        for attempt in 0..missed.max(1) {
            let started = Instant::now();
            let answers = self.round(&waiting, interval).await?;
            longest = answers.iter().flatten().copied().fold(longest, Duration::max);
            let mut answered = answers.iter().map(Result::is_ok);
            waiting.retain(|_| !answered.next().unwrap_or(false));
            if waiting.is_empty() {
                return Ok(Liveness::Alive(longest));
            }
            // Sending may have failed at once; the next attempt still comes an interval later.
            if attempt + 1 < missed {
                tokio::time::sleep_until(started + interval).await;
            }
        }
        Ok(waiting.first().map_or(Liveness::Alive(longest), |pair| Liveness::Dead(*pair)))
    }

    /// Probes all pairs every `interval` until one has left `missed` requests in a row unanswered; returns
    /// that pair. Notices a death after `interval` × `missed` to `interval` × (`missed` + 1).
    ///
    /// # Errors
    /// As [`probe`](Self::probe).
    pub async fn watch(&self, pairs: &[ProbePair], interval: Duration, missed: u32) -> Result<ProbePair> {
        if pairs.is_empty() {
            return std::future::pending().await;
        }
        let mut silent = vec![0; pairs.len()];
        loop {
            let started = Instant::now();
            let answers = self.round(pairs, interval).await?;
            for ((pair, answer), silent) in pairs.iter().zip(answers).zip(&mut silent) {
                *silent = if answer.is_ok() { 0 } else { *silent + 1 };
                if *silent >= missed.max(1) {
                    return Ok(*pair);
                }
            }
            tokio::time::sleep_until(started + interval).await;
        }
    }

    /// One request for each pair; the outcomes in their order, at the latest after `timeout`.
    async fn round(&self, pairs: &[ProbePair], timeout: Duration) -> Result<Vec<Result<Duration>>> {
        let deadline = Instant::now() + timeout;
        let of_family =
            |v4: bool| -> Vec<ProbePair> { pairs.iter().filter(|pair| pair.dst.is_ipv4() == v4).copied().collect() };
        let (v4, v6) = (of_family(true), of_family(false));
        let (v4, v6) = tokio::join!(
            self.round_of(&self.sockets.v4, true, &v4, deadline),
            self.round_of(&self.sockets.v6, false, &v6, deadline),
        );
        let (mut v4, mut v6) = (v4?.into_iter(), v6?.into_iter());
        let unanswered = |pair: &ProbePair| Error::NoAnswer { target: pair.dst, millis: timeout.as_millis() };
        let outcome = |pair: &ProbePair| {
            let next = if pair.dst.is_ipv4() { v4.next() } else { v6.next() };
            match next {
                Some(Ok(Some(rtt))) => Ok(rtt),
                Some(Err(error)) => Err(error),
                Some(Ok(None)) | None => Err(unanswered(pair)),
            }
        };
        Ok(pairs.iter().map(outcome).collect())
    }

    async fn round_of(
        &self,
        channel: &OnceCell<Channel>,
        v4: bool,
        pairs: &[ProbePair],
        deadline: Instant,
    ) -> Result<Vec<Result<Option<Duration>>>> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let channel = channel.get_or_try_init(|| Channel::open(&self.netns, v4)).await?;
        channel.round(pairs, deadline).await
    }
}
