//! What it costs to keep many wires as they should be:
//! `cargo run --release -p nsm-mechanisms --example census_timing -- 1000` (root, or `unshare -Urn`).
//!
//! One endpoint with that many clients, each in a namespace of its own.

use std::error::Error;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use nsm_api::mechanism::FileUrl;
use nsm_api::{ConnectionContext, IpContext, Mechanism, payload};
use nsm_kernel::{Netns, links_with_mark};
use nsm_mechanisms::{Dataplane, Linux, Mended, Metered, Pace, Reach, Reconcile, Reconciled, Wire};
use tokio::time::{Instant, sleep};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let count: u16 = std::env::args().nth(1).map_or(Ok(1000), |count| count.parse())?;
    let endpoint = Netns::create().await?;
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Netns::create().await?);
    }
    for listening in [false, true] {
        println!("{}", if listening { "with Reconcile" } else { "without" });
        let linux = Linux::new("census-timing")?;
        let never = Duration::from_secs(100_000);
        let reconcile = match listening {
            true => Some(Reconcile::start(linux.clone(), Pace { every: never, ..Pace::default() }).await),
            false => None,
        };
        let spent = Spent::now()?;
        for (number, client) in (0..).zip(&clients) {
            linux.connect(&wire(number, client, &endpoint)?).await?;
        }
        spent.tell(&format!("making {count} wires"))?;
        // Announcements, and what was heard of it.
        sleep(Duration::from_secs(3)).await;
        spent.tell("the same, and all that follows from it within 3 s")?;
        for reach in [Reach::Wires, Reach::Everywhere] {
            let spent = Spent::now()?;
            let census = linux.census(reach).await;
            assert!(census.strays.is_empty() && census.drifted.is_empty(), "{census:?}");
            spent.tell(&format!("a census: {reach:?}"))?;
        }
        let spent = Spent::now()?;
        assert_eq!(linux.mend("c-0").await?, Mended::Whole);
        spent.tell("a look at one wire that is whole")?;
        let spent = Spent::now()?;
        for number in 0..count {
            linux.traffic(&format!("c-{number}")).await.ok_or("not counted")?;
        }
        spent.tell(&format!("counters of one wire, {count} times"))?;
        let spent = Spent::now()?;
        assert_eq!(linux.all_traffic().await.len(), usize::from(count));
        spent.tell("counters of all wires")?;
        if reconcile.is_some() {
            let spent = Spent::now()?;
            clients[0].run(|| Command::new("ip").args(["link", "del", "nsm-1"]).status()).await?;
            while links_with_mark(&clients[0], "nsm:").await?.is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
            spent.tell("one is deleted by hand and is there again")?;
        }
        let spent = Spent::now()?;
        for number in 0..count {
            linux.disconnect(&format!("c-{number}")).await?;
        }
        spent.tell(&format!("removing {count} wires"))?;
    }
    Ok(())
}

fn wire(number: u16, client: &Netns, endpoint: &Netns) -> Result<Wire, Box<dyn Error>> {
    let side = |netns: &Netns, name: &str| -> Result<Mechanism, Box<dyn Error>> {
        let mut mechanism = Mechanism::kernel();
        if let Some(mut kernel) = mechanism.as_kernel_mut() {
            kernel.set_interface_name(name)?.set_netns(&FileUrl::Path(netns.path()));
        }
        Ok(mechanism)
    };
    let [high, low] = number.to_be_bytes();
    let nets = |host: u8| {
        let v4 = IpAddr::from([10, high, low, host]);
        vec![format!("{v4}/32"), format!("fd00::{number:x}:{host}/128")]
    };
    let ip = IpContext { src_ip_addrs: nets(1), dst_ip_addrs: nets(0), ..Default::default() };
    Ok(Wire {
        id: format!("c-{number}").into(),
        caller: side(client, "nsm-1")?,
        next: side(endpoint, &format!("nse-{number}"))?,
        context: ConnectionContext { ip_context: Some(ip), mtu: 1400, ..Default::default() },
        payload: payload::IP.into(),
        origin: None,
    })
}

/// Time and processor time since.
struct Spent {
    begun: Instant,
    ticks: u64,
}

impl Spent {
    fn now() -> Result<Self, Box<dyn Error>> {
        Ok(Self { begun: Instant::now(), ticks: ticks()? })
    }

    fn tell(&self, what: &str) -> Result<(), Box<dyn Error>> {
        let processor = Duration::from_millis((ticks()? - self.ticks) * 10);
        println!("  {what:52} {:8.1} ms, processor {processor:?}", self.begun.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }
}

/// Of this process, in hundredths of a second (proc_pid_stat(5), utime and stime).
fn ticks() -> Result<u64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    Ok(after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}
