//! BPF programs at an interface: `clsact` and filters of kind `bpf`.

use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use nix::libc;

use super::{Request, Rtnl, redirect};
use crate::Result;

/// Which packets a filter sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

/// A filter of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) number: u32,
    /// What it does, in words: two of one name do the same.
    pub(crate) name: String,
}

/// Has this program look at packets of link `index`.
pub(crate) fn put(index: u32, way: Way, filter: &Filter, program: &OwnedFd) -> [Request; 2] {
    let options = vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(filter.name.clone())),
        // What the program returns is what is done.
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ];
    let mut put = numbered(index, way, filter.number);
    put.attributes.push(TcAttribute::Options(options));
    [redirect::place(index), Request::put(RouteNetlinkMessage::NewTrafficFilter(put))]
}

/// Takes the filter of that number away.
pub(crate) fn remove(index: u32, way: Way, number: u32) -> Request {
    let mut request = Request::remove(RouteNetlinkMessage::DelTrafficFilter(numbered(index, way, number)));
    request.content_with = &[libc::ENOENT, libc::EINVAL, libc::ENODEV];
    request
}

fn numbered(index: u32, way: Way, number: u32) -> TcMessage {
    let mut message = message(index, way);
    message.header.handle = number.into();
    message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    message
}

fn message(index: u32, way: Way) -> TcMessage {
    let minor = match way {
        Way::In => TcHandle::MIN_INGRESS,
        Way::Out => TcHandle::MIN_EGRESS,
    };
    redirect::message(index, TcHandle { major: TcHandle::CLSACT.major, minor })
}

impl Rtnl {
    /// Our filters at link `index`.
    pub(crate) fn filters(&mut self, index: u32, way: Way) -> Result<Vec<Filter>> {
        let list = self.dump(RouteNetlinkMessage::GetTrafficFilter(message(index, way)))?;
        Ok(list.into_iter().filter_map(found).collect())
    }
}

fn found(message: RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
    if !redirect::is_ours(&message) {
        return None;
    }
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let name = options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    })?;
    Some(Filter { number: message.header.handle.into(), name })
}
