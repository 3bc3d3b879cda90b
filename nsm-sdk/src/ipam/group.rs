//! Addresses of several pools for each connection.

use nsm_chain::{Call, Element, Next, Order, Result};

use super::assign::{self, Assign};
use super::{PointToPoint, PoolError, SinglePoint};

/// Gives a Request something of each of its sources: a pair of IPv4 and a pair of IPv6 addresses, say. If one of them
/// has nothing left the Request fails, and the others keep what they have.
/// A Close gives everything back once everything further on has been closed.
///
/// It stands where its sources would: before whatever puts addresses onto an interface, after `Begin`.
///
/// Reference: `ipam/groupipam` of the Go SDK, and with [`strict`](Self::strict) `ipam/strictipam`.
#[derive(Debug)]
pub struct Group {
    sources: Vec<Source>,
    strict: bool,
}

/// What a [`Group`] may give of.
#[derive(Debug)]
pub enum Source {
    /// A pair of addresses.
    PointToPoint(PointToPoint),
    /// An address of the client.
    SinglePoint(SinglePoint),
}

impl Group {
    /// Gives of each of these.
    ///
    /// # Errors
    /// [`PoolError::Overlap`] when two of them could give the same address.
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Result<Self, PoolError> {
        let sources: Vec<Source> = sources.into_iter().collect();
        let prefixes = sources.iter().map(|source| source.assign().pool().prefixes());
        for (at, mine) in prefixes.clone().enumerate() {
            for (one, other) in
                prefixes.clone().take(at).flatten().flat_map(|one| mine.iter().map(move |other| (*one, *other)))
            {
                if one.contains(&other) || other.contains(&one) {
                    return Err(PoolError::Overlap { one, other });
                }
            }
        }
        Ok(Self { sources, strict: false })
    }

    /// Takes addresses that are of no source's pool, and the host routes to them, out of a Request: what a client
    /// brings from elsewhere does not get further.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }
}

impl Source {
    fn assign(&self) -> &dyn Assign {
        match self {
            Self::PointToPoint(source) => source,
            Self::SinglePoint(source) => source,
        }
    }
}

impl From<PointToPoint> for Source {
    fn from(source: PointToPoint) -> Self {
        Self::PointToPoint(source)
    }
}

impl From<SinglePoint> for Source {
    fn from(source: SinglePoint) -> Self {
        Self::SinglePoint(source)
    }
}

impl Element for Group {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let sources: Vec<_> = self.sources.iter().map(Source::assign).collect();
        assign::request(&sources, self.strict, call, next).await
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

#[cfg(test)]
mod tests {
    use nsm_api::IpContext;
    use nsm_api::connectioncontext::Route;

    use super::super::Pool;
    use super::super::testing::{Hop, texts};
    use super::*;

    fn pool(prefix: &str) -> Pool {
        Pool::new([prefix.parse().unwrap()]).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_dual_stack_connection_gets_a_pair_of_each_family() {
        let (v4, v6) = (pool("10.0.0.0/30"), pool("fd00::/64"));
        let hop =
            Hop::new(Group::new([PointToPoint::new(v4.clone()).into(), PointToPoint::new(v6.clone()).into()]).unwrap());
        let context = hop.request("a", IpContext::default()).await.unwrap();
        assert_eq!(context.dst_ip_addrs, ["10.0.0.0/32", "fd00::/128"]);
        assert_eq!(context.src_ip_addrs, ["10.0.0.1/32", "fd00::1/128"]);
        assert_eq!((context.src_routes.len(), context.dst_routes.len()), (2, 2));
        assert_eq!(hop.request("a", context.clone()).await.unwrap(), context, "a refresh changes nothing");
        hop.request("b", IpContext::default()).await.unwrap();
        let free = v6.free();
        let error = hop.request("c", IpContext::default()).await.unwrap_err();
        assert!(error.to_string().contains("10.0.0.0/30"), "{error}");
        assert_eq!(v6.free(), free, "one source has nothing left: the other keeps what it has");
        hop.close("a").await;
        hop.close("b").await;
        assert_eq!((v4.free(), v6.free()), (4, 1 << 64));
    }

    #[tokio::test(start_paused = true)]
    async fn strict_takes_foreign_addresses_out_polite_leaves_them() {
        let brought = || IpContext {
            src_ip_addrs: texts(&["192.168.7.1/32", "10.0.0.5/32"]),
            dst_ip_addrs: texts(&["192.168.7.0/32"]),
            src_routes: vec![
                Route { prefix: "192.168.7.0/32".into(), ..Default::default() },
                Route { prefix: "0.0.0.0/0".into(), ..Default::default() },
            ],
            dst_routes: vec![Route { prefix: "192.168.7.1/32".into(), ..Default::default() }],
            ..Default::default()
        };
        let source = || PointToPoint::new(pool("10.0.0.0/24"));
        let polite = Hop::new(source()).request("a", brought()).await.unwrap();
        assert_eq!(polite.src_ip_addrs, ["192.168.7.1/32", "10.0.0.5/32"]);
        assert_eq!(polite.dst_ip_addrs, ["192.168.7.0/32", "10.0.0.0/32"]);
        for strict in [Hop::new(source().strict()), Hop::new(Group::new([source().into()]).unwrap().strict())] {
            let context = strict.request("a", brought()).await.unwrap();
            assert_eq!(context.src_ip_addrs, ["10.0.0.5/32"]);
            assert_eq!(context.dst_ip_addrs, ["10.0.0.0/32"]);
            let routes = |routes: &[Route]| routes.iter().map(|route| route.prefix.clone()).collect::<Vec<_>>();
            assert_eq!(routes(&context.src_routes), ["0.0.0.0/0", "10.0.0.0/32"]);
            assert_eq!(routes(&context.dst_routes), ["10.0.0.5/32"]);
        }
    }

    #[test]
    fn sources_that_could_give_the_same_address_are_refused() {
        let source = |prefix: &str| PointToPoint::new(pool(prefix)).into();
        let error = Group::new([source("10.0.0.0/24"), source("fd00::/64"), source("10.0.0.0/8")]).unwrap_err();
        assert!(matches!(error, PoolError::Overlap { .. }), "{error}");
    }
}
