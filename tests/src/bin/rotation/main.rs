//! A mesh of separate processes under load while all that proves who they are is rotated under them.
//!
//! Registry, manager, forwarder and endpoint are processes of their own; each has a SPIFFE agent of its own, and so have the clients,
//! which are in this process. They talk mutual TLS over unix sockets with the stock policies on; the forwarder's data plane is in memory.
//! Every so often all get new keys and certificates. In the middle the root is replaced and the agents are gone for a while.
//!
//! ```text
//! cargo run -p nsm-tests --bin rotation -- --every 10 --seconds 300
//! ```
//!
//! A request is one try of a call: what a retry would hide counts as failed. The exit code is 0 only if none failed.

mod agents;
mod load;
mod role;
mod tally;

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::{Parser, Subcommand};
use nsm_tests::mesh::{Directory, Failure};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until, timeout};

use self::agents::{Agents, ROLES};
use self::load::Load;

#[derive(Debug, Parser)]
#[command(about = "Rotates all identities of a mesh of processes under load")]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Seconds between two rotations of all certificates.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// How long it lasts, in seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// One role of the mesh: how this program starts itself.
    #[command(hide = true)]
    Role { name: String, directory: PathBuf },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let outcome = match arguments.role {
        Some(Role::Role { name, directory }) => runtime.block_on(role::run(&name, &directory)).map(|()| true),
        None => runtime.block_on(conduct(arguments.every, arguments.seconds)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the whole piece. Tells whether nothing failed.
async fn conduct(every: u64, seconds: u64) -> Result<bool, Failure> {
    let directory = Directory::new("nsm-rotation")?;
    let every = Duration::from_secs(every.max(1));
    // An outage of the agents must fit in.
    let mut agents = Agents::start(directory.path(), (every * 6).max(Duration::from_secs(20))).await?;
    let mut children = Vec::new();
    for name in ROLES {
        children.push(spawn(name, directory.path()).await?);
    }
    let load = Load::start(directory.path()).await?;
    let begun = Instant::now();

    let whole = Duration::from_secs(seconds);
    let mut steps: Vec<(Duration, Step)> =
        (1..).map(|n| every * n).take_while(|at| *at < whole).map(|at| (at, Step::Rotate)).collect();
    let outage = (whole / 8).min(Duration::from_secs(10));
    steps.extend([
        (whole.mul_f64(0.2), Step::Prepare),
        (whole.mul_f64(0.35), Step::Activate),
        (whole.mul_f64(0.5), Step::Retire),
        (whole.mul_f64(0.65), Step::Stop),
        (whole.mul_f64(0.65) + outage, Step::Restart),
    ]);
    steps.sort_by_key(|(at, _)| *at);
    for (at, step) in steps {
        sleep_until(begun + at).await;
        agents.take(step).await?;
        if step != Step::Rotate {
            println!("{:4} s: {}; {}", at.as_secs(), step.said(), load.tally());
        }
    }
    sleep_until(begun + whole).await;

    let tally = load.finish().await;
    // Who registers somewhere leaves before that is gone.
    for (name, child) in ROLES.iter().zip(children).rev() {
        leave(name, child).await?;
    }
    for line in tally.lines() {
        println!("  {line}");
    }
    println!("{} requests, {} failed, {} rotations", tally.requests(), tally.failed(), agents.rotations());
    Ok(tally.requests() > 0 && tally.failed() == 0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Rotate,
    Prepare,
    Activate,
    Retire,
    Stop,
    Restart,
}

impl Step {
    fn said(self) -> &'static str {
        match self {
            Self::Rotate => "all certificates are rotated",
            Self::Prepare => "a second root is trusted",
            Self::Activate => "the second root signs",
            Self::Retire => "the first root is trusted no more",
            Self::Stop => "the agents are gone",
            Self::Restart => "the agents are back",
        }
    }
}

/// Starts a role as a process and waits until it serves. It ends with this process: its standard input does.
async fn spawn(name: &str, directory: &Path) -> Result<Child, Failure> {
    let child = Command::new(std::env::current_exe()?)
        .args(["role", name])
        .arg(directory)
        .env("SPIFFE_ENDPOINT_SOCKET", agents::endpoint(directory, name))
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let ready = directory.join(format!("{name}.ready"));
    let begun = Instant::now();
    while !ready.exists() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("{name} does not come up").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(child)
}

/// Lets a role leave in order.
async fn leave(name: &str, mut child: Child) -> Result<(), Failure> {
    drop(child.stdin.take());
    let status = timeout(PATIENCE, child.wait()).await.map_err(|_| format!("{name} does not leave"))??;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}").into()) }
}

const PATIENCE: Duration = Duration::from_secs(60);
