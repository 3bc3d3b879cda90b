//! The chain: elements, calls, per-connection state, and adapters to tower and tonic.
