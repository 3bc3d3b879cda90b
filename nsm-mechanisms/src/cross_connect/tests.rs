use std::sync::Mutex;

use nsm_api::mechanism::VXLAN;
use nsm_api::{Connection, ConnectionContext, Path, PathSegment};
use nsm_chain::{Begin, Chain, Closed, Code, OwnedNext, elements, from_fn};

use super::*;
use crate::memory::Fabric;
use crate::{Programmed, Underlay};

/// The next hop: completes the first preference as an endpoint or a remote forwarder would.
#[derive(Clone, Default)]
struct Further(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    requests: Vec<Option<Mechanism>>,
    closes: Vec<Option<Mechanism>>,
    refuses: bool,
    /// What was agreed with it, it has given to somebody else.
    taken: bool,
    answers: Option<Mechanism>,
    mtu: u32,
    /// Its id of the connection; none: it stays out of the path.
    id: Option<&'static str>,
}

impl Further {
    fn with<R>(&self, work: impl FnOnce(&mut Seen) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }
}

impl Element for Further {
    async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        let mut seen = self.0.lock().unwrap();
        seen.requests.push(call.connection().mechanism.clone());
        if seen.refuses {
            return Err(Error::unavailable("the endpoint is down"));
        }
        if seen.taken && call.connection().mechanism.is_some() {
            return Err(Error::taken("another connection has that identifier"));
        }
        let chosen = call.connection().mechanism.clone().or_else(|| call.preferences().first().cloned());
        let mut mechanism = seen.answers.clone().or(chosen).unwrap();
        if let Some(mut kernel) = mechanism.as_kernel_mut() {
            kernel.set_interface_name("nse-1").unwrap();
        }
        let remote = Underlay::new("10.0.0.2".parse().unwrap()).with_mtu(1300);
        if mechanism.as_vxlan().is_some() {
            remote.accept(&mut mechanism, None).unwrap();
        }
        call.connection_mut().mechanism = Some(mechanism);
        mtu::limit(call.connection_mut(), seen.mtu);
        if let (Some(id), Some(path)) = (seen.id, &mut call.connection_mut().path) {
            path.path_segments.push(PathSegment { name: "nse".into(), id: id.into(), ..Default::default() });
        }
        Ok(call)
    }

    async fn close(&self, call: Call, _next: Next<'_>) -> Result<Call> {
        let mut seen = self.0.lock().unwrap();
        seen.closes.push(call.connection().mechanism.clone());
        if seen.refuses { Err(Error::unavailable("the endpoint is down")) } else { Ok(call) }
    }
}

struct Mesh {
    chain: Chain,
    further: Further,
    fabric: Fabric,
    hop: Arc<Mutex<&'static str>>,
    underlay: Underlay,
}

fn mesh() -> Mesh {
    let (further, fabric) = (Further::default(), Fabric::new());
    let hop = Arc::new(Mutex::new("unix:///nse.sock"));
    let underlay = Underlay::new("10.0.0.1".parse().unwrap());
    let chosen = Arc::clone(&hop);
    let discovery = from_fn(move |mut call: Call, next: OwnedNext| {
        call.set_fact(NextHop((*chosen.lock().unwrap()).into()));
        async move { next.request(call).await }
    });
    let cross = CrossConnect::new(fabric.forwarder("fwd", Some(underlay.clone())));
    let chain = Chain::new("fwd", elements![Begin::default(), discovery, cross, further.clone()]).unwrap();
    Mesh { chain, further, fabric, hop, underlay }
}

fn kernel(name: &str) -> Mechanism {
    let mut mechanism = Mechanism::kernel();
    mechanism.as_kernel_mut().unwrap().set_interface_name(name).unwrap();
    mechanism
}

fn connection() -> Connection {
    let segment = PathSegment { name: "fwd".into(), id: "1".into(), ..Default::default() };
    Connection { id: "1".into(), path: Some(Path { index: 0, path_segments: vec![segment] }), ..Default::default() }
}

fn asked() -> Call {
    Call::request(connection(), vec![kernel("nsm-1")])
}

fn wired(call: &Call) -> Programmed {
    call.fact::<Wired>().unwrap().programmed
}

#[tokio::test]
async fn a_local_wire_joins_the_callers_interface_to_the_endpoints() {
    let mesh = mesh();
    let call = mesh.chain.request(asked()).await.unwrap();
    assert_eq!(call.connection().mechanism, Some(kernel("nsm-1")));
    assert_eq!(call.preferences(), [kernel("nsm-1")]);
    assert_eq!(wired(&call), Programmed::Made);
    let [(forwarder, wire)] = &mesh.fabric.wires()[..] else { panic!("{:?}", mesh.fabric.wires()) };
    assert_eq!((forwarder.as_str(), &*wire.id), ("fwd", "1"));
    assert_eq!((&wire.caller, &wire.next), (&kernel("nsm-1"), &kernel("nse-1")));
    let metrics = &call.connection().current_segment().unwrap().metrics;
    assert_eq!((&*metrics["server_interface"], &*metrics["client_interface"]), ("KERNEL/nsm-1", "KERNEL/nse-1"));

    // A refresh goes on with what was agreed there, and touches nothing.
    let call = mesh.chain.request(Call::new(call.into_body())).await.unwrap();
    assert_eq!((wired(&call), mesh.fabric.writes()), (Programmed::Unchanged, 1));
    mesh.further.with(|seen| assert_eq!(seen.requests, [None, Some(kernel("nse-1"))]));
    // A change of addresses is one change.
    let mut moved = call.into_body();
    moved.context = Some(ConnectionContext { mtu: 1200, ..Default::default() });
    let call = mesh.chain.request(Call::new(moved)).await.unwrap();
    assert_eq!(wired(&call), Programmed::Changed { writes: 1 });

    mesh.chain.close(Call::new(call.into_body())).await.unwrap();
    assert!(mesh.fabric.wires().is_empty());
    mesh.further.with(|seen| assert_eq!(seen.closes, [Some(kernel("nse-1"))]));
}

#[tokio::test]
async fn a_remote_wire_takes_the_smaller_mtu_and_tells_the_caller() {
    let mesh = mesh();
    *mesh.hop.lock().unwrap() = "tcp://10.0.0.2:5001";
    let call = mesh.chain.request(asked()).await.unwrap();
    assert_eq!(call.connection().context.as_ref().unwrap().mtu, 1300 - 54);
    let (_, wire) = &mesh.fabric.wires()[0];
    assert!(wire.next.as_vxlan().unwrap().vni().unwrap().is_some());
    assert_eq!(wire.context.mtu, 1300 - 54);
}

#[tokio::test]
async fn a_tunnel_from_another_node_keeps_its_identifier_until_it_is_closed() {
    let mesh = mesh();
    let offer = || Underlay::new("10.0.0.9".parse().unwrap()).offer();
    let call = mesh.chain.request(Call::request(connection(), vec![offer()])).await.unwrap();
    let vni = |call: &Call| call.connection().mechanism.as_ref().unwrap().as_vxlan().unwrap().vni().unwrap().unwrap();
    let first = vni(&call);
    assert_eq!(mesh.underlay.vnis().in_use(), 1);
    // The other node lost its memory and asks without it.
    let call = mesh.chain.request(Call::request(connection(), vec![offer()])).await.unwrap();
    assert_eq!((vni(&call), mesh.underlay.vnis().in_use(), wired(&call)), (first, 1, Programmed::Unchanged));
    mesh.chain.close(Call::new(call.into_body())).await.unwrap();
    assert_eq!(mesh.underlay.vnis().in_use(), 0);
    // We lost ours: what the other node names is taken up.
    let mut known = offer();
    known.as_vxlan_mut().unwrap().set_vni(first).unwrap();
    let mut again = connection();
    again.mechanism = Some(known);
    let call = mesh.chain.request(Call::new(again)).await.unwrap();
    assert_eq!(vni(&call), first);
}

#[tokio::test]
async fn a_first_request_that_fails_here_or_further_on_leaves_nothing() {
    let mesh = mesh();
    let tunnel = || Call::request(connection(), vec![Underlay::new("10.0.0.9".parse().unwrap()).offer()]);
    mesh.fabric.fail_next(1);
    let error = mesh.chain.request(tunnel()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    mesh.further.with(|seen| assert_eq!(seen.closes, [Some(kernel("nse-1"))]));
    mesh.further.with(|seen| seen.refuses = true);
    mesh.chain.request(tunnel()).await.unwrap_err();
    assert!(mesh.fabric.wires().is_empty());
    assert_eq!(mesh.underlay.vnis().in_use(), 0);
}

#[tokio::test]
async fn a_refresh_that_fails_keeps_wire_and_identifier() {
    let mesh = mesh();
    let tunnel = || Call::request(connection(), vec![Underlay::new("10.0.0.9".parse().unwrap()).offer()]);
    mesh.chain.request(tunnel()).await.unwrap();
    mesh.further.with(|seen| seen.refuses = true);
    mesh.chain.request(tunnel()).await.unwrap_err();
    mesh.further.with(|seen| (seen.refuses, seen.mtu) = (false, 900));
    mesh.fabric.fail_next(1);
    mesh.chain.request(tunnel()).await.unwrap_err();
    assert_eq!((mesh.fabric.wires().len(), mesh.underlay.vnis().in_use()), (1, 1));
    mesh.further.with(|seen| assert!(seen.closes.is_empty()));
}

#[tokio::test]
async fn a_close_does_both_and_tells_what_failed() {
    let mesh = mesh();
    mesh.chain.request(asked()).await.unwrap();
    mesh.further.with(|seen| seen.refuses = true);
    let error = mesh.chain.close(asked()).await.unwrap_err();
    assert!(error.to_string().contains("the endpoint is down"), "{error}");
    assert!(mesh.fabric.wires().is_empty());

    mesh.further.with(|seen| seen.refuses = false);
    mesh.chain.request(asked()).await.unwrap();
    mesh.fabric.fail_next(1);
    assert!(mesh.chain.close(asked()).await.is_err());
    mesh.further.with(|seen| assert_eq!(seen.closes.len(), 2));
    assert_eq!(mesh.chain.close(asked()).await.unwrap().closed(), Closed::Unknown);
}

#[tokio::test]
async fn what_was_agreed_with_one_next_hop_is_not_used_with_another() {
    let mesh = mesh();
    mesh.chain.request(asked()).await.unwrap();
    *mesh.hop.lock().unwrap() = "tcp://10.0.0.2:5001";
    let call = mesh.chain.request(asked()).await.unwrap();
    mesh.further.with(|seen| assert_eq!(seen.requests, [None, None]));
    assert_eq!(wired(&call), Programmed::Moved);
    assert!(mesh.fabric.wires()[0].1.next.as_vxlan().is_some());
}

#[tokio::test]
async fn what_the_next_hop_has_given_to_somebody_else_is_agreed_anew_by_the_next_request() {
    let mesh = mesh();
    *mesh.hop.lock().unwrap() = "tcp://10.0.0.2:5001";
    mesh.chain.request(asked()).await.unwrap();
    let before = mesh.fabric.wires();
    mesh.further.with(|seen| seen.taken = true);
    assert_eq!(mesh.chain.request(asked()).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(mesh.fabric.wires(), before, "what stands, stands");
    mesh.chain.request(asked()).await.unwrap();
    mesh.further.with(|seen| seen.taken = false);
    mesh.chain.request(asked()).await.unwrap();
    mesh.further.with(|seen| {
        let named: Vec<_> = seen.requests.iter().map(Option::is_some).collect();
        assert_eq!(named, [false, true, false, true]);
    });
}

#[tokio::test]
async fn a_wire_that_cannot_be_moved_leaves_nothing_where_it_was_to_lead() {
    let mesh = mesh();
    mesh.further.with(|seen| seen.id = Some("there"));
    mesh.chain.request(asked()).await.unwrap();
    mesh.fabric.set_full("fwd", true);
    *mesh.hop.lock().unwrap() = "tcp://10.0.0.2:5001";
    // The same connection, which has another way there now, is not to be closed.
    mesh.chain.request(asked()).await.unwrap_err();
    mesh.further.with(|seen| assert!(seen.closes.is_empty()));
    mesh.further.with(|seen| seen.id = Some("elsewhere"));
    let error = mesh.chain.request(asked()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    mesh.further.with(|seen| assert!(matches!(&seen.closes[..], [Some(tunnel)] if tunnel.is(VXLAN))));
    assert_eq!(mesh.fabric.wires()[0].1.next, kernel("nse-1"), "what stands, stands");
}

#[tokio::test]
async fn a_reselect_is_a_new_wire() {
    let mesh = mesh();
    let call = mesh.chain.request(asked()).await.unwrap();
    let mut afresh = call.into_body();
    afresh.state = nsm_api::State::ReselectRequested.into();
    afresh.mechanism = None;
    let call = mesh.chain.request(Call::request(afresh, vec![kernel("nsm-2")])).await.unwrap();
    assert_eq!(wired(&call), Programmed::Made);
    assert_eq!(mesh.fabric.writes(), 3);
    assert_eq!(mesh.fabric.wires()[0].1.caller, kernel("nsm-2"));
}

#[tokio::test]
async fn preferences_are_tried_in_order_and_unusable_answers_refused() {
    let mesh = mesh();
    // No name: not usable. The next one is.
    let call = Call::request(connection(), vec![Mechanism::memif(), Mechanism::kernel(), kernel("nsm-1")]);
    assert!(mesh.chain.request(call).await.is_ok());
    mesh.chain.close(asked()).await.unwrap();

    mesh.further.with(|seen| seen.answers = Some(Mechanism::memif()));
    let error = mesh.chain.request(asked()).await.unwrap_err();
    assert!(error.to_string().contains("MEMIF") && error.code() == Code::Unimplemented, "{error}");
    mesh.further.with(|seen| assert_eq!(seen.closes.last(), Some(&Some(Mechanism::memif()))));

    let error = mesh.chain.request(Call::request(connection(), vec![Mechanism::memif()])).await.unwrap_err();
    assert!(error.to_string().contains("the caller offers MEMIF, here KERNEL, VXLAN can be used"), "{error}");
}

#[test]
fn it_stands_between_begin_and_connect() {
    struct Connect;
    impl Element for Connect {}
    let cross = || CrossConnect::new(Fabric::new().forwarder("fwd", None));
    assert!(Chain::new("fwd", elements![Begin::default(), cross(), Connect]).is_ok());
    assert!(Chain::new("fwd", elements![cross(), Connect]).is_err());
    assert!(Chain::new("fwd", elements![Begin::default(), Connect, cross()]).is_err());
}
