//! Words of a rule, and what they stand for.

use std::{net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

/// What is left of a command.
pub(super) struct Words<'a>(pub(super) std::iter::Peekable<std::str::SplitAsciiWhitespace<'a>>);

impl<'a> Words<'a> {
    pub(super) fn next(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    pub(super) fn value(&mut self, option: &str) -> Result<&'a str, String> {
        self.next().ok_or_else(|| format!("{option} says nothing"))
    }

    pub(super) fn end(mut self) -> Result<(), String> {
        self.next().map_or(Ok(()), |word| Err(format!("{word:?} is too much")))
    }

    /// One word, or several in quotes.
    pub(super) fn comment(&mut self) -> Result<(), String> {
        let first = self.value("--comment")?;
        let Some(rest) = first.strip_prefix('"') else { return Ok(()) };
        let mut ended = rest.ends_with('"');
        while !ended {
            ended = self.value("a quote that does not end")?.ends_with('"');
        }
        Ok(())
    }
}

pub(super) fn number<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number for {what}"))
}

/// `None`: any.
pub(super) fn protocol(text: &str) -> Result<Option<u8>, String> {
    let known = [
        ("all", 0),
        ("icmp", 1),
        ("tcp", 6),
        ("udp", 17),
        ("dccp", 33),
        ("esp", 50),
        ("ah", 51),
        ("sctp", 132),
        ("udplite", 136),
    ];
    let named = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
    let number = named.map_or_else(|| number(text, "a protocol"), Ok)?;
    Ok(Some(number).filter(|number| *number != 0))
}

pub(super) fn network(text: &str) -> Result<ipnet::Ipv4Net, String> {
    let wrong = || format!("{text:?} is no IPv4 address or network");
    let net = match text.split_once('/') {
        None => text.parse::<Ipv4Addr>().map_err(|_| wrong())?.into(),
        Some((ip, mask)) if mask.contains('.') => {
            let (ip, mask) = (ip.parse().map_err(|_| wrong())?, mask.parse().map_err(|_| wrong())?);
            ipnet::Ipv4Net::with_netmask(ip, mask).map_err(|_| wrong())?
        }
        Some(_) => text.parse::<ipnet::Ipv4Net>().map_err(|_| wrong())?,
    };
    Ok(net.trunc())
}

/// The name, and whether it is but the beginning.
pub(super) fn interface(text: &str) -> Result<(String, bool), String> {
    let (name, beginning) = text.strip_suffix('+').map_or((text, false), |name| (name, true));
    let fits =
        name.len() < 16 && name.bytes().all(|c| c.is_ascii_graphic() && c != b'/') && (beginning || !name.is_empty());
    if fits { Ok((name.to_owned(), beginning)) } else { Err(format!("{text:?} is no name of an interface")) }
}

/// A port, or the first and the last.
pub(super) fn ports(text: &str, between: char) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once(between).unwrap_or((text, text));
    let first = if first.is_empty() { 0 } else { number(first, "a port")? };
    let last = if last.is_empty() { u16::MAX } else { number(last, "a port")? };
    if first <= last && !text.is_empty() { Ok(first..=last) } else { Err(format!("{text:?} are no ports")) }
}

pub(super) type Destination = (Option<RangeInclusive<Ipv4Addr>>, Option<RangeInclusive<u16>>);

/// `address[-address][:port[-port]]`; one of both must be there.
pub(super) fn destination(text: &str) -> Result<Destination, String> {
    let (ips, port) = text.split_once(':').map_or((text, None), |(ips, port)| (ips, Some(port)));
    let ip = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| format!("{text:?} is no IPv4 address"));
    let (first, last) = ips.split_once('-').unwrap_or((ips, ips));
    let ips = ip(first)?..=ip(last)?;
    if ips.is_empty() {
        return Err(format!("{text:?} is a range of nothing"));
    }
    Ok((Some(ips), port.map(|port| ports(port, '-')).transpose()?))
}
