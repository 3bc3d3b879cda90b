//! How fast two processes exchange packets when both poll, each on a core of its own.
//!
//! `cargo run --release -p nsm-memif --example memif_speed` prints, for packets of 64 and 1500 octets, how many a second one
//! process receives from the other, how many a second go there and back, and how long one takes for that.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nsm_memif::{Address, Config, Memif, Receiver, Result, Sender, Server};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::time::Instant;

const BURST: usize = 64;
const SECONDS: Duration = Duration::from_secs(2);
const ROUND_TRIPS: usize = 200_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [] => measure().await,
        [mode, socket] => peer(mode, &Address::from(&**socket)).await,
        _ => return ExitCode::FAILURE,
    };
    if let Err(error) = outcome {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn measure() -> Result<(), Box<dyn std::error::Error>> {
    for length in [64, 1500] {
        let one_way = with_peer("sends", length, |rx, _| received(rx)).await?;
        let both_ways = with_peer("answers", length, move |rx, tx| returned(rx, tx, length)).await?;
        println!("{length} octets: {one_way:.2} million/s one way, {both_ways:.2} million/s there and back");
    }
    let mut times = with_peer("answers", 64, round_trips).await?;
    times.sort_unstable();
    let at = |part: f64| times[(times.len() as f64 * part) as usize].as_nanos() as f64 / 1000.0;
    println!("64 octets there and back: p50 {:.2} µs, p99 {:.2} µs, p99.9 {:.2} µs", at(0.5), at(0.99), at(0.999));
    Ok(())
}

/// Runs it on a core of its own, against another process on another core.
async fn with_peer<T: Send + 'static>(
    mode: &str,
    length: usize,
    work: impl FnOnce(&mut Receiver, &mut Sender) -> Result<T> + Send + 'static,
) -> Result<T, Box<dyn std::error::Error>> {
    let socket = std::env::temp_dir().join(format!("memif-speed-{}.sock", std::process::id()));
    let address = Address::from(&*socket);
    let server = Server::bind(&address)?;
    let mut port = server.open(Config::new(0))?;
    let mut other =
        Command::new("/proc/self/exe").arg(format!("{mode}:{length}")).arg(&socket).stdin(Stdio::null()).spawn()?;
    let memif = port.accept().await?;
    let outcome = polling(0, memif, work).await;
    // It ends by itself as the interface does.
    other.wait()?;
    Ok(outcome?)
}

async fn peer(mode: &str, address: &Address) -> Result<(), Box<dyn std::error::Error>> {
    let (mode, length) = mode.split_once(':').ok_or("no length")?;
    let (sends, length) = (mode == "sends", length.parse()?);
    let memif = Memif::connect(address, &Config::new(0)).await?;
    // Whatever ends it is the end of the measurement.
    let _closed = polling(1, memif, move |rx, tx| if sends { send(tx, length) } else { answer(rx, tx) }).await;
    Ok(())
}

/// On a thread of its own, bound to a core.
async fn polling<T: Send + 'static>(
    core: usize,
    memif: Memif,
    work: impl FnOnce(&mut Receiver, &mut Sender) -> Result<T> + Send + 'static,
) -> Result<T> {
    let thread = tokio::task::spawn_blocking(move || {
        let allowed = sched_getaffinity(None).map(|set| (0..CpuSet::MAX_CPU).filter(move |cpu| set.is_set(*cpu)));
        if let Some(cpu) = allowed.ok().and_then(|mut cpus| cpus.nth(core)) {
            let mut one = CpuSet::new();
            one.set(cpu);
            let _slower_without = sched_setaffinity(None, &one);
        }
        let mut memif = memif;
        let (rx, tx) = memif.pair()?;
        work(rx, tx)
    });
    thread.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn send(tx: &mut Sender, length: usize) -> Result<()> {
    let packet = vec![0x5a; length];
    loop {
        tx.send_burst(std::iter::repeat_n(&packet, BURST))?;
    }
}

fn answer(rx: &mut Receiver, tx: &mut Sender) -> Result<()> {
    loop {
        let mut outcome = Ok(true);
        rx.recv_burst(BURST, |packet| {
            if outcome.is_ok() {
                outcome = tx.push(packet);
            }
        })?;
        outcome?;
        tx.flush()?;
    }
}

/// Million packets a second that came.
fn received(rx: &mut Receiver) -> Result<f64> {
    let (begun, mut packets, mut octets) = (Instant::now(), 0, 0);
    while begun.elapsed() < SECONDS {
        for _ in 0..100 {
            packets += rx.recv_burst(BURST, |packet| octets += packet.len())?;
        }
    }
    std::hint::black_box(octets);
    Ok(packets as f64 / begun.elapsed().as_secs_f64() / 1e6)
}

/// Million packets a second that were sent and came back.
fn returned(rx: &mut Receiver, tx: &mut Sender, length: usize) -> Result<f64> {
    let packet = vec![0x5a; length];
    let (begun, mut packets) = (Instant::now(), 0);
    while begun.elapsed() < SECONDS {
        for _ in 0..100 {
            tx.send_burst(std::iter::repeat_n(&packet, BURST))?;
            packets += rx.recv_burst(BURST, |_| ())?;
        }
    }
    Ok(packets as f64 / begun.elapsed().as_secs_f64() / 1e6)
}

fn round_trips(rx: &mut Receiver, tx: &mut Sender) -> Result<Vec<Duration>> {
    let packet = [0x5a; 64];
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let sent = Instant::now();
        while tx.send_burst([packet])? == 0 {}
        while rx.recv_burst(1, |_| ())? == 0 {}
        times.push(sent.elapsed());
    }
    Ok(times)
}
