//! What a connection carries beside its mechanism: exclusions, labels, names, policies, DNS, MTU.
//!
//! | element | where | what it does to a Request |
//! |---|---|---|
//! | [`ExcludedPrefixesFile`] | manager | excludes the prefixes of a file: those of the cluster |
//! | [`ExcludedPrefixes`] | client | excludes what its other connections have, and refuses what collides |
//! | [`ClientInfo`] | client, manager | labels it with node, pod and cluster |
//! | [`Passthrough`] | endpoint that is a client again | goes on under other labels, to another endpoint |
//! | [`PolicyRoutes`] | endpoint | sets policy routes and their source addresses |
//! | [`ExtraContext`], [`DnsConfigs`], [`Mtu`] | endpoint | adds fixed entries, a limit |
//! | [`SwitchCase`] | anywhere | sends it through one of several elements |

mod address_set;
mod awareness;
mod client_info;
mod dns_configs;
mod excluded_file;
mod excluded_prefixes;
mod extra_context;
mod hosts_in_use;
mod mtu;
mod passthrough;
mod policy_file;
mod policy_routes;
mod prefix_list;
mod replace_endpoint_name;
mod replace_labels;
mod switch_case;
#[cfg(test)]
mod testing;

pub use awareness::{AwarenessError, AwarenessGroups};
pub use client_info::ClientInfo;
pub use dns_configs::DnsConfigs;
pub use excluded_file::ExcludedPrefixesFile;
pub use excluded_prefixes::ExcludedPrefixes;
pub use extra_context::ExtraContext;
pub use hosts_in_use::Collision;
pub use mtu::Mtu;
pub use passthrough::Passthrough;
pub use policy_routes::PolicyRoutes;
pub use replace_endpoint_name::ReplaceEndpointName;
pub use replace_labels::ReplaceLabels;
pub use switch_case::SwitchCase;

use nsm_api::connection::Connection;
use nsm_api::{ConnectionContext, IpContext};

fn context(connection: &mut Connection) -> &mut ConnectionContext {
    connection.context.get_or_insert_default()
}

fn ip_context(connection: &mut Connection) -> &mut IpContext {
    context(connection).ip_context.get_or_insert_default()
}

/// Adds what the list of excluded prefixes does not name yet, and says what that was.
fn exclude<'p>(call: &mut nsm_chain::Call, prefixes: impl IntoIterator<Item = &'p String>) -> Vec<String> {
    let context = call.connection().context.as_ref().and_then(|context| context.ip_context.as_ref());
    let known: std::collections::HashSet<&String> =
        context.iter().flat_map(|context| &context.excluded_prefixes).collect();
    let added: Vec<String> = prefixes.into_iter().filter(|prefix| !known.contains(prefix)).cloned().collect();
    // The connection is copied when somebody edits it: not for nothing.
    if !added.is_empty() {
        ip_context(call.connection_mut()).excluded_prefixes.extend_from_slice(&added);
    }
    added
}
