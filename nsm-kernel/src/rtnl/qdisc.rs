//! The queue in front of an interface: a token bucket (`tbf`, `linux/pkt_sched.h`), where its rate is limited.

use netlink_packet_core::{DefaultNla, Nla, NlasIterator};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption, TcStats2},
};
use nix::libc;

use super::{Request, Rtnl};
use crate::{Result, rate::Shaping};

/// By this a queue is known as ours: the number of our routes and rules (`tc qdisc show`: `4e:`).
const HANDLE: TcHandle = TcHandle { major: 78, minor: 0 };

const KIND: &str = "tbf";
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// Sizes are those of Ethernet frames; without it the kernel wants a table of sizes.
const TC_LINKLAYER_ETHERNET: u8 = 1;

fn on_root(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = TcHandle::ROOT;
    message
}

/// Puts this limit in the place of whatever queue is there.
pub(crate) fn put(index: u32, shaping: Shaping) -> Request {
    let mut message = on_root(index);
    message.header.handle = HANDLE;
    message.attributes =
        vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options(shaping)))];
    Request::put(RouteNetlinkMessage::NewQueueDiscipline(message))
}

/// Gives the interface the kernel's own queue back.
pub(crate) fn remove(index: u32) -> Request {
    let mut message = on_root(index);
    message.header.handle = HANDLE;
    let mut request = Request::remove(RouteNetlinkMessage::DelQueueDiscipline(message));
    request.content_with = &[libc::ENOENT, libc::EINVAL, libc::ENODEV];
    request
}

/// `struct tc_tbf_qopt` and what does not fit it.
fn options(shaping: Shaping) -> Vec<u8> {
    let low = u32::try_from(shaping.bytes_per_second).unwrap_or(u32::MAX);
    let mut parameters = vec![0, TC_LINKLAYER_ETHERNET];
    parameters.extend([0; 6]);
    parameters.extend(low.to_ne_bytes());
    // No peak rate; the bucket's size stands in an attribute, in octets rather than in ticks.
    parameters.extend([0; 12]);
    parameters.extend(shaping.queue.to_ne_bytes());
    parameters.extend([0; 8]);
    let mut options = Vec::new();
    attribute(&mut options, TCA_TBF_PARMS, &parameters);
    attribute(&mut options, TCA_TBF_BURST, &shaping.burst.to_ne_bytes());
    if low == u32::MAX {
        attribute(&mut options, TCA_TBF_RATE64, &shaping.bytes_per_second.to_ne_bytes());
    }
    options
}

/// All values are whole words long.
fn attribute(options: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    options.extend(length.to_ne_bytes());
    options.extend(kind.to_ne_bytes());
    options.extend(value);
}

/// A limit of ours in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) index: u32,
    pub(crate) shaping: Shaping,
    /// Packets that found no room in its queue.
    pub(crate) drops: u32,
}

impl Rtnl {
    /// The limits of all interfaces. There is no question for one: the kernel lists all or leaves it unanswered where there is
    /// none; interfaces with no queue of their own are not in the list.
    pub(crate) fn limits(&mut self) -> Result<Vec<Found>> {
        let list = self.dump(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))?;
        Ok(list.into_iter().filter_map(found).collect())
    }
}

fn found(message: RouteNetlinkMessage) -> Option<Found> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { return None };
    if message.header.parent != TcHandle::ROOT || message.header.handle != HANDLE {
        return None;
    }
    let (mut shaping, mut drops) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Options(options) => shaping = read(options),
            TcAttribute::Stats2(stats) => {
                let queue = stats.iter().find_map(|stats| match stats {
                    TcStats2::Queue(queue) => Some(queue.drops),
                    _ => None,
                });
                drops = queue.unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(Found { index: message.header.index.cast_unsigned(), shaping: shaping?, drops })
}

fn read(options: &[TcOption]) -> Option<Shaping> {
    // Of a kind that netlink-packet-route does not know, all options are the value of one.
    let [whole] = options else { return None };
    let mut bytes = vec![0; whole.value_len()];
    whole.emit_value(&mut bytes);
    let value = |kind: u16| {
        let mut found = NlasIterator::new(&bytes).map_while(Result::ok);
        found.find(|option| option.kind() == kind).map(|option| option.value().to_vec())
    };
    let parameters = value(TCA_TBF_PARMS)?;
    let word = |at: usize| Some(u32::from_ne_bytes(parameters.get(at..at + 4)?.try_into().ok()?));
    let whole = value(TCA_TBF_RATE64).and_then(|value| Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?)));
    Some(Shaping { bytes_per_second: whole.unwrap_or(word(8)?.into()), queue: word(24)?, burst: 0 })
}
