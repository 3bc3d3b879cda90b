//! The Ethernet around IP packets: a memif in IP mode has none, a VXLAN tunnel has.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use nsm_kernel::Route;
use nsm_kernel::discovery::{self, HEADER, IPV4, IPV6, Question};
use tokio::time::Instant;

/// One end of a link between two, for somebody who knows nothing of links.
///
/// It asks who is at the other end, and answers who asks for what is at this one. There is one hardware address at the other
/// end: that of whoever sent last, so that another one in its place is found with its first word.
#[derive(Debug)]
pub(crate) struct Link {
    ends: Ends,
    peer: Option<[u8; 6]>,
    /// Packets for which nobody is known yet.
    waiting: VecDeque<Vec<u8>>,
    asked: Option<Instant>,
}

/// Who is at the two ends of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ends {
    /// This end's hardware address.
    pub(crate) mac: [u8; 6],
    /// Addresses at this end: who asks.
    pub(crate) own: Vec<IpAddr>,
    /// Addresses at the other end: who is asked for.
    pub(crate) theirs: Vec<IpAddr>,
    /// Where the other end sends what is for here: straight to it, or to a next hop.
    pub(crate) routes: Vec<Route>,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Sent,
    /// It waits until the other end has answered; or another one no longer does, for there is no room for more.
    Waits,
    Unresolved,
    Foreign,
}

/// What a frame was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Packet(&'a [u8]),
    /// Of the link itself.
    Discovery,
    Foreign,
}

/// As many as Linux keeps by default where they are small.
const WAITING: usize = 64;
/// Between two questions.
const AGAIN: Duration = Duration::from_millis(100);
const GROUP: u8 = 1;

impl Link {
    /// Between these; nobody is known yet.
    pub(crate) fn new(ends: Ends) -> Self {
        Self { ends, peer: None, waiting: VecDeque::new(), asked: None }
    }

    /// From now on between these.
    pub(super) fn set_ends(&mut self, ends: Ends) {
        self.ends = ends;
    }

    /// Asks for the other end, in `send`, which gets a frame in two parts. It learns this end's hardware address by it.
    pub(super) fn ask(&mut self, mut send: impl FnMut(&[u8], &[u8])) {
        self.asked = Some(Instant::now());
        for own in &self.ends.own {
            // One answer is enough; an end without an address of the family has nothing to say in it.
            let target = self.ends.theirs.iter().find(|target| target.is_ipv4() == own.is_ipv4());
            if let Some(frame) = target.and_then(|target| discovery::question(self.ends.mac, *own, *target)) {
                send(&frame, &[]);
            }
        }
    }

    /// Sends an IP packet to the other end.
    pub(super) fn outward(&mut self, packet: &[u8], mut send: impl FnMut(&[u8], &[u8])) -> Fate {
        let Some((protocol, to)) = destination(packet) else { return Fate::Foreign };
        if let Some(mac) = discovery::multicast_mac(to).or(self.peer) {
            send(&self.header(mac, protocol), packet);
            return Fate::Sent;
        }
        if self.asked.is_none_or(|asked| asked.elapsed() >= AGAIN) {
            self.ask(&mut send);
        }
        let room = self.waiting.len() < WAITING;
        if !room {
            // The latest are the ones that somebody still waits for.
            self.waiting.pop_front();
        }
        self.waiting.push_back(packet.to_vec());
        if room { Fate::Waits } else { Fate::Unresolved }
    }

    /// What a frame from the other end holds. Answers, and packets that have waited for it, are sent.
    pub(super) fn inward<'f>(&mut self, frame: &'f [u8], mut send: impl FnMut(&[u8], &[u8])) -> Found<'f> {
        let Some((to, from)) = frame.get(..12).and_then(|macs| Some((macs.first_chunk()?, macs.last_chunk::<6>()?)))
        else {
            return Found::Foreign;
        };
        if (*to != self.ends.mac && to[0] & GROUP == 0) || from[0] & GROUP != 0 || *from == self.ends.mac {
            return Found::Foreign;
        }
        if self.peer != Some(*from) {
            self.peer = Some(*from);
            for packet in std::mem::take(&mut self.waiting) {
                if let Some((protocol, _)) = destination(&packet) {
                    send(&self.header(*from, protocol), &packet);
                }
            }
        }
        if discovery::is_discovery(frame) {
            if let Some(question) = Question::of(frame).filter(|question| self.is_here(question.target)) {
                send(&question.answer(self.ends.mac), &[]);
            }
            return Found::Discovery;
        }
        packet(frame).map_or(Found::Foreign, Found::Packet)
    }

    /// Whether the other end may ask for this address in order to send to here.
    fn is_here(&self, ip: IpAddr) -> bool {
        let leads = |route: &Route| route.via.map_or_else(|| route.prefix.contains(&ip), |via| via == ip);
        self.ends.own.contains(&ip) || self.ends.routes.iter().any(leads)
    }

    fn header(&self, to: [u8; 6], protocol: [u8; 2]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..6].copy_from_slice(&to);
        header[6..12].copy_from_slice(&self.ends.mac);
        header[12..].copy_from_slice(&protocol);
        header
    }
}

/// The protocol's number in an Ethernet header, and where the packet goes, if it is IP (RFC 791 §3.1, RFC 8200 §3).
fn destination(packet: &[u8]) -> Option<([u8; 2], IpAddr)> {
    match packet.first()? >> 4 {
        4 => Some((IPV4, IpAddr::from(*packet.get(16..20)?.first_chunk::<4>()?))),
        6 => Some((IPV6, IpAddr::from(*packet.get(24..40)?.first_chunk::<16>()?))),
        _ => None,
    }
}

/// The IP packet in a frame, without what pads the frame.
fn packet(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(HEADER..)?;
    let (protocol, _) = destination(packet)?;
    let field = |at: usize| Some(usize::from(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?)));
    let length = if protocol == IPV4 { field(2)? } else { field(4)? + 40 };
    packet.get(..length).filter(|packet| frame[12..HEADER] == protocol && !packet.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THERE: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const LATER: [u8; 6] = [2, 0, 0, 0, 0, 3];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn link() -> Link {
        let route = |prefix: &str, via: Option<&str>| Route { prefix: prefix.parse().unwrap(), via: via.map(ip) };
        let routes =
            vec![route("10.0.0.1/32", None), route("172.16.0.0/16", Some("10.0.0.1")), route("fd00:1::/64", None)];
        let (own, theirs) = (vec![ip("10.0.0.1"), ip("fd00::1")], vec![ip("10.0.0.2"), ip("fd00::2")]);
        Link::new(Ends { mac: HERE, own, theirs, routes })
    }

    /// A packet without content from one address to another.
    fn packet(from: &str, to: &str) -> Vec<u8> {
        match (ip(from), ip(to)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let head = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
                [&head[..], &from.octets(), &to.octets()].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &from.octets(), &to.octets()].concat()
            }
            _ => panic!("one family"),
        }
    }

    fn sent(mut act: impl FnMut(&mut dyn FnMut(&[u8], &[u8]))) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        act(&mut |head, body| frames.push([head, body].concat()));
        frames
    }

    fn framed(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
        let protocol = if packet[0] >> 4 == 4 { IPV4 } else { IPV6 };
        [&to[..], &from, &protocol, packet].concat()
    }

    #[test]
    fn a_packet_waits_for_the_answer_of_the_other_end() {
        let mut link = link();
        let out = packet("10.0.0.1", "10.0.0.2");
        let frames = sent(|send| assert_eq!(link.outward(&out, send), Fate::Waits));
        let questions: Vec<_> = frames.iter().map(|frame| Question::of(frame).unwrap().target).collect();
        assert_eq!(questions, [ip("10.0.0.2"), ip("fd00::2")]);
        // No more questions at once.
        assert!(sent(|send| assert_eq!(link.outward(&out, send), Fate::Waits)).is_empty());
        let answer = Question::of(&frames[0]).unwrap().answer(THERE);
        let frames = sent(|send| assert_eq!(link.inward(&answer, send), Found::Discovery));
        assert_eq!(frames, vec![framed(THERE, HERE, &out); 2]);
        // From now on at once, in both families.
        let out = packet("fd00::1", "fd00::9");
        assert_eq!(sent(|send| assert_eq!(link.outward(&out, send), Fate::Sent)), [framed(THERE, HERE, &out)]);
    }

    #[test]
    fn those_that_wait_are_bounded_and_the_latest_stay() {
        let mut link = link();
        let numbered = |at: usize| packet("10.0.0.1", &format!("10.0.1.{at}"));
        let fates: Vec<_> = (0..WAITING + 2).map(|at| link.outward(&numbered(at), |_, _| ())).collect();
        assert_eq!(fates.iter().filter(|fate| **fate == Fate::Unresolved).count(), 2);
        let word = framed(HERE, THERE, &packet("10.0.0.2", "10.0.0.1"));
        let frames = sent(|send| assert!(matches!(link.inward(&word, send), Found::Packet(_))));
        assert_eq!((frames.len(), &frames[0]), (WAITING, &framed(THERE, HERE, &numbered(2))));
    }

    #[test]
    fn questions_for_what_is_here_are_answered_and_no_others() {
        let mut link = link();
        let mut answered = |asker: &str, target: &str| {
            let question = discovery::question(THERE, ip(asker), ip(target)).unwrap();
            let frames = sent(|send| assert_eq!(link.inward(&question, send), Found::Discovery));
            frames == [Question { mac: THERE, asker: ip(asker), target: ip(target) }.answer(HERE)]
        };
        assert!(answered("10.0.0.2", "10.0.0.1") && answered("fd00::2", "fd00::1") && answered("fd00::2", "fd00:1::9"));
        // Its own, and what it reaches by a next hop.
        assert!(!answered("10.0.0.2", "10.0.0.3") && !answered("10.0.0.2", "172.16.0.1"));
        assert!(!answered("0.0.0.0", "10.0.0.1"));
    }

    #[test]
    fn who_speaks_last_is_the_other_end() {
        let mut link = link();
        let out = packet("10.0.0.1", "10.0.0.2");
        for mac in [THERE, LATER] {
            let word = framed(HERE, mac, &packet("10.0.0.2", "10.0.0.1"));
            assert_eq!(link.inward(&word, |_, _| ()), Found::Packet(&word[14..]));
            assert_eq!(sent(|send| assert_eq!(link.outward(&out, send), Fate::Sent)), [framed(mac, HERE, &out)]);
        }
    }

    #[test]
    fn what_is_for_others_or_padded_is_told_apart() {
        let mut link = link();
        let inner = packet("10.0.0.2", "10.0.0.1");
        let mut found = |frame: &[u8]| match link.inward(frame, |_, _| ()) {
            Found::Packet(packet) => Some(packet.to_vec()),
            _ => None,
        };
        let mut padded = framed(HERE, THERE, &inner);
        padded.resize(60, 0);
        assert_eq!(found(&padded), Some(inner.clone()));
        assert_eq!(found(&framed(LATER, THERE, &inner)), None);
        assert_eq!(found(&framed(HERE, discovery::EVERYBODY, &inner)), None);
        let mut cut = framed(HERE, THERE, &inner);
        cut.pop();
        assert_eq!(found(&cut), None);
        let mut tagged = framed(HERE, THERE, &inner);
        tagged[12..14].copy_from_slice(&[0x81, 0]);
        assert_eq!(found(&tagged), None);
        assert_eq!(link.outward(&[0x15; 20], |_, _| ()), Fate::Foreign);
    }

    #[test]
    fn packets_to_many_need_nobody_to_be_known() {
        let mut link = link();
        let out = packet("fd00::1", "ff02::2");
        assert_eq!(
            sent(|send| assert_eq!(link.outward(&out, send), Fate::Sent)),
            [framed([0x33, 0x33, 0, 0, 0, 2], HERE, &out)]
        );
    }

    proptest! {
        #[test]
        fn whatever_either_side_says_is_carried_or_dropped(
            octets in prop::collection::vec(any::<u8>(), 0..120), known in any::<bool>(), to_here in any::<bool>()
        ) {
            let mut link = link();
            let mut octets = octets;
            if known {
                link.peer = Some(THERE);
            }
            let _packet = link.outward(&octets, |_, _| ());
            if let (true, Some(to)) = (to_here, octets.get_mut(..6)) {
                to.copy_from_slice(&HERE);
            }
            if let Found::Packet(packet) = link.inward(&octets, |_, _| ()) {
                prop_assert!(packet.len() + HEADER <= octets.len());
            }
            prop_assert!(link.waiting.len() <= WAITING);
        }
    }
}
