//! Sockets, mTLS and shared channels.
