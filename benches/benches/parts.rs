//! The parts alone: `cargo bench -p nsm-benches --bench parts`.

#![allow(clippy::expect_used, reason = "a benchmark that cannot go on says where it stopped")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use nsm_benches::parts::{Asker, Store, empty_chain};
use nsm_chain::Call;
use nsm_sdk::ipam::{PointToPoint, Pool};

fn chains(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for count in [1, 10, 50] {
        let chain = empty_chain(count);
        c.bench_function(&format!("{count} empty elements"), |b| {
            b.iter_batched(
                Call::default,
                |call| runtime.block_on(chain.request(call)).expect("an answer"),
                BatchSize::SmallInput,
            );
        });
    }
    let plain = runtime.block_on(Asker::new(Vec::new()));
    c.bench_function("endpoint chain, refresh", |b| {
        b.iter(|| runtime.block_on(plain.ask()));
    });
    let pool = Pool::new(["172.16.0.0/16".parse().expect("a prefix")]).expect("a pool");
    let addressed = runtime.block_on(Asker::new(nsm_chain::elements![PointToPoint::new(pool)]));
    c.bench_function("endpoint chain with point-to-point IPAM, refresh", |b| {
        b.iter(|| runtime.block_on(addressed.ask()));
    });
}

fn registry(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for size in [1_000, 10_000, 100_000] {
        let store = runtime.block_on(Store::of(size));
        c.bench_function(&format!("find 10 of {size}"), |b| {
            b.iter(|| runtime.block_on(store.find()));
        });
    }
}

criterion_group!(benches, chains, registry);
criterion_main!(benches);
