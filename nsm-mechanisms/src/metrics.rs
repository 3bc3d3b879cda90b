//! Which interface a hop uses, told in its path segment.

use nsm_api::mechanism::keys;
use nsm_api::{Connection, Mechanism};

/// Metric of the interface towards the caller, as the reference names it.
pub(crate) const SERVER_INTERFACE: &str = "server_interface";
/// Metric of the interface towards the next hop.
pub(crate) const CLIENT_INTERFACE: &str = "client_interface";

/// Writes `<type>/<interface name>` of the connection's mechanism into the metrics of this hop's segment.
pub(crate) fn record(connection: &mut Connection, metric: &str, mechanism: &Mechanism) {
    let Some(segment) = connection.path.as_mut().and_then(|path| path.current_mut()) else {
        return;
    };
    let name = mechanism.parameter(keys::INTERFACE_NAME).unwrap_or_default();
    let interface = format!("{}/{name}", mechanism.r#type);
    segment.metrics.insert(metric.to_owned(), interface);
}
