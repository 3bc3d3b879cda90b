//! A client that has its connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use nsm_api::Connection;
use nsm_kernel::{Netns, Pinger};

use super::clients::Answer;
use super::phases::{self, Phase};
use crate::failure::Failure;
use crate::lab::{Times, WireNote, Wires};

/// How long a packet may take there and back.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client's connection, what making it took, and the packets that went through it.
#[derive(Debug)]
pub(super) struct Connected {
    /// The client.
    pub(super) name: String,
    /// The endpoint it got.
    pub(super) endpoint: String,
    pub(super) path: Vec<Hop>,
    /// The interface at the client.
    pub(super) interface: String,
    pub(super) addresses: Vec<IpNet>,
    /// Those of the endpoint.
    pub(super) peers: Vec<IpNet>,
    /// Largest packet in octets, where something limits it.
    pub(super) mtu: Option<u32>,
    /// What the forwarders made, the client's side first.
    pub(super) wires: Vec<WireNote>,
    /// From asking to having it.
    pub(super) setup: Duration,
    /// Parts of `setup`, in order.
    pub(super) phases: Vec<(Phase, Duration)>,
    pub(super) pings: Vec<Ping>,
}

/// One step of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) name: String,
    /// The connection's id there.
    pub(super) id: String,
    /// Interfaces (`KERNEL/nsm-1`) that the hop reported, towards its caller and towards its next hop.
    pub(super) interfaces: BTreeMap<String, String>,
}

/// A packet and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ping {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) took: Duration,
}

impl Connected {
    /// What a client was given.
    pub(super) fn new(name: &str, answer: Answer, times: &Times, wires: &Wires) -> Self {
        let Answer { connection, asked, there } = answer;
        let mut wires = wires.of(&connection.id);
        wires.reverse();
        let path = path(&connection);
        let ip = connection.context.as_ref().and_then(|context| context.ip_context.as_ref());
        let mechanism = connection.mechanism.as_ref();
        let interface = mechanism.and_then(|mechanism| mechanism.as_kernel()?.interface_name().ok()?);
        Self {
            name: name.to_owned(),
            phases: phases::measured(&path, asked, there, times, &wires),
            interface: interface.unwrap_or_default().to_owned(),
            addresses: ip.map(|ip| ip.src_nets().collect()).unwrap_or_default(),
            peers: ip.map(|ip| ip.dst_nets().collect()).unwrap_or_default(),
            mtu: connection.context.as_ref().map(|context| context.mtu).filter(|mtu| *mtu > 0),
            endpoint: connection.network_service_endpoint_name,
            path,
            wires,
            setup: there - asked,
            pings: Vec::new(),
        }
    }

    /// The interface at the endpoint, as its segment of the path reports it.
    pub(super) fn peer_interface(&self) -> &str {
        let reported = self.path.last().and_then(|hop| hop.interfaces.get("server_interface"));
        reported.and_then(|interface| interface.split_once('/')).map_or("", |(_, name)| name)
    }

    /// Sends a packet from each address of the client to the endpoint's of its family, and one back.
    pub(super) async fn ping(&mut self, client: &Netns, endpoint: &Netns) -> Result<(), Failure> {
        let lost = |hop: &str, error: nsm_kernel::Error| {
            let remedy = "look around with --keep: ip addr, ip route and ping in both namespaces";
            Failure::at(hop, format!("no packets flow: {error}"), remedy)
        };
        let here = Pinger::new(client).await.map_err(|error| lost(&self.name, error))?;
        let there = Pinger::new(endpoint).await.map_err(|error| lost(&self.endpoint, error))?;
        for own in &self.addresses {
            for peer in self.peers.iter().filter(|peer| peer.addr().is_ipv4() == own.addr().is_ipv4()) {
                let (own, peer) = (own.addr(), peer.addr());
                let took = here.ping(own, peer, PATIENCE).await.map_err(|error| lost(&self.name, error))?;
                self.pings.push(Ping { from: own, to: peer, took });
                let took = there.ping(peer, own, PATIENCE).await.map_err(|error| lost(&self.endpoint, error))?;
                self.pings.push(Ping { from: peer, to: own, took });
            }
        }
        if self.pings.is_empty() {
            let cause = "the connection has no pair of addresses, so no packet can be sent";
            return Err(Failure::at(&self.endpoint, cause, "give the endpoint an address pool"));
        }
        Ok(())
    }
}

fn path(connection: &Connection) -> Vec<Hop> {
    let segments = connection.path.as_ref().map(|path| path.path_segments.as_slice()).unwrap_or_default();
    let hop = |segment: &nsm_api::PathSegment| {
        let interfaces = segment.metrics.iter().filter(|(key, _)| key.ends_with("_interface"));
        Hop {
            name: segment.name.clone(),
            id: segment.id.clone(),
            interfaces: interfaces.map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    };
    segments.iter().map(hop).collect()
}
