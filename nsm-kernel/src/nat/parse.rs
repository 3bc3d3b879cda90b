//! Rules from the arguments of iptables.

use std::fmt;

use super::{
    BUILT_IN, Chain, Field, Match, NatRules, Rule, Target, Translation,
    values::{Words, destination, interface, network, number, ports, protocol},
};

/// A rule that cannot be had, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "NAT rule {rule:?}: {reason}; write what iptables -t nat takes, of -N, -A and -I, addresses, interfaces, protocols and ports"
)]
pub struct NatError {
    rule: String,
    reason: String,
}

/// Rules come from peers: beyond this they are a mistake, or worse.
const MOST_RULES: usize = 512;
const LONGEST_RULE: usize = 1024;
/// Names of chains in the kernel end here (`XT_EXTENSION_MAXNAMELEN`).
const LONGEST_CHAIN: usize = 28;

/// What `--random` and others mean to the kernel.
const FLAGS: [(&str, u32); 3] = [("--random", 4), ("--persistent", 8), ("--random-fully", 16)];

impl NatRules {
    /// Reads rules, each the arguments of one command.
    ///
    /// # Errors
    /// Which rule cannot be had, and which part of it.
    pub fn parse<T: AsRef<str>>(rules: impl IntoIterator<Item = T>) -> Result<Self, NatError> {
        let built_in =
            BUILT_IN.map(|(name, hook)| Chain { name: name.to_owned(), hook: Some(hook), rules: Vec::new() });
        let mut all = Self(built_in.into());
        for text in rules {
            let text = text.as_ref().trim();
            let wrong = |reason| NatError { rule: text.chars().take(120).collect(), reason };
            if text.len() > LONGEST_RULE {
                return Err(wrong(format!("it is longer than {LONGEST_RULE} octets")));
            }
            all.command(text).map_err(wrong)?;
            if all.count() > MOST_RULES || all.0.len() > MOST_RULES {
                return Err(wrong(format!("these are more than {MOST_RULES} rules")));
            }
        }
        Ok(all)
    }

    fn command(&mut self, text: &str) -> Result<(), String> {
        let mut words = Words(text.split_ascii_whitespace().peekable());
        let mut command = words.next().ok_or("it is empty")?;
        if matches!(command, "-t" | "--table") {
            match words.value(command)? {
                "nat" => command = words.next().ok_or("it says nothing but its table")?,
                other => return Err(format!("there is no table {other:?} here")),
            }
        }
        match command {
            "-N" | "--new-chain" => {
                let name = words.value(command)?;
                self.make(name)?;
                words.end()
            }
            "-A" | "--append" | "-I" | "--insert" => {
                let at = self.position(words.value(command)?)?;
                let inserted = matches!(command, "-I" | "--insert");
                let place = match words.0.peek().filter(|_| inserted).map(|word| word.parse::<usize>()) {
                    Some(Ok(number)) => {
                        words.next();
                        number
                    }
                    _ => 1,
                };
                let rules = self.rule(words)?;
                let Some(chain) = self.0.get_mut(at) else { return Err("its chain is gone".into()) };
                let place = if inserted { place.wrapping_sub(1) } else { chain.rules.len() };
                if place > chain.rules.len() {
                    return Err(format!("there is no place {} in its chain", place.wrapping_add(1)));
                }
                chain.rules.splice(place..place, rules);
                Ok(())
            }
            other => Err(format!("{other:?} is none of -N, -A and -I")),
        }
    }

    fn position(&self, name: &str) -> Result<usize, String> {
        let found = self.0.iter().position(|chain| chain.name == name);
        found.ok_or_else(|| format!("there is no chain {name:?}: those of others cannot be used"))
    }

    fn make(&mut self, name: &str) -> Result<(), String> {
        let target = ["ACCEPT", "RETURN", "DNAT", "SNAT", "MASQUERADE", "REDIRECT"].contains(&name);
        if target
            || name.starts_with(['-', '!'])
            || name.len() > LONGEST_CHAIN
            || !name.bytes().all(|c| c.is_ascii_graphic())
        {
            return Err(format!("a chain cannot be called {name:?}"));
        }
        if self.position(name).is_ok() {
            return Err(format!("chain {name:?} is there already"));
        }
        self.0.push(Chain { name: name.to_owned(), hook: None, rules: Vec::new() });
        Ok(())
    }

    /// Several, if it lists ports.
    fn rule(&self, mut words: Words<'_>) -> Result<Vec<Rule>, String> {
        let (mut matches, mut lists, mut target) = (Vec::new(), Vec::new(), None);
        let mut negated = false;
        while let Some(option) = words.next() {
            if option == "!" && !negated {
                negated = true;
                continue;
            }
            let negated = std::mem::take(&mut negated);
            let mut field = |field| matches.push(Match { negated, field });
            match option {
                "-p" | "--protocol" => match protocol(words.value(option)?)? {
                    Some(number) => field(Field::Protocol(number)),
                    None if negated => return Err("no packet has no protocol".into()),
                    None => {}
                },
                "-s" | "--source" | "--src" => field(Field::Source(network(words.value(option)?)?)),
                "-d" | "--destination" | "--dst" => field(Field::Destination(network(words.value(option)?)?)),
                "-i" | "--in-interface" => {
                    let (name, beginning) = interface(words.value(option)?)?;
                    field(Field::InInterface(name, beginning));
                }
                "-o" | "--out-interface" => {
                    let (name, beginning) = interface(words.value(option)?)?;
                    field(Field::OutInterface(name, beginning));
                }
                "--sport" | "--source-port" => field(Field::SourcePorts(ports(words.value(option)?, ':')?)),
                "--dport" | "--destination-port" => field(Field::DestinationPorts(ports(words.value(option)?, ':')?)),
                "--uid-owner" => field(Field::User(number(words.value(option)?, option)?)),
                "--gid-owner" => field(Field::Group(number(words.value(option)?, option)?)),
                "--sports" | "--source-ports" | "--dports" | "--destination-ports" if !negated => {
                    let new = if option.starts_with("--d") { Field::DestinationPorts } else { Field::SourcePorts };
                    let list = words.value(option)?.split(',').map(|part| ports(part, ':').map(new));
                    lists.push(list.collect::<Result<Vec<_>, _>>()?);
                }
                _ if negated => return Err(format!("\"! {option}\" cannot be had")),
                "-m" | "--match" => match words.value(option)? {
                    "tcp" | "udp" | "multiport" | "owner" | "comment" => {}
                    other => return Err(format!("-m {other} cannot be had")),
                },
                "--comment" => words.comment()?,
                "-j" | "--jump" | "-g" | "--goto" if target.is_none() => {
                    target = Some(self.target(option, &mut words)?);
                }
                other => return Err(format!("option {other:?} cannot be had")),
            }
        }
        if negated {
            return Err("\"!\" says nothing".into());
        }
        check(&matches, &lists, target.as_ref())?;
        Ok(combined(&matches, &lists, target.as_ref()))
    }

    fn target(&self, option: &str, words: &mut Words<'_>) -> Result<Target, String> {
        let name = words.value(option)?;
        if matches!(option, "-g" | "--goto") {
            self.user_chain(name)?;
            return Ok(Target::Goto(name.to_owned()));
        }
        let mut to = Translation::default();
        let (address, port): (&[&str], &[&str]) = match name {
            "ACCEPT" => return Ok(Target::Accept),
            "RETURN" => return Ok(Target::Return),
            "DNAT" => (&["--to-destination"], &[]),
            "SNAT" => (&["--to-source"], &[]),
            "MASQUERADE" | "REDIRECT" => (&[], &["--to-ports", "--to-port"]),
            other => {
                self.user_chain(other)?;
                return Ok(Target::Jump(other.to_owned()));
            }
        };
        while let Some(option) = words.0.peek().copied() {
            if address.contains(&option) {
                words.next();
                (to.addresses, to.ports) = destination(words.value(option)?)?;
            } else if port.contains(&option) {
                words.next();
                to.ports = Some(ports(words.value(option)?, '-')?);
            } else if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| *name == option) {
                words.next();
                to.flags |= flag;
            } else {
                break;
            }
        }
        match name {
            "DNAT" | "SNAT" if to.addresses.is_none() => Err(format!("{name} needs {}", address.concat())),
            "DNAT" => Ok(Target::Destination(to)),
            "SNAT" => Ok(Target::Source(to)),
            "MASQUERADE" => Ok(Target::Masquerade(to)),
            _ => Ok(Target::Redirect(to)),
        }
    }

    fn user_chain(&self, name: &str) -> Result<(), String> {
        let at = self.position(name)?;
        match self.0.get(at).is_some_and(|chain| chain.hook.is_none()) {
            true => Ok(()),
            false => Err(format!("nothing can jump to {name}")),
        }
    }
}

/// Ports are those of a protocol that has some.
fn check(matches: &[Match], lists: &[Vec<Field>], target: Option<&Target>) -> Result<(), String> {
    let has_ports =
        matches.iter().any(|one| !one.negated && matches!(one.field, Field::Protocol(6 | 17 | 33 | 132 | 136)));
    let asked = matches.iter().any(|one| matches!(one.field, Field::SourcePorts(_) | Field::DestinationPorts(_)));
    let changed = match target {
        Some(Target::Destination(to) | Target::Source(to) | Target::Masquerade(to) | Target::Redirect(to)) => {
            to.ports.is_some()
        }
        _ => false,
    };
    match (asked || changed || !lists.is_empty()) && !has_ports {
        true => Err("ports need -p tcp, udp, udplite, dccp or sctp".into()),
        false => Ok(()),
    }
}

/// A rule for each combination of listed ports.
fn combined(matches: &[Match], lists: &[Vec<Field>], target: Option<&Target>) -> Vec<Rule> {
    let mut rules = vec![Rule { matches: matches.to_vec(), target: target.cloned() }];
    for list in lists {
        let with = |rule: &Rule| -> Vec<Rule> {
            let one = |field: &Field| {
                let mut rule = rule.clone();
                rule.matches.push(Match { negated: false, field: field.clone() });
                rule
            };
            list.iter().map(one).collect()
        };
        rules = rules.iter().flat_map(with).take(MOST_RULES + 1).collect();
    }
    rules
}

impl fmt::Display for NatRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} NAT rules", self.count())
    }
}

#[cfg(test)]
mod tests;
