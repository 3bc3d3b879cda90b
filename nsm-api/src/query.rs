//! Which records a registry query finds.
//!
//! A query holds an example record; an empty field of the example matches anything, and so does a query
//! without an example.

use prost_types::Timestamp;

use crate::registry::{NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceQuery};

impl NetworkServiceQuery {
    /// Whether the query finds this network service: equal name, payload and matches.
    pub fn finds(&self, record: &NetworkService) -> bool {
        let Some(example) = &self.network_service else {
            return true;
        };
        empty_or_equal(&example.name, &record.name)
            && empty_or_equal(&example.payload, &record.payload)
            && (example.matches.is_empty() || example.matches == record.matches)
    }
}

impl NetworkServiceEndpointQuery {
    /// Whether the query finds this endpoint: equal name; at least the example's network services and, for
    /// each service the example labels, at least these labels; a URL that contains the example's; an
    /// expiration in the same second.
    pub fn finds(&self, record: &NetworkServiceEndpoint) -> bool {
        let Some(example) = &self.network_service_endpoint else {
            return true;
        };
        empty_or_equal(&example.name, &record.name)
            && example.network_service_names.iter().all(|name| record.network_service_names.contains(name))
            && has_labels(example, record)
            && record.url.contains(&example.url)
            && same_second(example.expiration_time.as_ref(), record.expiration_time.as_ref())
    }
}

fn empty_or_equal(example: &str, value: &str) -> bool {
    example.is_empty() || example == value
}

fn has_labels(example: &NetworkServiceEndpoint, record: &NetworkServiceEndpoint) -> bool {
    example.network_service_labels.iter().all(|(service, wanted)| {
        let labels = record.network_service_labels.get(service);
        labels.is_some_and(|labels| wanted.labels.iter().all(|(key, value)| labels.labels.get(key) == Some(value)))
    })
}

fn same_second(example: Option<&Timestamp>, time: Option<&Timestamp>) -> bool {
    example.is_none_or(|example| time.is_some_and(|time| time.seconds == example.seconds))
}

impl NetworkServiceEndpoint {
    /// Whether the registration has ended at `now`. One without an expiration does not end.
    pub fn is_expired(&self, now: &Timestamp) -> bool {
        self.expiration_time.as_ref().is_some_and(|end| (end.seconds, end.nanos) <= (now.seconds, now.nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Match, NetworkServiceLabels};

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 5 })
    }

    fn endpoint() -> NetworkServiceEndpoint {
        let labels = [("app", "vpn"), ("v", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        NetworkServiceEndpoint {
            name: "nse-1".into(),
            network_service_names: vec!["a".into(), "b".into()],
            network_service_labels: [("a".to_owned(), NetworkServiceLabels { labels: labels.into() })].into(),
            url: "tcp://10.0.0.1:5001".into(),
            expiration_time: at(100),
            ..Default::default()
        }
    }

    fn finds(change: impl FnOnce(&mut NetworkServiceEndpoint)) -> bool {
        let mut example = NetworkServiceEndpoint::default();
        change(&mut example);
        NetworkServiceEndpointQuery { network_service_endpoint: Some(example), watch: false }.finds(&endpoint())
    }

    fn one_label(service: &str, key: &str, value: &str, example: &mut NetworkServiceEndpoint) {
        let labels = [(key.to_owned(), value.to_owned())].into();
        example.network_service_labels = [(service.to_owned(), NetworkServiceLabels { labels })].into();
    }

    #[test]
    fn a_query_without_an_example_finds_everything() {
        assert!(NetworkServiceEndpointQuery::default().finds(&endpoint()));
        assert!(NetworkServiceQuery::default().finds(&NetworkService::default()));
        assert!(finds(|_| ()));
    }

    #[test]
    fn an_endpoint_is_found_by_each_field() {
        assert!(finds(|e| e.name = "nse-1".into()) && !finds(|e| e.name = "nse".into()));
        assert!(finds(|e| e.network_service_names = vec!["b".into()]));
        assert!(!finds(|e| e.network_service_names = vec!["b".into(), "c".into()]));
        assert!(finds(|e| e.url = "10.0.0.1".into()) && !finds(|e| e.url = "10.0.0.2".into()));
        assert!(finds(|e| one_label("a", "app", "vpn", e)) && !finds(|e| one_label("a", "app", "x", e)));
        assert!(!finds(|e| one_label("b", "app", "vpn", e)) && !finds(|e| one_label("a", "new", "", e)));
    }

    #[test]
    fn expirations_are_compared_in_whole_seconds_and_may_be_absent() {
        let second = |seconds| {
            move |e: &mut NetworkServiceEndpoint| {
                e.expiration_time = Some(Timestamp { seconds, nanos: 0 });
            }
        };
        assert!(finds(second(100)) && !finds(second(101)));
        let example = NetworkServiceEndpoint { expiration_time: at(100), ..Default::default() };
        let query = NetworkServiceEndpointQuery { network_service_endpoint: Some(example), watch: true };
        assert!(!query.finds(&NetworkServiceEndpoint::default()));
    }

    #[test]
    fn a_service_is_found_by_name_payload_and_matches() {
        let record = NetworkService {
            name: "ns".into(),
            payload: "IP".into(),
            matches: vec![Match::default()],
            ..Default::default()
        };
        let finds = |example: NetworkService| {
            NetworkServiceQuery { network_service: Some(example), watch: false }.finds(&record)
        };
        assert!(finds(NetworkService { name: "ns".into(), payload: "IP".into(), ..Default::default() }));
        assert!(!finds(NetworkService { name: "n".into(), ..Default::default() }));
        assert!(!finds(NetworkService { payload: "ETHERNET".into(), ..Default::default() }));
        assert!(finds(NetworkService { matches: vec![Match::default()], ..Default::default() }));
        assert!(!finds(NetworkService {
            matches: vec![Match { fallthrough: true, ..Default::default() }],
            ..Default::default()
        }));
    }

    #[test]
    fn a_registration_ends_at_its_expiration() {
        let now = |seconds, nanos| Timestamp { seconds, nanos };
        assert!(!endpoint().is_expired(&now(100, 4)));
        assert!(endpoint().is_expired(&now(100, 5)));
        assert!(!NetworkServiceEndpoint::default().is_expired(&now(i64::MAX, 0)));
    }
}
