use nsm_api::{Connection, Mechanism, mechanism::keys};
use nsm_chain::{Call, Element, Next, Result};

/// Limits the connection's MTU.
///
/// *Request*: sets the context's MTU to this limit, unless a smaller one is set. *Close* passes. It stands anywhere: each
/// hop lowers what it must, and the smallest wins.
#[derive(Debug, Clone, Copy)]
pub struct Mtu(
    /// Largest packet in octets.
    pub u32,
);

impl Element for Mtu {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        limit(call.connection_mut(), self.0);
        next.request(call).await
    }
}

/// Lowers the context's MTU; 0 on either side means no limit.
pub(crate) fn limit(connection: &mut Connection, mtu: u32) {
    let now = connection.context.as_ref().map_or(0, |context| context.mtu);
    if mtu != 0 && (now == 0 || now > mtu) {
        connection.context.get_or_insert_default().mtu = mtu;
    }
}

/// What fits through the mechanism in octets, 0 if it does not say: the parameter `MTU` of tunnels.
pub(crate) fn of(mechanism: &Mechanism) -> u32 {
    mechanism.parameter(keys::MTU).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_chain::{Chain, elements};

    #[tokio::test]
    async fn the_smallest_limit_wins() {
        let chain = Chain::new("nsc", elements![Mtu(1500), Mtu(1400), Mtu(9000)]).unwrap();
        let call = chain.request(Call::default()).await.unwrap();
        assert_eq!(call.connection().context.as_ref().unwrap().mtu, 1400);
    }
}
