//! A tunnel with this process at one end, and a workload's interface at the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nsm_wireguard::{Reason, Takes};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::{common::*, needs_tun};

/// Hands on what it takes; takes nothing while it is full.
struct Hands {
    on: UnboundedSender<Vec<u8>>,
    full: AtomicBool,
}

impl Takes for Hands {
    fn take(&self, packets: &mut dyn Iterator<Item = &[u8]>) -> usize {
        if self.full.load(Ordering::Relaxed) {
            return 0;
        }
        packets.map(|packet| self.on.send(packet.to_vec()).unwrap()).count()
    }
}

fn hands() -> (Arc<Hands>, UnboundedReceiver<Vec<u8>>) {
    let (on, taken) = unbounded_channel();
    (Arc::new(Hands { on, full: AtomicBool::new(false) }), taken)
}

/// An echo request from 10.9.0.1 to 10.9.0.2 of this length, with this number (RFC 791, RFC 792).
fn ping(length: usize, number: u8) -> Vec<u8> {
    let mut packet =
        vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, 8, 0, 0, 0, 0, 7, 0, number];
    packet.extend((0..length - packet.len()).map(|at| at as u8));
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let sum = checksum(&packet[20..]);
    packet[22..24].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// What comes out until the answer to the ping of this number; its length.
async fn answered(taken: &mut UnboundedReceiver<Vec<u8>>, number: u8) -> usize {
    let answer = async {
        loop {
            let packet = taken.recv().await.unwrap();
            // Others, such as router solicitations, may come between.
            if packet[0] == 0x45 && packet[20] == 0 && packet[27] == number {
                return packet.len();
            }
        }
    };
    timeout(PATIENCE, answer).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_exchanges_packets_with_a_workload_and_needs_no_interface() {
    needs_tun!();
    let lab = Lab::new("192.0.2.0/24").await;
    let nodes = [lab.bind(0).await, lab.bind(1).await];
    let (hands, mut taken) = hands();
    let (near, mut entrance) = nodes[0].connect(&lab.peering(0), Some(MTU), Arc::clone(&hands) as _).unwrap();
    let (_interface, far) = lab.tunnel(1, &nodes[1]).await;

    // The first goes before there is a session. Then all lengths that padding tells apart, in one burst.
    entrance.push(&ping(28, 0));
    entrance.flush().await;
    assert_eq!(answered(&mut taken, 0).await, 28);
    let lengths: Vec<usize> = (29..62).chain([MTU as usize - 1, MTU as usize]).collect();
    for (number, length) in lengths.iter().enumerate() {
        entrance.push(&ping(*length, number as u8 + 1));
    }
    entrance.push(&[]);
    entrance.flush().await;
    for (number, length) in lengths.iter().enumerate() {
        assert_eq!(answered(&mut taken, number as u8 + 1).await, *length);
    }
    assert_eq!((near.stats().sent_packets, far.stats().received_packets), (36, 36));

    // Who does not take them leaves them to be counted; later ones come.
    hands.full.store(true, Ordering::Relaxed);
    entrance.push(&ping(100, 100));
    entrance.flush().await;
    eventually("what was not taken is counted", async || near.dropped(Reason::Interface) > 0).await;
    hands.full.store(false, Ordering::Relaxed);
    entrance.push(&ping(100, 101));
    entrance.flush().await;
    assert_eq!(answered(&mut taken, 101).await, 100);

    // What is no packet stops nobody.
    entrance.push(&[0xff; 3]);
    entrance.push(&ping(100, 102));
    entrance.flush().await;
    assert_eq!(answered(&mut taken, 102).await, 100);

    near.close().await;
    assert_eq!(nodes[0].tunnels(), 0);
    // The other end of the channel is gone with the tunnel, but for our own.
    assert_eq!(Arc::strong_count(&hands), 2);
    drop(entrance);
    assert_eq!(Arc::strong_count(&hands), 1);
}
