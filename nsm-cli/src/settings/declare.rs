//! What there is to set: read off the options of a command, where each setting is declared once.

use clap::{Arg, Command};

use super::variable;

/// A setting, under all its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// The field's name, and the key in a file.
    pub(crate) key: String,
    /// With its dashes.
    pub(crate) flag: String,
    /// The reference's variable, where it has that setting.
    pub(crate) variable: String,
    /// What holds where nobody says anything; may be empty.
    pub(crate) default: String,
    /// What it means.
    pub(crate) help: String,
}

impl Declared {
    fn of(arg: &Arg) -> Option<Self> {
        let long = arg.get_long().filter(|_| arg.get_action().takes_values())?;
        let key = arg.get_id().to_string();
        let default = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        Some(Self {
            flag: format!("--{long}"),
            variable: variable(&key),
            default: default.unwrap_or_default(),
            help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
            key,
        })
    }
}

/// The settings of a command, in the order of its fields.
pub(crate) fn declared(command: &Command) -> Vec<Declared> {
    command.get_arguments().filter_map(Declared::of).collect()
}

/// The command as a person meets it: every flag takes any text, because it is judged only if nothing else is said, and
/// `--help` shows every setting under all its names.
pub(crate) fn explained(command: Command, without_effect: &[&str]) -> Command {
    let after = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let accepted = without_effect.join(", ");
    let after = format!(
        "{after}\n\nEvery setting is taken from its variable, else from its flag, else from the file that --config names, else \
         it has its default. Times are written as 1h2m3.5s or 300ms, lists with commas, pairs as key:value,key:value.\n\n\
         The reference's variables that have no effect here, and are accepted: {accepted}."
    );
    command.after_long_help(after.trim_start().to_owned()).mut_args(|arg| match Declared::of(&arg) {
        Some(setting) => {
            let names = if setting.key == super::CONFIG {
                format!("[variable: {}]", setting.variable)
            } else {
                format!("[variable: {}] [file: {}]", setting.variable, setting.key)
            };
            let help = format!("{} {names}", setting.help);
            arg.help(help.clone())
                .long_help(help)
                .hide_default_value(setting.default.is_empty())
                .value_parser(clap::builder::ValueParser::os_string())
        }
        None => arg,
    })
}
