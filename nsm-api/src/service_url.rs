//! Service URLs, by which a workload says what it wants: `kernel://name@domain/interface?label=value`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use url::form_urlencoded;

use crate::excerpt::excerpt;
use crate::mechanism::{self, check_interface_name, keys};
use crate::{Connection, Mechanism, NetworkServiceRequest};

/// What a workload asks for, in the form of a URL.
///
/// ```
/// use nsm_api::ServiceUrl;
///
/// let url: ServiceUrl = "kernel://secure-ns@example.org/nsm-1?app=web".parse()?;
/// assert_eq!(url.mechanism, "KERNEL");
/// assert_eq!(url.service, "secure-ns@example.org");
/// assert_eq!(url.interface.as_deref(), Some("nsm-1"));
/// assert_eq!(url.labels["app"], "web");
/// # Ok::<(), nsm_api::service_url::ServiceUrlError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    /// Mechanism type in upper case: the URL's scheme.
    pub mechanism: String,
    /// Network service, `name` or `name@domain`: the URL's authority.
    pub service: String,
    /// Name of the interface: the last segment of the URL's path.
    pub interface: Option<String>,
    /// The client's labels: the URL's query. Values of a repeated key are joined by commas.
    pub labels: BTreeMap<String, String>,
}

/// Why text is not a service URL, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text} is not a service URL: {reason}; write kernel://service@domain/interface?label=value")]
pub struct ServiceUrlError {
    /// The text, quoted, cut when long.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ServiceUrl {
    /// Parses the list form of the pod annotation `networkservicemesh.io`: URLs joined by commas.
    ///
    /// The list is split at every comma, as the reference splits it: a comma inside a URL must be written
    /// `%2C`. Space around a URL is ignored, an empty list is a list of none.
    ///
    /// # Errors
    /// [`ServiceUrlError`] of the first part that is not a URL.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ServiceUrlError> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        text.split(',').map(|part| part.trim().parse()).collect()
    }

    /// The mechanism that the URL prefers: local, with the interface name as its parameter.
    pub fn to_mechanism(&self) -> Mechanism {
        let mut mechanism = Mechanism::new(mechanism::LOCAL, &self.mechanism);
        mechanism.set_parameter(keys::INTERFACE_NAME, self.interface.as_deref().unwrap_or_default());
        mechanism
    }

    /// The first request for what the URL says, under the caller's connection id.
    pub fn to_request(&self, id: impl Into<String>) -> NetworkServiceRequest {
        let connection = Connection {
            id: id.into(),
            network_service: self.service.clone(),
            labels: self.labels.clone(),
            ..Default::default()
        };
        NetworkServiceRequest { connection: Some(connection), mechanism_preferences: vec![self.to_mechanism()] }
    }
}

impl FromStr for ServiceUrl {
    type Err = ServiceUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| ServiceUrlError { text: excerpt(text), reason })
    }
}

fn parse(text: &str) -> Result<ServiceUrl, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("it has no ://")?;
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(in_scheme) {
        return Err("its mechanism (before ://) has characters other than letters, digits, plus, dot, dash");
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (service, path) = place.split_once('/').unwrap_or((place, ""));
    check_service(service)?;

    let mechanism = scheme.to_ascii_uppercase();
    let interface = path.rsplit('/').next().filter(|name| !name.is_empty());
    if let Some(name) = interface {
        check_interface(&mechanism, name)?;
    }
    check_query(query)?;
    Ok(ServiceUrl {
        mechanism,
        service: service.to_owned(),
        interface: interface.map(str::to_owned),
        labels: labels(query)?,
    })
}

fn check_service(service: &str) -> Result<(), &'static str> {
    // Names go into URLs, file names and Kubernetes objects as they are: no escapes, nothing to escape.
    let outside = |c: char| "%#?,:\\".contains(c) || c.is_whitespace() || c.is_control();
    if service.is_empty() || service.starts_with('@') {
        Err("it names no network service")
    } else if service.ends_with('@') {
        Err("its domain is empty")
    } else if service.contains(outside) {
        Err("its network service has a space, comma, colon, percent sign or other character that needs an escape")
    } else {
        Ok(())
    }
}

fn check_interface(mechanism: &str, name: &str) -> Result<(), &'static str> {
    let outside = |c: char| "%#,".contains(c) || c.is_whitespace() || c.is_control();
    if name.contains(outside) {
        return Err("its interface has a character that needs an escape");
    }
    if mechanism == mechanism::KERNEL { check_interface_name(name).map_err(|error| error.reason) } else { Ok(()) }
}

/// The reference drops labels with a semicolon or a broken escape without a word.
fn check_query(query: &str) -> Result<(), &'static str> {
    if query.contains(|c: char| "#,;".contains(c) || c.is_whitespace() || c.is_control()) {
        return Err(
            "its labels have a #, comma, semicolon, space or control character: write it as %23, %2C, %3B, %20",
        );
    }
    let escaped = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if query.split('%').skip(1).all(escaped) {
        Ok(())
    } else {
        Err("its labels have a % that escapes nothing: write it as %25")
    }
}

fn labels(query: &str) -> Result<BTreeMap<String, String>, &'static str> {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if key.is_empty() {
            return Err("it has a label without a name");
        }
        labels
            .entry(key.into_owned())
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    Ok(labels)
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.mechanism.to_ascii_lowercase(), self.service)?;
        if let Some(interface) = &self.interface {
            write!(f, "/{interface}")?;
        }
        if self.labels.is_empty() {
            return Ok(());
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.labels).finish();
        write!(f, "?{query}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(text: &str) -> &'static str {
        text.parse::<ServiceUrl>().expect_err(text).reason
    }

    #[test]
    fn every_part_but_mechanism_and_service_is_optional() {
        let url: ServiceUrl = "memif://ns-first".parse().unwrap();
        assert_eq!((url.mechanism.as_str(), url.service.as_str()), ("MEMIF", "ns-first"));
        assert_eq!((url.interface, url.labels.len()), (None, 0));
        let url: ServiceUrl = "kernel://ns-first/?a=1&a=2&b".parse().unwrap();
        assert_eq!((url.labels["a"].as_str(), url.labels["b"].as_str()), ("1,2", ""));
    }

    #[test]
    fn the_last_segment_of_the_path_is_the_interface() {
        let url: ServiceUrl = "kernel://ns/a/nsm-1".parse().unwrap();
        assert_eq!(url.interface.as_deref(), Some("nsm-1"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(reason("ns-first"), "it has no ://");
        assert_eq!(reason("kernel:///nsm-1"), "it names no network service");
        assert_eq!(reason("kernel://ns@/nsm-1"), "its domain is empty");
        assert_eq!(reason("kernel://ns/an-interface-name"), "it is longer than 15 octets");
        assert_eq!(reason("kernel://ns/if?=v"), "it has a label without a name");
        for text in [
            "kernel://ns:80/a",
            "kernel://n%20s",
            "1://ns",
            "kernel://ns?a=b#c",
            "kernel://ns#c",
            "kernel://ns/if#c",
            "kernel://ns?a=b;c=d",
            "kernel://ns?a=%zz",
            "kernel://ns?a=%2",
        ] {
            reason(text);
        }
    }

    #[test]
    fn a_list_is_split_at_every_comma() {
        let urls = ServiceUrl::parse_list(" kernel://a/nsm-1?k=x%2Cy , kernel://b/nsm-2").unwrap();
        assert_eq!(urls.len(), 2);
        assert_eq!(urls[0].labels["k"], "x,y");
        assert_eq!(ServiceUrl::parse_list("  "), Ok(Vec::new()));
        assert!(ServiceUrl::parse_list("kernel://a,").is_err());
        assert_eq!(ServiceUrl::parse_list("kernel://a?k=x,y").unwrap_err().text, "\"y\"");
    }

    #[test]
    fn a_request_asks_for_what_the_url_says() {
        let url: ServiceUrl = "kernel://ns@dom/nsm-1?app=web".parse().unwrap();
        let request = url.to_request("id-1");
        let connection = request.connection.unwrap();
        assert_eq!((connection.id.as_str(), connection.network_service.as_str()), ("id-1", "ns@dom"));
        assert_eq!(connection.labels["app"], "web");
        let mechanism = &request.mechanism_preferences[0];
        assert_eq!((mechanism.cls.as_str(), mechanism.r#type.as_str()), ("LOCAL", "KERNEL"));
        assert_eq!(mechanism.parameters["name"], "nsm-1");
    }

    proptest! {
        #[test]
        fn urls_round_trip_alone_and_in_a_list(
            mechanism in prop::sample::select(vec!["KERNEL", "MEMIF", "VFIO"]),
            service in "[a-z][a-z0-9.-]{0,9}(@[a-z.]{1,9})?",
            interface in prop::option::of("[a-z0-9-]{1,15}"),
            labels in prop::collection::btree_map("\\PC{1,6}", ".{0,6}", 0..4),
        ) {
            let url = ServiceUrl { mechanism: mechanism.into(), service, interface, labels };
            let text = url.to_string();
            prop_assert_eq!(text.parse(), Ok(url.clone()));
            prop_assert_eq!(ServiceUrl::parse_list(&format!("{text},{text}")), Ok(vec![url.clone(), url]));
        }

        #[test]
        fn what_parses_prints_a_url_that_parses_the_same(text in "([a-z]{1,6}://)?.{0,30}") {
            if let Ok(url) = text.parse::<ServiceUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
            let _ = ServiceUrl::parse_list(&text);
        }
    }
}
