//! Endpoints that know of each other, and may give the same addresses.

use std::str::FromStr;

use nsm_api::ServiceUrl;
use nsm_api::connection::{Connection, Mechanism};
use nsm_api::mechanism::keys;
use nsm_api::service_url::ServiceUrlError;

/// Groups of service URLs whose endpoints know of each other: a connection of a group may have addresses that others
/// of the same group have. Everybody else keeps out of them.
///
/// The text form is that of the reference's `NSM_AWARENESS_GROUPS`: `[url,url],[url]`. A connection is of a group if
/// its mechanism type, service and interface name are those of one of its URLs and it has all the labels of that; a
/// URL without an interface stands for any.
///
/// ```
/// let groups: nsm_sdk::context::AwarenessGroups = "[kernel://vpn/nsm-1,kernel://vpn/nsm-2],[memif://lb]".parse()?;
/// # Ok::<(), nsm_sdk::context::AwarenessError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwarenessGroups(Vec<Vec<ServiceUrl>>);

/// Why text does not name awareness groups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwarenessError {
    /// A bracket or comma is missing.
    #[error("group {0} is not in brackets: write [url,url],[url]")]
    Brackets(usize),
    /// A group contains something else than service URLs.
    #[error("in group {group}")]
    Url {
        /// Which group, from 0.
        group: usize,
        /// What is wrong.
        source: ServiceUrlError,
    },
    /// A URL would be of two groups.
    #[error("{0} is in more than one group: name each URL once")]
    Twice(Box<ServiceUrl>),
}

impl AwarenessGroups {
    /// Which group a connection is of.
    pub(super) fn of(&self, connection: &Connection, preferences: &[Mechanism]) -> Option<usize> {
        self.0.iter().position(|group| {
            let mut mechanisms = connection.mechanism.iter().chain(preferences);
            mechanisms.any(|mechanism| group.iter().any(|url| matches(url, connection, mechanism)))
        })
    }
}

fn matches(url: &ServiceUrl, connection: &Connection, mechanism: &Mechanism) -> bool {
    let labels = || url.labels.iter().all(|(key, value)| connection.labels.get(key) == Some(value));
    url.service == connection.network_service
        && mechanism.is(&url.mechanism)
        && (url.interface.is_none() || url.interface.as_deref() == mechanism.parameter(keys::INTERFACE_NAME))
        && labels()
}

impl FromStr for AwarenessGroups {
    type Err = AwarenessError;

    fn from_str(text: &str) -> Result<Self, AwarenessError> {
        let mut groups: Vec<Vec<ServiceUrl>> = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let group = groups.len();
            let brackets = || AwarenessError::Brackets(group);
            let (urls, after) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(brackets)?;
            let urls = ServiceUrl::parse_list(urls).map_err(|source| AwarenessError::Url { group, source })?;
            if let Some(url) = urls.iter().find(|url| groups.iter().flatten().any(|other| other == *url)) {
                return Err(AwarenessError::Twice(Box::new(url.clone())));
            }
            groups.push(urls);
            rest = after.trim_start();
            if !rest.is_empty() {
                let more = rest.strip_prefix(',').map(str::trim_start).filter(|more| !more.is_empty());
                rest = more.ok_or(AwarenessError::Brackets(group + 1))?;
            }
        }
        Ok(Self(groups))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups(text: &str) -> Result<AwarenessGroups, AwarenessError> {
        text.parse()
    }

    #[test]
    fn groups_are_lists_of_urls_in_brackets() {
        assert_eq!(groups("").unwrap().0.len(), 0);
        assert_eq!(groups("[]").unwrap().0, [[]]);
        let two = groups(" [kernel://a/n1?x=y, kernel://a/n2] , [memif://b]").unwrap();
        assert_eq!(two.0.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(groups("kernel://a"), Err(AwarenessError::Brackets(0)));
        assert_eq!(groups("[kernel://a],"), Err(AwarenessError::Brackets(1)));
        assert_eq!(groups("[kernel://a][kernel://b]"), Err(AwarenessError::Brackets(1)));
        assert!(matches!(groups("[],[a]"), Err(AwarenessError::Url { group: 1, .. })));
        assert!(matches!(groups("[kernel://a],[kernel://a]"), Err(AwarenessError::Twice(_))));
    }

    #[test]
    fn a_connection_is_of_the_group_whose_url_it_fits() {
        let groups = groups("[kernel://a/n1],[kernel://a/n2?x=y],[memif://b]").unwrap();
        let of = |service: &str, mechanism: Mechanism, labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            let connection = Connection { network_service: service.into(), labels, ..Default::default() };
            groups.of(&connection, &[mechanism])
        };
        let kernel = |name: &str| {
            let mut mechanism = Mechanism::kernel();
            mechanism.set_parameter(keys::INTERFACE_NAME, name);
            mechanism
        };
        assert_eq!(of("a", kernel("n1"), &[("nodeName", "here")]), Some(0));
        assert_eq!(of("a", kernel("n2"), &[("x", "y")]), Some(1));
        assert_eq!(of("a", kernel("n2"), &[]), None);
        assert_eq!(of("b", Mechanism::memif(), &[]), Some(2), "a URL without an interface stands for any");
        assert_eq!(of("b", kernel("n1"), &[]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[\\[\\], a-c:/]{0,24}") {
            let _ = groups(&text);
        }
    }
}
