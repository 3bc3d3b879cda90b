//! How many packets the forwarder copies between shared memory and a kernel's interface.
//!
//! `cargo run --release -p nsm-mechanisms --example memif_kernel_speed`. Needs root, or `unshare -Urn`.

use std::sync::Arc;
use std::time::Duration;

use nsm_api::mechanism::FileUrl;
use nsm_api::{Connection, ConnectionContext, IpContext, Mechanism, payload};
use nsm_chain::BoxError;
use nsm_kernel::Netns;
use nsm_mechanisms::{Dataplane, Linux, Wire};
use nsm_memif::protocol::Mode;
use nsm_memif::{Address, Config, Memif};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

const TIME: Duration = Duration::from_secs(3);
const CLIENT: [u8; 4] = [10, 0, 0, 1];
const ENDPOINT: [u8; 4] = [10, 0, 0, 0];

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let linux = Linux::new("speed")?;
    let (a, b) = (Netns::create().await?, Netns::create().await?);
    for (at, netns, own) in [("a", &a, CLIENT), ("b", &b, ENDPOINT)] {
        linux.connect(&wire(&linux, at, netns, own)?).await?;
    }
    let (near, mut far) = (come(&linux, "a", &a).await?, come(&linux, "b", &b).await?);
    println!(
        "from a memif into a kernel, 64 octets: {:.2} million a second",
        into_kernel(&linux, &mut far).await? / 1e6
    );
    println!("from a kernel into a memif, 64 octets: {:.2} million a second", from_kernel(&linux, &b).await? / 1e6);
    let ((mut out_of_near, mut into_near), (mut out_of_far, mut into_far)) = (near.split(), far.split());
    let joined = [(out_of_near.pop(), into_far.pop()), (out_of_far.pop(), into_near.pop())].map(|queues| {
        tokio::spawn(async move {
            let (Some(mut from), Some(mut to)) = queues else { return };
            while from.ready().await.is_ok() {
                let moved = from.recv_in_place(64, |packet| _ = to.push_packet(packet));
                if moved.is_err() || to.flush().is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
    });
    println!(
        "TCP from kernel to kernel, two wires and a memif at each: {:.2} Gbit/s",
        stream(&a, &b).await? * 8.0 / 1e9
    );
    joined.iter().for_each(tokio::task::JoinHandle::abort);
    for at in ["a", "b"] {
        println!("{at}: {:?}", linux.copied(at).unwrap_or_default());
        linux.disconnect(at).await?;
    }
    Ok(())
}

/// From a client with shared memory to a kernel interface that has this address of the two.
fn wire(linux: &Linux, id: &str, netns: &Netns, own: [u8; 4]) -> Result<Wire, BoxError> {
    let other = if own == CLIENT { ENDPOINT } else { CLIENT };
    let net = |ip: [u8; 4]| vec![format!("{}/32", std::net::Ipv4Addr::from(ip))];
    let ip = IpContext { src_ip_addrs: net(other), dst_ip_addrs: net(own), ..Default::default() };
    let (mut caller, mut next) = (Mechanism::memif(), Mechanism::kernel());
    if let Some(mut kernel) = next.as_kernel_mut() {
        kernel.set_interface_name("nse-1")?.set_netns(&FileUrl::Path(netns.path()));
    }
    let connection = Connection { id: id.to_owned(), payload: payload::IP.into(), ..Default::default() };
    linux.complete(&connection, &mut caller, &mut next)?;
    let context = ConnectionContext { ip_context: Some(ip), ..Default::default() };
    Ok(Wire { id: Arc::from(id), caller, next, context, payload: payload::IP.into(), origin: None })
}

async fn come(linux: &Linux, id: &str, netns: &Netns) -> Result<Memif, BoxError> {
    let caller = wire(linux, id, netns, CLIENT)?.caller;
    match caller.as_memif().map(|memif| memif.file()) {
        Some(Ok(Some(FileUrl::Path(path)))) => {
            Ok(Memif::connect(&Address::from(path), &Config::new(0).mode(Mode::Ip)).await?)
        }
        _ => Err("no socket".into()),
    }
}

/// Packets a second. They are for nobody: the kernel takes them as far as its routing.
async fn into_kernel(linux: &Linux, memif: &mut Memif) -> Result<f64, BoxError> {
    let mut packet = [0; 64];
    packet[..20].copy_from_slice(&[0x45, 0, 0, 64, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 9, 9, 9]);
    let (begun, before) = (Instant::now(), linux.copied("b").unwrap_or_default().from_memif);
    while begun.elapsed() < TIME {
        if memif.send_burst([&packet; 64])? < 64 {
            tokio::task::yield_now().await;
        }
    }
    Ok((linux.copied("b").unwrap_or_default().from_memif - before) as f64 / begun.elapsed().as_secs_f64())
}

/// Packets a second that find room; nobody takes them, so they are counted where they are dropped, too.
async fn from_kernel(linux: &Linux, netns: &Netns) -> Result<f64, BoxError> {
    let socket = netns.udp_socket((std::net::Ipv4Addr::from(ENDPOINT), 0).into()).await?;
    let count = || linux.copied("b").map(|copied| copied.to_memif + copied.full).unwrap_or_default();
    let (begun, before) = (Instant::now(), count());
    while begun.elapsed() < TIME {
        for _ in 0..64 {
            let _full = socket.send_to(&[0; 36], (std::net::Ipv4Addr::from(CLIENT), 9)).await;
        }
    }
    Ok((count() - before) as f64 / begun.elapsed().as_secs_f64())
}

/// Octets a second.
async fn stream(a: &Netns, b: &Netns) -> Result<f64, BoxError> {
    let listener = b.tcp_listener((std::net::Ipv4Addr::from(ENDPOINT), 0).into()).await?;
    let address = listener.local_addr()?;
    let mut client = a.tcp_connect(address).await?;
    let (mut server, _) = listener.accept().await?;
    let sending = tokio::spawn(async move {
        let content = vec![0; 1 << 17];
        while client.write_all(&content).await.is_ok() {}
    });
    let (mut received, mut buffer, begun) = (0, vec![0; 1 << 17], Instant::now());
    while let Ok(Ok(length @ 1..)) = timeout(TIME.saturating_sub(begun.elapsed()), server.read(&mut buffer)).await {
        received += length;
    }
    sending.abort();
    Ok(received as f64 / begun.elapsed().as_secs_f64())
}
