//! From the command line to a role that runs, and to its exit code.

use std::process::ExitCode;

use clap::{ArgMatches, Command, FromArgMatches};

use super::{Role, say, signals, without_effect};
use crate::failure::Failure;
use crate::lab;
use crate::logging;
use crate::settings::{Settings, Variables};

/// A setting is wrong; what clap says of a command line that is wrong.
const MISTAKEN: u8 = 2;

/// Runs the role of this name to its end.
pub(crate) fn main(command: &Command, name: &str, flags: &ArgMatches) -> ExitCode {
    let refused = |failure: Failure, code| {
        eprintln!("nsm {name} {failure}");
        ExitCode::from(code)
    };
    let (role, settings) = match configured(command, name, flags) {
        Ok(configured) => configured,
        Err(failure) => return refused(failure, MISTAKEN),
    };
    if role.program().print_config {
        say(settings.to_string().trim_end());
        return ExitCode::SUCCESS;
    }
    match started(role, &settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => refused(failure, 1),
    }
}

fn configured(command: &Command, name: &str, flags: &ArgMatches) -> Result<(Role, Settings), Failure> {
    let own = command.find_subcommand(name).ok_or_else(|| Failure::at(name, "no such role", "see nsm --help"))?;
    let variables: Variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    let settings = Settings::choose(own, flags, &variables, &without_effect(name).unwrap_or_default())?;
    let matches = command.clone().try_get_matches_from(settings.arguments(name));
    let role =
        matches.and_then(|matches| Role::from_arg_matches(&matches)).map_err(|error| settings.refused(&error))?;
    Ok((role, settings))
}

fn started(role: Role, settings: &Settings) -> Result<(), Failure> {
    let verbosity = logging::at(role.program().log_level.0);
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    if !settings.without_effect().is_empty() {
        tracing::info!("has no effect here: {}", settings.without_effect().join(", "));
    }
    lab::descriptors(0, 0, 0)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::of("runtime", &error))?;
    runtime.block_on(async { role.run(signals::listen(verbosity)?).await })
}
