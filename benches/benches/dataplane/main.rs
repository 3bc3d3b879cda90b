//! Wires beside what a careful person makes by hand, in turns, in one run:
//!
//! ```sh
//! cargo bench -p nsm-benches --bench dataplane
//! ```
//!
//! `--only local|vxlan|wireguard|programming|many` runs a part of it, `--quick` takes seconds and is not for quoting, `--json`
//! prints one object. Needs root and Debian's packages `iperf3`, `iputils-ping`, `iproute2`, `wireguard-go`, `wireguard-tools`.

#![allow(clippy::disallowed_types, reason = "a benchmark measures real time")]

mod bare;
mod carrying;
mod ours;
mod programming;
mod traffic;
mod wireguard_go;

use std::error::Error;
use std::net::Ipv4Addr;

use nsm_benches::Figures;
use nsm_kernel::Netns;
use nsm_tests::heap;

use bare::End;
use traffic::Length;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

// That of the program.
#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

#[derive(Clone, Copy)]
struct Counts {
    turns: usize,
    length: Length,
    rounds: usize,
    connections: u16,
}

const FULL: Counts = Counts { turns: 8, length: Length { seconds: 3, pings: 30_000 }, rounds: 300, connections: 1000 };
const QUICK: Counts = Counts { turns: 2, length: Length { seconds: 1, pings: 2_000 }, rounds: 30, connections: 100 };

const ETHERNET_MTU: u32 = 1500;
/// What NSM agrees on for VXLAN over it.
const TUNNEL_MTU: u32 = ETHERNET_MTU - 54;

#[tokio::main]
async fn main() -> Outcome<()> {
    // In a task: callers are tasks in a program too, and not the thread that waits for the runtime.
    tokio::spawn(measure()).await?
}

async fn measure() -> Outcome<()> {
    let has = |flag| std::env::args().any(|arg| arg == flag);
    let counts = if has("--quick") { QUICK } else { FULL };
    let only = std::env::args().skip_while(|arg| arg != "--only").nth(1);
    let wanted = |what: &str| only.as_deref().is_none_or(|only| only == what);
    let mut figures = Figures::default();
    if wanted("programming") {
        programming::programming(counts, &mut figures).await?;
    }
    if wanted("many") {
        programming::many(counts, &mut figures).await?;
    }
    if wanted("local") {
        carrying::local(counts, &mut figures).await?;
    }
    if wanted("vxlan") {
        carrying::vxlan(counts, &mut figures).await?;
    }
    if wanted("wireguard") {
        carrying::wireguard(counts, &mut figures).await?;
    }
    figures.put("quick", has("--quick"));
    if has("--json") {
        println!("{}", figures.json());
    } else {
        print!("{}", figures.table());
    }
    Ok(())
}

/// The wire of connection `number` at one of its two ends. `at` says whose: 1 is the client's.
fn end(netns: &Netns, number: u16, at: u8) -> End {
    let [high, low] = number.to_be_bytes();
    End {
        netns: netns.clone(),
        name: if at == 1 { "nsm-1".to_owned() } else { format!("nse-{number}") },
        index: 1000 + u32::from(number),
        ip: Ipv4Addr::new(10, high, low, at),
        mac: [2, 0x4e, at, 0, high, low],
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
