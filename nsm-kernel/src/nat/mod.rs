//! Address translation for one interface: rules in the words of iptables, kept by nf_tables.
//!
//! Each interface has a table of its own, `nsm-<interface>` of family `ip`, with the chains of iptables' table `nat` at the same
//! hooks and priorities. It is written whole in one transaction, so packets meet the old rules or the new ones, and removed by
//! one message. What others have in tables of their own is neither seen nor touched; so a rule cannot jump to a chain of
//! theirs.

pub(crate) mod expression;
mod parse;
mod table;
mod values;

use std::{net::Ipv4Addr, ops::RangeInclusive};

pub use parse::NatError;
pub(crate) use table::{Tables, program, remove};

/// Rules of address translation (IPv4), in the order in which packets meet them.
///
/// They are written as arguments of `iptables -t nat`, one command for each rule: `-N`, `-A` and `-I` with the options `-p`, `-s`,
/// `-d`, `-i`, `-o`, `--sport`, `--dport`, `-m tcp`, `-m udp`, `-m multiport`, `-m owner` and `-m comment`, and the targets
/// ACCEPT, RETURN, DNAT, SNAT, MASQUERADE, REDIRECT and chains that `-N` made. Everything else is refused, by name.
///
/// ```
/// # use nsm_kernel::NatRules;
/// let rules = NatRules::parse([
///     "-N IN",
///     "-A IN -p tcp --dport 80 -j REDIRECT --to-ports 8080",
///     "-I PREROUTING 1 -i nsm-1 -j IN",
/// ])?;
/// let error = NatRules::parse(["-A PREROUTING -m string --string x -j ACCEPT"]).unwrap_err();
/// assert!(error.to_string().contains("-m string"));
/// # Ok::<(), nsm_kernel::NatError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NatRules(Vec<Chain>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Chain {
    name: String,
    /// Where packets enter it, if not from another chain.
    hook: Option<Hook>,
    rules: Vec<Rule>,
}

/// `enum nf_inet_hooks`, and the priority that iptables has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Hook {
    number: u32,
    priority: i32,
}

/// The chains that are always there.
const BUILT_IN: [(&str, Hook); 4] = [
    ("PREROUTING", Hook { number: 0, priority: -100 }),
    ("INPUT", Hook { number: 1, priority: 100 }),
    ("OUTPUT", Hook { number: 3, priority: -100 }),
    ("POSTROUTING", Hook { number: 4, priority: 100 }),
];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Rule {
    matches: Vec<Match>,
    target: Option<Target>,
}

/// What a packet must have, or must not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Match {
    negated: bool,
    field: Field,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Field {
    Protocol(u8),
    Source(ipnet::Ipv4Net),
    Destination(ipnet::Ipv4Net),
    /// The whole name; or with `true` the beginning of it.
    InInterface(String, bool),
    OutInterface(String, bool),
    SourcePorts(RangeInclusive<u16>),
    DestinationPorts(RangeInclusive<u16>),
    User(u32),
    Group(u32),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Target {
    Accept,
    Return,
    Jump(String),
    Goto(String),
    Destination(Translation),
    Source(Translation),
    Masquerade(Translation),
    Redirect(Translation),
}

/// Into what addresses and ports are changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Translation {
    addresses: Option<RangeInclusive<Ipv4Addr>>,
    ports: Option<RangeInclusive<u16>>,
    /// `NF_NAT_RANGE_…` of `linux/netfilter/nf_nat.h`.
    flags: u32,
}

impl NatRules {
    /// How many rules there are.
    fn count(&self) -> usize {
        self.0.iter().map(|chain| chain.rules.len()).sum()
    }
}
