//! The `nsm` program.

mod failure;
mod interrupt;
mod lab;
mod logging;
mod passthrough;
#[cfg(test)]
mod programs;
mod quickstart;
mod roles;
mod settings;
mod story;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

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
    #[command(flatten)]
    Lab(up::Command),
    #[command(flatten)]
    Role(Box<roles::Role>),
}

fn main() -> ExitCode {
    let command = Arguments::command();
    let matches = explained(command.clone()).get_matches();
    match matches.subcommand() {
        // Its values are not known before all sources of settings are.
        Some((name, flags)) if roles::without_effect(name).is_some() => roles::main(&command, name, flags),
        _ => match Arguments::from_arg_matches(&matches).map(|arguments| arguments.command) {
            Ok(Command::Quickstart(options)) => quickstart::main(options),
            Ok(Command::Lab(command)) => up::main(command),
            Ok(Command::Role(_)) => ExitCode::FAILURE,
            Err(error) => error.exit(),
        },
    }
}

/// With the settings of roles under all their names.
fn explained(mut command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        if let Some(without_effect) = roles::without_effect(&name) {
            command = command.mut_subcommand(name, |role| settings::explained(role, &without_effect));
        }
    }
    command
}
