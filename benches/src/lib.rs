//! Benchmarks beside the reference.
