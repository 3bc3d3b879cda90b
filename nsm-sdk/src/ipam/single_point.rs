//! One address for each client.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use nsm_api::IpContext;
use nsm_chain::{Call, Element, Next, Order, Result, Slot, State};

use super::assign::{self, Assign, Granted};
use super::context::{add_address, remove_src};
use super::{Exclusions, Lease, LeaseError, Pool};

/// Gives a Request one address of its pool for the client's side (src), with the length of the prefix it is of: all
/// clients are on one link, and need no routes to each other.
/// A Close gives it back once everything further on has been closed, as a failed first Request does.
///
/// It stands before whatever puts the address onto an interface, and after `Begin`, whose state keeps it.
///
/// The first address of a prefix and the last of an IPv4 one are nobody's: the network and its broadcast address
/// (RFC 919), the anycast address of its routers (RFC 4291 §2.6.1). Prefixes of one or two addresses are given whole
/// (RFC 3021, RFC 6164). Of refreshes, restarts and addresses that a Request brings the same holds as for
/// [`PointToPoint`](super::PointToPoint).
///
/// Reference: `ipam/singlepointipam` of the Go SDK.
#[derive(Debug)]
pub struct SinglePoint {
    pool: Pool,
    strict: bool,
    #[expect(dead_code, reason = "held so that nobody else gets them")]
    nobodys: Vec<Lease>,
    lease: Arc<Slot<Lease>>,
}

impl SinglePoint {
    /// Gives of this pool.
    ///
    /// # Errors
    /// [`LeaseError::Taken`] when a network or broadcast address has been leased already: make this first.
    pub fn new(pool: Pool) -> Result<Self, LeaseError> {
        let nobodys = pool
            .prefixes()
            .iter()
            .copied()
            .flat_map(nobodys)
            .map(|address| pool.take(address))
            .collect::<Result<_, _>>()?;
        Ok(Self { pool, strict: false, nobodys, lease: Arc::default() })
    }

    /// Takes addresses that are not of its pool, and the host routes to them, out of a Request. In a
    /// [`Group`](super::Group) say this of the group.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    fn lease_for(&self, context: &IpContext, excluded: &Exclusions) -> Result<Lease, LeaseError> {
        let brought = context.src_nets().map(|net| net.addr()).filter(|address| !excluded.contains(*address));
        match brought.filter_map(|address| self.pool.take(address).ok()).next() {
            Some(again) => Ok(again),
            None => self.pool.lease(excluded),
        }
    }

    fn write(&self, context: &mut IpContext, src: IpAddr) {
        remove_src(context, |address| address != src && self.pool.contains(address));
        let prefix_len = self.pool.prefix_of(src).unwrap_or(src.into()).prefix_len();
        add_address(&mut context.src_ip_addrs, IpNet::new(src, prefix_len).unwrap_or(src.into()));
    }
}

fn nobodys(prefix: IpNet) -> impl Iterator<Item = IpAddr> {
    let small = prefix.max_prefix_len() - prefix.prefix_len() < 2;
    let first = (!small).then(|| prefix.network());
    let last = (!small && prefix.addr().is_ipv4()).then(|| prefix.broadcast());
    first.into_iter().chain(last)
}

impl Assign for SinglePoint {
    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn assign(&self, state: &State, context: &mut IpContext, excluded: &Exclusions) -> Result<Granted> {
        let held = self.lease.with(state, |lease| lease.map(|lease| lease.address()));
        if let Some(src) = held.filter(|src| !excluded.contains(*src)) {
            self.write(context, src);
            return Ok(Granted::HELD);
        }
        let lease = self.lease_for(context, excluded)?;
        self.write(context, lease.address());
        let slot = Arc::clone(&self.lease);
        Ok(Granted::new(move |state| drop(slot.set(state, lease))))
    }
}

impl Element for SinglePoint {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        assign::request(&[self], self.strict, call, next).await
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Hop;
    use super::*;

    fn hop(prefixes: &[&str]) -> (Hop, Pool) {
        let pool = Pool::new(prefixes.iter().map(|prefix| prefix.parse().unwrap())).unwrap();
        (Hop::new(SinglePoint::new(pool.clone()).unwrap()), pool)
    }

    #[tokio::test(start_paused = true)]
    async fn clients_get_hosts_of_one_link_and_nothing_else() {
        let (hop, pool) = hop(&["10.0.0.0/29"]);
        let context = hop.request("a", IpContext::default()).await.unwrap();
        assert_eq!(context.src_ip_addrs, ["10.0.0.1/29"]);
        assert_eq!((context.dst_ip_addrs.len(), context.src_routes.len(), context.dst_routes.len()), (0, 0, 0));
        for id in ["b", "c", "d", "e", "f"] {
            hop.request(id, IpContext::default()).await.unwrap();
        }
        assert_eq!(
            hop.request("g", IpContext::default()).await.unwrap_err().code(),
            nsm_chain::Code::ResourceExhausted
        );
        hop.close("c").await;
        assert_eq!(hop.request("g", IpContext::default()).await.unwrap().src_ip_addrs, ["10.0.0.3/29"]);
        assert_eq!(pool.free(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn network_and_broadcast_are_nobodys_but_tiny_prefixes_are_given_whole() {
        for (prefix, clients) in
            [("10.0.0.0/30", 2), ("10.0.0.0/31", 2), ("10.0.0.0/32", 1), ("fd00::/126", 3), ("fd00::/127", 2)]
        {
            assert_eq!(hop(&[prefix]).1.free(), clients, "{prefix}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_keeps_the_address_until_it_is_excluded() {
        let (hop, pool) = hop(&["10.0.0.0/29"]);
        let mut context = hop.request("a", IpContext::default()).await.unwrap();
        assert_eq!(hop.request("a", context.clone()).await.unwrap(), context);
        context.excluded_prefixes.push("10.0.0.1/32".into());
        hop.fail(true);
        hop.request("a", context.clone()).await.unwrap_err();
        assert_eq!(pool.free(), 5, "the failed change gave back what it had taken, and kept what was established");
        hop.fail(false);
        assert_eq!(hop.request("a", context).await.unwrap().src_ip_addrs, ["10.0.0.2/29"]);
        assert_eq!(pool.free(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_a_client_keeps_its_address() {
        let (before, _) = hop(&["10.0.0.0/29"]);
        before.request("a", IpContext::default()).await.unwrap();
        let context = before.request("b", IpContext::default()).await.unwrap();
        let (after, _) = hop(&["10.0.0.0/29"]);
        assert_eq!(after.request("b", context.clone()).await.unwrap(), context);
        let other = after.request("c", context).await.unwrap();
        assert_eq!(other.src_ip_addrs, ["10.0.0.1/29"], "what is taken is not given to a second client");
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_address_that_was_leased_before_is_an_error() {
        let pool = Pool::new(["10.0.0.0/29".parse().unwrap()]).unwrap();
        let _lease = pool.lease(&Exclusions::NONE).unwrap();
        assert!(matches!(SinglePoint::new(pool), Err(LeaseError::Taken { .. })));
    }
}
