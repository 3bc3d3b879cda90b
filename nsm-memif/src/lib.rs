//! memif, the shared memory packet interface of VPP and DPDK, in Rust.
//!
//! Two processes exchange packets through rings in memory they share; the kernel has no part in it. One of them is the
//! server ([`Server`]; *master* in older text): it listens on a unix socket. The other is the client ([`Memif::connect`];
//! *slave*): it makes the memory and sends its descriptor. Afterwards there is no difference. The protocol is version 2.0 as
//! VPP's `src/plugins/memif/memif.h` and DPDK's `drivers/net/memif/memif.h` have it; [`protocol`] has the messages.
//!
//! A packet processor in full, one that sends back what it gets:
//!
//! ```no_run
//! use nsm_memif::{Address, Config, Memif};
//!
//! # async fn example() -> Result<(), nsm_memif::Error> {
//! let mut memif = Memif::connect(&Address::from("/run/memif.sock"), &Config::new(0)).await?;
//! let why = memif.answer(|packet| !packet.is_empty()).await?;
//! println!("over: {why}");
//! # Ok(())
//! # }
//! ```
//!
//! For full control [`Memif::split`] gives a [`Receiver`] and a [`Sender`] for each queue. They poll: nothing in them waits,
//! and no system call is made while packets flow. [`Receiver::ready`] waits, by interrupts that the peer is asked for only
//! meanwhile. A thread that polls all the time has a core for itself:
//!
//! ```no_run
//! # fn example(memif: nsm_memif::Memif) -> Result<(), nsm_memif::Error> {
//! let (mut receivers, mut senders) = memif.split();
//! let (Some(mut rx), Some(mut tx)) = (receivers.pop(), senders.pop()) else { return Ok(()) };
//! std::thread::spawn(move || -> Result<(), nsm_memif::Error> {
//!     loop {
//!         let mut dropped = 0;
//!         // From the one ring into the other, copied once.
//!         rx.recv_in_place(64, |packet| dropped += usize::from(!tx.push_packet(packet).unwrap_or(false)))?;
//!         tx.flush()?;
//!     }
//! });
//! # Ok(())
//! # }
//! ```
//!
//! **What a peer can do.** It shares the memory and may write anything there at any time. So nothing in it is believed:
//! indices and descriptors are read once, as atomics, and checked; packets are copied out before they are looked at. What
//! breaks the protocol is an [`Error::Violation`], and the interface is closed with that reason at both ends. Memory that a
//! peer could take away again is not mapped ([`Config::trust_unsealed_memory`]). A peer that ends is noticed by its socket;
//! its memory stays readable. What it still can do: send packets that are none, or none at all, or so many that there is no
//! time for others.
//!
//! All of it runs in a tokio runtime with I/O and time. A thread that polls need not be one of it, but the runtime must run,
//! since it is what notices that the peer is gone.

#![deny(missing_docs)]

mod address;
mod client;
mod config;
mod control;
mod error;
mod interrupt;
mod link;
mod memif;
mod offer;
mod packet;
pub mod protocol;
mod queue;
mod receiver;
mod sender;
mod server;
mod shm;
mod watched;

pub use address::Address;
pub use config::Config;
pub use error::{Closed, Error, Result, Violation};
pub use memif::{Closer, Memif, Peer};
pub use packet::{MAX_PACKET_LENGTH, Packet};
pub use receiver::Receiver;
pub use sender::Sender;
pub use server::{Port, Server};

/// What this program calls itself.
const PROGRAM: &str = concat!("nsm-memif ", env!("CARGO_PKG_VERSION"));
