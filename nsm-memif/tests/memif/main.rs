//! memif between real sockets and real memory: both roles against each other, liars, peers that die, and DPDK.

#![allow(clippy::unwrap_used, reason = "tests may panic, and so may the functions they share")]

mod common;
mod dpdk;
mod killed;
mod liar;
mod liars;
mod pair;
