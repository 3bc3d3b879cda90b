//! Peers that lie: in what they say, and in what they write into the shared memory.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nsm_memif::protocol::{AddRing, Direction, Hello, Init, Message, VERSION};
use nsm_memif::{Closed, Config, Error, Memif, Violation};
use proptest::prelude::*;
use rustix::fs::MemfdFlags;

use crate::common::{frame, pair, socket_pair, soon};
use crate::liar::{Liar, Memory, has_memory};

/// Serves a client that says this behind a proper INIT; gives what came of it here, and what the client was told.
async fn served(says: impl FnOnce(&Liar) + Send + 'static) -> (Error, Option<String>) {
    let (here, there) = socket_pair();
    let liar = tokio::task::spawn_blocking(move || {
        let liar = Liar(there);
        liar.hear().unwrap();
        says(&liar);
        liar.last_words()
    });
    let config = Config::new(0).timeout(Duration::from_secs(10));
    let error = soon(Memif::serve_on(here, &config)).await.unwrap_err();
    (error, soon(liar).await.unwrap())
}

/// The same behind an INIT that was accepted.
async fn offered(says: impl FnOnce(&Liar) + Send + 'static) -> (Error, Option<String>) {
    served(|liar| {
        liar.send(&Message::Init(Liar::init()), None);
        liar.hear().unwrap();
        says(liar);
    })
    .await
}

fn region(index: u16, size: u64) -> Message {
    Message::AddRegion { index, size }
}

fn ring(index: u16, region: u16, offset: u32, log2_size: u8) -> AddRing {
    AddRing { direction: Direction::ToServer, index, region, offset, log2_size, private_header: 0 }
}

#[tokio::test]
async fn a_client_that_says_something_else_is_told_what_is_wrong() {
    let (error, told) = served(|liar| liar.send(&Message::Connect { interface: String::new() }, None)).await;
    assert!(matches!(error, Error::Violation(Violation::OutOfTurn { got: "CONNECT", expected: "INIT" })), "{error}");
    assert_eq!(told.unwrap(), error.to_string());

    let old = Init { version: 0x0100, ..Liar::init() };
    let (error, told) = served(move |liar| liar.send(&Message::Init(old), None)).await;
    assert!(matches!(error, Error::Version { min: 1, max: 1, .. }), "{error}");
    assert!(told.unwrap().contains("2.0"));

    for length in [1, 127, 129, 4096] {
        let (error, told) = served(move |liar| liar.say(&vec![3; length], &[])).await;
        assert!(matches!(error, Error::Violation(Violation::Message(_))), "{length}: {error}");
        assert!(told.is_some());
    }
    let (error, _) = served(|liar| liar.say(&[0xff; 128], &[])).await;
    assert!(error.to_string().contains("type 65535"), "{error}");

    let (error, _) = served(|liar| liar.send(&Message::Init(Init { id: 5, ..Liar::init() }), None)).await;
    assert!(error.to_string().contains("interface 5"), "{error}");

    let (error, _) = offered(|liar| liar.send(&Message::Ack, None)).await;
    assert!(matches!(error, Error::Violation(Violation::OutOfTurn { got: "ACK", .. })), "{error}");

    let (error, told) = offered(|liar| liar.send(&Message::Disconnect { code: 1, reason: "bored".into() }, None)).await;
    assert!(matches!(&error, Error::Refused { reason } if reason == "bored"), "{error}");
    assert!(told.is_some());
}

#[tokio::test]
async fn regions_that_could_do_harm_are_refused_and_given_back() {
    let (error, _) = offered(|liar| liar.send(&region(0, 4096), None)).await;
    assert!(error.to_string().contains("no descriptor came"), "{error}");

    for (index, size, why) in [(1, 4096, "number 0"), (0, 1 << 40, "possible"), (0, 0, "possible"), (0, 1 << 20, "has")]
    {
        let name = format!("liar-region-{index}-{size}");
        let memory = Memory::new(&name);
        let (error, _) = offered(move |liar| liar.send(&region(index, size), Some(memory.file.as_fd()))).await;
        assert!(
            matches!(error, Error::Violation(Violation::Region { .. })) && error.to_string().contains(why),
            "{error}"
        );
        assert!(!has_memory(&name), "{name} is still there");
    }

    // One that the client could shrink.
    let (error, _) = offered(|liar| {
        let file = rustix::fs::memfd_create("liar-unsealed", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        liar.send(&region(0, 4096), Some(file.as_fd()));
    })
    .await;
    assert!(error.to_string().contains("F_SEAL_SHRINK"), "{error}");
    assert!(!has_memory("liar-unsealed"));

    // More descriptors than one, and none of them stays.
    let (reader, writer) = std::io::pipe().unwrap();
    let (error, _) = offered(move |liar| liar.say(&region(0, 4096).encode(), &[writer.as_fd(); 8])).await;
    assert!(error.to_string().contains("more than one descriptor"), "{error}");
    let read = tokio::task::spawn_blocking(move || rustix::io::read(&reader, &mut [0; 8]).unwrap());
    assert_eq!(soon(read).await.unwrap(), 0, "nobody has the writing end any more");
}

#[tokio::test]
async fn rings_that_are_none_are_refused() {
    let cases = [
        (ring(1, 0, 0, 3), "number 0 would be next"),
        (ring(0, 1, 0, 3), "its region was not added"),
        (ring(0, 0, 0, 15), "2^15"),
        (ring(0, 0, 0, 14), "not within"),
        (ring(0, 0, 4, 3), "multiple of 8"),
        (ring(0, 0, u32::MAX - 7, 3), "not within"),
        (AddRing { private_header: 1, ..ring(0, 0, 0, 3) }, "private headers"),
    ];
    for (ring, why) in cases {
        let memory = Memory::new("liar-ring");
        let (error, told) = offered(move |liar| {
            liar.send(&region(0, memory.length), Some(memory.file.as_fd()));
            liar.hear().unwrap();
            liar.send(&Message::AddRing(ring), Some(memory.interrupt.as_fd()));
        })
        .await;
        assert!(matches!(error, Error::Violation(Violation::Ring { .. })), "{error}");
        assert!(error.to_string().contains(why) && told.unwrap().contains(why), "{error}");
    }

    // What is written to for an interrupt must be an eventfd, not the server's own socket or any file.
    let memory = Memory::new("liar-no-eventfd");
    let (error, _) = offered(move |liar| {
        liar.send(&region(0, memory.length), Some(memory.file.as_fd()));
        liar.hear().unwrap();
        liar.send(&Message::AddRing(ring(0, 0, 0, 3)), Some(memory.file.as_fd()));
    })
    .await;
    assert!(error.to_string().contains("no eventfd"), "{error}");
    assert!(!has_memory("liar-no-eventfd"));

    // Without the cookie.
    let memory = Memory::new("liar-cookie");
    memory.put(0, &[0]);
    let (error, _) = offered(move |liar| {
        liar.send(&region(0, memory.length), Some(memory.file.as_fd()));
        liar.hear().unwrap();
        liar.send(&Message::AddRing(ring(0, 0, 0, 3)), Some(memory.interrupt.as_fd()));
        liar.hear().unwrap();
        liar.send(&Message::Connect { interface: String::new() }, None);
    })
    .await;
    assert!(error.to_string().contains("cookie"), "{error}");
}

#[tokio::test]
async fn regions_and_rings_without_end_come_to_an_end() {
    let memory = Memory::new("liar-many");
    let (error, _) = offered(move |liar| {
        for index in 0..=64 {
            liar.send(&region(index, 4096.min(memory.length)), Some(memory.file.as_fd()));
            liar.hear();
        }
    })
    .await;
    assert!(error.to_string().contains("there can be 64"), "{error}");
    assert!(!has_memory("liar-many"));
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_waited_for_only_so_long() {
    let patience = Config::new(0).timeout(Duration::from_millis(60));
    let (here, _silent) = socket_pair();
    let error = soon(Memif::serve_on(here, &patience)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { waiting_for: "INIT", millis: 60 }), "{error}");
    let (here, _silent) = socket_pair();
    let error = soon(Memif::connect_on(here, &patience)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let (here, there) = socket_pair();
    drop(there);
    let error = soon(Memif::connect_on(here, &patience)).await.unwrap_err();
    assert!(matches!(error, Error::Closed(Closed::PeerGone)), "{error}");
}

/// Serves an honest client so far; then it may write what it likes.
async fn up(name: &str) -> (Memif, Liar, Memory) {
    let (here, there) = socket_pair();
    let memory = Memory::new(name);
    let liar = tokio::task::spawn_blocking(move || {
        let liar = Liar(there);
        liar.connect(&memory);
        (liar, memory)
    });
    let server = soon(Memif::serve_on(here, &Config::new(0))).await.unwrap();
    let (liar, memory) = soon(liar).await.unwrap();
    (server, liar, memory)
}

/// That the interface ended with this violation, here and there, and gave everything back.
async fn ended(server: Memif, liar: Liar, memory: Memory, name: &str, error: Error, expected: &Violation) {
    assert!(matches!(&error, Error::Violation(violation) if violation == expected), "{error}");
    assert_eq!(soon(server.closed()).await, Closed::Violation(expected.clone()));
    let told = tokio::task::spawn_blocking(move || liar.last_words());
    let told = soon(told).await.unwrap().unwrap();
    // A reason has 95 octets at most.
    assert!(told.len() >= 40 && expected.to_string().starts_with(&told), "{told}");
    drop((server, memory));
    // The task that watched the socket ends in its own time.
    let gone = async {
        while has_memory(name) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(gone).await;
}

#[tokio::test]
async fn an_honest_client_of_this_kind_is_served() {
    let (mut server, _liar, memory) = up("liar-honest").await;
    memory.put(Memory::BUFFERS, b"hello");
    memory.descriptor(0, 0, 0, 0, 5, Memory::BUFFERS);
    memory.head(0, 1);
    assert_eq!(server.recv_burst(8, |packet| assert_eq!(packet, b"hello")).unwrap(), 1);
    assert_eq!(server.send_burst(["back"]).unwrap(), 0, "no buffer was given");
    memory.head(1, 8);
    assert_eq!(server.send_burst(["back"]).unwrap(), 1);
    let mut back = [0; 4];
    memory.file.read_exact_at(&mut back, (Memory::BUFFERS + 8 * Memory::BUFFER).into()).unwrap();
    assert_eq!(&back, b"back");
}

#[tokio::test]
async fn an_index_beyond_the_ring_ends_the_interface() {
    for head in [9, 0x7fff, 0x8000, 0xffff] {
        let name = format!("liar-head-{head}");
        let (mut server, liar, memory) = up(&name).await;
        memory.head(0, head);
        let expected = Violation::RingIndex { ring: 0, distance: head, possible: 8 };
        let error = soon(server.ready()).await.unwrap_err();
        assert!(matches!(server.recv_burst(8, |_| ()), Err(Error::Closed(_))));
        assert!(matches!(server.send_burst(["x"]), Err(Error::Closed(_))));
        ended(server, liar, memory, &name, error, &expected).await;

        let name = format!("liar-given-{head}");
        let (mut server, liar, memory) = up(&name).await;
        memory.head(1, head);
        let error = server.send_burst(["x"]).unwrap_err();
        ended(server, liar, memory, &name, error, &expected).await;
    }
}

#[tokio::test]
async fn a_buffer_outside_the_memory_ends_the_interface() {
    let end = Memory::BUFFERS + 16 * Memory::BUFFER;
    for (region, length, offset) in [(1, 1, 0), (0xffff, 1, 0), (0, 65, end - 64), (0, 1, end), (0, u32::MAX, u32::MAX)]
    {
        let expected = Violation::Buffer { ring: 0, region, offset, length };
        let name = format!("liar-buffer-{region}-{length}-{offset}");
        let (mut server, liar, memory) = up(&name).await;
        memory.descriptor(0, 0, 0, region, length, offset);
        memory.head(0, 1);
        let error = server.recv_burst(8, |_| panic!("there is no packet")).unwrap_err();
        ended(server, liar, memory, &name, error, &expected).await;

        let (mut server, liar, memory) = up(&name).await;
        memory.descriptor(1, 0, 0, region, length, offset);
        memory.head(1, 8);
        let error = server.send_burst(["x"]).unwrap_err();
        ended(server, liar, memory, &name, error, &expected).await;
    }
    // No room at all, for ever.
    let (mut server, liar, memory) = up("liar-empty").await;
    memory.descriptor(1, 0, 0, 0, 0, 0);
    memory.head(1, 8);
    let error = server.send_burst(["x"]).unwrap_err();
    let expected = Violation::Buffer { ring: 0, region: 0, offset: 0, length: 0 };
    ended(server, liar, memory, "liar-empty", error, &expected).await;
}

#[tokio::test]
async fn a_chain_without_end_or_without_measure_ends_the_interface() {
    for head in [1, 8] {
        let name = format!("liar-chain-{head}");
        let (mut server, liar, memory) = up(&name).await;
        for slot in 0..8 {
            memory.descriptor(0, slot, 1, 0, 8, Memory::BUFFERS);
        }
        memory.head(0, head);
        let error = server.recv_burst(8, |_| panic!("there is no packet")).unwrap_err();
        ended(server, liar, memory, &name, error, &Violation::Chain { ring: 0 }).await;
    }
}

/// A server that lies; with it a client that is up, and the client's memory as the server got it.
async fn up_with_a_liar() -> (Memif, Liar, std::fs::File) {
    let (here, there) = socket_pair();
    let liar = tokio::task::spawn_blocking(move || {
        let liar = Liar(there);
        liar.send(&Message::Hello(hello()), None);
        let mut memory = None;
        loop {
            match liar.hear().unwrap() {
                (Message::AddRegion { .. }, file) => memory = file,
                (Message::Connect { .. }, _) => break,
                _ => {}
            }
            liar.send(&Message::Ack, None);
        }
        liar.send(&Message::Connected { interface: "liar".to_owned() }, None);
        (liar, std::fs::File::from(memory.unwrap()))
    });
    let config = Config::new(0).ring_size(8).unwrap().buffer_size(64).unwrap();
    let client = soon(Memif::connect_on(here, &config)).await.unwrap();
    let (liar, memory) = soon(liar).await.unwrap();
    (client, liar, memory)
}

fn hello() -> Hello {
    Hello {
        name: "liar".to_owned(),
        min_version: VERSION,
        max_version: VERSION,
        max_region: 0,
        max_ring_to_client: 0,
        max_ring_to_server: 0,
        max_log2_ring_size: 14,
    }
}

#[tokio::test]
async fn a_server_that_lies_is_left() {
    for message in [Message::Ack, Message::Connected { interface: String::new() }, Message::Init(Liar::init())] {
        let (here, there) = socket_pair();
        let liar = Liar(there);
        liar.send(&message, None);
        let error = soon(Memif::connect_on(here, &Config::new(0))).await.unwrap_err();
        assert!(matches!(error, Error::Violation(Violation::OutOfTurn { .. })), "{error}");
        assert_eq!(liar.last_words().unwrap(), error.to_string());
    }
    // One that says why and is gone before anything was sent to it.
    let (here, there) = socket_pair();
    let liar = Liar(there);
    liar.send(&Message::Hello(hello()), None);
    liar.send(&Message::Disconnect { code: 0, reason: "not today".to_owned() }, None);
    drop(liar);
    let error = soon(Memif::connect_on(here, &Config::new(0))).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason } if reason == "not today"), "{error}");

    let (here, there) = socket_pair();
    let newer = Hello { min_version: 0x0300, max_version: 0x0301, ..hello() };
    Liar(there).send(&Message::Hello(newer), None);
    let error = soon(Memif::connect_on(here, &Config::new(0))).await.unwrap_err();
    assert!(matches!(error, Error::Version { min: 3, max: 3, max_minor: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_lies_in_the_clients_rings_ends_the_interface() {
    const RING: u64 = 128 + 16 * 8;
    // A buffer, and the cache line between two.
    const STRIDE: u64 = 64 + 64;
    // More was taken than was sent.
    let (mut client, _liar, memory) = up_with_a_liar().await;
    memory.write_all_at(&1u16.to_ne_bytes(), 64).unwrap();
    let error = client.send_burst(["x"]).unwrap_err();
    assert!(matches!(error, Error::Violation(Violation::RingIndex { distance: 0xffff, .. })), "{error}");
    // More was sent than buffers were given.
    let (mut client, _liar, memory) = up_with_a_liar().await;
    memory.write_all_at(&9u16.to_ne_bytes(), RING + 64).unwrap();
    let error = client.recv_burst(8, |_| ()).unwrap_err();
    assert!(matches!(error, Error::Violation(Violation::RingIndex { distance: 9, .. })), "{error}");
    // More octets than a buffer has.
    let (mut client, _liar, memory) = up_with_a_liar().await;
    memory.write_all_at(&65u32.to_ne_bytes(), RING + 128 + 4).unwrap();
    memory.write_all_at(&1u16.to_ne_bytes(), RING + 64).unwrap();
    let error = client.recv_burst(8, |_| ()).unwrap_err();
    assert!(matches!(error, Error::Violation(Violation::Buffer { length: 65, .. })), "{error}");
    // Where the client's own buffers are is not for the server to say.
    let (mut client, _liar, memory) = up_with_a_liar().await;
    memory.write_all_at(&[0xee; 16 * 8], 128).unwrap();
    memory.write_all_at(&[0xff; 4], RING + 128 + 8).unwrap();
    memory.write_all_at(&5u32.to_ne_bytes(), RING + 128 + 4).unwrap();
    memory.write_all_at(b"hello", 2 * RING + 8 * STRIDE).unwrap();
    memory.write_all_at(&1u16.to_ne_bytes(), RING + 64).unwrap();
    assert_eq!(client.recv_burst(8, |packet| assert_eq!(packet, b"hello")).unwrap(), 1);
    assert_eq!(client.send_burst(["there"]).unwrap(), 1);
    let mut there = [0; 5];
    memory.read_exact_at(&mut there, 2 * RING).unwrap();
    assert_eq!(&there, b"there");
    // A word out of turn when all is up.
    let (client, liar, _memory) = up_with_a_liar().await;
    liar.send(&Message::Hello(hello()), None);
    let closed = soon(client.closed()).await;
    assert!(matches!(closed, Closed::Violation(Violation::OutOfTurn { got: "HELLO", .. })), "{closed}");
}

#[tokio::test]
async fn interrupts_without_reason_wake_nobody_who_waits_for_packets() {
    let (mut server, _liar, memory) = up("liar-noise").await;
    let write = |interrupt: &OwnedFd| rustix::io::write(interrupt, &1u64.to_ne_bytes()).unwrap();
    {
        let waiting = server.ready();
        tokio::pin!(waiting);
        for _ in 0..50 {
            write(&memory.interrupt);
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
        }
        memory.head(0, 1);
        write(&memory.interrupt);
        soon(waiting).await.unwrap();
    }
    // A counter that is full, on a descriptor that blocks: sending goes on all the same.
    rustix::io::read(&memory.interrupt, &mut [0; 8]).unwrap();
    rustix::io::write(&memory.interrupt, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    rustix::io::ioctl_fionbio(&memory.interrupt, false).unwrap();
    memory.put(Memory::RING + 4, &0u16.to_ne_bytes());
    memory.head(1, 8);
    assert_eq!(server.send_burst(["x", "y"]).unwrap(), 2);
}

/// What a liar does to the memory between two bursts.
#[derive(Debug, Clone)]
enum Scribble {
    Anywhere { at: u32, octets: Vec<u8> },
    Head { ring: u32, head: u16 },
    Tail { ring: u32, tail: u16 },
    Descriptor { ring: u32, slot: u32, flags: u16, region: u16, length: u32, offset: u32 },
}

fn scribble() -> impl Strategy<Value = Scribble> {
    let near = || prop_oneof![0u32..200, 0u32..2000, any::<u32>()];
    prop_oneof![
        (0u32..1536, prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, octets)| Scribble::Anywhere { at, octets }),
        (0u32..2, prop_oneof![0u16..20, any::<u16>()]).prop_map(|(ring, head)| Scribble::Head { ring, head }),
        (0u32..2, prop_oneof![0u16..20, any::<u16>()]).prop_map(|(ring, tail)| Scribble::Tail { ring, tail }),
        (0u32..2, 0u32..8, 0u16..2, prop_oneof![Just(0u16), any::<u16>()], near(), near()).prop_map(
            |(ring, slot, flags, region, length, offset)| Scribble::Descriptor {
                ring,
                slot,
                flags,
                region,
                length,
                offset
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_in_the_memory_packets_stay_within_it(scribbles in prop::collection::vec(scribble(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut server, _liar, memory) = up("liar-scribble").await;
            for scribble in scribbles {
                match scribble {
                    Scribble::Anywhere { at, octets } => memory.put(at.min(1536 - octets.len() as u32), &octets),
                    Scribble::Head { ring, head } => memory.head(ring, head),
                    Scribble::Tail { ring, tail } => memory.tail(ring, tail),
                    Scribble::Descriptor { ring, slot, flags, region, length, offset } => {
                        memory.descriptor(ring, slot, flags, region, length, offset);
                    }
                }
                let received = server.recv_burst(16, |packet| assert!(packet.len() <= 1536 * 8));
                let sent = server.send_burst([frame(100, 1)]);
                // Once it is closed it stays so.
                if let Err(Error::Violation(_)) = received {
                    assert!(matches!(sent, Err(Error::Closed(_))), "{sent:?}");
                }
            }
        });
        runtime.shutdown_background();
    }
}

#[tokio::test]
async fn memory_cannot_be_shrunk_by_whoever_has_its_descriptor() {
    let (_client, _liar, memory) = up_with_a_liar().await;
    memory.set_len(0).unwrap_err();
    let (mut server, mut client) = pair(&Config::new(0)).await;
    client.send_burst(["x"]).unwrap();
    assert_eq!(server.recv_burst(8, |_| ()).unwrap(), 1);
}
