//! A mesh of real processes that is churned: connections come and go, roles are killed and come back.
//!
//! ```text
//! cargo run --release -p nsm-tests --bin soak -- --minutes 60
//! ```
//!
//! Two nodes in network namespaces, joined by a network. Node 1 is never touched: what its roles lose to the deaths of
//! others adds up. All of node 2, the registry and one client of node 1 are killed (SIGKILL) one after the other and
//! started again. Some connections stand from the beginning to the end, others come and go; after each kill every one that
//! stands must carry packets again. Once a minute nobody is killed, what is not to stand is closed, and all is counted.
//!
//! The exit code is 0 only if every connection came back each time, no call failed, nothing was left behind, and what the
//! roles hold stayed flat. It needs root, or a user namespace of one's own (`unshare -Urn`).

mod churn;
mod count;
mod verdict;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nsm_tests::heap;
use nsm_tests::mesh::{Failure, Part, play};
use tokio::time::{Instant, sleep, sleep_until};

use self::churn::{Churn, TOKENS};
use self::count::Count;
use self::verdict::Verdict;

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

#[derive(Debug, Parser)]
#[command(about = "Churns a mesh of real processes, and counts what they hold")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// How long it lasts, in minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// What is killed when, and which connections come and go.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const MINUTE: Duration = Duration::from_secs(60);
/// Of each minute, for closing, waiting and counting.
const QUIET: Duration = Duration::from_secs(15);
/// A hop looks on for so long after the last connection to the next one.
const LINGERING: Duration = Duration::from_secs(6);
/// For what is on its way.
const A_MOMENT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    heap::count(true);
    let arguments = Arguments::parse();
    play(arguments.part, soak(arguments.minutes.max(1), arguments.seed))
}

async fn soak(minutes: u64, seed: u64) -> Result<ExitCode, Failure> {
    let mut churn = Churn::start(seed).await?;
    let begun = Instant::now();
    let mut verdict = Verdict::default();
    println!("{}", Count::heading());
    for minute in 1..=minutes {
        let end = begun + MINUTE * u32::try_from(minute)?;
        churn.until(end - QUIET).await?;
        // What nobody could close goes when its tokens end: at the end that is waited for.
        let tally = churn.settle(if minute == minutes { TOKENS * 2 } else { A_MOMENT }).await?;
        sleep(LINGERING).await;
        let count = Count::take(&mut churn, tally).await?;
        println!("{}", count.line(minute));
        verdict.hear(minute, count);
        if minute < minutes {
            sleep_until(end).await;
        }
    }
    let left = churn.leave().await?;
    Ok(verdict.say(&left))
}
