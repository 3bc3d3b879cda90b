use clap::{CommandFactory, FromArgMatches, Parser};

use super::*;
use crate::settings::explained;
use crate::settings::values::{List, Maybe, Span, Switch};

/// Something to set.
#[derive(Debug, Parser)]
struct Options {
    /// Its name.
    #[arg(long, default_value = "nobody")]
    name: String,
    /// How long.
    #[arg(long, default_value = "5s")]
    dial_timeout: Span,
    /// Where.
    #[arg(long, default_value = "")]
    listen_on: List<String>,
    /// Whether.
    #[arg(long, default_value = "true", num_args = 0..=1, default_missing_value = "true")]
    register_service: Switch,
    /// The agent.
    #[arg(long, default_value = "")]
    spiffe_endpoint_socket: Maybe<String>,
    /// A file.
    #[arg(long, default_value = "")]
    config: Maybe<PathBuf>,
    /// Print.
    #[arg(long)]
    print_config: bool,
    files: Vec<PathBuf>,
}

const IDLE: &[&str] = &["NSM_PPROF_ENABLED", "TELEMETRY"];

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
}

fn chosen(pairs: &[(&str, &str)], flags: &[&str]) -> Result<Settings, Failure> {
    let command = Options::command();
    let arguments = ["nsm"].iter().chain(flags);
    let matches = explained(command.clone(), IDLE).try_get_matches_from(arguments).unwrap();
    Settings::choose(&command, &matches, &variables(pairs), IDLE)
}

fn options(settings: &Settings) -> Result<Options, Failure> {
    // Without the role's name: here the command is the role.
    let arguments = settings.arguments("x").into_iter().filter(|argument| argument != "x");
    let matches = Options::command().try_get_matches_from(arguments);
    matches.and_then(|matches| Options::from_arg_matches(&matches)).map_err(|error| settings.refused(&error))
}

/// A file of settings for one test, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let folder = nix::unistd::mkdtemp("/tmp/nsm-settings-XXXXXX").unwrap();
        std::fs::write(folder.join(name), text).unwrap();
        Self(folder.join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

#[test]
fn a_variable_goes_before_a_flag_a_flag_before_a_file_and_a_file_before_the_default() {
    let file = Scratch::new("a.toml", "name = \"file\"\n");
    let flag = ["--name", "flag"];
    let config = ["--config", file.path()];
    let both = [flag, config].concat();
    let variable = ("NSM_NAME", "variable");
    for (pairs, flags, name, source) in [
        (&[variable][..], &both[..], "variable", "variable NSM_NAME".to_owned()),
        (&[], &both, "flag", "flag --name".to_owned()),
        (&[], &config, "file", format!("{}, line 1", file.path())),
        (&[], &[], "nobody", "default".to_owned()),
        (&[("NSM_CONFIG", file.path())], &[], "file", format!("{}, line 1", file.path())),
        (&[("NSM_NAME", "")], &flag, "", "variable NSM_NAME".to_owned()),
    ] {
        let settings = chosen(pairs, flags).unwrap();
        assert_eq!(options(&settings).unwrap().name, name);
        let printed = settings.to_string();
        let line = printed.lines().find(|line| line.starts_with("name = ")).unwrap();
        assert!(line.ends_with(&format!("# {source}")), "{line}");
    }
}

#[test]
fn a_flag_and_a_variable_that_disagree_are_told_once_and_those_that_agree_are_not() {
    let settings = chosen(&[("NSM_NAME", "a")], &["--name", "b"]).unwrap();
    assert_eq!(settings.warnings(), ["variable NSM_NAME says \"a\" and flag --name says \"b\": the variable counts"]);
    assert!(chosen(&[("NSM_NAME", "a")], &["--name", "a"]).unwrap().warnings().is_empty());
}

#[test]
fn what_is_wrong_is_told_with_source_value_and_what_is_expected() {
    let file = Scratch::new("a.yaml", "name: x\ndial_timeout: 5\n");
    for (settings, source) in [
        (chosen(&[("NSM_DIAL_TIMEOUT", "5")], &["--dial-timeout", "1s"]), "variable NSM_DIAL_TIMEOUT".to_owned()),
        (chosen(&[], &["--dial-timeout", "5"]), "flag --dial-timeout".to_owned()),
        (chosen(&[], &["--config", file.path()]), format!("{}, line 2", file.path())),
    ] {
        let failure = options(&settings.unwrap()).unwrap_err();
        assert_eq!(failure.hop, source);
        assert!(failure.cause.starts_with("dial_timeout is \"5\": a unit is missing"), "{failure:?}");
        assert!(failure.remedy.contains("1h2m3.5s"), "{failure:?}");
    }
}

#[test]
fn a_variable_that_is_none_is_a_warning_and_a_key_that_is_none_an_error() {
    let settings = chosen(&[("NSM_NAMES", "a"), ("NSM_QQQ", "b"), ("OTHER_NAME", "c")], &[]).unwrap();
    let [near, far] = settings.warnings() else { panic!("{:?}", settings.warnings()) };
    assert_eq!(near, "variable NSM_NAMES is no setting of this role; did you mean NSM_NAME?");
    assert_eq!(far, "variable NSM_QQQ is no setting of this role");

    let file = Scratch::new("a.yaml", "name: x\nlistenon: []\n");
    let failure = chosen(&[], &["--config", file.path()]).unwrap_err();
    assert_eq!(failure.hop, format!("{}, line 2", file.path()));
    assert!(failure.cause.starts_with("listenon") && failure.remedy.contains("listen_on"), "{failure:?}");
    for text in ["config = \"other.toml\"\n", "name = \"a\"\nname = \"b\"\n"] {
        let file = Scratch::new("a.toml", text);
        assert!(chosen(&[], &["--config", file.path()]).is_err(), "{text}");
    }
}

#[test]
fn what_has_no_effect_is_accepted_and_named() {
    let file = Scratch::new("a.toml", "pprof_enabled = true\n");
    let settings = chosen(&[("TELEMETRY", "true")], &["--config", file.path()]).unwrap();
    assert_eq!(settings.without_effect(), ["NSM_PPROF_ENABLED", "TELEMETRY"]);
    assert!(settings.warnings().is_empty());
}

#[test]
fn switches_lists_and_what_is_no_setting_come_through() {
    let settings = chosen(
        &[("NSM_REGISTER_SERVICE", "0"), ("SPIFFE_ENDPOINT_SOCKET", "unix:///a.sock")],
        &["--listen-on=-a, b", "--print-config", "one.yaml", "two.yaml"],
    )
    .unwrap();
    let options = options(&settings).unwrap();
    assert_eq!((options.register_service, &options.listen_on[..]), (Switch(false), &["-a".into(), "b".into()][..]));
    assert_eq!(options.spiffe_endpoint_socket.as_deref(), Some("unix:///a.sock"));
    assert!(options.print_config);
    assert_eq!(options.files, [PathBuf::from("one.yaml"), PathBuf::from("two.yaml")]);
    let settings = chosen(&[], &["--register-service"]).unwrap();
    assert_eq!(self::options(&settings).unwrap().register_service, Switch(true));
}

#[test]
fn what_is_printed_is_a_file_of_the_same_settings() {
    let settings = chosen(&[("NSM_NAME", "a \"quoted\" name")], &["--listen-on", "x,y"]).unwrap();
    let file = Scratch::new("a.toml", &settings.to_string());
    let again = chosen(&[], &["--config", file.path()]).unwrap();
    let texts = |settings: &Settings| settings.chosen.iter().skip(1).map(|one| one.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&settings), texts(&again));
}
