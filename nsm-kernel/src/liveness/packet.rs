//! ICMP echo messages (RFC 792, RFC 4443 §4).

/// Sequence number and nonce of an echo message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) sequence: u16,
    pub(super) nonce: u64,
}

pub(super) const LENGTH: usize = 16;

impl Echo {
    /// The request. The kernel fills in identifier and checksum of a datagram socket's messages.
    pub(super) fn request(self, v4: bool) -> [u8; LENGTH] {
        let mut message = [0; LENGTH];
        message[0] = if v4 { 8 } else { 128 };
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        message[8..].copy_from_slice(&self.nonce.to_be_bytes());
        message
    }

    /// Reads a reply; `None` for anything else.
    pub(super) fn reply(message: &[u8], v4: bool) -> Option<Self> {
        let kind = if v4 { 0 } else { 129 };
        let message: &[u8; LENGTH] = message.try_into().ok()?;
        if message[0] != kind || message[1] != 0 {
            return None;
        }
        let (_, rest) = message.split_first_chunk::<6>()?;
        let (sequence, nonce) = rest.split_first_chunk::<2>()?;
        Some(Self { sequence: u16::from_be_bytes(*sequence), nonce: u64::from_be_bytes(nonce.try_into().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_reply_carries_back_what_was_asked(sequence: u16, nonce: u64, v4: bool) {
            let echo = Echo { sequence, nonce };
            let mut message = echo.request(v4);
            prop_assert_eq!(Echo::reply(&message, v4), None, "a request is no reply");
            message[0] = if v4 { 0 } else { 129 };
            message[4..6].copy_from_slice(&[0xab, 0xcd]);
            prop_assert_eq!(Echo::reply(&message, v4), Some(echo));
            prop_assert_eq!(Echo::reply(&message, !v4), None);
        }

        #[test]
        fn no_packet_makes_it_panic(message in prop::collection::vec(any::<u8>(), 0..40), v4: bool) {
            let _echo = Echo::reply(&message, v4);
        }
    }
}
