//! Which source counts for each setting.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::ContextKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::declare::{Declared, declared};
use super::file::{self, Entry};
use super::{CONFIG, PREFIX};
use crate::failure::Failure;

#[cfg(test)]
mod tests;

/// Environment variables.
pub(crate) type Variables = BTreeMap<String, OsString>;

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Variable(String),
    Flag(String),
    File(PathBuf, usize),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting with the text that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) setting: Declared,
    pub(crate) text: String,
    pub(crate) source: Source,
}

/// The settings of one run.
#[derive(Debug)]
pub(crate) struct Settings {
    chosen: Vec<Chosen>,
    /// What was given beside settings: positional arguments, and flags that are no settings.
    others: Vec<OsString>,
    /// What the user should know, and is no error.
    warnings: Vec<String>,
    /// What was set and has no effect here.
    without_effect: Vec<String>,
}

impl Settings {
    /// Chooses between what the command line, the variables and the file say. `without_effect` names variables that
    /// are accepted and do nothing.
    pub(crate) fn choose(
        command: &Command,
        flags: &ArgMatches,
        variables: &Variables,
        without_effect: &[&str],
    ) -> Result<Self, Failure> {
        let settings = declared(command);
        let mut warnings = Vec::new();
        let mut chosen = Vec::new();
        let (config, others): (Vec<_>, Vec<_>) = settings.iter().partition(|setting| setting.key == CONFIG);
        for setting in config {
            chosen.push(choose(setting, flags, variables, None, &mut warnings)?);
        }
        let path = chosen.first().map(|config| PathBuf::from(&config.text)).filter(|path| !path.as_os_str().is_empty());
        let entries = path.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let path = path.unwrap_or_default();
        let mut found = known(&path, &entries, &settings, without_effect)?;
        for setting in others {
            let entry = entries.iter().find(|entry| entry.key == setting.key).map(|entry| (path.as_path(), entry));
            chosen.push(choose(setting, flags, variables, entry, &mut warnings)?);
        }
        found.extend(variables.keys().filter(|name| without_effect.contains(&name.as_str())).cloned());
        warnings.extend(unknown(variables, &settings, without_effect));
        Ok(Self { chosen, others: beside_settings(command, flags), warnings, without_effect: found })
    }

    /// The same as one command line, in which every setting is said.
    pub(crate) fn arguments(&self, command: &str) -> Vec<OsString> {
        let settings = self.chosen.iter().map(|chosen| format!("{}={}", chosen.setting.flag, chosen.text).into());
        ["nsm".into(), command.into()].into_iter().chain(settings).chain(self.others.iter().cloned()).collect()
    }

    /// What the user should know.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What was set and has no effect here.
    pub(crate) fn without_effect(&self) -> &[String] {
        &self.without_effect
    }

    /// An error of [`arguments`](Self::arguments), told with the source of the value.
    pub(crate) fn refused(&self, error: &clap::Error) -> Failure {
        let named = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
        let flag = named.split([' ', '=']).next().unwrap_or_default();
        let Some(chosen) = self.chosen.iter().find(|chosen| chosen.setting.flag == flag) else {
            return Failure::at("the command line", error.to_string().trim().to_owned(), "see nsm --help");
        };
        let why = error.source().map_or_else(|| error.kind().to_string(), ToString::to_string);
        let (why, remedy) = match why.rsplit_once("; ") {
            Some((why, remedy)) => (why.to_owned(), remedy.to_owned()),
            None => (why, format!("correct it: {}", chosen.setting.help)),
        };
        let cause = format!("{} is {:?}: {why}", chosen.setting.key, chosen.text);
        Failure::at(chosen.source.to_string(), cause, remedy)
    }
}

/// As a file of settings in TOML, each with its source.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Chosen { setting, text, source } in self.chosen.iter().filter(|chosen| chosen.setting.key != CONFIG) {
            // A string of JSON is one of TOML.
            let line = format!("{} = {}", setting.key, serde_json::Value::from(text.as_str()));
            writeln!(f, "{line:<60} # {source}")?;
        }
        Ok(())
    }
}

/// The source that counts for one setting.
fn choose(
    setting: &Declared,
    flags: &ArgMatches,
    variables: &Variables,
    entry: Option<(&Path, &Entry)>,
    warnings: &mut Vec<String>,
) -> Result<Chosen, Failure> {
    let variable =
        variables.get(&setting.variable).map(|value| (Source::Variable(setting.variable.clone()), value.as_os_str()));
    let flag = given(flags, &setting.key).map(|value| (Source::Flag(setting.flag.clone()), value));
    if let (Some((name, one)), Some((flag, other))) = (&variable, &flag)
        && one != other
    {
        warnings.push(format!("{name} says {one:?} and {flag} says {other:?}: the variable counts"));
    }
    let (source, text) = match (variable.or(flag), entry) {
        (Some((source, value)), _) => {
            let Some(text) = value.to_str() else {
                return Err(Failure::at(source.to_string(), "its value is not UTF-8", "write it in UTF-8"));
            };
            (source, text.to_owned())
        }
        (None, Some((path, entry))) => (Source::File(path.to_owned(), entry.line), entry.text.clone()),
        (None, None) => (Source::Default, setting.default.clone()),
    };
    Ok(Chosen { setting: setting.clone(), text, source })
}

fn given<'a>(flags: &'a ArgMatches, key: &str) -> Option<&'a OsStr> {
    if flags.value_source(key) != Some(ValueSource::CommandLine) {
        return None;
    }
    flags.get_raw(key)?.next()
}

/// Checks the keys of a file; gives those that have no effect.
fn known(path: &Path, entries: &[Entry], settings: &[Declared], idle: &[&str]) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for entry in entries {
        let is_idle = |name: &&&str| name.strip_prefix(PREFIX).unwrap_or(name).eq_ignore_ascii_case(&entry.key);
        if let Some(name) = idle.iter().find(is_idle) {
            found.push((*name).to_owned());
        } else if entry.key == CONFIG || !settings.iter().any(|setting| setting.key == entry.key) {
            let keys = settings.iter().map(|setting| setting.key.as_str()).filter(|key| *key != CONFIG);
            let remedy = match nearest(&entry.key, keys) {
                Some(key) => format!("did you mean {key}? --help names all keys"),
                None => "--help names all keys".to_owned(),
            };
            let place = format!("{}, line {}", path.display(), entry.line);
            return Err(Failure::at(place, format!("{} is no setting of this role", entry.key), remedy));
        }
    }
    Ok(found)
}

/// Warnings of variables that look like settings and are none.
fn unknown(variables: &Variables, settings: &[Declared], idle: &[&str]) -> Vec<String> {
    let known = |name: &str| idle.contains(&name) || settings.iter().any(|setting| setting.variable == name);
    let strange = variables.keys().filter(|name| name.starts_with(PREFIX) && !known(name));
    strange
        .map(|name| match nearest(name, settings.iter().map(|setting| setting.variable.as_str())) {
            Some(near) => format!("variable {name} is no setting of this role; did you mean {near}?"),
            None => format!("variable {name} is no setting of this role"),
        })
        .collect()
}

/// The likeliest of some names for one that was mistyped.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let like = |other: &str| {
        let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase();
        strsim::jaro_winkler(&bare(name), &bare(other))
    };
    let scored = known.map(|other| (like(other), other)).filter(|(score, _)| *score > 0.8);
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name)
}

/// What was given on the command line and is no setting.
fn beside_settings(command: &Command, flags: &ArgMatches) -> Vec<OsString> {
    let mut given = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        if flags.try_contains_id(id).ok() != Some(true) || flags.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        match (arg.get_long(), arg.get_action().takes_values()) {
            (Some(long), false) => given.push(format!("--{long}").into()),
            (None, true) => given.extend(flags.get_raw(id).into_iter().flatten().map(OsStr::to_owned)),
            _ => {}
        }
    }
    given
}
