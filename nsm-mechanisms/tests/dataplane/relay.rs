//! A node in the middle, with a tunnel on either side.

use std::process::Command;

use nsm_chain::{Code, elements};
use nsm_kernel::{Node, Underlay as Network};
use nsm_mechanisms::{Class, Dataplane, Linux, Mended, Programmed, Reach, Reconcile, Reconciled, Underlay, Vni};

use super::mend::{NEVER, ip, until};
use super::*;

/// Three nodes on a network of their own, the middle one with a process in it; or none where that is not possible.
struct Line {
    network: Network,
    linux: [Linux; 3],
    /// As their forwarders negotiated them, one after the other.
    legs: [Mechanism; 2],
    _leases: [Option<Arc<Vni>>; 2],
    ns: [Netns; 2],
}

fn linux(node: &Node, name: &str) -> Linux {
    Linux::with_underlay(name, Underlay::new(node.ip()), node.netns.clone()).unwrap()
}

impl Line {
    async fn new(prefix: &str) -> Option<Self> {
        let network = match Network::create(3, prefix.parse().unwrap()).await {
            Ok(network) => network,
            Err(error) => {
                eprintln!("skipped: {error}");
                return None;
            }
        };
        let ns = workloads().await?;
        let [a, b, c] = network.nodes() else { unreachable!("three were asked for") };
        let linux = [linux(a, "fwd-a"), linux(b, "fwd-b"), linux(c, "fwd-c")];
        let leg = |from: usize, to: usize| {
            let mut mechanism = linux[from].offers("1", Class::Remote, payload::IP).remove(0);
            let lease = linux[to].accept("1", &mut mechanism, None).unwrap();
            (mechanism, lease)
        };
        let ((first, one), (second, two)) = (leg(0, 1), leg(1, 2));
        Some(Self { network, linux, legs: [first, second], _leases: [one, two], ns })
    }

    fn middle(&self) -> &Netns {
        &self.network.nodes()[1].netns
    }

    fn relay(&self) -> Wire {
        Wire { context: ConnectionContext::default(), ..wire("1", self.legs[0].clone(), self.legs[1].clone(), 1) }
    }

    async fn connect(&self) {
        let near = wire("1", kernel(&self.ns[0], "nsm-1"), self.legs[0].clone(), 1);
        let far = wire("1", self.legs[1].clone(), kernel(&self.ns[1], "nse-1"), 1);
        for (linux, wire) in self.linux.iter().zip([&near, &self.relay(), &far]) {
            assert_eq!(linux.connect(wire).await.unwrap(), Programmed::Made);
        }
    }

    /// Names and numbers of the relay's interfaces.
    async fn sides(&self) -> Vec<(String, u32)> {
        let links = links_with_mark(self.middle(), "nsm:").await.unwrap();
        let mut sides: Vec<_> = links.into_iter().map(|link| (link.name, link.index)).collect();
        sides.sort_unstable_by_key(|(_, index)| *index);
        sides
    }
}

async fn over(prefix: &str) {
    let Some(line) = Line::new(prefix).await else { return };
    let middle = [line.middle().clone()];
    let before = (census(&line.ns).await, census(&middle).await);
    line.connect().await;
    assert_packets_both_ways(&line.ns, 1).await;
    // Two interfaces and nothing else: no address, no route.
    let sides = line.sides().await;
    let appeared = before.1[0].diff(&Census::take(line.middle()).await.unwrap()).appeared;
    assert_eq!((sides.len(), appeared.len()), (2, 2), "{appeared:?}");
    assert_eq!(line.linux[1].connect(&line.relay()).await.unwrap(), Programmed::Unchanged);
    assert_eq!(line.linux[1].census(Reach::Wires).await.drifted, []);

    line.linux[1].disconnect("1").await.unwrap();
    assert_nothing_left(&before.1, &middle).await;
    let [client, endpoint] = [1, 0].map(|host| addresses(1, host)[0]);
    assert!(!answers(&line.ns[0], client, endpoint).await);
    line.linux[0].disconnect("1").await.unwrap();
    line.linux[2].disconnect("1").await.unwrap();
    assert_nothing_left(&before.0, &line.ns).await;
}

#[tokio::test]
async fn a_relay_carries_packets_over_ipv4_and_leaves_nothing() {
    over("192.0.2.0/24").await;
}

#[tokio::test]
async fn a_relay_carries_packets_over_ipv6_and_leaves_nothing() {
    over("2001:db8::/64").await;
}

#[tokio::test]
async fn a_restarted_forwarder_takes_up_its_relay_which_had_gone_on() {
    let Some(line) = Line::new("192.0.2.0/24").await else { return };
    line.connect().await;
    let sides = line.sides().await;
    let restarted = linux(&line.network.nodes()[1], "fwd-b");
    assert_packets_both_ways(&line.ns, 1).await;
    // Two strays until somebody asks for it.
    let mut child = line.middle().run(|| Command::new("sleep").arg("1000").spawn()).await.unwrap();
    let mut strays = restarted.census(Reach::Everywhere).await.strays;
    strays.retain(|stray| stray.netns == line.middle().id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(strays.len(), 2, "{strays:?}");
    assert_eq!(restarted.connect(&line.relay()).await.unwrap(), Programmed::Adopted);
    assert_eq!(line.sides().await, sides);
    assert_packets_both_ways(&line.ns, 1).await;
    restarted.disconnect("1").await.unwrap();
    assert_eq!(line.sides().await, []);
}

#[tokio::test]
async fn whatever_somebody_does_to_a_relay_is_found_and_mended() {
    let Some(line) = Line::new("192.0.2.0/24").await else { return };
    line.connect().await;
    for damage in ["link set SIDE down", "link del SIDE", "filter del dev SIDE ingress", "qdisc del dev SIDE clsact"] {
        for at in [0, 1] {
            let (side, _) = line.sides().await.remove(at);
            let command = damage.replace("SIDE", &side);
            if damage.starts_with("link") {
                ip(line.middle(), &command).await;
            } else {
                let words: Vec<_> = command.split(' ').map(str::to_owned).collect();
                let done = line.middle().run(move || Command::new("tc").args(words).status()).await.unwrap();
                assert!(done.success(), "{command}");
            }
            assert_eq!(line.linux[1].census(Reach::Wires).await.drifted, [Arc::from("1")], "{command}");
            let mended = line.linux[1].mend("1").await.unwrap();
            assert_ne!(mended, Mended::Whole, "{command}");
            assert_eq!(line.linux[1].census(Reach::Wires).await.drifted, [], "{command}: {mended:?}");
            assert_packets_both_ways(&line.ns, 1).await;
        }
    }
    assert_eq!(line.linux[1].mend("1").await.unwrap(), Mended::Whole);
}

#[tokio::test]
async fn a_side_of_a_relay_that_goes_is_heard_of_at_once_and_no_process_must_be_on_the_node() {
    let Some(line) = Line::new("192.0.2.0/24").await else { return };
    let mut child = line.middle().run(|| Command::new("sleep").arg("1000").spawn()).await.unwrap();
    let _reconcile = Reconcile::start(line.linux[1].clone(), NEVER).await;
    line.connect().await;
    // A node without a process but the forwarder is no workload that has ended.
    child.kill().unwrap();
    child.wait().unwrap();
    let (side, _) = line.sides().await.remove(0);
    ip(line.middle(), &format!("link del {side}")).await;
    let [client, endpoint] = [1, 0].map(|host| addresses(1, host)[0]);
    until("the relay is made again", async || answers(&line.ns[0], client, endpoint).await).await;
    assert_packets_both_ways(&line.ns, 1).await;
    assert_eq!(line.linux[1].wires(), 1);
}

#[tokio::test]
async fn each_leg_of_a_relay_takes_its_octets_once_and_what_cannot_be_relayed_is_refused() {
    let Some(line) = Line::new("192.0.2.0/24").await else { return };
    let far = mesh::forwarder(&line.linux[2], "unix:///nse.sock", elements![], mesh::endpoint(&line.ns[1]));
    let middle = mesh::forwarder(&line.linux[1], "tcp://192.0.2.3:5001", elements![], far);
    let chain =
        mesh::client(&line.ns[0], mesh::forwarder(&line.linux[0], "tcp://192.0.2.2:5001", elements![], middle.clone()));
    let call = chain.request(mesh::asked()).await.unwrap();
    assert_eq!(call.connection().context.as_ref().unwrap().mtu, 1500 - 54);
    assert_packets_both_ways(&line.ns, 1).await;
    chain.close(nsm_chain::Call::new(call.share())).await.unwrap();
    assert_eq!(line.linux[1].wires(), 0);

    let wireguard = wire("2", line.legs[0].clone(), Mechanism::wireguard(), 1);
    assert!(!line.linux[1].joins(&wireguard.caller, &wireguard.next));
    assert_eq!(line.linux[1].connect(&wireguard).await.unwrap_err().code(), Code::Unimplemented);
}
