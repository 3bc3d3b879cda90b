//! The table of an interface.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use nix::libc;

use super::{NatRules, expression};
use crate::nft::{Attributes, Family, Kind, Nft};
use crate::{InterfaceName, InterfaceSpec, Result};

const PREFIX: &str = "nsm-";
const TABLE_NAME: u16 = 1;
const TABLE_USERDATA: u16 = 6;
const RULE_TABLE: u16 = 1;

/// Gives the interface of `spec`, in the namespace of the calling thread, the rules that `spec` says, or none.
pub(crate) fn program(spec: &InterfaceSpec) -> Result<()> {
    let rules = spec.nat.as_ref().map(|rules| (rules, stamp(spec)));
    let what = format!("program the NAT rules of interface {}", spec.name);
    Nft::of(Family::Ipv4)?.commit(&what, &replacing(&name(spec.name.as_str()), rules))
}

/// Removes the table of the interface of this name, if there is one, from the namespace of the calling thread.
pub(crate) fn remove(interface: &InterfaceName) -> Result<()> {
    if Tables::read(Some(interface))?.found.is_empty() {
        return Ok(());
    }
    let what = format!("remove the NAT rules of interface {interface}");
    Nft::of(Family::Ipv4)?.commit(&what, &replacing(&name(interface.as_str()), None))
}

/// What leaves these rules, or no table, in place of what was there.
fn replacing(table: &str, rules: Option<(&NatRules, [u8; 8])>) -> Vec<(Kind, Attributes)> {
    let named = || Attributes::default().text(TABLE_NAME, table);
    // Made, so that it can be removed: a table that is not there would fail the whole.
    let mut requests = vec![(Kind::NewTable, named()), (Kind::DelTable, named())];
    if let Some((NatRules(chains), stamp)) = rules {
        requests.push((Kind::NewTable, named().bytes(TABLE_USERDATA, &stamp)));
        // All chains first: rules jump to any of them.
        requests.extend(chains.iter().map(|chain| (Kind::NewChain, expression::chain(table, chain))));
        for chain in chains {
            let rules = chain.rules.iter().map(|rule| (Kind::NewRule, expression::rule(table, &chain.name, rule)));
            requests.extend(rules);
        }
    }
    requests
}

fn name(interface: &str) -> String {
    format!("{PREFIX}{interface}")
}

/// What a table says of itself: whose it is and, shortened, what is in it. A newer build may shorten it otherwise, and then writes
/// the rules once more.
fn stamp(spec: &InterfaceSpec) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    (&spec.alias, &spec.nat).hash(&mut hasher);
    hasher.finish().to_be_bytes()
}

/// The tables of interfaces that are in a namespace.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// By the interface's name: what the table says of itself, and how many rules are in it.
    found: HashMap<String, (Vec<u8>, usize)>,
}

impl Tables {
    /// Those in the namespace of the calling thread: all, or that of one interface. Where there is no nf_tables, or nothing of it
    /// for us to see, there are none.
    pub(crate) fn read(only: Option<&InterfaceName>) -> Result<Self> {
        match Self::found(only) {
            Err(error) if error.errno().is_some_and(|errno| NOTHING.contains(&errno)) => Ok(Self::default()),
            found => found,
        }
    }

    fn found(only: Option<&InterfaceName>) -> Result<Self> {
        let mut nft = Nft::of(Family::Ipv4)?;
        let mut tables = Self::default();
        let all = Attributes::default();
        let named = only.map_or_else(|| all.clone(), |one| all.clone().text(TABLE_NAME, &name(one.as_str())));
        nft.ask((Kind::GetTable, only.is_none()), &named, |table| {
            let name = table.text(TABLE_NAME).unwrap_or_default();
            if let Some(interface) = name.strip_prefix(PREFIX) {
                let said = table.bytes(TABLE_USERDATA).unwrap_or_default().to_vec();
                tables.found.insert(interface.to_owned(), (said, 0));
            }
        })?;
        for (interface, (_, rules)) in &mut tables.found {
            let table = name(interface);
            nft.ask((Kind::GetRule, true), &all.clone().text(RULE_TABLE, &table), |rule| {
                // An older kernel lists those of all tables.
                *rules += usize::from(rule.text(RULE_TABLE).as_deref() == Some(&table));
            })?;
        }
        Ok(tables)
    }

    /// Whether the interface of `spec` has the rules that `spec` says, all of them; or none if it says none.
    pub(crate) fn show(&self, spec: &InterfaceSpec) -> bool {
        match (&spec.nat, self.found.get(spec.name.as_str())) {
            (None, None) => true,
            (Some(rules), Some((said, count))) => *said == stamp(spec) && *count == rules.count(),
            _ => false,
        }
    }
}

/// Nothing of that name, no such thing in this kernel, or not for us to see.
const NOTHING: [i32; 6] =
    [libc::ENOENT, libc::EPERM, libc::EOPNOTSUPP, libc::EINVAL, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT];
