//! What a durable registry costs: `cargo bench -p nsm-benches --bench store`.
//!
//! The disk counts most: run it where stores will be, by `TMPDIR`.

#![allow(clippy::expect_used, reason = "a benchmark that cannot go on says where it stopped")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{StreamExt, stream};
use nsm_api::NetworkServiceEndpoint;
use nsm_chain::Call;
use nsm_sdk::registry::stacks::{Admission, MemoryRegistry};
use nsm_store::Store;
use tokio::runtime::Runtime;

/// A store in a directory of its own, which goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("nsm-bench-{name}-{}", std::process::id())))
    }

    async fn registry(&self) -> MemoryRegistry {
        let store = Store::open(self.0.join("registry")).expect("a store");
        let builder = MemoryRegistry::builder("registry", Admission::open());
        builder
            .default_expiration(std::time::Duration::from_secs(36_000))
            .restore(&store.journals())
            .await
            .expect("a registry")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // It is in the temporary directory, at worst.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// New endpoints, so many at the same time.
async fn register(registry: &MemoryRegistry, next: &AtomicUsize, count: usize, at_once: usize) {
    let calls = stream::iter(0..count).map(|_| {
        let endpoint = NetworkServiceEndpoint {
            name: format!("nse-{}", next.fetch_add(1, Ordering::Relaxed)),
            network_service_names: vec!["vpn".into()],
            url: "tcp://10.0.0.1:5001".into(),
            ..Default::default()
        };
        registry.endpoints.request(Call::new(endpoint))
    });
    calls.buffer_unordered(at_once).for_each(async |answer| drop(answer.expect("an answer"))).await;
}

fn registrations(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = Directory::new("register");
    let next = AtomicUsize::new(0);
    let in_memory = MemoryRegistry::builder("registry", Admission::open()).build().expect("a registry");
    let durable = runtime.block_on(directory.registry());
    let mut group = c.benchmark_group("registrations acknowledged");
    group.sample_size(10);
    for (name, registry) in [("in memory", &in_memory), ("durable", &durable)] {
        for at_once in [1, 64] {
            group.throughput(Throughput::Elements(at_once as u64));
            group.bench_function(format!("{name}, {at_once} at once"), |b| {
                b.iter(|| runtime.block_on(register(registry, &next, at_once, at_once)));
            });
        }
    }
    group.finish();
}

fn start(c: &mut Criterion) {
    const RECORDS: usize = 100_000;
    let runtime = Runtime::new().expect("a runtime");
    let directory = Directory::new("start");
    runtime.block_on(async {
        register(&directory.registry().await, &AtomicUsize::new(0), RECORDS, 4096).await;
    });
    let mut group = c.benchmark_group("start");
    group.sample_size(10);
    group.bench_function(format!("{RECORDS} endpoints in the store"), |b| {
        b.iter(|| runtime.block_on(async { drop(directory.registry().await) }));
    });
    group.finish();
}

criterion_group!(benches, registrations, start);
criterion_main!(benches);
