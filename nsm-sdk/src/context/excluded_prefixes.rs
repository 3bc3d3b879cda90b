//! Keeps the connections of one client apart.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use nsm_api::IpContext;
use nsm_chain::{Call, Element, Error, Next, Order, Result, Slot};

use super::hosts_in_use::{Collision, Hosts, HostsInUse};
use super::{AwarenessGroups, exclude};

/// Excludes from a Request what the client's other connections have: their addresses and the hosts they have routes
/// to. An answer with an address that another connection has is refused, and closed further on.
/// A Close passes; what the connection had is free for others afterwards.
///
/// It stands in a client's stack, after `Begin`, before the Request leaves.
///
/// What a connection has itself is not excluded, so that a refresh keeps it. What was added for the way is taken out
/// of the answer again: the list does not grow by connections that are long gone. Neighbouring hosts are excluded as
/// one prefix. Connections of one of the [`AwarenessGroups`] may have the same addresses.
///
/// Reference: `common/excludedprefixes` (client) of the Go SDK. There two connections that are answered at the same
/// time can get the same address; here checking and remembering is one step.
#[derive(Debug, Default)]
pub struct ExcludedPrefixes {
    groups: AwarenessGroups,
    in_use: HostsInUse,
    hosts: Slot<Hosts>,
}

impl ExcludedPrefixes {
    /// Keeps each connection apart from each other.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets connections of one group share addresses.
    #[must_use]
    pub fn sharing_within(groups: AwarenessGroups) -> Self {
        Self { groups, ..Self::default() }
    }
}

impl Element for ExcludedPrefixes {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let state = Arc::clone(call.state()?);
        let held = self.hosts.with(&state, |hosts| hosts.map(|hosts| (hosts.group, Arc::clone(&hosts.list))));
        let (group, own) =
            held.unwrap_or_else(|| (self.groups.of(call.connection(), call.preferences()), Arc::default()));
        let prefixes: Vec<String> = self.in_use.closed_to(group, &own).iter().map(ToString::to_string).collect();
        let added = exclude(&mut call, &prefixes);
        let mut call = next.request(call).await?;
        if !added.is_empty() {
            let added: std::collections::HashSet<&String> = added.iter().collect();
            super::ip_context(call.connection_mut()).excluded_prefixes.retain(|prefix| !added.contains(prefix));
        }
        let answer = call.connection().context.as_ref().and_then(|context| context.ip_context.as_ref());
        let claimed = answer.map(|answer| {
            let addresses = addresses(answer);
            not_excluded(answer, &addresses)?;
            let mut hosts = addresses.clone();
            hosts.extend(routed_hosts(answer));
            self.in_use.claim(group, &own, &addresses, hosts)
        });
        match claimed.transpose() {
            Ok(Some(hosts)) => drop(self.hosts.set(&state, hosts)),
            Ok(None) => drop(self.hosts.take(&state)),
            Err(collision) => {
                let error = Error::taken("the endpoint's addresses cannot be used").because(collision);
                let error = error.hint("give the endpoints different prefixes, or name them as an awareness group");
                return Err(next.undo(call, error).await);
            }
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

fn addresses(context: &IpContext) -> Vec<IpAddr> {
    context.src_nets().chain(context.dst_nets()).map(|net| net.addr()).collect()
}

/// Only hosts: a route to a net is often meant to be shared, as a default route is.
fn routed_hosts(context: &IpContext) -> impl Iterator<Item = IpAddr> + '_ {
    let routes = context.src_routes.iter().chain(&context.dst_routes);
    routes.filter_map(|route| route.prefix.parse().ok()).filter_map(host)
}

fn host(net: IpNet) -> Option<IpAddr> {
    (net.prefix_len() == net.max_prefix_len()).then_some(net.addr())
}

/// Whether a single address that the Request excluded came all the same. Nets are for the endpoint to keep to: some
/// have fixed addresses that a cluster's exclusions cover.
fn not_excluded(context: &IpContext, addresses: &[IpAddr]) -> Result<(), Collision> {
    let excluded = context.excluded_nets().filter_map(host).find(|host| addresses.contains(host));
    excluded.map_or(Ok(()), |host| Err(Collision::Excluded(host)))
}

#[cfg(test)]
mod tests {
    use nsm_api::connection::{Connection, Mechanism};
    use nsm_api::connectioncontext::Route;
    use nsm_chain::Code;

    use super::super::ip_context;
    use super::super::testing::{Hop, connection, ip, texts};
    use super::*;

    /// An endpoint that gives the addresses written into the connection's labels, whatever is excluded.
    fn give(connection: &mut Connection) -> Result<()> {
        let give = connection.labels.get("give").cloned().unwrap_or_default();
        let nets: Vec<String> = give.split_whitespace().map(|host| format!("{host}/32")).collect();
        let context = ip_context(connection);
        context.dst_ip_addrs = nets.first().cloned().into_iter().collect();
        context.src_ip_addrs = nets.get(1).cloned().into_iter().collect();
        context.src_routes =
            nets.get(2).map(|prefix| Route { prefix: prefix.clone(), ..Default::default() }).into_iter().collect();
        context.src_routes.push(Route { prefix: "0.0.0.0/0".into(), ..Default::default() });
        Ok(())
    }

    fn asking(id: &str, give: &str) -> Connection {
        Connection { labels: [("give".into(), give.into())].into(), network_service: "vpn".into(), ..connection(id) }
    }

    fn hop() -> (Hop, HostsInUse) {
        let element = ExcludedPrefixes::new();
        let in_use = element.in_use.clone();
        (Hop::answering(element, give), in_use)
    }

    fn excluded(hop: &Hop) -> Vec<String> {
        let mut list = ip(&hop.requested()).excluded_prefixes;
        list.sort();
        list
    }

    #[tokio::test(start_paused = true)]
    async fn others_hosts_are_excluded_on_the_way_and_not_in_the_answer() {
        let (hop, _) = hop();
        hop.request(asking("a", "10.0.0.0 10.0.0.1 10.9.9.9")).await.unwrap();
        assert!(excluded(&hop).is_empty());
        let mut asked = asking("b", "10.0.0.4 10.0.0.5");
        ip_context(&mut asked).excluded_prefixes = texts(&["192.168.0.0/16"]);
        let answered = hop.request(asked).await.unwrap();
        assert_eq!(excluded(&hop), ["10.0.0.0/31", "10.9.9.9/32", "192.168.0.0/16"]);
        assert_eq!(ip(&answered).excluded_prefixes, ["192.168.0.0/16"]);
        hop.request(answered).await.unwrap();
        assert_eq!(excluded(&hop), ["10.0.0.0/31", "10.9.9.9/32", "192.168.0.0/16"], "its own are not excluded");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_closed_or_changed_connection_had_is_free() {
        let (hop, in_use) = hop();
        hop.request(asking("a", "10.0.0.0 10.0.0.1")).await.unwrap();
        hop.request(asking("a", "10.0.0.8 10.0.0.9")).await.unwrap();
        hop.request(asking("b", "10.0.0.0 10.0.0.1")).await.unwrap();
        assert_eq!(excluded(&hop), ["10.0.0.8/31"]);
        hop.close("a").await;
        hop.close("b").await;
        assert!(in_use.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_collides_is_closed_further_on_and_refused() {
        let (hop, in_use) = hop();
        hop.request(asking("a", "10.0.0.0 10.0.0.1 10.9.9.9")).await.unwrap();
        for taken in ["10.0.0.4 10.0.0.1", "10.0.0.0 10.0.0.5", "10.0.0.4 10.9.9.9"] {
            let error = hop.request(asking("b", taken)).await.unwrap_err();
            assert_eq!(error.code(), Code::AlreadyExists);
            assert!(error.is_caused_by::<Collision>(), "{error}");
        }
        assert_eq!(hop.closed().iter().map(|closed| closed.id.as_str()).collect::<Vec<_>>(), ["b", "b", "b"]);
        hop.request(asking("b", "10.0.0.4 10.0.0.5 10.9.9.9")).await.unwrap();
        hop.close("a").await;
        hop.close("b").await;
        assert!(in_use.is_empty(), "a route that both had is gone with the second");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_was_excluded_by_itself_is_refused_one_of_an_excluded_net_is_not() {
        let (hop, in_use) = hop();
        let asked = |prefix: &str| {
            let mut asked = asking("a", "10.0.0.0 10.0.0.1");
            ip_context(&mut asked).excluded_prefixes = texts(&[prefix]);
            asked
        };
        let error = hop.request(asked("10.0.0.1/32")).await.unwrap_err();
        assert!(error.to_string().contains("the Request excluded 10.0.0.1"), "{error}");
        assert!(in_use.is_empty());
        hop.request(asked("10.0.0.0/8")).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_refresh_changes_nothing() {
        let element = ExcludedPrefixes::new();
        let hop = Hop::answering(element, |connection| {
            if connection.labels.contains_key("fail") { Err(Error::unavailable("no")) } else { give(connection) }
        });
        let mut first = hop.request(asking("a", "10.0.0.0 10.0.0.1")).await.unwrap();
        first.labels.insert("fail".into(), String::new());
        hop.request(first).await.unwrap_err();
        hop.request(asking("b", "10.0.0.4 10.0.0.5")).await.unwrap();
        assert_eq!(excluded(&hop), ["10.0.0.0/31"]);
    }

    #[tokio::test(start_paused = true)]
    async fn two_answered_at_the_same_time_do_not_both_get_an_address() {
        let both_asked = Arc::new(tokio::sync::Barrier::new(2));
        let wait = nsm_chain::from_fn(move |call: Call, _| {
            let both_asked = Arc::clone(&both_asked);
            async move {
                both_asked.wait().await;
                let mut call = call;
                give(call.connection_mut())?;
                Ok(call)
            }
        });
        let chain = nsm_chain::Chain::new(
            "nsc",
            nsm_chain::elements![nsm_chain::Begin::default(), ExcludedPrefixes::new(), wait],
        )
        .unwrap();
        let ask = |id| chain.request(Call::new(asking(id, "10.0.0.0 10.0.0.1")));
        let (one, other) = tokio::join!(ask("a"), ask("b"));
        assert!(one.is_ok() != other.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_of_one_group_share_addresses_others_do_not() {
        let hop = Hop::answering(ExcludedPrefixes::sharing_within("[kernel://vpn]".parse().unwrap()), give);
        let aware = |id: &str| Call::request(asking(id, "10.0.0.0 10.0.0.1"), vec![Mechanism::kernel()]);
        hop.call(aware("a")).await.unwrap();
        hop.call(aware("b")).await.unwrap();
        assert!(excluded(&hop).is_empty());
        hop.close("a").await;
        let error = hop.request(asking("c", "10.0.0.0 10.0.0.1")).await.unwrap_err();
        assert_eq!(excluded(&hop), ["10.0.0.0/31"]);
        assert!(error.is_caused_by::<Collision>(), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_neighbours_are_excluded_as_a_few_prefixes() {
        let (hop, in_use) = hop();
        for n in 0..1000u32 {
            let pair = [2 * n, 2 * n + 1].map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string());
            hop.request(asking(&n.to_string(), &pair.join(" "))).await.unwrap();
        }
        hop.request(asking("one more", "10.1.0.0 10.1.0.1")).await.unwrap();
        assert!(excluded(&hop).len() < 10, "{:?}", excluded(&hop));
        for n in 0..1000 {
            hop.close(&n.to_string()).await;
        }
        hop.close("one more").await;
        assert!(in_use.is_empty());
    }
}
