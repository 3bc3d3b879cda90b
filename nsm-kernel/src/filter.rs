//! What a namespace forwards: a packet filter for workloads between two wires.
//!
//! It is one table of nf_tables, `nsm-filter`, with one chain where packets are forwarded: whatever no rule lets through is dropped,
//! but for the answers to what was. It is written whole in one transaction, and stays if its program is killed: so nothing passes that
//! would not have passed before.

use std::ops::RangeInclusive;

use crate::{
    Netns, Result,
    nat::expression::Expressions,
    netns::{Lane, work},
    nft::{Attributes, Kind, Nft},
};

const TABLE: &str = "nsm-filter";
const CHAIN: &str = "forward";
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// Verdicts, `NF_DROP` and `NF_ACCEPT`.
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
/// Beyond this they are a mistake.
const MOST_RULES: usize = 512;

/// Rules, of which the first that fits a packet decides; what none fits is dropped. Answers to what was let through are, too.
///
/// ```
/// use nsm_kernel::Filter;
///
/// let filter = Filter::parse(["allow icmp", "deny tcp 8000", "allow tcp 8000-8080"])?;
/// let error = Filter::parse(["allow tpc 80"]).unwrap_err();
/// assert!(error.to_string().contains("\"tpc\""));
/// # Ok::<(), nsm_kernel::FilterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// Any of these; none: whatever it is.
    protocols: &'static [u8],
    ports: Option<RangeInclusive<u16>>,
}

/// A rule that cannot be had, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "filter rule {rule:?}: {reason}; write allow or deny, then icmp, tcp, udp, sctp or any, then a port or first-last, such as allow tcp 8080"
)]
pub struct FilterError {
    rule: String,
    reason: String,
}

impl Filter {
    /// Reads rules such as `allow tcp 8080`, `deny udp 5000-5100`, `allow icmp`, in the order in which packets meet them.
    ///
    /// # Errors
    /// Which rule cannot be had, and why.
    pub fn parse<T: AsRef<str>>(rules: impl IntoIterator<Item = T>) -> Result<Self, FilterError> {
        let mut all = Vec::new();
        for text in rules {
            let text = text.as_ref();
            let wrong = |reason| FilterError { rule: text.chars().take(120).collect(), reason };
            if all.len() == MOST_RULES {
                return Err(wrong(format!("there are more than {MOST_RULES}")));
            }
            all.push(Rule::parse(text).map_err(wrong)?);
        }
        Ok(Self(all))
    }

    /// Filters what this namespace forwards by these rules, in place of former ones.
    ///
    /// # Errors
    /// [`Error::NoPrivileges`](crate::Error::NoPrivileges), or [`Error::Kernel`](crate::Error::Kernel) also where the kernel has no
    /// nf_tables or no connection tracking.
    pub async fn put(&self, netns: &Netns) -> Result<()> {
        let mut requests = gone();
        let hook = none().number(1, FORWARD).number(2, 0);
        let chain = none().text(1, TABLE).text(3, CHAIN).nested(4, &hook).number(5, DROP.cast_unsigned());
        requests.extend([(Kind::NewTable, none().text(1, TABLE)), (Kind::NewChain, chain.text(7, "filter"))]);
        let mut answers = Expressions::default();
        answers.of_a_known_connection();
        answers.verdict(ACCEPT, None);
        requests.push(rule(answers));
        requests.extend(self.0.iter().flat_map(Rule::expressions).map(rule));
        commit(netns, "filter what is forwarded", requests).await
    }

    /// Lets everything through again. Content if nothing was filtered.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn remove(netns: &Netns) -> Result<()> {
        commit(netns, "no longer filter what is forwarded", gone()).await
    }
}

async fn commit(netns: &Netns, what: &'static str, requests: Vec<(Kind, Attributes)>) -> Result<()> {
    let netns = netns.clone();
    work(Lane::Quick, move |here| {
        here.enter(&netns)?;
        Nft::open()?.commit(what, &requests)
    })
    .await
}

fn none() -> Attributes {
    Attributes::default()
}

/// Made, so that it can be removed: a table that is not there would fail the whole.
fn gone() -> Vec<(Kind, Attributes)> {
    vec![(Kind::NewTable, none().text(1, TABLE)), (Kind::DelTable, none().text(1, TABLE))]
}

fn rule(expressions: Expressions) -> (Kind, Attributes) {
    (Kind::NewRule, none().text(1, TABLE).text(2, CHAIN).nested(4, &expressions.into()))
}

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let allow = match words.next() {
            Some("allow") => true,
            Some("deny") => false,
            other => return Err(format!("it begins with {:?}", other.unwrap_or_default())),
        };
        let protocols: &[u8] = match words.next() {
            // Of IPv4 and of IPv6.
            Some("icmp") => &[1, 58],
            Some("tcp") => &[6],
            Some("udp") => &[17],
            Some("sctp") => &[132],
            Some("any") => &[],
            other => return Err(format!("there is no protocol {:?} here", other.unwrap_or_default())),
        };
        let ports = words.next().map(|text| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
            Ok::<_, String>(port(first)?..=port(last)?)
        });
        let ports = ports.transpose()?;
        match &ports {
            Some(ports) if ports.is_empty() => Err(format!("{text:?} has a range of no ports")),
            Some(_) if !matches!(protocols, [6 | 17 | 132]) => Err("only tcp, udp and sctp have ports".to_owned()),
            _ => words.next().map_or(Ok(()), |word| Err(format!("{word:?} is too much"))),
        }?;
        Ok(Self { allow, protocols, ports })
    }

    /// One rule of nf_tables for each protocol.
    fn expressions(&self) -> Vec<Expressions> {
        let rule = |protocol: Option<&u8>| {
            let mut list = Expressions::default();
            if let Some(number) = protocol {
                list.protocol(*number);
            }
            if let Some(ports) = &self.ports {
                list.destination_ports(ports);
            }
            list.verdict(if self.allow { ACCEPT } else { DROP }, None);
            list
        };
        if self.protocols.is_empty() {
            vec![rule(None)]
        } else {
            self.protocols.iter().map(|one| rule(Some(one))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_what_is_none_is_said() {
        let rule = |text| Filter::parse([text]).map(|Filter(rules)| (rules[0].allow, rules[0].ports.clone()));
        assert_eq!(rule("allow tcp 8080"), Ok((true, Some(8080..=8080))));
        assert_eq!(rule(" deny  udp 1-65535"), Ok((false, Some(1..=65_535))));
        assert_eq!(rule("allow any"), Ok((true, None)));
        for (text, said) in [
            ("", "begins with"),
            ("alow tcp 80", "\"alow\""),
            ("allow", "no protocol"),
            ("allow tpc 80", "\"tpc\""),
            ("allow icmp 8", "only tcp, udp and sctp"),
            ("allow any 8", "only tcp, udp and sctp"),
            ("allow tcp 65536", "\"65536\" is no port"),
            ("allow tcp 9-8", "range of no ports"),
            ("allow tcp 80 443", "\"443\" is too much"),
        ] {
            let error = rule(text).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("such as allow tcp 8080"), "{text}: {error}");
        }
        assert!(Filter::parse(vec!["allow icmp"; MOST_RULES + 1]).is_err());
    }
}
