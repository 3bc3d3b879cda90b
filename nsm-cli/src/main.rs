//! The `nsm` program.

mod failure;
mod interrupt;
mod lab;
mod logging;
#[cfg(test)]
mod programs;
mod quickstart;
mod roles;
mod settings;

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
    Role(roles::Role),
}

fn main() -> ExitCode {
    let command = Arguments::command();
    let matches = explained(command.clone()).get_matches();
    if let Some((name, flags)) = matches.subcommand()
        && roles::without_effect(name).is_some()
    {
        return roles::main(&command, name, flags);
    }
    match Arguments::from_arg_matches(&matches).map(|arguments| arguments.command) {
        Ok(Command::Quickstart(options)) => quickstart::main(options),
        Ok(Command::Role(_)) => unreachable!("roles are told by their names"),
        Err(error) => error.exit(),
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
