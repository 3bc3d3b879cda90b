//! What a program that plays with such a mesh is, beside what it plays.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Start};

/// What a shell expects of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// What such a program was started as, if not to play.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// One role of the mesh: how this program starts itself.
    #[command(hide = true)]
    Role(Start),
}

/// Is what the program was started as; else plays the piece, until it ends or somebody ends it.
pub fn play(part: Option<Part>, piece: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_thread_names(true)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let outcome = match part {
        Some(Part::Role(start)) => start.enter().map(|()| ExitCode::SUCCESS),
        None => interruptible(piece),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn interruptible(piece: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    // One thread, which lives as long as we do: processes end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            outcome = piece => outcome,
            _ = int.recv() => Ok(ExitCode::from(INTERRUPTED)),
            _ = term.recv() => Ok(ExitCode::from(INTERRUPTED)),
        }
    })
}
