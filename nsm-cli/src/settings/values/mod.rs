//! The forms in which settings are written: those of the Go reference, because its variables must keep their meaning.

mod cidr_groups;
mod dns;
mod duration;
mod labels;
mod level;
mod list;
mod maybe;
mod switch;
mod vlan_services;

pub(crate) use cidr_groups::CidrGroups;
pub(crate) use dns::DnsSettings;
pub(crate) use duration::Span;
pub(crate) use labels::Labels;
pub(crate) use level::Level;
pub(crate) use list::List;
pub(crate) use maybe::Maybe;
pub(crate) use switch::Switch;
pub(crate) use vlan_services::VlanServices;

/// Text that is not of the wanted form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// The same, for an error of somebody else's parser.
fn malformed(error: impl std::fmt::Display) -> Malformed {
    Malformed(error.to_string())
}
