use std::str::FromStr;

use nsm_api::connectioncontext::DnsConfig;
use serde::Deserialize;

use super::{Malformed, malformed};

/// DNS servers for clients, as JSON: `[{"dns_server_ips": ["10.0.0.1"], "search_domains": ["my.domain"]}]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DnsSettings(pub(crate) Vec<DnsConfig>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    #[serde(default)]
    dns_server_ips: Vec<String>,
    #[serde(default)]
    search_domains: Vec<String>,
}

impl FromStr for DnsSettings {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let shapes: Vec<Shape> = serde_json::from_str(text).map_err(malformed)?;
        let config = |shape: Shape| {
            let wrong = shape.dns_server_ips.iter().find(|ip| ip.parse::<std::net::IpAddr>().is_err());
            match wrong {
                Some(ip) => Err(Malformed(format!("{ip:?} is no IP address of a DNS server"))),
                None => Ok(DnsConfig { dns_server_ips: shape.dns_server_ips, search_domains: shape.search_domains }),
            }
        };
        shapes.into_iter().map(config).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_reference_is_read_and_mistakes_are_named() {
        let text = r#"[{"dns_server_ips": ["172.16.1.2"], "search_domains": ["my.coredns.service"]}, {}]"#;
        let DnsSettings(configs) = text.parse().unwrap();
        assert_eq!((configs.len(), configs[0].dns_server_ips[0].as_str()), (2, "172.16.1.2"));
        assert_eq!("[]".parse(), Ok(DnsSettings::default()));
        for (text, why) in
            [("[", "EOF"), (r#"[{"servers": []}]"#, "servers"), (r#"[{"dns_server_ips": ["dns"]}]"#, "\"dns\"")]
        {
            let error = text.parse::<DnsSettings>().unwrap_err().0;
            assert!(error.contains(why), "{error}");
        }
    }
}
