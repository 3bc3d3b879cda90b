//! How long packets stop when a role dies.
//!
//! ```text
//! cargo run --release -p nsm-tests --bin gaps -- --times 20
//! ```
//!
//! A mesh of real processes on three nodes in network namespaces: two endpoints on the clients' node, and one on each other
//! node. Clients send a UDP packet every 5 ms, which the endpoint's process sends back: an interface that outlived its
//! endpoint does not count as an answer. Then roles are killed (SIGKILL) and started again, and it is counted what was not
//! answered. The exit code is 0 only if every case kept within its bound. It needs root, or a user namespace of one's own
//! (`unshare -Urn`).

mod case;
mod lab;
mod table;

use std::process::ExitCode;

use clap::Parser;
use nsm_tests::mesh::{Failure, Part, play};

use self::case::CASES;
use self::lab::Lab;
use self::table::Table;

/// As the `nsm` program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "Kills roles of a mesh of real processes, and counts the packets that are lost")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// How often each case is tried.
    #[arg(long, default_value_t = 20)]
    times: usize,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    play(arguments.part, gaps(arguments.times.max(1), &arguments.only))
}

async fn gaps(times: usize, only: &str) -> Result<ExitCode, Failure> {
    let mut lab = Lab::start().await?;
    let mut table = Table::default();
    println!("{}", Table::heading());
    for case in CASES.iter().filter(|case| case.name.contains(only)) {
        for _ in 0..times {
            for observed in lab.play(case).await? {
                table.note(case, observed);
            }
        }
        for line in table.lines_of(case) {
            println!("{line}");
        }
    }
    let left = lab.leave().await?;
    for what in &left {
        println!("left behind: {what}");
    }
    Ok(if left.is_empty() && table.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
