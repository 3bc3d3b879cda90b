use std::any::Any;
use std::cell::RefCell;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use nsm_api::SpiffeId;
use nsm_chain::LinkInfo;
use nsm_chain::sync::models::{beside, explore};
use nsm_chain::sync::tokio;

use super::*;
use crate::identity::HmacTokens;
use crate::transport::dial::Live;

/// The other side of every dial in a model.
#[derive(Default)]
struct Peer {
    refuses: bool,
    /// How many dials are under way, and the most there were.
    dials: (usize, usize),
    /// What is dropped to end the connections.
    lines: Vec<Box<dyn Any>>,
}

thread_local! {
    static PEER: RefCell<Peer> = RefCell::default();
}

fn peer<R>(work: impl FnOnce(&mut Peer) -> R) -> R {
    PEER.with(|peer| work(&mut peer.borrow_mut()))
}

/// Runs what a connection spawns: nothing, for no call leaves on it.
#[derive(Clone)]
struct Idle;

impl<F> hyper::rt::Executor<F> for Idle {
    fn execute(&self, _work: F) {}
}

/// A dial takes its time, and is refused or gives a connection that the peer can end.
pub(in crate::transport) async fn dial(dialler: &Dialler) -> Result<Live, TransportError> {
    peer(|peer| {
        peer.dials.0 += 1;
        peer.dials.1 = peer.dials.1.max(peer.dials.0);
    });
    tokio::task::yield_now().await;
    let (near, far) = ::tokio::io::duplex(1 << 16);
    let (sender, connection) = http2::handshake(Idle, TokioIo::new(near)).await.unwrap();
    let refused = peer(|peer| {
        peer.dials.0 -= 1;
        peer.lines.push(Box::new((connection, far)));
        peer.refuses
    });
    if refused {
        return Err(TransportError::NotFound { address: dialler.address.clone() });
    }
    Ok(Live::new(sender, LinkInfo::default(), None))
}

fn channels() -> Channels {
    peer(|peer| *peer = Peer::default());
    let tokens = Arc::new(HmacTokens::new(&SpiffeId::new("spiffe://example.org/a").unwrap()));
    Channels::new(Transport::insecure(tokens), DialOptions::default())
}

fn address() -> Address {
    Address::Memory("a".into())
}

/// Somebody who asks for the link, uses it as a call does, and lets go of it.
fn user(channels: &Channels) -> BoxFuture<'static, ()> {
    let channels = channels.clone();
    async move {
        let link = channels.link(&address());
        for _ in 0..2 {
            if let Ok(live) = link.lease.trunk.live().await {
                tokio::task::yield_now().await;
                if !live.is_open() {
                    link.lease.trunk.retire(&live);
                }
            }
        }
    }
    .boxed()
}

/// Ends all connections, and refuses new ones for a while.
fn outage() -> BoxFuture<'static, ()> {
    async {
        tokio::task::yield_now().await;
        peer(|peer| peer.refuses = true);
        let lines = peer(|peer| std::mem::take(&mut peer.lines));
        drop(lines);
        tokio::task::yield_now().await;
        peer(|peer| peer.refuses = false);
    }
    .boxed()
}

#[test]
fn all_who_ask_at_once_share_one_dial() {
    explore(|| async {
        let channels = channels();
        let _held = channels.link(&address());
        beside([user(&channels), user(&channels), user(&channels)]).await;
        assert_eq!(peer(|peer| (peer.dials, peer.lines.len())), ((0, 1), 1));
    });
}

#[test]
fn one_that_is_taken_while_its_last_user_leaves_stays_in_the_pool() {
    explore(|| async {
        let channels = channels();
        let left = channels.link(&address());
        let taken = tokio::spawn({
            let channels = channels.clone();
            async move { channels.link(&address()) }
        });
        drop(left);
        let taken = taken.await.unwrap();
        assert!(Arc::ptr_eq(&taken.lease.trunk, &channels.link(&address()).lease.trunk), "two links to one address");
    });
}

#[test]
fn a_dead_connection_is_not_given_for_ever() {
    explore(|| async {
        let channels = channels();
        // Held all the time: with the last user a dead one would go anyway.
        let link = channels.link(&address());
        beside([user(&channels), outage(), user(&channels)]).await;
        // A dial that was refused may just be ending.
        let _ = link.connected().await;
        let live = link.lease.trunk.live().await.unwrap();
        assert!(live.is_open());
    });
}

#[test]
fn a_link_that_nobody_holds_is_closed_after_a_while() {
    explore(|| async {
        let channels = channels();
        beside([user(&channels), outage(), user(&channels), user(&channels)]).await;
        while !channels.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!channels.pool.links().sweeping, "its sweeper thinks that it is at work");
        let link = channels.get(&address()).await.unwrap();
        assert!(link.lease.trunk.is_up());
    });
}
