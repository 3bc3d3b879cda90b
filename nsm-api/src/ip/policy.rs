//! Policy routes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::port_range::PortRange;
use super::route::IpRoute;
use super::validate::FieldError;
use crate::connectioncontext::PolicyRoute;

impl PolicyRoute {
    /// Source that the traffic must have, `None` for any. An address without a length is one host.
    ///
    /// # Errors
    /// [`FieldError`] when it is neither an address nor a net.
    pub fn source(&self) -> Result<Option<IpNet>, FieldError> {
        if self.from.is_empty() {
            return Ok(None);
        }
        let host = self.from.parse::<IpAddr>().map(IpNet::from);
        let net = self.from.parse().or(host);
        net.map(Some)
            .map_err(|_| FieldError::new("from", &self.from, "an IP address, with or without length, or empty"))
    }

    /// IANA protocol number that the traffic must have, `None` for any.
    ///
    /// # Errors
    /// [`FieldError`] when it is not a number of eight bits.
    pub fn protocol(&self) -> Result<Option<u8>, FieldError> {
        if self.proto.is_empty() {
            return Ok(None);
        }
        FieldError::parse("proto", &self.proto, "an IANA protocol number up to 255, or empty").map(Some)
    }

    /// Destination ports that the traffic must have, `None` for any.
    ///
    /// # Errors
    /// [`FieldError`] when it is not a range.
    pub fn dst_ports(&self) -> Result<Option<PortRange>, FieldError> {
        ports("dst_port", &self.dst_port)
    }

    /// Source ports that the traffic must have, `None` for any.
    ///
    /// # Errors
    /// [`FieldError`] when it is not a range.
    pub fn src_ports(&self) -> Result<Option<PortRange>, FieldError> {
        ports("src_port", &self.src_port)
    }

    /// Routes for the traffic; none mean a default route through the connection.
    ///
    /// # Errors
    /// [`FieldError`] names the route that cannot be read.
    pub fn parse_routes(&self) -> Result<Vec<IpRoute>, FieldError> {
        let routes = self.routes.iter().enumerate();
        routes
            .map(|(index, route)| route.parse().map_err(|error| error.inside(format_args!("routes[{index}]"))))
            .collect()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`FieldError`] names the first bad field.
    pub fn validate(&self) -> Result<(), FieldError> {
        self.source()?;
        self.protocol()?;
        self.dst_ports()?;
        self.src_ports()?;
        self.parse_routes()?;
        Ok(())
    }
}

fn ports(field: &str, text: &str) -> Result<Option<PortRange>, FieldError> {
    PortRange::parse_optional(text).map_err(|_| FieldError::new(field, text, "a port N, a range A-B, or empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_mean_any() {
        let policy = PolicyRoute::default();
        assert_eq!(policy.validate(), Ok(()));
        assert_eq!((policy.source(), policy.protocol(), policy.dst_ports()), (Ok(None), Ok(None), Ok(None)));
    }

    #[test]
    fn a_source_may_have_a_length_or_not() {
        let from = |text: &str| PolicyRoute { from: text.into(), ..Default::default() }.source();
        assert_eq!(from("172.16.3.1"), Ok(Some("172.16.3.1/32".parse().unwrap())));
        assert_eq!(from("172.16.3.1/24"), Ok(Some("172.16.3.1/24".parse().unwrap())));
        assert!(from("host").is_err());
    }

    #[test]
    fn bad_fields_are_named() {
        let policy = PolicyRoute { proto: "256".into(), ..Default::default() };
        assert_eq!(policy.validate().unwrap_err().field, "proto");
        let policy = PolicyRoute { src_port: "1-2-3".into(), ..Default::default() };
        assert_eq!(policy.validate().unwrap_err().field, "src_port");
    }
}
