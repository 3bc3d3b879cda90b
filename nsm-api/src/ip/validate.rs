//! Checking a whole IP context, and the error that names the bad field.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use crate::IpContext;
use crate::excerpt::excerpt;

/// A field that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} is {value}: it must be {expected}")]
pub struct FieldError {
    /// The field as the proto names it, with its place: `policies[0].routes[1].prefix`.
    pub field: String,
    /// Its value, quoted, cut when long.
    pub value: String,
    /// What it must be.
    pub expected: String,
}

impl FieldError {
    pub(super) fn new(field: &str, value: &str, expected: impl Display) -> Self {
        Self { field: field.to_owned(), value: excerpt(value), expected: expected.to_string() }
    }

    pub(super) fn parse<T: FromStr>(field: &str, value: &str, expected: &str) -> Result<T, Self> {
        value.parse().map_err(|_| Self::new(field, value, expected))
    }

    /// The same error seen from the message that holds the field's message in `outer`.
    pub(super) fn inside(mut self, outer: impl Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

const NET: &str = "an address with length, such as 172.16.1.1/32";

impl IpContext {
    /// Checks that every address, prefix, route, neighbour, policy and prefix request can be read.
    ///
    /// # Errors
    /// [`FieldError`] names the first bad field, its value, and what it must be.
    pub fn validate(&self) -> Result<(), FieldError> {
        nets("src_ip_addrs", &self.src_ip_addrs)?;
        nets("dst_ip_addrs", &self.dst_ip_addrs)?;
        each("src_routes", &self.src_routes, |route| route.parse().map(drop))?;
        each("dst_routes", &self.dst_routes, |route| route.parse().map(drop))?;
        nets("excluded_prefixes", &self.excluded_prefixes)?;
        each("ip_neighbors", &self.ip_neighbors, |neighbor| {
            FieldError::parse::<IpAddr>("ip", &neighbor.ip, "an IP address")?;
            hardware_address("hardware_address", &neighbor.hardware_address)
        })?;
        each("extra_prefix_request", &self.extra_prefix_request, |request| request.validate())?;
        nets("extra_prefixes", &self.extra_prefixes)?;
        each("policies", &self.policies, |policy| policy.validate())
    }
}

fn each<T>(field: &str, items: &[T], check: impl Fn(&T) -> Result<(), FieldError>) -> Result<(), FieldError> {
    let mut items = items.iter().enumerate();
    items.try_for_each(|(index, item)| check(item).map_err(|error| error.inside(format_args!("{field}[{index}]"))))
}

fn nets(field: &str, texts: &[String]) -> Result<(), FieldError> {
    let mut texts = texts.iter().enumerate();
    texts.try_for_each(|(index, text)| FieldError::parse::<IpNet>(&format!("{field}[{index}]"), text, NET).map(drop))
}

/// Six octets in hexadecimal, joined by colons.
fn hardware_address(field: &str, text: &str) -> Result<(), FieldError> {
    let octets = text.split(':');
    let octet = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let valid = octets.clone().count() == 6 && octets.into_iter().all(octet);
    if valid { Ok(()) } else { Err(FieldError::new(field, text, "a hardware address, such as 02:00:00:00:00:01")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectioncontext::{ExtraPrefixRequest, IpNeighbor, PolicyRoute, Route};

    fn flaw(change: impl FnOnce(&mut IpContext)) -> String {
        let mut context = IpContext::default();
        change(&mut context);
        context.validate().unwrap_err().field
    }

    #[test]
    fn the_bad_field_is_named_with_its_place() {
        let bad = || vec!["10.0.0.1/32".to_owned(), "10.0.0.1".to_owned()];
        assert_eq!(flaw(|c| c.src_ip_addrs = bad()), "src_ip_addrs[1]");
        assert_eq!(flaw(|c| c.dst_ip_addrs = bad()), "dst_ip_addrs[1]");
        assert_eq!(flaw(|c| c.excluded_prefixes = bad()), "excluded_prefixes[1]");
        assert_eq!(flaw(|c| c.extra_prefixes = bad()), "extra_prefixes[1]");
        assert_eq!(flaw(|c| c.dst_routes = vec![Route::default()]), "dst_routes[0].prefix");
        assert_eq!(
            flaw(|c| c.extra_prefix_request = vec![ExtraPrefixRequest::default()]),
            "extra_prefix_request[0].addr_family"
        );
        let policy = PolicyRoute { routes: vec![Route::default()], ..Default::default() };
        assert_eq!(flaw(|c| c.policies = vec![policy]), "policies[0].routes[0].prefix");
        let neighbor = IpNeighbor { ip: "10.0.0.1".into(), hardware_address: "02:00:00:00:00".into() };
        assert_eq!(flaw(|c| c.ip_neighbors = vec![neighbor]), "ip_neighbors[0].hardware_address");
    }

    #[test]
    fn the_message_says_value_and_remedy() {
        let error = IpContext { src_ip_addrs: vec!["x".into()], ..Default::default() }.validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"src_ip_addrs[0] is "x": it must be an address with length, such as 172.16.1.1/32"#
        );
        assert_eq!(IpContext::default().validate(), Ok(()));
    }
}
