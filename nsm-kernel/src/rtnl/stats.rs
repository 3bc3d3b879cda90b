//! Counters of links, without the rest of what is told of a link.

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::Stats64,
    stats::{StatsAttribute, StatsFilterMask, StatsMessage},
};

use super::Rtnl;
use crate::Result;

fn query(index: u32) -> RouteNetlinkMessage {
    let mut query = StatsMessage::default();
    query.header.ifindex = index;
    query.header.filter_mask = StatsFilterMask::Link64;
    RouteNetlinkMessage::GetStats(query)
}

impl Rtnl {
    /// The counters of link `index`; `None` if there is no such link.
    pub(crate) fn stats(&mut self, index: u32) -> Result<Option<Stats64>> {
        Ok(self.get(query(index))?.and_then(found).map(|(_, stats)| stats))
    }

    /// Those of all links, by their numbers.
    pub(crate) fn all_stats(&mut self) -> Result<Vec<(u32, Stats64)>> {
        Ok(self.dump(query(0))?.into_iter().filter_map(found).collect())
    }
}

fn found(message: RouteNetlinkMessage) -> Option<(u32, Stats64)> {
    let RouteNetlinkMessage::NewStats(message) = message else { return None };
    let stats = message.attributes.into_iter().find_map(|attribute| match attribute {
        StatsAttribute::Link64(stats) => Some(stats),
        _ => None,
    })?;
    Some((message.header.ifindex, stats))
}
