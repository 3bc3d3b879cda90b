//! Tunnels in real network namespaces with real packets.

#![allow(clippy::unwrap_used, reason = "tests may panic, and so may the functions they share")]

mod common;
mod entrance;
mod hostile;
mod lifecycle;
mod packets;
mod wireguard_go;
