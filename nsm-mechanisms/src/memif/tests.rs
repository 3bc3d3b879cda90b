//! The elements of all roles in one process, with packets.

use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nsm_api::mechanism::{KERNEL, MEMIF};
use nsm_api::{Connection, Mechanism, Path, PathSegment, payload};
use nsm_chain::{Begin, Call, Chain, Code, Element, Error, Next, NextHop, OwnedNext, Result, elements, from_fn};
use nsm_memif::{Memif, Server};
use tokio::sync::mpsc;

use crate::memory::{Fabric, Memory};
use crate::{
    CrossConnect, Dataplane, KernelAccept, KernelOffer, Mechanisms, MemifAccept, MemifOffer, Programmed, Wired,
    WithMemif,
};

/// The way to the next hop, which here is another chain.
#[derive(Clone)]
struct To(Arc<Mutex<Chain>>);

impl To {
    fn chain(&self) -> Chain {
        self.0.lock().unwrap().clone()
    }
}

impl Element for To {
    async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        let asked = Call::request(call.share(), call.preferences().to_vec());
        call.set_body(self.chain().request(asked).await?.share());
        Ok(call)
    }

    async fn close(&self, call: Call, _next: Next<'_>) -> Result<Call> {
        self.chain().close(Call::new(call.share())).await.map(|_| call)
    }
}

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nsm-memif-elements-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The sockets in it.
    fn sockets(&self) -> Vec<PathBuf> {
        let list = |path: &FilePath| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        list(&self.0).flat_map(|inner| list(&inner).collect::<Vec<_>>()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends back what it gets, the other way round.
async fn mirror(mut memif: Memif, _connection: Arc<Connection>) {
    let _closed = memif.answer(|packet| {
        packet.reverse();
        true
    });
    let _closed = _closed.await;
}

/// What a client's processor has seen.
#[derive(Debug, PartialEq)]
enum Seen {
    Answer(String),
    Closed,
}

/// Sends the connection's service as a packet, and tells what comes back, and when it is over.
fn asks(seen: mpsc::UnboundedSender<Seen>) -> impl crate::PacketProcessor {
    move |mut memif: Memif, connection: Arc<Connection>| {
        let seen = seen.clone();
        async move {
            struct Over(mpsc::UnboundedSender<Seen>);
            impl Drop for Over {
                fn drop(&mut self) {
                    let _nobody_listens = self.0.send(Seen::Closed);
                }
            }
            let _over = Over(seen.clone());
            let _closed = memif.send_burst([&connection.network_service]);
            while memif.ready().await.is_ok() {
                let tell = |packet: &mut [u8]| {
                    let _nobody_listens = seen.send(Seen::Answer(String::from_utf8_lossy(packet).into_owned()));
                };
                let _closed = memif.recv_burst(8, tell);
            }
        }
    }
}

fn endpoint(directory: &Directory) -> Chain {
    let accept = MemifAccept::new(mirror).in_directory(&directory.0);
    Chain::new("nse", elements![Begin::default(), Mechanisms::new().with(MEMIF, accept).unwrap()]).unwrap()
}

struct Mesh {
    client: Chain,
    further: To,
    dataplane: WithMemif<Memory>,
    fabric: Fabric,
    programmed: Arc<Mutex<Vec<Programmed>>>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

/// A client that has these besides its MEMIF, and a forwarder, before this endpoint.
fn mesh(others: impl Element, endpoint: Chain) -> Mesh {
    let (fabric, programmed) = (Fabric::new(), Arc::new(Mutex::new(Vec::new())));
    let dataplane = WithMemif::over(fabric.forwarder("fwd", None));
    let noted = Arc::clone(&programmed);
    let watched = from_fn(move |mut call: Call, next: OwnedNext| {
        let noted = Arc::clone(&noted);
        async move {
            call.set_fact(NextHop("unix:///nse.sock".into()));
            let call = next.request(call).await?;
            noted.lock().unwrap().push(call.fact::<Wired>().unwrap().programmed);
            Ok(call)
        }
    });
    let further = To(Arc::new(Mutex::new(endpoint)));
    let cross = CrossConnect::new(dataplane.clone());
    let forwarder = Chain::new("fwd", elements![Begin::default(), watched, cross, further.clone()]).unwrap();
    let (tell, seen) = mpsc::unbounded_channel();
    let forwarder = To(Arc::new(Mutex::new(forwarder)));
    let offer = MemifOffer::new(asks(tell));
    let client = Chain::new("nsc", elements![Begin::initiator(), offer, others, forwarder]).unwrap();
    Mesh { client, further, dataplane, fabric, programmed, seen }
}

fn nothing() -> impl Element {
    from_fn(|call: Call, next: OwnedNext| async move { next.request(call).await })
}

fn asked(carries: &str) -> Call {
    let segment = PathSegment { name: "nsc".into(), id: "1".into(), ..Default::default() };
    Call::new(Connection {
        id: "1".into(),
        network_service: "firewall".into(),
        payload: carries.into(),
        path: Some(Path { index: 0, path_segments: vec![segment] }),
        ..Default::default()
    })
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it happens at once")
}

async fn gone(directory: &Directory) {
    let gone = async {
        while !directory.sockets().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(gone).await;
}

#[tokio::test]
async fn packets_go_from_client_to_endpoint_and_back_until_the_close() {
    for carries in [payload::IP, payload::ETHERNET] {
        let directory = Directory::new(carries);
        let mut mesh = mesh(nothing(), endpoint(&directory));
        let mut call = mesh.client.request(asked(carries)).await.unwrap();
        assert_eq!(soon(mesh.seen.recv()).await, Some(Seen::Answer("llawerif".into())));
        // A refresh leaves the interface alone.
        for _ in 0..2 {
            call = mesh.client.request(Call::new(call.share())).await.unwrap();
        }
        assert_eq!(*mesh.programmed.lock().unwrap(), [Programmed::Made, Programmed::Unchanged, Programmed::Unchanged]);
        assert!(mesh.seen.try_recv().is_err());
        assert_eq!((mesh.dataplane.wires(), mesh.fabric.wires().len(), directory.sockets().len()), (1, 0, 1));

        mesh.client.close(Call::new(call.share())).await.unwrap();
        assert_eq!(soon(mesh.seen.recv()).await, Some(Seen::Closed));
        assert_eq!(mesh.dataplane.wires(), 0);
        gone(&directory).await;
    }
}

#[tokio::test]
async fn the_socket_is_reached_by_nobody_who_was_not_sent_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("private");
    let mesh = mesh(nothing(), endpoint(&directory));
    mesh.client.request(asked(payload::IP)).await.unwrap();
    let socket = directory.sockets().remove(0);
    let mode = |path: &FilePath| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(socket.parent().unwrap()), mode(&socket)), (0o700, 0o666));
    // With the endpoint its directory goes.
    drop(mesh);
    let left = async {
        while std::fs::read_dir(&directory.0).unwrap().next().is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(left).await;
}

#[tokio::test]
async fn another_endpoint_takes_the_place_of_the_former() {
    let (before, after) = (Directory::new("before"), Directory::new("after"));
    let mut mesh = mesh(nothing(), endpoint(&before));
    let call = mesh.client.request(asked(payload::IP)).await.unwrap();
    assert_eq!(soon(mesh.seen.recv()).await, Some(Seen::Answer("llawerif".into())));
    // It ends without a word; the one that the service has now knows nothing of the connection.
    *mesh.further.0.lock().unwrap() = endpoint(&after);
    assert_eq!(soon(mesh.seen.recv()).await, Some(Seen::Closed));
    mesh.client.request(Call::new(call.share())).await.unwrap();
    assert_eq!(soon(mesh.seen.recv()).await, Some(Seen::Answer("llawerif".into())));
    assert_eq!(*mesh.programmed.lock().unwrap(), [Programmed::Made, Programmed::Moved]);
    gone(&before).await;
}

#[tokio::test]
async fn an_endpoint_that_comes_again_at_its_place_is_found_by_itself() {
    let directory = Directory::new("again");
    let socket = directory.0.join("fixed.sock");
    let at = nsm_api::mechanism::FileUrl::Path(socket.clone());
    let fixed = from_fn(move |mut call: Call, next: OwnedNext| {
        let mut mechanism = Mechanism::memif();
        mechanism.as_memif_mut().unwrap().set_socket(&at);
        call.connection_mut().mechanism = Some(mechanism);
        async move { next.request(call).await }
    });
    let mut mesh = mesh(nothing(), Chain::new("nse", elements![Begin::default(), fixed]).unwrap());
    for round in 0..2 {
        let server = Server::bind(&(&*socket).into()).unwrap();
        let mut port = server.open(super::config(payload::IP)).unwrap();
        if round == 0 {
            let client = mesh.client.clone();
            let (asking, memif) = tokio::join!(client.request(asked(payload::IP)), soon(port.accept()));
            asking.unwrap();
            drop(memif.unwrap());
        } else {
            drop(soon(port.accept()).await.unwrap());
        }
        assert_eq!(soon(mesh.seen.recv()).await, Some(Seen::Closed));
    }
}

#[tokio::test]
async fn a_name_in_this_network_namespace_leads_to_the_endpoint_as_well() {
    let name = format!("/tmp/memif/{}/memif.socket", std::process::id());
    let server = Server::bind(&nsm_memif::Address::abstract_name(&*name)).unwrap();
    let mut port = server.open(super::config(payload::IP)).unwrap();
    let abstracts = from_fn(move |mut call: Call, next: OwnedNext| {
        let mut mechanism = Mechanism::memif();
        let netns = nsm_api::mechanism::FileUrl::Path("/proc/self/ns/net".into());
        mechanism.as_memif_mut().unwrap().set_abstract_socket(&netns, &format!("@{name}"));
        call.connection_mut().mechanism = Some(mechanism);
        async move { next.request(call).await }
    });
    let mesh = mesh(nothing(), Chain::new("nse", elements![Begin::default(), abstracts]).unwrap());
    let (asking, memif) = tokio::join!(mesh.client.request(asked(payload::IP)), soon(port.accept()));
    asking.unwrap();
    memif.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_fails_the_request_and_leaves_nothing() {
    let nowhere = from_fn(|mut call: Call, next: OwnedNext| {
        let mut mechanism = Mechanism::memif();
        let socket = nsm_api::mechanism::FileUrl::Path("/nowhere/memif.sock".into());
        mechanism.as_memif_mut().unwrap().set_socket(&socket);
        call.connection_mut().mechanism = Some(mechanism);
        async move { next.request(call).await }
    });
    let mesh = mesh(nothing(), Chain::new("nse", elements![Begin::default(), nowhere]).unwrap());
    let error = mesh.client.request(asked(payload::IP)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.is_caused_by::<nsm_memif::Error>(), "{error}");
    assert_eq!(mesh.dataplane.wires(), 0);
}

#[tokio::test]
async fn memif_at_one_side_only_is_refused_with_what_there_is() {
    let kernel = || {
        let mechanisms = Mechanisms::new().with(KERNEL, KernelAccept::new()).unwrap();
        Chain::new("nse", elements![Begin::default(), mechanisms]).unwrap()
    };
    // A client that has nothing else.
    let alone = mesh(nothing(), kernel());
    let error: Error = alone.client.request(asked(payload::IP)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.to_string().contains("MEMIF") && error.to_string().contains("KERNEL"), "{error}");
    assert_eq!((alone.dataplane.wires(), alone.fabric.wires().len()), (0, 0));

    // One that would also take a kernel interface gets that.
    let both = mesh(KernelOffer::new(), kernel());
    let call = both.client.request(asked(payload::IP)).await.unwrap();
    assert!(call.connection().mechanism.as_ref().unwrap().is(KERNEL));
    assert_eq!((both.dataplane.wires(), both.fabric.wires().len()), (0, 1));

    both.client.close(Call::new(call.share())).await.unwrap();
    assert_eq!((both.dataplane.wires(), both.fabric.wires().len()), (0, 0));
}

#[tokio::test]
async fn a_connection_that_changes_its_mechanism_has_one_wire_only() {
    let fabric = Fabric::new();
    let dataplane = WithMemif::over(fabric.forwarder("fwd", None));
    let wire = |caller: Mechanism, next: Mechanism| crate::Wire {
        id: "1".into(),
        caller,
        next,
        context: Default::default(),
        payload: payload::IP.into(),
        origin: None,
    };
    let kernel = |name: &str| {
        let mut kernel = Mechanism::kernel();
        kernel.as_kernel_mut().unwrap().set_interface_name(name).unwrap();
        kernel.as_kernel_mut().unwrap().set_netns(crate::Workload::own().url());
        kernel
    };
    let mut memif = Mechanism::memif();
    memif.as_memif_mut().unwrap().set_socket(&nsm_api::mechanism::FileUrl::Path("/run/memif.sock".into()));
    let (kernels, memifs) = (wire(kernel("nsm-1"), kernel("nse-1")), wire(Mechanism::memif(), memif));
    for _ in 0..2 {
        assert_eq!(dataplane.connect(&kernels).await.unwrap(), Programmed::Made);
        assert_eq!((dataplane.wires(), fabric.wires().len()), (0, 1));
        assert_eq!(dataplane.connect(&memifs).await.unwrap(), Programmed::Made);
        assert_eq!((dataplane.wires(), fabric.wires().len()), (1, 0));
    }
    let unnamed = wire(Mechanism::memif(), Mechanism::memif());
    assert_eq!(dataplane.connect(&unnamed).await.unwrap_err().code(), Code::InvalidArgument);
    dataplane.disconnect("1").await.unwrap();
    assert_eq!((dataplane.wires(), fabric.wires().len()), (0, 0));
}

#[tokio::test]
async fn another_node_is_out_of_memifs_reach() {
    let fabric = Fabric::new();
    let underlay = crate::Underlay::new([10, 0, 0, 1].into());
    let cross = CrossConnect::new(WithMemif::over(fabric.forwarder("fwd", Some(underlay))));
    let remote = from_fn(|mut call: Call, next: OwnedNext| {
        call.set_fact(NextHop("tcp://192.0.2.1:5001".into()));
        async move { next.request(call).await }
    });
    let chain = Chain::new("fwd", elements![Begin::default(), remote, cross]).unwrap();
    let call = asked(payload::ETHERNET);
    let error = chain.request(Call::request(call.share(), vec![Mechanism::memif()])).await.unwrap_err();
    assert!(error.to_string().contains("no wire leads from MEMIF to tcp://192.0.2.1:5001: VXLAN"), "{error}");
}
