//! Taking a received datagram apart, trusting none of its lengths.

use netlink_packet_core::{DecodeError, NLM_F_MULTIPART, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// The acknowledgement has attributes (`linux/netlink.h`).
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// One message of a datagram.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) kind: u16,
    flags: u16,
    pub(crate) sequence: u32,
    pub(crate) multipart: bool,
    /// Something changed while this list was made: it may be incomplete.
    pub(crate) interrupted: bool,
    bytes: &'a [u8],
}

/// Why the kernel refused: error number and, if it gave one, its explanation.
pub(crate) type Refusal = (i32, Option<String>);

/// The messages of a datagram; ends at the first that is cut short.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let bytes = rest.get(..length).filter(|b| b.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let flags = u16_at(bytes, 6)?;
        Some(Reply {
            kind: u16_at(bytes, 4)?,
            flags,
            sequence: u32_at(bytes, 8)?,
            multipart: flags & NLM_F_MULTIPART != 0,
            interrupted: flags & NLM_F_DUMP_INTR != 0,
            bytes,
        })
    })
}

impl Reply<'_> {
    /// The outcome, if this message tells one (an acknowledgement, an error or the end of a dump).
    pub(crate) fn acknowledgement(&self) -> Option<Result<(), Refusal>> {
        if !matches!(self.kind, NLMSG_ERROR | NLMSG_DONE) {
            return None;
        }
        // The end of a dump may come without a code.
        let code = u32_at(self.bytes, HEADER).map_or(0, u32::cast_signed);
        if code == 0 {
            return Some(Ok(()));
        }
        Some(Err((code.saturating_neg(), self.explanation())))
    }

    /// The object described by this message.
    pub(crate) fn decode(&self) -> Result<RouteNetlinkMessage, DecodeError> {
        match NetlinkMessage::deserialize(self.bytes)?.payload {
            NetlinkPayload::InnerMessage(message) => Ok(message),
            _ => Err("not an rtnetlink object".into()),
        }
    }

    /// The value of the attribute of that kind, behind a header of `skip` octets.
    pub(crate) fn attribute(&self, skip: usize, kind: u16) -> Option<&[u8]> {
        let mut rest = self.bytes.get(HEADER + skip..)?;
        loop {
            let length = usize::from(u16_at(rest, 0)?);
            let value = rest.get(4..length)?;
            if u16_at(rest, 2)? == kind {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }

    fn explanation(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        // Code, then the request's header alone (NETLINK_CAP_ACK), then attributes; a DONE has no header.
        let skip = 4 + if self.kind == NLMSG_ERROR { HEADER } else { 0 };
        let value = self.attribute(skip, NLMSGERR_ATTR_MSG)?;
        let text = value.split(|b| *b == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_refusal_is_read_with_its_explanation() {
        let mut bytes = Vec::new();
        let text = b"No such thing\0";
        let total = HEADER + 4 + HEADER + 4 + text.len();
        bytes.extend((total as u32).to_ne_bytes());
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend(NLM_F_ACK_TLVS.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend((-17i32).to_ne_bytes());
        bytes.extend([0; HEADER]);
        bytes.extend(((4 + text.len()) as u16).to_ne_bytes());
        bytes.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        bytes.extend(text);
        let reply = messages(&bytes).next().unwrap();
        assert_eq!(reply.sequence, 7);
        let (errno, detail) = reply.acknowledgement().unwrap().unwrap_err();
        assert_eq!((errno, detail.as_deref()), (17, Some("No such thing")));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_parser_panic_or_hang(datagram in prop::collection::vec(any::<u8>(), 0..256)) {
            for reply in messages(&datagram) {
                let _outcome = reply.acknowledgement();
                let _object = reply.decode();
                let _attribute = reply.attribute(4, 1);
            }
        }
    }
}
