//! What the documentation of the roles says is what the program does.

use clap::CommandFactory;

use crate::settings::{Declared, declared};
use crate::{Arguments, explained, roles};

/// From this directory.
const PAGE: &str = "../docs/programs.md";

/// Commands that are roles.
fn all_roles() -> Vec<clap::Command> {
    let command = Arguments::command();
    let roles = command.get_subcommands().filter(|command| roles::without_effect(command.get_name()).is_some());
    roles.cloned().collect()
}

fn common(setting: &Declared) -> bool {
    let has = |role: &clap::Command| role.get_name() == "agent" || declared(role).iter().any(|other| other == setting);
    all_roles().iter().all(has)
}

fn row(setting: &Declared) -> String {
    let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
    let help = setting.help.replace('|', "\\|");
    let key = if setting.key == "config" { "" } else { setting.key.as_str() };
    let key = if key.is_empty() { String::new() } else { format!("`{key}`") };
    format!("| `{}` | `{}` | {key} | {default} | {help} |\n", setting.variable, setting.flag)
}

const HEAD: &str = "| variable | flag | key in a file | default | meaning |\n|---|---|---|---|---|\n";

/// Variables that no role has a use for.
fn idle_everywhere() -> Vec<&'static str> {
    let mut idle = roles::without_effect("apply").unwrap_or_default();
    idle.retain(|name| {
        all_roles().iter().all(|role| roles::without_effect(role.get_name()).unwrap_or_default().contains(name))
    });
    idle
}

/// The tables, by the names of their places in the page.
fn tables() -> Vec<(String, String)> {
    let mut tables = Vec::new();
    for role in all_roles() {
        let name = role.get_name().to_owned();
        let own: String = declared(&role).iter().filter(|setting| !common(setting)).map(row).collect();
        let idle = roles::without_effect(&name).unwrap_or_default();
        let shared = idle_everywhere();
        let idle: Vec<String> =
            idle.iter().filter(|name| !shared.contains(name)).map(|name| format!("`{name}`")).collect();
        let idle = if idle.is_empty() {
            String::new()
        } else {
            format!("\nAccepted, without effect here: {}.\n", idle.join(", "))
        };
        tables.push((name, format!("{HEAD}{own}{idle}")));
    }
    if let Some(role) = all_roles().first() {
        let rows: String = declared(role).iter().filter(|setting| common(setting)).map(row).collect();
        let idle: Vec<_> = idle_everywhere().iter().map(|name| format!("`{name}`")).collect();
        let text = format!("{HEAD}{rows}\nAccepted, without effect here: {}.\n", idle.join(", "));
        tables.push(("all".to_owned(), text));
    }
    tables
}

/// The page with these tables in their places.
fn filled(page: &str) -> String {
    let mut page = page.to_owned();
    for (name, table) in tables() {
        let (begin, end) = (format!("<!-- settings: {name} -->\n"), format!("<!-- end: {name} -->"));
        let place = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let (before, after) = place.unwrap_or_else(|| panic!("docs/programs.md has no place {begin}"));
        page = format!("{before}{begin}{table}{end}{after}");
    }
    page
}

#[test]
fn the_tables_of_the_page_are_those_of_the_program() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let now = filled(&page);
    if std::env::var_os("NSM_WRITE_DOCS").is_some() {
        std::fs::write(&path, now).unwrap();
    } else {
        assert!(page == now, "docs/programs.md: run NSM_WRITE_DOCS=1 cargo test -p nsm-cli programs");
    }
}

#[test]
fn the_help_of_every_role_shows_every_setting_under_all_its_names() {
    let mut command = explained(Arguments::command());
    for role in all_roles() {
        let help = command.find_subcommand_mut(role.get_name()).unwrap().render_long_help().to_string();
        let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in declared(&role) {
            let names = [&setting.flag, &format!("[variable: {}]", setting.variable), &setting.help];
            for name in names {
                assert!(flat.contains(name.trim_end_matches('.')), "{name} in the help of {}", role.get_name());
            }
            if setting.key != "config" {
                assert!(flat.contains(&format!("[file: {}]", setting.key)), "{} in {}", setting.key, role.get_name());
            }
            if !setting.default.is_empty() {
                let default = format!("[default: {}]", setting.default);
                assert!(flat.contains(&default), "{default} in the help of {}", role.get_name());
            }
            assert!(!setting.help.is_empty(), "{} is explained", setting.key);
        }
    }
}

#[test]
fn no_variable_is_a_setting_and_without_effect() {
    for role in all_roles() {
        let idle = roles::without_effect(role.get_name()).unwrap();
        for setting in declared(&role) {
            assert!(!idle.contains(&setting.variable.as_str()), "{} of {}", setting.variable, role.get_name());
        }
    }
}
