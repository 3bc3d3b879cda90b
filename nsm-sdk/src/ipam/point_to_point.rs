//! A pair of addresses for each connection.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use nsm_api::IpContext;
use nsm_chain::{Call, Element, Next, Order, Result, Slot, State};

use super::assign::{self, Assign, Granted};
use super::context::{add_address, add_host_route, remove_dst, remove_src};
use super::{Exclusions, Lease, Pool};

/// Gives a Request two addresses of its pool: the lower for the endpoint's side (dst), the next for the client's
/// (src), each as a host (`/32`, `/128`), and to each side a host route to the other.
/// A Close gives them back once everything further on has been closed, as a failed first Request does.
///
/// It stands before whatever puts the addresses onto an interface, and after `Begin`, whose state keeps them.
///
/// A later Request of the same connection gets the same pair, unless an address of it has been excluded meanwhile; if
/// that Request fails the connection keeps the pair it had. After a restart of this process nothing is known of the
/// connections that go on existing: the addresses that a Request brings are taken for it again, each if it is free
/// and not excluded. So a client that healed to another endpoint of the same prefixes keeps its address if it can.
/// An address of the pool that the Request brings but cannot have is taken out of it, with its route: it is somebody
/// else's, or soon would be. Addresses of no prefix of the pool stay, unless it is [`strict`](Self::strict), or the
/// connection comes from another endpoint, which gives them to others.
///
/// Reference: `ipam/point2pointipam` of the Go SDK, whose table keeps an entry of a failed first Request after its
/// addresses went back, and so may give them to two connections. Here the entry is the addresses.
#[derive(Debug)]
pub struct PointToPoint {
    pool: Pool,
    strict: bool,
    pair: Arc<Slot<Pair>>,
}

struct Pair {
    dst: Lease,
    src: Lease,
}

impl PointToPoint {
    /// Gives of this pool.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, strict: false, pair: Arc::default() }
    }

    /// Takes addresses that are not of its pool, and the host routes to them, out of a Request: what a client brings
    /// from elsewhere does not get further. In a [`Group`](super::Group) say this of the group.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// The first address of those a Request brings that it may have (again).
    fn again(&self, mut brought: impl Iterator<Item = IpNet>, excluded: &Exclusions) -> Option<Lease> {
        brought.find_map(|net| if excluded.contains(net.addr()) { None } else { self.pool.take(net.addr()).ok() })
    }

    fn pair_for(&self, context: &IpContext, excluded: &Exclusions) -> Result<Pair> {
        let dst = self.again(context.dst_nets(), excluded);
        let src = self.again(context.src_nets(), excluded);
        Ok(match (dst, src) {
            (Some(dst), Some(src)) => Pair { dst, src },
            (Some(dst), None) => Pair { dst, src: self.pool.lease(excluded)? },
            (None, Some(src)) => Pair { dst: self.pool.lease(excluded)?, src },
            (None, None) => {
                let (dst, src) = self.pool.lease_pair(excluded)?;
                Pair { dst, src }
            }
        })
    }

    fn write(&self, context: &mut IpContext, dst: IpAddr, src: IpAddr) {
        remove_dst(context, |address| address != dst && self.pool.contains(address));
        remove_src(context, |address| address != src && self.pool.contains(address));
        add_address(&mut context.dst_ip_addrs, dst.into());
        add_address(&mut context.src_ip_addrs, src.into());
        add_host_route(&mut context.src_routes, dst);
        add_host_route(&mut context.dst_routes, src);
    }
}

impl Assign for PointToPoint {
    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn assign(&self, state: &State, context: &mut IpContext, excluded: &Exclusions) -> Result<Granted> {
        let held = self.pair.with(state, |pair| pair.map(|pair| (pair.dst.address(), pair.src.address())));
        if let Some((dst, src)) = held.filter(|(dst, src)| !excluded.contains(*dst) && !excluded.contains(*src)) {
            self.write(context, dst, src);
            return Ok(Granted::HELD);
        }
        let pair = self.pair_for(context, excluded)?;
        self.write(context, pair.dst.address(), pair.src.address());
        let slot = Arc::clone(&self.pair);
        Ok(Granted::new(move |state| drop(slot.set(state, pair))))
    }
}

impl Element for PointToPoint {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        assign::request(&[self], self.strict, call, next).await
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

#[cfg(test)]
mod tests {
    use nsm_chain::Code;

    use super::super::testing::{Hop, texts};
    use super::*;

    fn hop(prefix: &str) -> (Hop, Pool) {
        let pool = Pool::new([prefix.parse().unwrap()]).unwrap();
        (Hop::new(PointToPoint::new(pool.clone())), pool)
    }

    fn excluding(prefixes: &[&str]) -> IpContext {
        IpContext { excluded_prefixes: texts(prefixes), ..Default::default() }
    }

    #[track_caller]
    fn assert_pair(context: &IpContext, dst: &str, src: &str) {
        let route = |host: &str| nsm_api::connectioncontext::Route { prefix: host.into(), next_hop: String::new() };
        assert_eq!(context.dst_ip_addrs, [dst]);
        assert_eq!(context.src_ip_addrs, [src]);
        assert_eq!(context.src_routes, [route(dst)]);
        assert_eq!(context.dst_routes, [route(src)]);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_get_pairs_in_order_and_a_closed_ones_pair_is_next() {
        let (hop, _) = hop("192.168.3.4/16");
        assert_pair(&hop.request("a", IpContext::default()).await.unwrap(), "192.168.0.0/32", "192.168.0.1/32");
        assert_pair(&hop.request("b", IpContext::default()).await.unwrap(), "192.168.0.2/32", "192.168.0.3/32");
        hop.close("a").await;
        assert_pair(&hop.request("c", IpContext::default()).await.unwrap(), "192.168.0.0/32", "192.168.0.1/32");
        assert_pair(&hop.request("d", IpContext::default()).await.unwrap(), "192.168.0.4/32", "192.168.0.5/32");
    }

    #[tokio::test(start_paused = true)]
    async fn ipv6_hosts_have_128_bits() {
        let (hop, _) = hop("fe80::/64");
        assert_pair(&hop.request("a", IpContext::default()).await.unwrap(), "fe80::/128", "fe80::1/128");
    }

    #[tokio::test(start_paused = true)]
    async fn excluded_addresses_are_stepped_over() {
        let (hop, _) = hop("192.168.1.0/24");
        let excluded = || excluding(&["192.168.1.1/32", "192.168.1.3/32", "192.168.1.6/32"]);
        assert_pair(&hop.request("a", excluded()).await.unwrap(), "192.168.1.0/32", "192.168.1.2/32");
        assert_pair(&hop.request("b", excluded()).await.unwrap(), "192.168.1.4/32", "192.168.1.5/32");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_without_a_pair_left_is_an_error_until_a_close() {
        let (hop, pool) = hop("192.168.1.2/31");
        hop.request("a", IpContext::default()).await.unwrap();
        let error = hop.request("b", IpContext::default()).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(
            error.to_string(),
            "nse/PointToPoint: no address for the connection: no free address left in 192.168.1.2/31 that is not excluded: add a prefix to the pool, close connections, or exclude less"
        );
        hop.close("a").await;
        assert_eq!(hop.request("b", excluding(&["192.168.1.2/31"])).await.unwrap_err().code(), Code::ResourceExhausted);
        hop.request("b", IpContext::default()).await.unwrap();
        assert_eq!(pool.free(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_first_request_leaves_nothing_and_a_failed_refresh_keeps_the_pair() {
        let (hop, pool) = hop("10.0.0.0/29");
        hop.fail(true);
        hop.request("a", IpContext::default()).await.unwrap_err();
        assert_eq!(pool.free(), 8);
        hop.fail(false);
        let context = hop.request("a", IpContext::default()).await.unwrap();
        hop.fail(true);
        hop.request("a", context.clone()).await.unwrap_err();
        let moved = IpContext { excluded_prefixes: texts(&["10.0.0.1"]), ..context.clone() };
        hop.request("a", moved).await.unwrap_err();
        assert_eq!(pool.free(), 6);
        hop.fail(false);
        assert_eq!(hop.request("a", context.clone()).await.unwrap(), context);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_keeps_the_pair_until_an_address_of_it_is_excluded() {
        let (hop, pool) = hop("192.168.3.4/16");
        let mut context = hop.request("a", excluding(&["192.168.0.1/32"])).await.unwrap();
        assert_pair(&context, "192.168.0.0/32", "192.168.0.2/32");
        assert_eq!(hop.request("a", context.clone()).await.unwrap(), context);
        // Even one that has forgotten its context gets the same again.
        let forgetful = hop.request("a", excluding(&["192.168.0.1/32"])).await.unwrap();
        assert_eq!(forgetful, context);
        context.excluded_prefixes.push("192.168.0.0/30".into());
        let context = hop.request("a", context).await.unwrap();
        assert_pair(&context, "192.168.0.4/32", "192.168.0.5/32");
        assert_eq!(pool.free(), (1 << 16) - 2, "the old pair is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_a_connection_gets_what_it_brings() {
        let (before, _) = hop("10.0.0.0/24");
        before.request("a", IpContext::default()).await.unwrap();
        let b = before.request("b", IpContext::default()).await.unwrap();
        let (after, pool) = hop("10.0.0.0/24");
        assert_eq!(after.request("b", b.clone()).await.unwrap(), b);
        // A second claim to the same addresses gets others, in the place of those.
        assert_pair(&after.request("c", b.clone()).await.unwrap(), "10.0.0.0/32", "10.0.0.1/32");
        after.close("b").await;
        after.close("c").await;
        assert_eq!(pool.free(), 256);
    }

    #[tokio::test(start_paused = true)]
    async fn a_healed_client_keeps_its_address_where_the_endpoints_one_is_taken() {
        let (hop, _) = hop("10.0.0.0/24");
        hop.request("other", IpContext::default()).await.unwrap();
        let brought = IpContext {
            dst_ip_addrs: texts(&["10.0.0.0/32"]),
            src_ip_addrs: texts(&["10.0.0.9/32"]),
            ..Default::default()
        };
        assert_pair(&hop.request("a", brought).await.unwrap(), "10.0.0.2/32", "10.0.0.9/32");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_brought_but_excluded_is_not_given() {
        let (hop, _) = hop("10.0.0.0/24");
        let brought = IpContext {
            dst_ip_addrs: texts(&["10.0.0.8/32"]),
            src_ip_addrs: texts(&["10.0.0.9/32"]),
            excluded_prefixes: texts(&["10.0.0.8/31"]),
            ..Default::default()
        };
        assert_pair(&hop.request("a", brought).await.unwrap(), "10.0.0.0/32", "10.0.0.1/32");
    }

    #[tokio::test(start_paused = true)]
    async fn an_exclusion_that_cannot_be_read_is_refused_rather_than_lost() {
        let (hop, pool) = hop("10.0.0.0/24");
        let error = hop.request("a", excluding(&["10.0.0.0/33"])).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains(r#"excluded_prefixes[0] is "10.0.0.0/33", not a prefix"#), "{error}");
        assert_eq!(pool.free(), 256);
    }
}
