//! A limit of the MTU.

use std::num::NonZeroU32;

use nsm_chain::{Call, Element, Next, Result};

use super::context;

/// Limits a Request's MTU, in bytes: sets it where it is not set, lowers it where it is higher.
/// A Close passes.
///
/// It stands in an endpoint whose way on carries no more than this, before whatever sets up the interface.
#[derive(Debug, Clone, Copy)]
pub struct Mtu(NonZeroU32);

impl Mtu {
    /// At most this many bytes a packet.
    #[must_use]
    pub fn at_most(bytes: NonZeroU32) -> Self {
        Self(bytes)
    }
}

impl Element for Mtu {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let asked = call.connection().context.as_ref().map_or(0, |context| context.mtu);
        if asked == 0 || asked > self.0.get() {
            context(call.connection_mut()).mtu = self.0.get();
        }
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Hop, connection};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_set_where_absent_and_only_ever_lowered() {
        let hop = Hop::new(Mtu::at_most(NonZeroU32::new(1450).unwrap()));
        for (asked, answered) in [(0, 1450), (9000, 1450), (1450, 1450), (1280, 1280)] {
            let mut connection = connection("a");
            context(&mut connection).mtu = asked;
            assert_eq!(hop.request(connection).await.unwrap().context.unwrap().mtu, answered);
        }
    }
}
