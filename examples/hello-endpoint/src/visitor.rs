use std::time::Duration;

use nsm_chain::elements;
use nsm_kernel::{Netns, Pinger};
use nsm_mechanisms::{KernelOffer, Workload};
use nsm_sdk::roles::{self, Site};
use nsm_sdk::stacks::Client;

use crate::Result;

const PATIENCE: Duration = Duration::from_secs(15);

/// A client that is connected, in a network namespace of its own.
#[derive(Debug)]
pub struct Visitor {
    client: Client,
    netns: Netns,
}

impl Visitor {
    pub(crate) async fn arrive(site: &Site, manager: &str, url: &str) -> Result<Self> {
        let netns = Netns::create().await?;
        let interfaces = KernelOffer::new().in_netns(Workload::of(&netns));
        let client = roles::client("nsc", site, manager).with(elements![interfaces]).build()?;
        let interface = client.connect(&url.parse()?, "", PATIENCE).await?.interface();
        let visitor = Self { client, netns };

        let hops: Vec<_> = interface.hops().collect();
        println!("nsc asked for {url}: {}", hops.join(" > "));
        let (Some(src), Some(dst)) = (interface.addresses().next(), interface.peers().next()) else {
            return Err("the endpoint gave no addresses".into());
        };
        let took = Pinger::new(&visitor.netns).await?.ping(src.addr(), dst.addr(), Duration::from_secs(1)).await?;
        println!("{} answers {} in {} us", dst.addr(), src.addr(), took.as_micros());
        Ok(visitor)
    }

    /// Closes the connection.
    ///
    /// # Errors
    /// What could not be undone.
    pub async fn leave(self) -> Result {
        Ok(self.client.shutdown(PATIENCE).await?)
    }
}
