use std::time::Duration;

use ipnet::IpNet;
use nsm_api::mechanism::FileUrl;
use nsm_chain::{Node as Element, Timers, elements};
use nsm_mechanisms::{KernelOffer, Workload};

use super::*;
use crate::ipam::{PointToPoint, Pool};
use crate::lifecycle::Lifecycle;
use crate::lifetime::Reason;
use crate::stacks::Client;
use crate::testing::{Mesh, Node};

const SOON: Duration = Duration::from_secs(15);

/// A client on one node, an endpoint on another, and all that one looks at.
struct Two {
    mesh: Mesh,
    nodes: [Node; 2],
    pool: Pool,
    client: Client,
    timers: Timers,
}

impl Two {
    async fn new() -> Self {
        let mesh = Mesh::new().unwrap();
        mesh.wires().keep_log();
        mesh.network_service("vpn").await.unwrap();
        let nodes = [mesh.node("1").await.unwrap(), mesh.node("2").await.unwrap()];
        let pool = Pool::new(["10.0.0.0/24".parse::<IpNet>().unwrap()]).unwrap();
        let elements = elements![PointToPoint::new(pool.clone())];
        nodes[1].endpoint("nse", "vpn", elements).await.unwrap();
        let timers = Timers::default();
        let netns = Workload::at(FileUrl::from_path("/sim/nsc").unwrap());
        let offer: Vec<Element> = elements![KernelOffer::new().in_netns(netns)];
        let client = nodes[0].client("nsc").timers(timers.clone()).with(offer).build().unwrap();
        Self { mesh, nodes, pool, client, timers }
    }

    async fn ask(&self, id: &str) {
        let url = format!("kernel://vpn/nsm-{id}").parse().unwrap();
        self.client.request_url(&url, id, SOON).await.unwrap();
    }

    fn census(&self) -> Census {
        self.mesh.census([("nsc", &**self.client.connections(), &self.timers)])
    }

    fn broken(&self, ids: &[&str]) -> Vec<Rule> {
        let wanted = ids.iter().map(|id| ("nsc".to_owned(), (*id).to_owned())).collect();
        let mut rules: Vec<_> = while_quiet(&self.census(), &wanted).into_iter().map(|found| found.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_found_in_a_mesh_that_is_well_and_after_it_is_empty() {
    let two = Two::new().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let before = two.census();
    for id in ["a", "b"] {
        two.ask(id).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(while_quiet(&two.census(), &["a", "b"].map(|id| ("nsc".into(), id.into())).into()), []);
    assert_eq!(two.pool.free(), 256 - 4);
    two.client.shutdown(SOON).await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(as_before(&before, &two.census()), []);
    for url in [two.nodes[0].manager_url(), two.nodes[1].manager_url(), "mem://nse", "mem://forwarder-1"] {
        let links = two.nodes[0].links("somebody").unwrap();
        assert_eq!(closes_are_honest(&*links, url).await, []);
        assert!(!closes_are_honest(&*links, "mem://nobody").await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_found_and_named() {
    let two = Two::new().await;
    assert_eq!(two.broken(&["a"]), [Rule::Connected]);
    two.ask("a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(two.broken(&[]), [Rule::Unwanted]);

    let wanted = [("nsc".to_owned(), "a".to_owned())].into();
    let census = two.census();
    let wires = two.mesh.wires().wires();
    let [near, far] = &wires[..] else { panic!("{wires:?}") };
    let healthy: Since =
        [near, far].map(|(name, wire)| ((name.as_str().into(), wire.id.clone()), tokio::time::Instant::now())).into();
    assert_eq!(uncut(&two.mesh.wires().take_log(), &healthy), [], "they were made before");

    // A wire is gone, under everybody.
    two.mesh.wires().forget("forwarder-2");
    assert_eq!(two.broken(&["a"]), [Rule::Flowing, Rule::Wires, Rule::Vnis]);
    let told = flowing(&census, &wanted).pop().unwrap().to_string();
    assert!(told.starts_with("Flowing at nsc/a: expected packets to flow, seen nothing ends the tunnel"), "{told}");
    let [cut] = &uncut(&two.mesh.wires().take_log(), &healthy)[..] else { panic!("one wire was lost") };
    assert!(cut.at.starts_with("forwarder-2/") && cut.seen == "Lost", "{cut}");

    // A hop that has forgotten.
    two.nodes[1].restart_manager().unwrap();
    assert!(two.broken(&["a"]).contains(&Rule::Connections));

    // One that keeps, shows and times what nobody owns; an address of two.
    let mut strange = census;
    let hop = strange.hops.get_mut("nse").unwrap();
    let copy = hop.connections.values().next().cloned().unwrap();
    hop.connections.insert("lost".into(), copy);
    for (rule, found) in [
        (Rule::Connections, connections(&strange)),
        (Rule::Shown, shown(&strange)),
        (Rule::Timers, timers(&strange)),
        (Rule::Unshared, unshared(&strange)),
    ] {
        let [one, ..] = &found[..] else { panic!("{rule:?} found nothing") };
        assert_eq!((one.rule, &*one.at), (rule, "nse"), "{one}");
    }
    assert_eq!(unhurried(&[("nsc".to_owned(), 5)].into(), 4).len(), 1);
    assert_eq!((flat("octets", &[9, 10, 10, 10], 5), flat("octets", &[9, 10, 10, 11], 5).len()), (vec![], 1));
    assert!(as_before(&Census::default(), &strange).iter().any(|violation| violation.at == "nse"));
}

#[tokio::test(start_paused = true)]
async fn an_application_that_is_told_of_a_break_is_a_violation_but_for_what_may_break() {
    let (two, told) = (Two::new().await, Told::default());
    let hears = told.clone();
    let tells = Lifecycle::telling(move |id, change| hears.hear(id, change));
    let client = two.nodes[0].client("nsc-2").with(elements![tells]).build().unwrap();
    client.request_url(&"kernel://vpn/nsm-1".parse().unwrap(), "c", SOON).await.unwrap();
    assert_eq!(nothing_broke("nsc-2", &told, &[]), []);
    two.nodes[1].restart_manager().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let broke = nothing_broke("nsc-2", &told, &[]);
    assert!(broke.iter().any(|violation| violation.at == "nsc-2/c"), "{broke:?}");
    assert_eq!(nothing_broke("nsc-2", &told, &[Reason::HopLost]), []);
    assert_eq!(told.out_of_order("nsc-2"), []);
}
