//! Shared memory at one side of a wire, and something else at the other: the forwarder copies.

use std::net::SocketAddr;

use nsm_api::Connection;
use nsm_api::mechanism::MEMIF;
use nsm_chain::{Begin, Call, Chain, OwnedNext, elements, from_fn};
use nsm_kernel::discovery::Question;
use nsm_mechanisms::{
    Census, Copied, Dataplane, KernelAccept, KernelOffer, Linux, Mechanisms, MemifAccept, MemifOffer, Mended,
    Programmed, Reach, Reconciled, WithMemif, Workload,
};
use nsm_memif::protocol::Mode;
use nsm_memif::{Config, Memif};

use super::mesh::{To, asked, forwarder};
use super::*;

pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Without it there is no interface whose packets a process could have.
macro_rules! needs_tun {
    () => {
        if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
            return eprintln!("skipped: /dev/net/tun cannot be opened: {error}");
        }
    };
}
pub(super) use needs_tun;

/// A datagram becomes its own answer: addresses and ports change places, and no checksum changes by that.
pub(super) fn answer_packet(ip: &mut [u8]) -> bool {
    let (at, length, ports) = match ip.first().map(|octet| octet >> 4) {
        Some(4) if ip.len() >= 28 && ip[9] == 17 => (12, 4, 20),
        Some(6) if ip.len() >= 48 && ip[6] == 17 => (8, 16, 40),
        _ => return false,
    };
    swap(&mut ip[at..], length);
    swap(&mut ip[ports..], 2);
    true
}

pub(super) fn answer_frame(frame: &mut [u8]) -> bool {
    if let Some(question) = Question::of(frame) {
        frame.copy_from_slice(&question.answer(MAC));
        return true;
    }
    if frame.len() < 14 || !answer_packet(&mut frame[14..]) {
        return false;
    }
    swap(frame, 6);
    true
}

fn swap(octets: &mut [u8], length: usize) {
    let (one, other) = octets[..2 * length].split_at_mut(length);
    one.swap_with_slice(other);
}

/// A workload in user space that answers every datagram.
pub(super) async fn answers_all(mut memif: Memif, connection: Arc<Connection>) {
    let answer = if connection.payload == payload::ETHERNET { answer_frame } else { answer_packet };
    let _closed = memif.answer(answer).await;
}

/// Datagrams of these lengths, each to the other end's addresses, come back as they were.
pub(super) async fn assert_answers(netns: &Netns, [own, other]: [u8; 2], lengths: &[usize]) {
    for (from, to) in addresses(1, own).into_iter().zip(addresses(1, other)) {
        let socket = netns.udp_socket(SocketAddr::new(from, 0)).await.unwrap();
        for length in lengths {
            let sent: Vec<u8> = (0..*length).map(|at| at as u8).collect();
            let mut came = vec![0; length + 1];
            let exchange = async {
                loop {
                    socket.send_to(&sent, (to, 9)).await.unwrap();
                    // The workload may be about to come, or to come again.
                    let answer = tokio::time::timeout(Duration::from_millis(500), socket.recv_from(&mut came)).await;
                    if let Ok(answer) = answer {
                        return answer.unwrap();
                    }
                }
            };
            let late = |_| panic!("{length} octets from {from} to {to} were not answered");
            let (length, by) = tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(late);
            assert_eq!((&came[..length], by), (&sent[..], SocketAddr::new(to, 9)));
        }
    }
}

fn endpoint(accepts: Mechanisms) -> Chain {
    let addresses = from_fn(|mut call: Call, next: OwnedNext| {
        let mtu = call.connection().context.as_ref().map_or(0, |context| context.mtu);
        call.connection_mut().context = Some(ConnectionContext { mtu, ..context(1) });
        async move { next.request(call).await }
    });
    Chain::new("nse", elements![Begin::default(), accepts, addresses]).unwrap()
}

pub(super) fn memif_endpoint() -> Chain {
    endpoint(Mechanisms::new().with(MEMIF, MemifAccept::new(answers_all)).unwrap())
}

pub(super) fn kernel_endpoint(netns: &Netns) -> Chain {
    endpoint(Mechanisms::new().with("KERNEL", KernelAccept::new().in_netns(Workload::of(netns))).unwrap())
}

pub(super) fn memif_client(next: Chain) -> Chain {
    Chain::new("nsc", elements![Begin::initiator(), MemifOffer::new(answers_all), To(next)]).unwrap()
}

pub(super) fn kernel_client(netns: &Netns, next: Chain) -> Chain {
    let offer = KernelOffer::new().in_netns(Workload::of(netns));
    Chain::new("nsc", elements![Begin::initiator(), offer, To(next)]).unwrap()
}

pub(super) fn of(payload: &str) -> Call {
    let mut call = asked();
    call.connection_mut().payload = payload.into();
    call
}

#[tokio::test]
async fn a_kernel_client_and_a_memif_endpoint_exchange_packets() {
    needs_tun!();
    for payload in [payload::IP, payload::ETHERNET] {
        let Some(ns) = netns().await else { return };
        let before = census(std::slice::from_ref(&ns)).await;
        let plane = WithMemif::over(Linux::new("fwd").unwrap());
        let chain = kernel_client(&ns, forwarder(&plane, "unix:///nse.sock", elements![], memif_endpoint()));
        let call = chain.request(of(payload)).await.unwrap();
        assert_answers(&ns, [1, 0], &[1, 100, 1500 - 48]).await;
        let made = index(&ns, "nsm-1").await;
        let refreshed = chain.request(Call::new(call.share())).await.unwrap();
        assert_answers(&ns, [1, 0], &[100]).await;
        assert_eq!((index(&ns, "nsm-1").await, plane.other().wires(), plane.wires()), (made, 1, 0));
        let strays = plane.census(Reach::Wires).await;
        assert_eq!(strays, Census { strays: Vec::new(), drifted: Vec::new() });
        chain.close(Call::new(refreshed.share())).await.unwrap();
        assert_nothing_left(&before, &[ns]).await;
        assert_eq!(plane.other().wires(), 0);
    }
}

#[tokio::test]
async fn a_memif_client_and_a_kernel_endpoint_exchange_packets() {
    needs_tun!();
    for payload in [payload::IP, payload::ETHERNET] {
        let Some(ns) = netns().await else { return };
        let before = census(std::slice::from_ref(&ns)).await;
        let plane = WithMemif::over(Linux::new("fwd").unwrap());
        let chain = memif_client(forwarder(&plane, "unix:///nse.sock", elements![], kernel_endpoint(&ns)));
        let call = chain.request(of(payload)).await.unwrap();
        let socket = call.connection().mechanism.as_ref().unwrap().parameters["inodeURL"].clone();
        assert_answers(&ns, [0, 1], &[1, 100, 1500 - 48]).await;
        let refreshed = chain.request(Call::new(call.share())).await.unwrap();
        assert_eq!(refreshed.connection().mechanism.as_ref().unwrap().parameters["inodeURL"], socket);
        assert_answers(&ns, [0, 1], &[100]).await;
        chain.close(Call::new(refreshed.share())).await.unwrap();
        assert_nothing_left(&before, &[ns]).await;
        assert_eq!(plane.other().wires(), 0);
        // Nobody can come any more.
        assert!(!std::fs::exists(socket.strip_prefix("file://").unwrap()).unwrap());
    }
}

/// A wire from a client with shared memory to an interface `nse-1` of this workload, and where the client finds it.
pub(super) fn to_kernel(linux: &Linux, netns: &Netns, payload: &str) -> (Wire, nsm_memif::Address) {
    let (mut caller, mut next) = (Mechanism::memif(), kernel(netns, "nse-1"));
    let connection = Connection { id: "1".into(), payload: payload.into(), ..Default::default() };
    linux.complete(&connection, &mut caller, &mut next).unwrap();
    let Ok(Some(FileUrl::Path(path))) = caller.as_memif().unwrap().file() else { panic!("a path") };
    (Wire { payload: payload.into(), ..wire("1", caller, next, 1) }, path.into())
}

/// The client: it comes as often as it is called, and answers until the task is ended.
async fn come(address: &nsm_memif::Address, mode: Mode) -> tokio::task::JoinHandle<()> {
    let begun = tokio::time::Instant::now();
    let mut memif = loop {
        match Memif::connect(address, &Config::new(0).mode(mode)).await {
            Ok(memif) => break memif,
            // The former one may not be gone yet.
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let answer = if mode == Mode::Ethernet { answer_frame } else { answer_packet };
    tokio::spawn(async move { drop(memif.answer(answer).await) })
}

#[tokio::test]
async fn a_memif_client_that_ends_may_come_again_and_the_wire_is_the_same() {
    needs_tun!();
    let Some(ns) = netns().await else { return };
    let linux = Linux::new("fwd").unwrap();
    let (wire, address) = to_kernel(&linux, &ns, payload::IP);
    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Made);
    let made = index(&ns, "nse-1").await;
    for _ in 0..3 {
        let client = come(&address, Mode::Ip).await;
        assert_answers(&ns, [0, 1], &[100]).await;
        client.abort();
    }
    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Unchanged);
    assert_eq!(index(&ns, "nse-1").await, made);
    linux.disconnect("1").await.unwrap();
}

#[tokio::test]
async fn what_a_memif_sends_that_is_no_packet_is_dropped_and_counted() {
    needs_tun!();
    let Some(ns) = netns().await else { return };
    let linux = Linux::new("fwd").unwrap();
    let (mut wire, address) = to_kernel(&linux, &ns, payload::IP);
    wire.context.mtu = 1400;
    linux.connect(&wire).await.unwrap();
    let mut memif = Memif::connect(&address, &Config::new(0).mode(Mode::Ip)).await.unwrap();
    let packet = |length: usize| [&[0x45][..], &vec![0; length - 1]].concat();
    let odd = [packet(1401), packet(65_535), packet(1400), vec![0; 3], vec![0xff; 60], packet(1)];
    assert_eq!(memif.send_burst(&odd).unwrap(), odd.len());
    let counted = async {
        loop {
            match linux.copied("1") {
                Some(Copied { too_long: 2, from_memif, interface, .. }) if from_memif + interface == 4 => return,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{:?}", linux.copied("1")));
    drop(memif);
    // A client of the other mode is told so, and keeps nobody from coming.
    Memif::connect(&address, &Config::new(0)).await.unwrap_err();
    let _client = come(&address, Mode::Ip).await;
    assert_answers(&ns, [0, 1], &[100, 1400 - 48]).await;
    // The connection's MTU is changed in place.
    wire.context.mtu = 1300;
    assert!(matches!(linux.connect(&wire).await.unwrap(), Programmed::Changed { .. }));
    assert_answers(&ns, [0, 1], &[1300 - 48]).await;
    linux.disconnect("1").await.unwrap();
    assert_eq!(linux.copied("1"), None);
}

#[tokio::test]
async fn an_interface_deleted_by_hand_is_made_again_at_the_same_socket() {
    needs_tun!();
    let Some(ns) = netns().await else { return };
    for (payload, mode) in [(payload::IP, Mode::Ip), (payload::ETHERNET, Mode::Ethernet)] {
        let before = census(std::slice::from_ref(&ns)).await;
        let linux = Linux::new("fwd").unwrap();
        let (wire, address) = to_kernel(&linux, &ns, payload);
        linux.connect(&wire).await.unwrap();
        let client = come(&address, mode).await;
        assert_answers(&ns, [0, 1], &[100]).await;
        let marked = links_with_mark(&ns, "nsm:").await.unwrap();
        assert!(nsm_kernel::delete_link(&ns, "nse-1", &marked[0].alias).await.unwrap());
        // Before anybody has noticed: nothing spins, and nobody is thrown out.
        assert!(!client.is_finished());
        assert_eq!(linux.mend("1").await.unwrap(), Mended::Remade);
        let _client = come(&address, mode).await;
        assert_answers(&ns, [0, 1], &[100]).await;
        linux.disconnect("1").await.unwrap();
        assert_nothing_left(&before, std::slice::from_ref(&ns)).await;
    }
}

#[tokio::test]
async fn a_restarted_forwarder_takes_up_the_interface() {
    needs_tun!();
    let Some(ns) = netns().await else { return };
    let before = census(std::slice::from_ref(&ns)).await;
    let linux = Linux::new("fwd").unwrap();
    let (wire, address) = to_kernel(&linux, &ns, payload::IP);
    linux.connect(&wire).await.unwrap();
    let client = come(&address, Mode::Ip).await;
    assert_answers(&ns, [0, 1], &[100]).await;
    let made = index(&ns, "nse-1").await;
    drop(linux);
    // Its client notices.
    tokio::time::timeout(PATIENCE, client).await.unwrap().unwrap();

    let linux = Linux::new("fwd").unwrap();
    let (wire, address) = to_kernel(&linux, &ns, payload::IP);
    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Adopted);
    let _client = come(&address, Mode::Ip).await;
    assert_answers(&ns, [0, 1], &[100]).await;
    assert_eq!(index(&ns, "nse-1").await, made);
    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &[ns]).await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_fails_the_request_and_leaves_nothing() {
    needs_tun!();
    let Some(ns) = netns().await else { return };
    let before = census(std::slice::from_ref(&ns)).await;
    let linux = Linux::new("fwd").unwrap();
    let mut nowhere = Mechanism::memif();
    nowhere.as_memif_mut().unwrap().set_socket(&FileUrl::Path("/nowhere/memif.sock".into()));
    let error = linux.connect(&wire("1", kernel(&ns, "nsm-1"), nowhere, 1)).await.unwrap_err();
    assert_eq!(error.code(), nsm_chain::Code::Unavailable, "{error}");
    let error = linux.connect(&wire("1", kernel(&ns, "nsm-1"), Mechanism::memif(), 1)).await.unwrap_err();
    assert_eq!(error.code(), nsm_chain::Code::InvalidArgument, "{error}");
    assert_nothing_left(&before, &[ns]).await;
    assert_eq!(linux.wires(), 0);
}
