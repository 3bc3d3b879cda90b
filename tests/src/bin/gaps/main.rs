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

use clap::{Parser, Subcommand};
use nsm_tests::mesh::{Failure, Start};
use tokio::signal::unix::{SignalKind, signal};

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
    role: Option<Part>,
    /// How often each case is tried.
    #[arg(long, default_value_t = 20)]
    times: usize,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One role of the mesh: how this program starts itself.
    #[command(hide = true)]
    Role(Start),
}

/// What a shell expects of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let outcome = match arguments.role {
        Some(Part::Role(start)) => start.enter().map(|()| ExitCode::SUCCESS),
        None => run(arguments.times.max(1), &arguments.only),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn run(times: usize, only: &str) -> Result<ExitCode, Failure> {
    // One thread, which lives as long as we do: processes end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            outcome = play(times, only) => outcome,
            _ = int.recv() => Ok(ExitCode::from(INTERRUPTED)),
            _ = term.recv() => Ok(ExitCode::from(INTERRUPTED)),
        }
    })
}

async fn play(times: usize, only: &str) -> Result<ExitCode, Failure> {
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
