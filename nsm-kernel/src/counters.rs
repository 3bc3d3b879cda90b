//! What has passed an interface.

use std::collections::HashMap;

use netlink_packet_route::link::Stats64;

use crate::{
    Interface, Netns, Result,
    netns::{Lane, work},
    rtnl::Rtnl,
};

/// What an interface has counted since it was made, as the kernel keeps it (`rtnl_link_stats64`). "Received" and "sent" are
/// those of the interface, that is, of the workload that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
    /// Packets that the limit of its rate left no room for ([`InterfaceSpec::rate`](crate::InterfaceSpec)); not among the
    /// dropped.
    pub limited: u64,
    /// Received packets that nobody in the namespace wanted (`rx_nohandler`); not among the dropped.
    pub unwanted: u64,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Octets, link layer headers included.
    pub bytes: u64,
    /// Packets. One that the kernel keeps in one piece until it must be cut (GSO) counts once.
    pub packets: u64,
    /// Packets dropped here.
    pub drops: u64,
    /// Packets that were damaged or could not be sent.
    pub errors: u64,
}

impl Counters {
    /// Those of several interfaces, in their order; `None` for one that is gone. One question for each, two where its rate is
    /// limited, and nothing is written.
    ///
    /// # Errors
    /// As [`links_with_mark`](crate::links_with_mark).
    pub async fn of(interfaces: &[Interface]) -> Result<Vec<Option<Self>>> {
        let asked = |one: &Interface| (one.netns().clone(), one.index(), one.spec().rate.is_some());
        let interfaces: Vec<_> = interfaces.iter().map(asked).collect();
        work(Lane::Quick, move |here| {
            let counters = interfaces.iter().map(|(netns, index, limited)| {
                here.enter(netns)?;
                let mut rtnl = Rtnl::open()?;
                let Some(stats) = rtnl.stats(*index)? else { return Ok(None) };
                let limits = if *limited { rtnl.limits()? } else { Vec::new() };
                let limit = limits.iter().find(|limit| limit.index == *index);
                Ok(Some(Self { limited: limit.map_or(0, |limit| limit.drops.into()), ..stats.into() }))
            });
            counters.collect()
        })
        .await
    }

    /// Those of every interface in a namespace, by its number: two lists, however many there are.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub async fn all(netns: &Netns) -> Result<HashMap<u32, Self>> {
        let netns = netns.clone();
        work(Lane::Quick, move |here| {
            here.enter(&netns)?;
            let mut rtnl = Rtnl::open()?;
            let stats = rtnl.all_stats()?.into_iter();
            let mut all: HashMap<_, Self> = stats.map(|(index, stats)| (index, stats.into())).collect();
            for limit in rtnl.limits()? {
                if let Some(counters) = all.get_mut(&limit.index) {
                    counters.limited = limit.drops.into();
                }
            }
            Ok(all)
        })
        .await
    }
}

impl From<Stats64> for Counters {
    fn from(stats: Stats64) -> Self {
        let traffic = |bytes, packets, drops, errors| Traffic { bytes, packets, drops, errors };
        Self {
            received: traffic(stats.rx_bytes, stats.rx_packets, stats.rx_dropped, stats.rx_errors),
            sent: traffic(stats.tx_bytes, stats.tx_packets, stats.tx_dropped, stats.tx_errors),
            limited: 0,
            unwanted: stats.rx_nohandler,
        }
    }
}
