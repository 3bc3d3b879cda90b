//! What the first octets of a message say: enough to find whose it is.

use crate::Reason;

/// The largest message that answers another one: a handshake initiation.
pub(crate) const LARGEST_ANSWER: usize = 148;
/// What a data message has beside its packet: type, receiver, counter, tag.
pub(crate) const SEALED: usize = 32;
/// A session carries no more messages (WireGuard paper, section 6.1: Reject-After-Messages).
const REJECT_AFTER: u64 = u64::MAX - (1 << 13);

/// Whom a message is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A handshake initiation, which only its keys tell.
    Initiation,
    /// This receiver.
    To(u32),
}

/// WireGuard paper, sections 5.4.2 to 5.4.7; numbers are little-endian.
pub(crate) fn parse(datagram: &[u8]) -> Result<Message, Reason> {
    let number = |at: usize| datagram.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let receiver = match (number(0), datagram.len()) {
        (Some(1), LARGEST_ANSWER) => return Ok(Message::Initiation),
        (Some(2), 92) => number(8),
        (Some(3), 64) => number(4),
        (Some(4), SEALED..) => {
            let counter = datagram.get(8..16).and_then(|octets| octets.try_into().ok()).map(u64::from_le_bytes);
            // The protocol's crate would count beyond the largest number.
            if counter.is_none_or(|counter| counter >= REJECT_AFTER) {
                return Err(Reason::CounterExhausted);
            }
            number(4)
        }
        _ => None,
    };
    receiver.map(Message::To).ok_or(Reason::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u32, length: usize) -> Vec<u8> {
        let mut octets = kind.to_le_bytes().to_vec();
        octets.resize(length, 0);
        octets
    }

    #[test]
    fn the_receiver_is_where_the_type_says() {
        for (kind, length, at) in [(2, 92, 8), (3, 64, 4), (4, 32, 4), (4, 1500, 4)] {
            let mut octets = message(kind, length);
            octets[at] = 7;
            assert_eq!(parse(&octets), Ok(Message::To(7)), "{kind}");
        }
        assert_eq!(parse(&message(1, 148)), Ok(Message::Initiation));
    }

    #[test]
    fn lengths_and_types_of_nobody_are_malformed() {
        for (kind, length) in [(1, 147), (1, 149), (2, 93), (3, 63), (4, 31), (5, 148), (0, 64), (1 << 8 | 4, 64)] {
            assert_eq!(parse(&message(kind, length.max(4))), Err(Reason::Malformed), "{kind} {length}");
        }
        for length in 0..4 {
            assert_eq!(parse(&[4, 0, 0, 0][..length]), Err(Reason::Malformed));
        }
    }

    #[test]
    fn a_counter_at_its_end_goes_no_further() {
        let mut octets = message(4, 64);
        octets[8..16].copy_from_slice(&(u64::MAX - (1 << 13)).to_le_bytes());
        assert_eq!(parse(&octets), Err(Reason::CounterExhausted));
        octets[8..16].copy_from_slice(&(u64::MAX - (1 << 13) - 1).to_le_bytes());
        assert_eq!(parse(&octets), Ok(Message::To(0)));
    }
}
