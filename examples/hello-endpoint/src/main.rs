//! An endpoint of one's own: it serves the network service `hello`, and gives each client a pair of addresses.

use std::error::Error;

use hello_endpoint::Neighbourhood;
use nsm_sdk::ipam::{PointToPoint, Pool};
use nsm_sdk::nsm_api::mechanism::KERNEL;
use nsm_sdk::nsm_chain::elements;
use nsm_sdk::nsm_mechanisms::{KernelAccept, Mechanisms};
use nsm_sdk::roles::EndpointRole;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A manager and a forwarder to join: on a node of a cluster they are there already.
    let neighbours = Neighbourhood::start("hello").await?;

    let addresses = PointToPoint::new(Pool::new(["172.16.1.0/24".parse()?])?);
    let interfaces = Mechanisms::new().with(KERNEL, KernelAccept::new())?;
    let endpoint = EndpointRole::new("hello-1", neighbours.site("hello-1")?)
        .listen_on(neighbours.socket("hello-1"))
        .registers_at(neighbours.manager())
        .serves("hello")
        .with(elements![addresses, interfaces])
        .serve()
        .await?;
    println!("{endpoint} serves hello");

    let mut interrupt = signal(SignalKind::interrupt())?;
    let visitor = neighbours.visit("kernel://hello/nsm-1").await?;
    println!("Ctrl-C ends it");
    interrupt.recv().await;

    visitor.leave().await?;
    endpoint.shutdown().await?;
    neighbours.shutdown().await
}
