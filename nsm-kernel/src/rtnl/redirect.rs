//! Sending all that comes in through one link out of another, in the kernel: `clsact`, `u32` and `mirred`.
//!
//! A bridge of two ports would do it too, but keeps frames to link-local group addresses (IEEE 802.1Q, table 8-1) to itself,
//! and learns addresses that nobody asks it for.

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAction, TcActionAttribute, TcActionGeneric, TcActionMirror, TcActionMirrorOption, TcActionOption,
        TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType,
        TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
    },
};

use super::{Request, Rtnl};
use crate::Result;

/// The filter's preference, by which it is known as ours: the number that routes and rules carry as their protocol.
const PREFERENCE: u32 = 78;
const EVERY_PROTOCOL: u16 = 3;

/// The number that the kernel tells for a link that has gone: then all is dropped.
pub(crate) const GONE: u32 = 0;

/// Where filters for what comes in are attached.
const INCOMING: TcHandle = TcHandle { major: TcHandle::CLSACT.major, minor: TcHandle::MIN_INGRESS };

/// Has all that comes in through link `index` go out of link `target`.
pub(crate) fn put(index: u32, target: u32) -> [Request; 2] {
    let mut selector = TcU32Selector::default();
    // One key that fits everything: its mask is empty.
    (selector.flags, selector.nkeys, selector.keys) = (TcU32SelectorFlags::Terminal, 1, vec![TcU32Key::default()]);
    let options = vec![
        TcOption::U32(TcFilterU32Option::Selector(selector)),
        TcOption::U32(TcFilterU32Option::Action(vec![redirect(target)])),
    ];
    let mut filter = message(index, INCOMING);
    filter.attributes = vec![TcAttribute::Kind(TcFilterU32::KIND.to_owned()), TcAttribute::Options(options)];
    [place(index), Request::create(RouteNetlinkMessage::NewTrafficFilter(filter))]
}

/// Makes the place where filters of link `index` are attached; content if somebody has made it.
pub(super) fn place(index: u32) -> Request {
    let mut place = TcMessage::default();
    place.header.index = index.cast_signed();
    place.header.parent = TcHandle::CLSACT;
    place.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    place.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    Request::add(RouteNetlinkMessage::NewQueueDiscipline(place))
}

/// Takes that back.
pub(crate) fn remove(index: u32) -> Request {
    Request::remove(RouteNetlinkMessage::DelTrafficFilter(message(index, INCOMING)))
}

/// Of our filters at that place.
pub(super) fn message(index: u32, place: TcHandle) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = place;
    message.header.info = (PREFERENCE << 16) | u32::from(EVERY_PROTOCOL.to_be());
    message
}

fn redirect(target: u32) -> TcAction {
    let mut generic = TcActionGeneric::default();
    generic.action = TcActionType::Stolen;
    let mut to = TcMirror::default();
    (to.generic, to.eaction, to.ifindex) = (generic, TcMirrorActionType::EgressRedir, target);
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(to))]),
    ];
    action
}

impl Rtnl {
    /// Out of which link all goes that comes in through link `index`, if that was set here; [`GONE`] if that is no more.
    pub(crate) fn redirected(&mut self, index: u32) -> Result<Option<u32>> {
        let found = self.dump(RouteNetlinkMessage::GetTrafficFilter(message(index, INCOMING)))?;
        Ok(found.iter().find_map(target))
    }
}

/// Whether a filter has our preference.
pub(super) fn is_ours(filter: &TcMessage) -> bool {
    filter.header.info >> 16 == PREFERENCE
}

fn target(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewTrafficFilter(filter) = message else {
        return None;
    };
    if !is_ours(filter) {
        return None;
    }
    let options = filter.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let actions = options.flatten().filter_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    });
    let settings = actions.flatten().flat_map(|action| &action.attributes).filter_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    settings.flatten().find_map(|setting| match setting {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(to)) => Some(to.ifindex),
        _ => None,
    })
}
