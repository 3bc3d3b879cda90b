//! The `nsm` program.

mod failure;
mod interrupt;
mod lab;
mod logging;
mod quickstart;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Small allocations are a good part of what a Request costs: see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Network Service Mesh on Linux.
#[derive(Debug, Parser)]
#[command(name = "nsm", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Quickstart(quickstart::Options),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Quickstart(options) => quickstart::main(options),
    }
}
