//! Running the program, and reading what it says.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The program under test.
pub(crate) const NSM: &str = env!("CARGO_BIN_EXE_nsm");

/// A directory for one test, in which the program keeps its sockets.
pub(crate) struct Room(PathBuf);

impl Room {
    pub(crate) fn new() -> Self {
        let path = nix::unistd::mkdtemp("/tmp/nsmtest-XXXXXX").unwrap();
        // Whoever the program runs as may use it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// `nsm quickstart` with these arguments.
    pub(crate) fn quickstart(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NSM);
        command.arg("quickstart").args(arguments);
        command.env("XDG_RUNTIME_DIR", &self.0).env_remove("RUST_LOG").env("LC_ALL", "C.UTF-8");
        command
    }

    /// What it prints as JSON; none where it lacks privileges and cannot get them, which is said.
    pub(crate) fn run(&self, arguments: &[&str]) -> Option<Run> {
        Run::of(self.quickstart(arguments).arg("--json").output().unwrap())
    }

    pub(crate) fn assert_empty(&self) {
        let left: Vec<_> = std::fs::read_dir(&self.0).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A run with `--json`.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) logged: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Option<Self> {
        let logged = String::from_utf8(output.stderr).unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("no JSON document: {error}\n{}\n{logged}", String::from_utf8_lossy(&output.stdout))
        });
        if report["error"]["hop"] == "privileges" {
            println!("SKIPPED: {}", report["error"]["cause"]);
            return None;
        }
        Some(Self { code: output.status.code(), report, logged })
    }

    /// It worked, nothing is left, and nothing was worth a warning.
    pub(crate) fn assert_ok(&self) -> &Vec<Value> {
        assert_eq!(self.report["ok"], true, "{:#}\n{}", self.report, self.logged);
        assert_eq!(self.code, Some(0));
        assert_eq!(self.logged, "");
        self.assert_nothing_left();
        self.report["clients"].as_array().unwrap()
    }

    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.report["left_behind"], serde_json::json!([]));
    }
}

/// The texts in a list of JSON.
pub(crate) fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// One field of each step of a client's path.
pub(crate) fn steps<'a>(client: &'a Value, field: &str) -> Vec<&'a str> {
    client["path"].as_array().unwrap().iter().map(|step| step[field].as_str().unwrap_or_default()).collect()
}
