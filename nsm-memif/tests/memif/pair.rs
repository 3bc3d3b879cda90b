//! Both roles against each other.

use std::time::Duration;

use nsm_memif::protocol::Mode;
use nsm_memif::{Address, Closed, Config, Error, MAX_PACKET_LENGTH, Memif, Server};

use crate::common::{Directory, frame, pair, pair_of, soon};

/// Sends it one way, waits for it, and gives what came.
async fn carried(from: &mut Memif, to: &mut Memif, packet: &[u8]) -> Vec<u8> {
    assert_eq!(from.send_burst([packet]).unwrap(), 1);
    soon(to.ready()).await.unwrap();
    let mut got = Vec::new();
    assert_eq!(to.recv_burst(8, |packet| got.extend_from_slice(packet)).unwrap(), 1);
    got
}

#[tokio::test]
async fn packets_of_all_lengths_arrive_as_they_were_both_ways() {
    let config = Config::new(0).buffer_size(256).unwrap();
    let (mut server, mut client) = pair(&config).await;
    // 256 and 512 fill buffers to the last octet; longer ones take several.
    for length in [1, 7, 8, 60, 64, 255, 256, 257, 512, 513, 1500, 9000, MAX_PACKET_LENGTH] {
        let packet = frame(length, length as u64);
        assert_eq!(carried(&mut client, &mut server, &packet).await, packet, "to the server, {length}");
        assert_eq!(carried(&mut server, &mut client, &packet).await, packet, "to the client, {length}");
    }
    for length in [0, MAX_PACKET_LENGTH + 1] {
        let refused = client.send_burst([vec![0; length]]).unwrap_err();
        assert!(matches!(refused, Error::PacketLength { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_long_stream_keeps_its_order_across_many_rounds_of_the_ring() {
    // Indices have 16 bits: they wrap as well.
    const PACKETS: u64 = 70_000;
    for ring in [1, 8, 1024] {
        let (server, client) = pair(&Config::new(0).ring_size(ring).unwrap()).await;
        for (mut from, mut to) in [(client, server)].into_iter().flat_map(|(a, b)| {
            let ((mut ra, mut sa), (mut rb, mut sb)) = (a.split(), b.split());
            [(sa.remove(0), rb.remove(0)), (sb.remove(0), ra.remove(0))]
        }) {
            let (mut sent, mut got) = (0u64, 0u64);
            while got < PACKETS {
                let burst = (sent..PACKETS.min(sent + 300)).map(u64::to_ne_bytes);
                sent += from.send_burst(burst).unwrap() as u64;
                to.recv_burst(7, |packet| {
                    assert_eq!(packet, got.to_ne_bytes());
                    got += 1;
                })
                .unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_full_ring_is_told_and_nothing_of_it_is_lost() {
    let config = Config::new(0).ring_size(4).unwrap().buffer_size(64).unwrap();
    let (mut server, mut client) = pair(&config).await;
    for _ in 0..2 {
        // Three buffers, and one: the second packet of three buffers does not fit.
        let (long, short) = (frame(150, 1), frame(10, 2));
        assert_eq!(client.send_burst([&long, &long]).unwrap(), 1);
        assert_eq!(client.send_burst([&short, &short]).unwrap(), 1);
        let mut got = Vec::new();
        assert_eq!(server.recv_burst(8, |packet| got.push(packet.to_vec())).unwrap(), 2);
        assert_eq!(got, [long.clone(), short]);
        // What can never fit is another matter.
        let refused = client.send_burst([frame(257, 3)]).unwrap_err();
        assert!(matches!(refused, Error::PacketLength { max: 256, .. }), "{refused}");
        assert_eq!(carried(&mut client, &mut server, &long).await, long);
        // The same the other way round.
        std::mem::swap(&mut client, &mut server);
    }
}

#[tokio::test]
async fn a_server_keeps_the_buffers_size_when_a_long_packet_did_not_fit() {
    let config = Config::new(0).ring_size(4).unwrap().buffer_size(64).unwrap();
    let (mut server, mut client) = pair(&config).await;
    assert_eq!(server.send_burst([frame(100, 1), frame(200, 2)]).unwrap(), 1);
    client.recv_burst(8, |_| ()).unwrap();
    let all = frame(256, 3);
    assert_eq!(carried(&mut server, &mut client, &all).await, all);
}

#[tokio::test]
async fn packets_go_from_one_interface_to_another_without_being_looked_at() {
    let (mut a, near) = pair_of(&Config::new(0), &Config::new(0).buffer_size(128).unwrap()).await;
    let (far, mut b) = pair_of(&Config::new(0), &Config::new(0).buffer_size(192).unwrap()).await;
    let ((mut receivers, _kept), (_also_kept, mut senders)) = (near.split(), far.split());
    for length in [1, 128, 129, 192, 400, 5000] {
        let packet = frame(length, 9);
        a.send_burst([&packet]).unwrap();
        let forward = |packet: nsm_memif::Packet<'_>| {
            assert_eq!((packet.len(), packet.is_empty()), (length, false));
            assert!(senders[0].push_packet(packet).unwrap());
        };
        assert_eq!(receivers[0].recv_in_place(8, forward).unwrap(), 1);
        senders[0].flush().unwrap();
        let mut got = Vec::new();
        b.recv_burst(8, |packet| got.extend_from_slice(packet)).unwrap();
        assert_eq!(got, packet, "{length}");
    }
}

#[tokio::test]
async fn a_packet_can_be_read_in_pieces_wherever_it_is() {
    let (mut server, client) = pair(&Config::new(0).buffer_size(64).unwrap()).await;
    let packet = frame(200, 4);
    server.send_burst([&packet]).unwrap();
    let (mut receivers, _senders) = client.split();
    let check = |there: nsm_memif::Packet<'_>| {
        for (offset, length) in [(0, 64), (63, 2), (10, 190), (199, 5), (200, 1), (1000, 4)] {
            let mut piece = vec![0; length];
            let read = there.read(offset, &mut piece);
            let expected = &packet[offset.min(200)..(offset + length).min(200)];
            assert_eq!(&piece[..read], expected, "{offset}, {length}");
        }
    };
    assert_eq!(receivers[0].recv_in_place(1, check).unwrap(), 1);
}

#[tokio::test]
async fn whoever_waits_is_woken_by_a_packet_and_not_before() {
    let (server, client) = pair(&Config::new(0)).await;
    for (mut from, mut to) in [(server, client)] {
        for direction in 0..2 {
            assert!(tokio::time::timeout(Duration::from_millis(30), to.ready()).await.is_err());
            let waiting = tokio::spawn(async move {
                to.ready().await.unwrap();
                to
            });
            tokio::time::sleep(Duration::from_millis(30)).await;
            assert!(!waiting.is_finished());
            from.send_burst(["wake up"]).unwrap();
            to = soon(waiting).await.unwrap();
            assert_eq!(to.recv_burst(8, |packet| assert_eq!(packet, b"wake up")).unwrap(), 1, "{direction}");
            std::mem::swap(&mut from, &mut to);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_of_waiting_peers_never_stops() {
    let (mut server, mut client) = pair(&Config::new(0)).await;
    let answering = tokio::spawn(async move {
        server
            .answer(|packet| {
                packet.reverse();
                true
            })
            .await
    });
    for number in 0u64..5_000 {
        client.send_burst([number.to_be_bytes()]).unwrap();
        soon(client.ready()).await.unwrap();
        client.recv_burst(8, |packet| assert_eq!(packet, number.to_le_bytes())).unwrap();
    }
    client.closer().close();
    assert!(matches!(client.send_burst(["x"]), Err(Error::Closed(Closed::ByUs))));
    assert_eq!(soon(answering).await.unwrap().unwrap(), Closed::ByPeer("closed".to_owned()));
}

#[tokio::test]
async fn each_queue_is_one_of_its_own() {
    let few = Config::new(0).queues(3).unwrap();
    let (server, client) = pair(&few).await;
    let ((mut there, _), (_, mut here)) = (server.split(), client.split());
    assert_eq!((there.len(), here.len()), (3, 3));
    for (number, sender) in here.iter_mut().enumerate() {
        sender.send_burst([number.to_ne_bytes()]).unwrap();
    }
    for (number, receiver) in there.iter_mut().enumerate() {
        assert_eq!(receiver.recv_burst(8, |packet| assert_eq!(packet, number.to_ne_bytes())).unwrap(), 1);
    }
}

#[tokio::test]
async fn one_socket_serves_several_interfaces_at_once() {
    let directory = Directory::new("several");
    let server = Server::bind(&directory.address()).unwrap();
    let mut ports = [0, 1, 77].map(|id| server.open(Config::new(id)).unwrap());
    assert!(matches!(server.open(Config::new(77)), Err(Error::IdInUse { id: 77 })));
    let mut pairs = Vec::new();
    for (port, id) in ports.iter_mut().zip([0, 1, 77]) {
        let (address, config) = (directory.address(), Config::new(id).name(format!("client-{id}")));
        let client = tokio::spawn(async move { Memif::connect(&address, &config).await.unwrap() });
        let near = soon(port.accept()).await.unwrap();
        assert_eq!(near.peer().interface, format!("client-{id}"));
        pairs.push((near, client.await.unwrap()));
    }
    for (at, (near, far)) in pairs.iter_mut().enumerate() {
        let packet = frame(100, at as u64);
        assert_eq!(carried(near, far, &packet).await, packet);
    }
    // A number that nobody opened, and one whose client is there already.
    for (id, why) in [(5, "not open"), (77, "open on this socket already")] {
        let refused = soon(Memif::connect(&directory.address(), &Config::new(id))).await.unwrap_err();
        assert!(matches!(&refused, Error::Refused { reason } if reason.contains(why)), "{refused}");
    }
    // Interfaces outlive the socket.
    drop((server, ports));
    assert!(!directory.file().exists());
    let (near, far) = &mut pairs[0];
    assert_eq!(carried(near, far, b"still there").await, b"still there");
}

#[tokio::test]
async fn a_port_takes_the_next_client_when_one_is_gone() {
    let directory = Directory::new("again");
    let server = Server::bind(&directory.address()).unwrap();
    let mut port = server.open(Config::new(0)).unwrap();
    for round in 0..3u8 {
        let address = directory.address();
        let client = tokio::spawn(async move { Memif::connect(&address, &Config::new(0)).await.unwrap() });
        let mut near = soon(port.accept()).await.unwrap();
        let mut far = client.await.unwrap();
        assert_eq!(carried(&mut far, &mut near, &[round]).await, [round]);
        drop(far);
        assert_eq!(soon(near.closed()).await, Closed::ByPeer("closed".to_owned()));
        assert!(matches!(near.send_burst(["x"]), Err(Error::Closed(_))));
        assert!(matches!(soon(near.ready()).await, Err(Error::Closed(_))));
    }
}

#[tokio::test]
async fn packets_that_were_there_before_the_end_are_still_received() {
    let (mut server, client) = pair(&Config::new(0)).await;
    let (_receivers, mut senders) = client.split();
    senders[0].send_burst(["the last words"]).unwrap();
    drop((_receivers, senders));
    soon(server.closed()).await;
    soon(server.ready()).await.unwrap();
    assert_eq!(server.recv_burst(8, |packet| assert_eq!(packet, b"the last words")).unwrap(), 1);
    assert!(matches!(server.recv_burst(8, |_| ()), Err(Error::Closed(_))));
}

#[tokio::test]
async fn modes_and_secrets_must_be_the_same() {
    let hush = |secret: &str| Config::new(0).secret(secret).unwrap();
    let cases = [
        (Config::new(0).mode(Mode::Ip), Config::new(0), "mode"),
        (hush("right"), hush("wrong"), "another secret"),
        (hush("right"), Config::new(0), "no secret"),
    ];
    for (ours, theirs, why) in cases {
        let directory = Directory::new("differ");
        let server = Server::bind(&directory.address()).unwrap();
        let mut port = server.open(ours).unwrap();
        let address = directory.address();
        let client = tokio::spawn(async move { Memif::connect(&address, &theirs).await });
        let here = soon(port.accept()).await.unwrap_err();
        let there = soon(client).await.unwrap().unwrap_err();
        assert!(here.to_string().contains(why), "{here}");
        assert!(matches!(&there, Error::Refused { reason } if reason.contains(why)), "{there}");
    }
    let same = hush("right").mode(Mode::Ip);
    let (mut server, mut client) = pair(&same).await;
    assert_eq!(carried(&mut server, &mut client, b"\x45 a packet").await, b"\x45 a packet");
}

#[tokio::test]
async fn addresses_are_taken_stale_or_impossible() {
    let directory = Directory::new("addresses");
    let address = directory.address();
    assert!(matches!(Memif::connect(&address, &Config::new(0)).await, Err(Error::Unreachable { .. })));
    // Left over by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(directory.file()).unwrap());
    let server = Server::bind(&address).unwrap();
    assert!(matches!(Server::bind(&address), Err(Error::AddressInUse { .. })));
    drop(server);
    for impossible in [Address::from(&*format!("/tmp/{}", "x".repeat(200))), Address::abstract_name("x".repeat(108))] {
        assert!(matches!(Server::bind(&impossible), Err(Error::InvalidAddress { .. })));
    }
    // A long path is another matter than a long name.
    let deep = directory.file().with_file_name("d".repeat(150));
    std::fs::create_dir(&deep).unwrap();
    let deep = Address::from(deep.join("memif.sock"));
    let server = Server::bind(&deep).unwrap();
    let mut port = server.open(Config::new(0)).unwrap();
    let client = tokio::spawn(async move { Memif::connect(&deep, &Config::new(0)).await.unwrap() });
    soon(port.accept()).await.unwrap();
    client.await.unwrap();

    let name = Address::abstract_name(format!("memif-test-{}", std::process::id()));
    let server = Server::bind(&name).unwrap();
    assert!(matches!(Server::bind(&name), Err(Error::AddressInUse { .. })));
    let mut port = server.open(Config::new(0)).unwrap();
    let client = tokio::spawn(async move { Memif::connect(&name, &Config::new(0)).await.unwrap() });
    soon(port.accept()).await.unwrap();
    client.await.unwrap();
}
