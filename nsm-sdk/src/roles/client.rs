use crate::stacks::{Client, ClientBuilder};

use super::Site;

/// A client of the manager at this URL, under the site's identity: to add to, and to build.
///
/// ```no_run
/// # async fn example(site: nsm_sdk::roles::Site) -> Result<(), Box<dyn std::error::Error>> {
/// use nsm_chain::elements;
/// use nsm_mechanisms::KernelOffer;
/// use std::time::Duration;
///
/// let client = nsm_sdk::roles::client("nsc-1", &site, "unix:///run/nsm/nsmgr.sock").with(elements![KernelOffer::new()]).build()?;
/// let connection = client.request_url(&"kernel://vpn/nsm-1".parse()?, "nsc-1-0", Duration::from_secs(30)).await?;
/// # Ok(()) }
/// ```
#[must_use]
pub fn client(name: &str, site: &Site, manager: &str) -> ClientBuilder {
    let channels = site.channels();
    if let (Ok(runtime), Ok(address)) = (tokio::runtime::Handle::try_current(), manager.parse()) {
        // Who makes a client is about to ask: the handshake need not wait for that.
        let link = channels.link(&address);
        runtime.spawn(async move { link.connected().await });
    }
    Client::builder(name, manager, channels).policies(site.policies().client.clone())
}
