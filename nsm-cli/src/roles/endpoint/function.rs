//! What an endpoint does, and which settings go with that.

use clap::ValueEnum;

use super::Options;
use crate::failure::Failure;

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Function {
    IcmpResponder,
    Passthrough,
    Firewall,
}

/// What only some types can be told.
pub(super) fn consistent(options: &Options) -> Result<(), Failure> {
    let passes = options.r#type != Function::IcmpResponder;
    let (cause, remedy) = if passes && options.labels.pairs().next().is_none() {
        ("it has no labels, so no rule tells it from its clients, and it would go on to itself", "set NSM_LABELS")
    } else if passes && !options.services.0.is_empty() {
        (
            "packets pass between kernel interfaces, and it is to put clients into VLANs",
            "leave NSM_SERVICES or NSM_TYPE out",
        )
    } else if options.r#type == Function::Firewall && options.filter.is_empty() {
        ("its filter is empty: nothing would pass", "set NSM_FILTER, such as: allow icmp,allow tcp 8080")
    } else if options.r#type != Function::Firewall && !options.filter.is_empty() {
        ("it has a filter and is no firewall: everything would pass", "set NSM_TYPE=firewall, or leave NSM_FILTER out")
    } else {
        return Ok(());
    };
    Err(Failure::at(&options.name, cause, remedy))
}
