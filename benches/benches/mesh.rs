//! A whole mesh in one process: `cargo bench -p nsm-benches --bench mesh -- --json`.
//!
//! `--quick` runs smaller counts, `--only latency|throughput|heal|parts` a part of it; `NSM_BENCH_WORKERS` sets the number
//! of worker threads (2). What each figure means is written in `go-sdk/README.md`.

#![allow(clippy::expect_used, reason = "a benchmark that cannot go on says where it stopped")]
#![allow(clippy::disallowed_types, reason = "a benchmark measures real time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nsm_benches::parts::{Asker, Store, empty_chain};
use nsm_benches::{Figures, Mesh, Security, quantile, resident_bytes, tasks};
use nsm_chain::{Call, OwnedNext, elements, from_fn};
use nsm_sdk::roles::Running;
use nsm_sdk::stacks::Client;
use nsm_tests::heap;
use tokio::sync::Notify;

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

#[derive(Clone, Copy)]
struct Counts {
    warm_up: usize,
    samples: usize,
    connections: usize,
    heals: usize,
    calls: u32,
    largest_store: usize,
}

const FULL: Counts =
    Counts { warm_up: 20, samples: 200, connections: 1000, heals: 5, calls: 100_000, largest_store: 1_000_000 };
const QUICK: Counts =
    Counts { warm_up: 5, samples: 50, connections: 200, heals: 1, calls: 5_000, largest_store: 100_000 };

fn main() {
    let has = |flag| std::env::args().any(|arg| arg == flag);
    let counts = if has("--quick") { QUICK } else { FULL };
    let workers = std::env::var("NSM_BENCH_WORKERS").ok().and_then(|workers| workers.parse().ok()).unwrap_or(2);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(workers).enable_all().build().expect("a runtime");
    let only = std::env::args().skip_while(|arg| arg != "--only").nth(1);
    let wanted = move |what: &str| only.as_deref().is_none_or(|only| only == what);
    // In a task: callers are tasks in a program too, and not the thread that waits for the runtime.
    let measured = runtime.spawn(async move {
        let mut figures = Figures::default();
        for (security, suffix) in [(Security::Insecure, ""), (Security::Mtls, "_mtls")] {
            if wanted("latency") {
                latency(security, suffix, counts, &mut figures).await;
            }
            if wanted("throughput") {
                throughput(security, suffix, counts, &mut figures).await;
            }
            if wanted("memory") {
                memory(security, suffix, counts, &mut figures).await;
            }
        }
        if wanted("heal") {
            heal("heal_1_ms", 1, counts, &mut figures).await;
            heal("heal_100_ms", 100, counts, &mut figures).await;
        }
        if wanted("parts") {
            parts(counts, &mut figures).await;
        }
        figures
    });
    let mut figures = runtime.block_on(measured).expect("the measurement ends");
    figures.put("connections", counts.connections);
    figures.put("quick", has("--quick"));
    if has("--json") {
        println!("{}", figures.json());
    } else {
        print!("{}", figures.table());
    }
}

async fn latency(security: Security, suffix: &str, counts: Counts, figures: &mut Figures) {
    let mesh = Mesh::new(security).await;
    let endpoint = mesh.endpoint("nse-1").await;
    let client = mesh.client(Vec::new());
    let mut new = Vec::new();
    for at in 0..counts.warm_up + counts.samples {
        let start = Instant::now();
        let connection = mesh.connect(&client, &format!("new-{at}")).await;
        new.push(start.elapsed());
        client.close(connection, Duration::from_secs(10)).await.expect("a close");
    }
    let mut new = new.split_off(counts.warm_up);
    figures.put_us(&format!("new_connection_p50_us{suffix}"), quantile(&mut new, 0.5));
    figures.put_us(&format!("new_connection_p99_us{suffix}"), quantile(&mut new, 0.99));

    let mut connection = mesh.connect(&client, "refreshed").await;
    let mut refreshes = Vec::new();
    for _ in 0..counts.warm_up + counts.samples {
        let start = Instant::now();
        connection = mesh.refresh(&client, connection).await;
        refreshes.push(start.elapsed());
    }
    let mut refreshes = refreshes.split_off(counts.warm_up);
    figures.put_us(&format!("refresh_p50_us{suffix}"), quantile(&mut refreshes, 0.5));
    client.shutdown(Duration::from_secs(10)).await.expect("all closed");
    drop(endpoint);
    mesh.stop().await;
}

/// Opens the connections, 32 at once, and says how long that took.
async fn open(mesh: &Arc<Mesh>, client: &Client, connections: usize) -> Duration {
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let callers = (0..32).map(|_| {
        let (mesh, client, next) = (Arc::clone(mesh), client.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= connections {
                    return;
                }
                mesh.connect(&client, &format!("c-{at}")).await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("a caller");
    }
    start.elapsed()
}

/// A mesh in which 20 connections are open and nothing happens.
async fn warm(security: Security) -> (Arc<Mesh>, Running, Client) {
    let mesh = Arc::new(Mesh::new(security).await);
    let endpoint = mesh.endpoint("nse-1").await;
    let client = mesh.client(Vec::new());
    for at in 0..20 {
        mesh.connect(&client, &format!("warm-{at}")).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    (mesh, endpoint, client)
}

async fn cool(mesh: Arc<Mesh>, endpoint: Running, client: Client) {
    client.shutdown(Duration::from_secs(30)).await.expect("all closed");
    drop((client, endpoint));
    if let Ok(mesh) = Arc::try_unwrap(mesh) {
        mesh.stop().await;
    }
}

async fn throughput(security: Security, suffix: &str, counts: Counts, figures: &mut Figures) {
    let (mesh, endpoint, client) = warm(security).await;
    let (resident, running) = (resident_bytes(), tasks());
    let wall = open(&mesh, &client, counts.connections).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = resident_bytes().saturating_sub(resident);
    let more = tasks().saturating_sub(running);
    let connections = counts.connections as f64;
    figures.put(&format!("new_connections_per_s_32{suffix}"), (connections / wall.as_secs_f64()).round());
    figures.put(&format!("tasks_per_connection{suffix}"), more as f64 / connections);
    if security == Security::Insecure {
        // The second mesh lives in pages that the first one gave back: its growth says nothing.
        figures.put("resident_bytes_per_connection", (grown as f64 / connections).round());
    }
    cool(mesh, endpoint, client).await;
}

async fn memory(security: Security, suffix: &str, counts: Counts, figures: &mut Figures) {
    let (mesh, endpoint, client) = warm(security).await;
    heap::count(true);
    let before = heap::held();
    open(&mesh, &client, counts.connections).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    heap::count(false);
    let held = heap::held() - before;
    figures.put(&format!("bytes_per_connection{suffix}"), (held as f64 / counts.connections as f64).round());
    cool(mesh, endpoint, client).await;
}

async fn heal(key: &str, connections: usize, counts: Counts, figures: &mut Figures) {
    let mut rounds = Vec::new();
    for _ in 0..counts.heals {
        let mesh = Mesh::new(Security::Insecure).await;
        let first = mesh.endpoint("nse-1").await;
        let (moved, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let watch = from_fn({
            let (moved, all) = (Arc::clone(&moved), Arc::clone(&all));
            move |call: Call, next: OwnedNext| {
                let (moved, all) = (Arc::clone(&moved), Arc::clone(&all));
                async move {
                    let call = next.request(call).await?;
                    if call.body().network_service_endpoint_name == "nse-2"
                        && moved.fetch_add(1, Ordering::SeqCst) + 1 == connections
                    {
                        all.notify_one();
                    }
                    Ok(call)
                }
            }
        });
        let client = mesh.client(elements![watch]);
        for at in 0..connections {
            mesh.connect(&client, &format!("c-{at}")).await;
        }
        let second = mesh.endpoint("nse-2").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let start = Instant::now();
        drop(first);
        tokio::time::timeout(Duration::from_secs(60), all.notified()).await.expect("all healed");
        rounds.push(start.elapsed());
        client.shutdown(Duration::from_secs(30)).await.expect("all closed");
        drop(second);
        mesh.stop().await;
    }
    figures.put_ms(key, quantile(&mut rounds, 0.5));
}

/// The mean time of one call, in nanoseconds.
async fn mean<F>(calls: u32, mut call: impl FnMut() -> F) -> f64
where
    F: Future<Output = ()>,
{
    for _ in 0..calls / 10 {
        call().await;
    }
    let start = Instant::now();
    for _ in 0..calls {
        call().await;
    }
    (start.elapsed().as_nanos() as f64 / f64::from(calls)).round()
}

async fn parts(counts: Counts, figures: &mut Figures) {
    let asker = Asker::new(Vec::new()).await;
    figures.put("endpoint_chain_ns", mean(counts.calls, || async { drop(asker.ask().await) }).await);
    for (key, size) in [("find_10_of_10k_ns", 10_000), ("find_10_of_1m_ns", counts.largest_store)] {
        let store = Store::of(size).await;
        figures.put(
            key,
            mean(counts.calls, || async {
                assert_eq!(store.find().await, 10);
            })
            .await,
        );
    }
    let chain = empty_chain(50);
    let run = || async { drop(chain.request(Call::default()).await.expect("an answer")) };
    figures.put("elements_50_ns", mean(counts.calls, run).await);
}
