//! What the Go reference writes and decides, as data in `tests/golden`, against what we read, write and decide.
//!
//! The corpus is written by `tests/interop/cmd/golden`. Where there is Go, that program also checks what we write, and
//! the corpus is made anew and compared; without Go that part is skipped, unless `NSM_INTEROP_REQUIRED` is set.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod corpus;
mod headers;
mod matching;
mod mechanisms;
mod messages;
mod theirs;
mod tokens;
mod values;
