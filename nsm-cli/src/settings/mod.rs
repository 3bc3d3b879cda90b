//! Settings of a role: from the reference's environment variables, from flags, or from a file.
//!
//! A role's options are a struct that derives [`clap::Args`]; each field is a setting and is declared there, once: its
//! name is the key in a file, with dashes the flag, in capitals behind `NSM_` the variable. A value is text until it is
//! known which source counts; then all of it is parsed by the types of the fields. So a value means the same wherever
//! it comes from, and whatever is wrong is told with the name of its source.

mod choose;
mod declare;
mod file;
pub(crate) mod values;

pub(crate) use choose::{Settings, Variables};
pub(crate) use declare::explained;
#[cfg(test)]
pub(crate) use declare::{Declared, declared};

/// The field that names a file of settings; it is the only one that a file cannot set.
const CONFIG: &str = "config";

/// Variables that have no prefix in the reference either.
const UNPREFIXED: [&str; 3] = ["SPIFFE_ENDPOINT_SOCKET", "PROMETHEUS", "PROMETHEUS_METRICS_PREFIX"];

/// The prefix of all others.
const PREFIX: &str = "NSM_";

/// The variable of a setting.
fn variable(key: &str) -> String {
    let name = key.to_ascii_uppercase();
    if UNPREFIXED.contains(&name.as_str()) { name } else { format!("{PREFIX}{name}") }
}
