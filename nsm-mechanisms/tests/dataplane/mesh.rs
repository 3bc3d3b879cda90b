//! The elements of all roles, in one process, over real wires.

use nsm_api::{Connection, Path, PathSegment};
use nsm_chain::{Begin, Call, Chain, Element, Next, NextHop, Node, OwnedNext, Result, elements, from_fn};
use nsm_kernel::Underlay as Network;
use nsm_mechanisms::{
    CrossConnect, KernelAccept, KernelLiveness, KernelOffer, Linux, Mechanisms, Meter, Metered, Programmed, Underlay,
    Wired, Workload,
};

use super::*;

/// The way to the next hop, which here is another chain.
pub(super) struct To(pub(super) Chain);

impl Element for To {
    async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        let asked = Call::request(call.share(), call.preferences().to_vec());
        call.set_body(self.0.request(asked).await?.share());
        Ok(call)
    }

    async fn close(&self, call: Call, _next: Next<'_>) -> Result<Call> {
        self.0.close(Call::new(call.share())).await.map(|_| call)
    }
}

pub(super) fn endpoint(netns: &Netns) -> Chain {
    let accept = KernelAccept::new().in_netns(Workload::of(netns));
    let mechanisms = Mechanisms::new().with(nsm_api::mechanism::KERNEL, accept).unwrap();
    let addresses = from_fn(|mut call: Call, next: OwnedNext| {
        let mtu = call.connection().context.as_ref().map_or(0, |context| context.mtu);
        call.connection_mut().context = Some(ConnectionContext { mtu, ..context(1) });
        async move { next.request(call).await }
    });
    Chain::new("nse", elements![Begin::default(), mechanisms, addresses]).unwrap()
}

/// `more` stands behind `CrossConnect`.
pub(super) fn forwarder(plane: &(impl Metered + Clone), hop: &str, more: Vec<Node>, next: Chain) -> Chain {
    let hop: Arc<str> = hop.into();
    let discovery = from_fn(move |mut call: Call, next: OwnedNext| {
        call.set_fact(NextHop(Arc::clone(&hop)));
        async move { next.request(call).await }
    });
    let mut all = elements![Begin::default(), discovery, Meter::new(plane.clone()), CrossConnect::new(plane.clone())];
    all.extend(more);
    all.extend(elements![To(next)]);
    Chain::new("fwd", all).unwrap()
}

pub(super) fn client(netns: &Netns, next: Chain) -> Chain {
    let offer = KernelOffer::new().in_netns(Workload::of(netns));
    Chain::new("nsc", elements![Begin::initiator(), offer, To(next)]).unwrap()
}

pub(super) fn asked() -> Call {
    let segment = PathSegment { name: "nsc".into(), id: "1".into(), ..Default::default() };
    Call::new(Connection {
        id: "1".into(),
        network_service: "icmp-responder".into(),
        payload: payload::IP.into(),
        path: Some(Path { index: 0, path_segments: vec![segment] }),
        ..Default::default()
    })
}

#[tokio::test]
async fn a_client_reaches_an_endpoint_on_its_node_and_a_refresh_touches_nothing() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let linux = Linux::new("fwd").unwrap();
    let programmed = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&programmed);
    let forwarder = forwarder(&linux, "unix:///nse.sock", elements![], endpoint(&ns[1]));
    let watched = from_fn(move |call: Call, next: OwnedNext| {
        let noted = Arc::clone(&noted);
        async move {
            let call = next.request(call).await?;
            noted.lock().unwrap().push(call.fact::<Wired>().unwrap().programmed);
            Ok(call)
        }
    });
    let chain = client(&ns[0], Chain::new("fwd", elements![watched, forwarder]).unwrap());

    let call = chain.request(asked()).await.unwrap();
    assert_packets_both_ways(&ns, 1).await;
    let second = Duration::from_secs(1);
    assert!(KernelLiveness.is_alive(call.connection(), second).await);
    let refreshed = chain.request(Call::new(call.share())).await.unwrap();
    // Each of four pings of 58 or 78 octets and more passed either side, and its answer.
    let metrics = &refreshed.connection().current_segment().unwrap().metrics;
    for side in ["server", "client"] {
        for (key, least) in [("rx_packets", 4), ("tx_packets", 4), ("rx_bytes", 4 * 58), ("tx_bytes", 4 * 58)] {
            let counted: u64 = metrics[&format!("{side}_{key}")].parse().unwrap();
            assert!(counted >= least, "{side}_{key}: {metrics:?}");
        }
        let _a_number: u64 = metrics[&format!("{side}_drops")].parse().unwrap();
    }
    assert_eq!(*programmed.lock().unwrap(), [Programmed::Made, Programmed::Unchanged]);

    chain.close(Call::new(call.share())).await.unwrap();
    assert_nothing_left(&before, &ns).await;
    assert!(!KernelLiveness.is_alive(call.connection(), second / 4).await);
}

#[tokio::test]
async fn a_client_reaches_an_endpoint_on_another_node() {
    let network = match Network::create(2, "192.0.2.0/24".parse().unwrap()).await {
        Ok(network) => network,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let [a, b] = network.nodes() else { unreachable!("two were asked for") };
    let near = Linux::with_underlay("fwd-a", Underlay::new(a.ip()).with_mtu(1400), a.netns.clone()).unwrap();
    let far = Linux::with_underlay("fwd-b", Underlay::new(b.ip()), b.netns.clone()).unwrap();
    let far_chain = forwarder(&far, "unix:///nse.sock", elements![], endpoint(&ns[1]));
    let chain = client(&ns[0], forwarder(&near, "tcp://192.0.2.2:5001", elements![], far_chain));

    let call = chain.request(asked()).await.unwrap();
    assert_eq!(call.connection().context.as_ref().unwrap().mtu, 1400 - 54);
    assert_packets_both_ways(&ns, 1).await;
    assert!(KernelLiveness.is_alive(call.connection(), Duration::from_secs(1)).await);
    chain.close(Call::new(call.share())).await.unwrap();
    assert_nothing_left(&before, &ns).await;
    assert_eq!((near.wires(), far.wires()), (0, 0));
}
