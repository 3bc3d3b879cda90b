use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hickory_resolver::proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use proptest::prelude::*;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::exchange::MOST_SOCKETS;
use super::question::refused;
use super::resolve::{LIMIT, MOST_ALIKE};
use super::*;
use crate::testing::{Records, Server, addresses, ask};

const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A proxy, the server of a connection with the search domain `my.domain`, and the workload's own.
struct Lab {
    proxy: Proxy,
    inside: Server,
    outside: Server,
}

impl Lab {
    async fn new() -> Self {
        let (inside, outside) = (Server::start().await.unwrap(), Server::start().await.unwrap());
        inside.set("web.my.domain.", Records::new().address(INSIDE).living(60));
        outside.set("example.org.", Records::new().address(OUTSIDE).living(60));
        let proxy = Proxy::listen(Place::Here, LOOPBACK).await.unwrap();
        proxy.set_own(settings(&[&outside], &["cluster.local"]));
        proxy.set("nsc-0", &[config(&[&inside], &["my.domain"])]);
        Self { proxy, inside, outside }
    }

    async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        addresses(self.proxy.address(), name).await.unwrap()
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        ask(&Place::Here, self.proxy.address(), name, kind).await.unwrap()
    }

    async fn code(&self, name: &str) -> ResponseCode {
        self.ask(name, RecordType::A).await.metadata.response_code
    }
}

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn config(servers: &[&Server], domains: &[&str]) -> DnsConfig {
    let dns_server_ips = servers.iter().map(|server| server.address().to_string()).collect();
    DnsConfig { dns_server_ips, search_domains: domains.iter().map(|domain| (*domain).to_owned()).collect() }
}

fn settings(servers: &[&Server], search: &[&str]) -> Settings {
    let servers = servers.iter().map(|server| server.address()).collect();
    Settings { servers, search: search.iter().filter_map(|text| domain(text)).collect() }
}

#[tokio::test]
async fn neither_side_learns_names_of_the_other() {
    let lab = Lab::new().await;
    assert_eq!(lab.addresses("Web.my.DOMAIN.").await, [INSIDE]);
    assert_eq!(lab.code("no.my.domain.").await, ResponseCode::NXDomain);
    assert_eq!(lab.outside.asked(), 0);
    let asked = lab.inside.asked();
    assert_eq!(lab.addresses("example.org.").await, [OUTSIDE]);
    assert_eq!(lab.code("no.example.org.").await, ResponseCode::NXDomain);
    assert_eq!(lab.inside.asked(), asked);
    // What a search list makes of a name of the inside.
    let asked = lab.outside.asked();
    assert_eq!(lab.code("web.my.domain.cluster.local.").await, ResponseCode::NXDomain);
    assert_eq!(lab.outside.asked(), asked);
    // Nor when the inside is silent.
    lab.inside.refuse(true);
    assert_eq!(lab.code("other.my.domain.").await, ResponseCode::Refused);
    assert_eq!(lab.outside.asked(), asked);
}

#[tokio::test]
async fn what_a_connection_brought_goes_with_it() {
    let lab = Lab::new().await;
    assert_eq!(lab.addresses("web.my.domain.").await, [INSIDE]);
    let asked = lab.inside.asked();
    lab.proxy.set("nsc-0", &[config(&[&lab.inside], &["my.domain"])]);
    assert_eq!(lab.addresses("web.my.domain.").await, [INSIDE]);
    assert_eq!((lab.inside.asked(), lab.proxy.count(Counted::Kept)), (asked, 2), "a refresh forgets nothing");
    // Healed to another endpoint: what the former one said counts no more.
    let other = Server::start().await.unwrap();
    other.set("web.my.domain.", Records::new().address(OUTSIDE).living(60));
    lab.proxy.set("nsc-0", &[config(&[&other], &["my.domain"])]);
    assert_eq!(lab.addresses("web.my.domain.").await, [OUTSIDE]);
    lab.proxy.remove("nsc-0");
    assert_eq!(lab.code("web.my.domain.").await, ResponseCode::NXDomain);
    // What was kept of others is as good as before.
    assert_eq!(lab.addresses("example.org.").await, [OUTSIDE]);
    let asked = lab.outside.asked();
    lab.proxy.set("nsc-1", &[config(&[&other], &["my.domain"])]);
    assert_eq!(lab.addresses("example.org.").await, [OUTSIDE]);
    assert_eq!(lab.outside.asked(), asked);
}

#[tokio::test]
async fn a_name_without_dots_is_found_under_a_search_domain() {
    let lab = Lab::new().await;
    let answer = lab.ask("web.", RecordType::A).await;
    let (alias, address) = (&answer.answers[0], &answer.answers[1]);
    assert_eq!((alias.name.to_ascii(), address.name.to_ascii()), ("web.".to_owned(), "web.my.domain.".to_owned()));
    assert!(matches!(&alias.data, RData::CNAME(to) if to.0 == address.name));
    // It is there and has no such address: no other domain is taken for it.
    lab.outside.set("web.", Records::new().address("2001:db8::1".parse().unwrap()));
    assert_eq!(lab.addresses("web.").await, [INSIDE]);
    lab.outside.set("printer.", Records::new().address(OUTSIDE));
    assert_eq!(lab.addresses("printer.").await, [OUTSIDE]);
    assert_eq!(lab.code("nobody.").await, ResponseCode::NXDomain);
    assert_eq!(lab.addresses("localhost.").await, ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
}

#[tokio::test]
async fn the_first_server_that_knows_is_believed_and_a_dead_one_holds_up_nobody() {
    let lab = Lab::new().await;
    let dead = Server::start().await.unwrap();
    dead.silence(true);
    lab.proxy.set("nsc-0", &[config(&[&dead, &lab.inside], &["my.domain"])]);
    let begun = Instant::now();
    assert_eq!(lab.addresses("web.my.domain.").await, [INSIDE]);
    assert_eq!(lab.code("no.my.domain.").await, ResponseCode::NXDomain);
    dead.silence(false);
    dead.refuse(true);
    lab.proxy.set("nsc-0", &[config(&[&dead, &lab.inside], &["my.domain"])]);
    assert_eq!(lab.addresses("web.my.domain.").await, [INSIDE]);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn without_search_domains_both_are_asked_and_records_count_for_more_than_that_there_are_none() {
    let lab = Lab::new().await;
    lab.inside.set("only.inside.", Records::new().address(INSIDE));
    lab.proxy.set("nsc-0", &[config(&[&lab.inside], &[])]);
    assert_eq!(lab.addresses("only.inside.").await, [INSIDE]);
    assert_eq!(lab.addresses("example.org.").await, [OUTSIDE]);
    assert_eq!(lab.code("nowhere.test.").await, ResponseCode::NXDomain);
    // One of them is dead: the other's word counts soon.
    lab.inside.silence(true);
    let begun = Instant::now();
    assert_eq!(lab.code("nowhere.else.").await, ResponseCode::NXDomain);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn silence_ends_in_time() {
    let lab = Lab::new().await;
    lab.inside.silence(true);
    let begun = Instant::now();
    assert_eq!(lab.code("web.my.domain.").await, ResponseCode::ServFail);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(lab.inside.asked(), 3, "it is asked again");
    drop(lab.inside);
    // Nobody is there: the kernel says so at once.
    let begun = Instant::now();
    assert_eq!(lab.proxy.count(Counted::Failed), 1);
    let error = addresses(lab.proxy.address(), "web.my.domain.").await.unwrap_err().to_string();
    assert!(error.contains("Server Failure"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_long_answer_comes_over_tcp_on_both_sides() {
    let lab = Lab::new().await;
    let texts = (0..100).fold(Records::new(), |records, number| records.text(&format!("{number:0>100}")));
    lab.inside.set("long.my.domain.", texts);
    let answer = lab.ask("long.my.domain.", RecordType::TXT).await;
    assert_eq!(answer.answers.len(), 100);
    assert!(lab.inside.asked_by_stream() > 0 && lab.proxy.count(Counted::Stream) > 0);
}

#[tokio::test]
async fn a_program_that_takes_more_over_udp_is_given_it() {
    let lab = Lab::new().await;
    let texts = (0..8).fold(Records::new(), |records, number| records.text(&format!("{number:0>100}")));
    lab.inside.set("middle.my.domain.", texts);
    for (takes, cut) in [(None, true), (Some(600), true), (Some(1232), false), (Some(u16::MAX), false)] {
        let mut message = Message::query();
        message.add_query(Query::query(domain("middle.my.domain").unwrap(), RecordType::TXT));
        if let Some(takes) = takes {
            let mut edns = Edns::new();
            edns.set_max_payload(takes);
            message.set_edns(edns);
        }
        let answer = exchange(&lab.proxy, &message.to_vec().unwrap()).await.unwrap();
        assert_eq!((answer.metadata.truncation, answer.edns.is_some()), (cut, takes.is_some()), "{takes:?}");
        assert_eq!(answer.answers.len(), if cut { 0 } else { 8 });
    }
}

/// What comes back for these octets, soon.
async fn exchange(proxy: &Proxy, octets: &[u8]) -> Option<Message> {
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(proxy.address()).await.unwrap();
    socket.send(octets).await.unwrap();
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await.ok()?.unwrap();
    Some(Message::from_vec(&buffer[..length]).unwrap())
}

#[tokio::test]
async fn what_is_no_question_is_refused_or_dropped() {
    let lab = Lab::new().await;
    let mut good = Message::query();
    good.add_query(Query::query(domain("web.my.domain").unwrap(), RecordType::A));
    let good = good.to_vec().unwrap();
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = good.clone();
        edit(&mut octets);
        octets
    };
    for (octets, code) in [
        (edited(&|octets| octets[2] |= 5 << 3), ResponseCode::NotImp),
        (edited(&|octets| octets[5] = 0), ResponseCode::FormErr),
        (edited(&|octets| octets[5] = 2), ResponseCode::FormErr),
        (edited(&|octets| octets.truncate(20)), ResponseCode::FormErr),
        (edited(&|octets| *octets.last_mut().unwrap() = 3), ResponseCode::Refused),
        (edited(&|octets| octets[good.len() - 3] = 252), ResponseCode::Refused),
    ] {
        let answer = exchange(&lab.proxy, &octets).await.unwrap();
        assert_eq!((answer.metadata.response_code, answer.metadata.id.to_be_bytes().as_slice()), (code, &good[..2]));
    }
    for octets in [edited(&|octets| octets[2] |= 0x80), edited(&|octets| octets.truncate(11)), Vec::new()] {
        assert!(matches!(Asked::read(&octets), Err(Rejected::Dropped)), "{octets:?}");
    }
    assert_eq!((lab.inside.asked(), lab.proxy.count(Counted::Malformed)), (0, 6));
}

#[tokio::test]
async fn a_forged_answer_is_not_believed() {
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let proxy = Proxy::listen(Place::Here, LOOPBACK).await.unwrap();
    proxy.set_own_servers([server.local_addr().unwrap()]);
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        let answer = |id: u16, name: &str, address: IpAddr| {
            let mut answer = Message::response(id, OpCode::Query);
            let name = domain(name).unwrap();
            answer.add_query(Query::query(name.clone(), RecordType::A));
            let IpAddr::V4(address) = address else { panic!() };
            answer.add_answer(Record::from_rdata(name, 60, RData::A(address.into())));
            answer.to_vec().unwrap()
        };
        let id = question.metadata.id;
        let forged = [answer(id.wrapping_add(1), "a.test", INSIDE), answer(id, "b.test", INSIDE), vec![0; 12]];
        // From elsewhere, the rest is right: the kernel keeps it away.
        let other = UdpSocket::bind(LOOPBACK).await.unwrap();
        other.send_to(&answer(id, "a.test", INSIDE), from).await.unwrap();
        for octets in forged {
            server.send_to(&octets, from).await.unwrap();
        }
        server.send_to(&answer(id, "A.test", OUTSIDE), from).await.unwrap();
        from.port()
    });
    let answer = ask(&Place::Here, proxy.address(), "a.test.", RecordType::A).await.unwrap();
    assert!(matches!(&answer.answers[0].data, RData::A(address) if IpAddr::from(address.0) == OUTSIDE));
    assert_eq!(proxy.count(Counted::Stray), 3);
    assert_ne!(answering.await.unwrap(), 53);
}

#[tokio::test]
async fn a_loop_is_answered_at_once() {
    // Two that ask each other.
    let other = Proxy::listen(Place::Here, LOOPBACK).await.unwrap();
    let relay = Proxy::listen(Place::Here, LOOPBACK).await.unwrap();
    other.set_own_servers([relay.address()]);
    relay.set_own_servers([other.address()]);
    let begun = Instant::now();
    let answer = ask(&Place::Here, relay.address(), "a.test.", RecordType::A).await.unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let loops = other.count(Counted::Loop) + relay.count(Counted::Loop);
    assert!(loops >= 1, "{loops}");
    while !other.inner.alike.lock().unwrap().is_empty() {
        assert!(begun.elapsed() < 2 * LIMIT, "it goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_question_of_our_own_is_known_by_where_it_comes_from() {
    let proxy = Proxy::listen(Place::Here, "0.0.0.0:0".parse().unwrap()).await.unwrap();
    // Under an address that nobody would take for ours.
    let itself = SocketAddr::new("127.9.9.9".parse().unwrap(), proxy.address().port());
    let translated = UdpSocket::bind(LOOPBACK).await.unwrap();
    proxy.set_own_servers([itself]);
    assert!(proxy.inner.table().servers_of(&domain("a.test").unwrap()).is_empty(), "it is not asked at all");
    // As if somebody had sent it back to us.
    proxy.set_own_servers([translated.local_addr().unwrap()]);
    let to = proxy.address().port();
    let relayed = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = translated.recv_from(&mut buffer).await.unwrap();
        (buffer[..length].to_vec(), from, to)
    });
    let asking = tokio::spawn(async move {
        ask(&Place::Here, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), to), "a.test.", RecordType::A).await
    });
    let (octets, from, _) = relayed.await.unwrap();
    let answer = proxy.inner.reply(&octets, from, Over::Datagrams).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
    assert_eq!(proxy.count(Counted::Loop), 1);
    asking.abort();
}

#[tokio::test]
async fn many_ask_the_same_at_the_same_time() {
    let lab = Lab::new().await;
    let asked = (0..MOST_ALIKE).map(|_| lab.code("web.my.domain."));
    let codes = futures::future::join_all(asked).await;
    assert!(codes.iter().all(|code| *code == ResponseCode::NoError), "{codes:?}");
}

#[tokio::test]
async fn a_flood_takes_so_many_descriptors_and_no_more() {
    let lab = Lab::new().await;
    lab.inside.silence(true);
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(lab.proxy.address()).await.unwrap();
    let asking = &lab.proxy.inner.asking;
    let (begun, mut most) = (Instant::now(), 0);
    for number in 0..800 {
        let mut message = Message::query();
        message.add_query(Query::query(domain(&format!("n{number}.my.domain")).unwrap(), RecordType::A));
        socket.send(&message.to_vec().unwrap()).await.unwrap();
        // The kernel's queue is short.
        while asking.counters.of(Counted::Questions) + asking.counters.of(Counted::Overload) < number / 64 * 64 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is stuck");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        most = most.max(asking.sockets());
    }
    assert!(most <= MOST_SOCKETS && most > MOST_SOCKETS / 2, "{most}");
    assert!(asking.counters.of(Counted::Overload) > 0, "more than are taken are left to be asked again");
    // When it is over everything is as before.
    while asking.sockets() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} sockets are left", asking.sockets());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lab.inside.silence(false);
    assert_eq!(lab.addresses("web.my.domain.").await, [INSIDE]);
}

#[tokio::test]
async fn a_stream_carries_several_questions_and_ends_with_nonsense() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let lab = Lab::new().await;
    let mut stream = tokio::net::TcpStream::connect(lab.proxy.address()).await.unwrap();
    for name in ["web.my.domain", "example.org"] {
        let mut message = Message::query();
        message.add_query(Query::query(domain(name).unwrap(), RecordType::A));
        stream.write_all(&exchange::framed(&message.to_vec().unwrap()).unwrap()).await.unwrap();
        let mut buffer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(Message::from_vec(&buffer).unwrap().answers.len(), 1);
    }
    stream.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
    assert!(stream.read_u16().await.is_err(), "it is closed");
}

proptest! {
    #[test]
    fn no_octets_are_too_odd(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Asked::read(&octets);
    }

    /// A question with some octets changed: it is answered, or not, and whatever the answer is can be written.
    #[test]
    fn nor_is_a_question_with_mistakes(changes in proptest::collection::vec((0..64_usize, any::<u8>()), 0..6)) {
        let mut message = Message::query();
        message.add_query(Query::query(domain("web.my.domain").unwrap(), RecordType::A));
        message.set_edns(Edns::new());
        let mut octets = message.to_vec().unwrap();
        for (at, octet) in changes {
            let at = at % octets.len();
            octets[at] = octet;
        }
        match Asked::read(&octets) {
            Ok(asked) => {
                let answer = asked.answer(refused(ResponseCode::NXDomain));
                prop_assert!(asked.datagram(&answer).is_some());
                prop_assert!(asked.question.message(true).to_vec().is_ok());
                let mut reply = asked.question.message(false);
                reply.metadata.message_type = hickory_resolver::proto::op::MessageType::Response;
                prop_assert!(asked.question.is_answered_by(&reply, reply.metadata.id));
                let _ = Table::default().is_search_artefact(&asked.question.name);
                let _ = Table::default().expanded(&asked.question.name);
            }
            Err(Rejected::Answered(answer)) => prop_assert!(answer.to_vec().is_ok()),
            Err(Rejected::Dropped) => {}
        }
    }
}
