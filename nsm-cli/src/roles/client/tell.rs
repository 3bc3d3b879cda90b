//! Says what becomes of connections.

use nsm_api::Connection;
use nsm_chain::{Call, Element, Next, Order, Result, Slot, Why};

use crate::roles::say;

/// Prints a line whenever a connection is there, has changed, is broken, or is closed, and says once what of it is not
/// used here.
///
/// It stands in the client, behind `Begin` and `Heal`.
#[derive(Debug, Default)]
pub(super) struct Tell {
    told: Slot<String>,
    /// What was said of the outage that is going on: each try of its healing comes by.
    down: Slot<&'static str>,
}

impl Tell {
    fn is_down(&self, call: &Call, how: &'static str) -> Result<()> {
        if self.down.set(call.state()?, how) != Some(how) {
            say(&format!("{} down: {how}", call.connection().id));
        }
        Ok(())
    }
}

impl Element for Tell {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let id = call.connection().id.clone();
        match call.why() {
            Why::Heal => self.is_down(&call, "the path is broken, it is asked for again")?,
            Why::Reselect => self.is_down(&call, "it is chosen afresh")?,
            Why::First | Why::Refresh => {}
        }
        let call = next.request(call).await?;
        let state = call.state()?;
        let healing = self.down.take(state).is_some();
        let now = described(call.connection());
        let before = self.told.set(state, now.clone());
        match before {
            None => {
                say(&format!("{id} up: {now}"));
                tell_unused(&id, call.connection());
            }
            Some(before) if before != now => say(&format!("{id} changed: {now}")),
            Some(_) if healing => say(&format!("{id} up again: {now}")),
            Some(_) => {}
        }
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let id = call.connection().id.clone();
        let known = call.slot(&self.told).is_some();
        let call = next.close(call).await?;
        if known {
            say(&format!("{id} closed"));
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

/// The interface, its addresses and those of the other side, and who is there.
fn described(connection: &Connection) -> String {
    let kernel = connection.mechanism.as_ref().and_then(|mechanism| mechanism.as_kernel());
    let name = kernel.and_then(|kernel| kernel.interface_name().ok().flatten().map(str::to_owned));
    let ip = connection.context.as_ref().and_then(|context| context.ip_context.as_ref());
    let joined =
        |addresses: &[String]| if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
    let (src, dst) = ip.map_or_else(Default::default, |ip| (joined(&ip.src_ip_addrs), joined(&ip.dst_ip_addrs)));
    format!(
        "interface {}, {src} to {dst}, {} of {}",
        name.unwrap_or_default(),
        connection.network_service,
        connection.network_service_endpoint_name
    )
}

fn tell_unused(id: &str, connection: &Connection) {
    let dns = connection.context.as_ref().and_then(|context| context.dns_context.as_ref());
    let servers: Vec<&str> =
        dns.iter().flat_map(|dns| &dns.configs).flat_map(|config| &config.dns_server_ips).map(String::as_str).collect();
    if !servers.is_empty() {
        tracing::info!(connection = id, "DNS servers {} are not used: there is no DNS proxy yet", servers.join(", "));
    }
}
