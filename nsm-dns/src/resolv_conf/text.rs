//! What stands in a file such as `/etc/resolv.conf`, as resolv.conf(5) explains it, and what we put there.
//!
//! While we have the file, what it was stands in it as comments, so that whoever has the file can put it back: a container
//! that is started again has this file, and often nothing else, from before.
//!
//! ```text
//! # The DNS proxy of Network Service Mesh answers, and puts this file back when it ends. It was:
//! #nsm 57 127.0.0.1
//! #nsm|nameserver 10.96.0.10
//! #nsm|search default.svc.cluster.local
//! #nsm.
//! nameserver 127.0.0.1
//! search default.svc.cluster.local
//! ```
//!
//! 57 is the length of what it was, in octets. `new` at the end of that line says that there was no file: what follows is
//! what held in its absence.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use hickory_resolver::proto::rr::Name;

use crate::proxy::{domain, server};

const NOTE: &str = "# The DNS proxy of Network Service Mesh answers, and puts this file back when it ends. It was:";
const BEGIN: &[u8] = b"#nsm ";
const LINE: &[u8] = b"#nsm|";
const END: &[u8] = b"#nsm.";
const NEW: &str = "new";

/// What a resolver is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// In their order; all of them.
    pub(crate) servers: Vec<SocketAddr>,
    /// The search list.
    pub(crate) search: Vec<Name>,
}

/// What a file of ours says of what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ours {
    /// What held before: of this file, or of another in its absence.
    pub(super) former: Vec<u8>,
    /// What it is to become: what it was, or if others have edited it since, that without what is ours. None: there was no
    /// file.
    pub(super) becomes: Option<Vec<u8>>,
}

impl Settings {
    /// Reads them; what cannot be understood is passed over.
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut settings = Self::default();
        for line in lines(text) {
            let line = String::from_utf8_lossy(line);
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().and_then(scoped_server)),
                // The last line of either counts.
                Some("search" | "domain") => settings.search = words.filter_map(domain).collect(),
                _ => {}
            }
        }
        settings
    }
}

/// A server as it is written there: `fe80::1%eth0` too.
fn scoped_server(text: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else { return server(text) };
    let named = || std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok()?.trim().parse().ok();
    let plain = !zone.is_empty() && !zone.contains('/');
    let scope = zone.parse().ok().or_else(|| named().filter(|_| plain))?;
    Some(SocketAddrV6::new(address.parse().ok()?, 53, 0, scope).into())
}

/// What the file says while we have it: what held before, but for the servers.
pub(super) fn ours(former: &[u8], is_new: bool, nameserver: IpAddr) -> Vec<u8> {
    let new = if is_new { " new" } else { "" };
    let mut text = format!("{NOTE}\n#nsm {} {nameserver}{new}\n", former.len()).into_bytes();
    for line in lines(former) {
        text.extend([LINE, line, b"\n"].concat());
    }
    text.extend([END, b"\n"].concat());
    text.extend(format!("nameserver {nameserver}\n").bytes());
    for line in lines(former).filter(|line| counts(line) && !is_nameserver(line)) {
        text.extend([line, b"\n"].concat());
    }
    text
}

/// What the file was, if it is ours.
pub(super) fn read(text: &[u8]) -> Option<Ours> {
    let all: Vec<&[u8]> = lines(text).collect();
    let begin = all.iter().position(|line| line.starts_with(BEGIN))?;
    let head = words(&all[begin][BEGIN.len()..]);
    let (length, nameserver): (usize, IpAddr) = (head.first()?.parse().ok()?, head.get(1)?.parse().ok()?);
    let is_new = head.get(2).is_some_and(|word| word == NEW);
    let kept = all[begin + 1..].iter().take_while(|line| line.starts_with(LINE)).count();
    let (block, after) = all[begin + 1..].split_at(kept);
    let mut former: Vec<u8> = block.iter().flat_map(|line| [&line[LINE.len()..], b"\n"].concat()).collect();
    // The last line may have had no end.
    former.truncate(length);
    if text.trim_ascii_end() == ours(&former, is_new, nameserver).trim_ascii_end() {
        return Some(Ours { becomes: (!is_new).then(|| former.clone()), former });
    }
    // Others have been here: what they wrote stays, what we wrote goes, and for our name server come those that were there.
    let before = all[..begin].iter().filter(|line| **line != NOTE.as_bytes());
    let after = if after.first() == Some(&END) { &after[1..] } else { after };
    let mut becomes = Vec::new();
    for line in before.chain(after).copied() {
        if is_nameserver(line) && words(line).get(1) == Some(&nameserver.to_string()) {
            let servers = lines(&former).filter(|line| is_nameserver(line));
            servers.for_each(|line| becomes.extend([line, b"\n"].concat()));
        } else {
            becomes.extend([line, b"\n"].concat());
        }
    }
    Some(Ours { former, becomes: Some(becomes) })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let none = text.is_empty();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|octet| *octet == b'\n').filter(move |_| !none)
}

fn words(line: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(line).split_whitespace().map(str::to_owned).collect()
}

fn counts(line: &[u8]) -> bool {
    !matches!(line.trim_ascii_start().first(), None | Some(b'#' | b';'))
}

fn is_nameserver(line: &[u8]) -> bool {
    words(line).first().is_some_and(|word| word == "nameserver")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POD: &str = "# of the pod\nnameserver 10.96.0.10\nnameserver\t10.96.0.11  # second\n\
                       search default.svc.cluster.local cluster.local\noptions ndots:5\n";
    const US: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn every_server_and_the_last_search_list_is_read() {
        let settings = Settings::of(POD.as_bytes());
        assert_eq!(settings.servers, ["10.96.0.10:53", "10.96.0.11:53"].map(|text| text.parse().unwrap()));
        assert_eq!(settings.search, ["default.svc.cluster.local", "cluster.local"].map(|text| domain(text).unwrap()));
        let text =
            "domain a.b\n;nameserver 1.1.1.1\n nameserver ::1\nnameserver fe80::1%3\nnameserver x\nnameserver\nsearch";
        let settings = Settings::of(text.as_bytes());
        assert_eq!(settings.servers, ["[::1]:53", "[fe80::1%3]:53"].map(|text| text.parse().unwrap()));
        assert!(settings.search.is_empty());
        let loopback = Settings::of(b"nameserver fe80::1%lo\nnameserver fe80::1%../lo\nnameserver fe80::1%none");
        assert_eq!(loopback.servers, ["[fe80::1%1]:53".parse().unwrap()]);
    }

    #[test]
    fn while_it_is_ours_all_but_the_servers_holds() {
        let text = ours(POD.as_bytes(), false, US);
        let settings = Settings::of(&text);
        assert_eq!(settings.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(settings.search, Settings::of(POD.as_bytes()).search);
        assert!(String::from_utf8(text).unwrap().ends_with("options ndots:5\n"));
    }

    #[test]
    fn it_becomes_what_it_was_to_the_last_octet() {
        for original in [POD, "", "\n", "\n\n", "nameserver 1.1.1.1", "a\r\n\tb\n\n", "#nsm 3 ::1\n#nsm|x\n#nsm.\n"] {
            let text = ours(original.as_bytes(), false, US);
            let back = read(&text).unwrap();
            assert_eq!(back.becomes.as_deref(), Some(original.as_bytes()), "{original:?}");
        }
        let new = read(&ours(POD.as_bytes(), true, US)).unwrap();
        assert_eq!((new.former.as_slice(), new.becomes), (POD.as_bytes(), None));
        assert_eq!(read(POD.as_bytes()), None);
        assert_eq!(read(b""), None);
    }

    #[test]
    fn what_others_edited_stays_and_what_is_ours_goes() {
        let text = String::from_utf8(ours(POD.as_bytes(), false, US)).unwrap();
        let edited = text.replace("options ndots:5", "options ndots:2") + "nameserver 9.9.9.9\n";
        let back = String::from_utf8(read(edited.as_bytes()).unwrap().becomes.unwrap()).unwrap();
        let servers = Settings::of(back.as_bytes()).servers;
        assert_eq!(servers, ["10.96.0.10:53", "10.96.0.11:53", "9.9.9.9:53"].map(|text| text.parse().unwrap()));
        assert!(back.contains("ndots:2") && !back.contains("nsm") && !back.contains("127.0.0.1"), "{back}");
        // Somebody's own name servers in place of ours: they stay.
        let replaced = text.replace("\nnameserver 127.0.0.1\n", "\nnameserver 9.9.9.9\n");
        let back = read(replaced.as_bytes()).unwrap().becomes.unwrap();
        assert_eq!(Settings::of(&back).servers, ["9.9.9.9:53".parse().unwrap()]);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_put_back(original in proptest::collection::vec(any::<u8>(), 0..200)) {
            let back = read(&ours(&original, false, US)).unwrap();
            prop_assert_eq!(back.becomes.as_deref(), Some(&*original));
        }

        #[test]
        fn no_text_is_too_odd(text in "(#nsm[ |.]?[0-9:. -]{0,9}\n?|nameserver |[a-z%:.#; \t]{0,9}|\n|\\PC)*") {
            let _ = Settings::of(text.as_bytes());
            let _ = read(text.as_bytes());
        }
    }
}
