//! What a wire may carry, what it has carried, and what becomes of addresses on it.

use nsm_kernel::{Netns, Underlay as Network};
use nsm_mechanisms::{Dataplane, Linux, Mended, Metered, Programmed, RateLimit, Reach, Reconciled, Underlay};

use super::*;

/// Sends this many datagrams of 1000 octets at once; says how many arrive.
async fn flood(from: &Netns, to: &Netns, at: IpAddr, datagrams: usize) -> usize {
    let server = to.udp_socket((at, 0).into()).await.unwrap();
    let client = from.udp_socket("0.0.0.0:0".parse().unwrap()).await.unwrap();
    // Without the runtime, which would look for packets only now and then: what is not read in time finds no room.
    let (server, client) = (server.into_std().unwrap(), client.into_std().unwrap());
    let (mut buffer, mut arrived) = ([0; 1500], 0);
    for _ in 0..datagrams {
        let _dropped = client.send_to(&[7; 1000], server.local_addr().unwrap());
        while server.recv(&mut buffer).is_ok() {
            arrived += 1;
        }
    }
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    while server.recv(&mut buffer).is_ok() {
        arrived += 1;
    }
    arrived
}

fn limit(wire: &mut Wire, up: &str, down: &str) {
    let entries =
        [("rate_limit_up", up), ("rate_limit_down", down)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    wire.context.extra_context = entries.into();
}

/// Which of both directions is limited. 200 datagrams find room on a free wire; at 800 kbit some 28 do, and one each 10 ms.
async fn limited(ns: &[Netns; 2]) -> [bool; 2] {
    let ([client, endpoint], sent) = (ns, 200);
    let up = flood(client, endpoint, addresses(1, 0)[0], sent).await;
    let down = flood(endpoint, client, addresses(1, 1)[0], sent).await;
    [up, down].map(|arrived| arrived < sent)
}

#[tokio::test]
async fn a_limit_holds_in_its_direction_is_changed_in_place_and_outlives_a_restart() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let linux = Linux::new("fwd").unwrap();
    let mut wire = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    limit(&mut wire, "800kbit", "");
    linux.connect(&wire).await.unwrap();
    assert_eq!(limited(&ns).await, [true, false]);
    let traffic = linux.traffic("1").await.unwrap();
    assert!(traffic.reasons["rate_limit"] > 0 && traffic.caller.drops > 0, "{traffic:?}");

    limit(&mut wire, "0", "800kbit");
    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Changed { writes: 2 });
    assert_eq!(limited(&ns).await, [false, true]);
    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Unchanged);

    // Another life of the forwarder takes it up, with what is said now.
    drop(linux);
    let linux = Linux::new("fwd").unwrap();
    limit(&mut wire, "800kbit", "");
    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Adopted);
    assert_eq!(limited(&ns).await, [true, false]);

    limit(&mut wire, "fast", "");
    let error = linux.connect(&wire).await.unwrap_err();
    assert_eq!(error.code(), nsm_chain::Code::InvalidArgument, "{error}");
    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &ns).await;
}

#[tokio::test]
async fn a_default_is_for_those_who_say_nothing_and_over_a_tunnel_each_node_limits_its_end() {
    let network = match Network::create(2, "192.0.2.0/24".parse().unwrap()).await {
        Ok(network) => network,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let Some(ns) = workloads().await else { return };
    let [a, b] = network.nodes() else { unreachable!("two were asked for") };
    let near = Linux::with_underlay("fwd-a", Underlay::new(a.ip()), a.netns.clone()).unwrap();
    let far = Linux::with_underlay("fwd-b", Underlay::new(b.ip()), b.netns.clone()).unwrap();
    let near = near.with_rate_limit(RateLimit::both("800kbit".parse().unwrap()));
    let chain = mesh::client(
        &ns[0],
        mesh::forwarder(
            &near,
            "tcp://192.0.2.2:5001",
            vec![],
            mesh::forwarder(&far, "unix:///nse.sock", vec![], mesh::endpoint(&ns[1])),
        ),
    );
    chain.request(mesh::asked()).await.unwrap();
    assert_eq!(limited(&ns).await, [true, false]);
    // The one device is the interface at one side and the tunnel at the other.
    let (near, far) = (near.all_traffic().await, far.all_traffic().await);
    let (near, far) = (near.values().next().unwrap(), far.values().next().unwrap());
    assert_eq!((near.caller.rx_packets, near.caller.tx_packets), (near.next.tx_packets, near.next.rx_packets));
    assert!(near.next.rx_bytes >= 200 * 1000 && far.caller.tx_bytes >= 200 * 1000, "{near:?} {far:?}");
    // Of the other direction some 50 got through, and what the kernel says by itself.
    assert!(near.next.tx_packets < 150 && far.caller.rx_packets < 150, "{near:?} {far:?}");
}

#[tokio::test]
async fn addresses_are_translated_as_the_endpoint_asks_and_no_longer_than_the_wire_lives() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let linux = Linux::new("fwd").unwrap();
    let with = |template: &str| {
        let mut endpoint = kernel(&ns[1], "nse-1");
        endpoint.as_kernel_mut().unwrap().set_iptables4_nat_template(template);
        wire("1", kernel(&ns[0], "nsm-1"), endpoint, 1)
    };
    let answers_at = async |port: u16| {
        let server = ns[1].udp_socket((addresses(1, 0)[0], port).into()).await.unwrap();
        let client = ns[0].udp_socket("0.0.0.0:0".parse().unwrap()).await.unwrap();
        client.send_to(b"x", (addresses(1, 0)[0], 1000)).await.unwrap();
        let received = tokio::time::timeout(Duration::from_millis(500), server.recv_from(&mut [0; 8])).await;
        received.is_ok()
    };
    let template = |port: u16| {
        format!(
            "-N NSM_PREROUTE; -A NSM_PREROUTE -p udp -j REDIRECT --to-port {port}; \
             -I PREROUTING 1 -p udp -i {{{{ .NsmInterfaceName }}}} -d {{{{ index .NsmDstIPs 0 }}}} -j NSM_PREROUTE"
        )
    };
    linux.connect(&with(&template(8080))).await.unwrap();
    assert!(answers_at(8080).await && !answers_at(1000).await);
    assert_eq!(linux.connect(&with(&template(9090))).await.unwrap(), Programmed::Changed { writes: 1 });
    assert!(answers_at(9090).await);

    // Somebody takes the rules away: the interface of the same name and mark, made by hand without them.
    let census_of = async || linux.census(Reach::Wires).await.drifted;
    assert!(census_of().await.is_empty());
    let other = Linux::new("fwd").unwrap();
    assert_eq!(other.connect(&with("")).await.unwrap(), Programmed::Adopted);
    assert!(answers_at(1000).await);
    assert_eq!(census_of().await, [Arc::from("1")]);
    assert_eq!(linux.mend("1").await.unwrap(), Mended::Changed { writes: 1 });
    assert!(answers_at(9090).await && census_of().await.is_empty());

    // What cannot be had is refused, and what was there stays.
    let error = linux.connect(&with("-A PREROUTING -m string --string x -j ACCEPT")).await.unwrap_err();
    assert!(error.to_string().contains("-m string"), "{error}");
    assert!(answers_at(9090).await);
    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &ns).await;
}
