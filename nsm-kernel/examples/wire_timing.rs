//! How long one local wire takes, step by step: `cargo run --release -p nsm-kernel --example wire_timing`.
use nsm_kernel::*;

fn spec(name: &str, own: u8, peer: u8) -> InterfaceSpec {
    InterfaceSpec::new(name, "nsm:timing")
        .unwrap()
        .with_mtu(1400)
        .with_address(format!("10.0.0.{own}/32").parse().unwrap())
        .with_route(format!("10.0.0.{peer}/32").parse().unwrap(), None)
}

#[tokio::main]
async fn main() {
    let (a, b) = (
        Netns::create().await.unwrap(),
        Netns::create().await.unwrap(),
    );
    let mut make = vec![];
    let mut del = vec![];
    for _ in 0..200 {
        let t = tokio::time::Instant::now();
        let w = VethWire::create(
            (&a, &spec("x", 1, 2)),
            (&b, &spec("y", 2, 1)),
            PeerNeighbours::Permanent,
        )
        .await
        .unwrap();
        make.push(t.elapsed().as_micros());
        let t = tokio::time::Instant::now();
        w.delete().await.unwrap();
        del.push(t.elapsed().as_micros());
    }
    make.sort();
    del.sort();
    println!(
        "make p50 {} p99 {}  del p50 {} p99 {}",
        make[100], make[198], del[100], del[198]
    );
    let mut run = vec![];
    for _ in 0..200 {
        let t = tokio::time::Instant::now();
        a.run(|| std::io::Result::Ok(())).await.unwrap();
        run.push(t.elapsed().as_nanos());
    }
    run.sort();
    println!("run p50 {} ns", run[100]);
}
