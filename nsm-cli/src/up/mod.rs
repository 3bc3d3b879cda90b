//! Labs: `nsm up`, `nsm down`, `nsm graph`, `nsm exec`.

mod background;
mod control;
mod diff;
mod down;
mod exec;
mod graph;
mod keeper;
mod life;
mod mesh;
mod room;
mod running;
mod view;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use crate::failure::Failure;
use crate::story::{Story, plural};
use control::{Ask, Reply};
use mesh::{ANNOTATION, API_VERSION, Mesh};
use room::Room;

/// The commands of labs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(Options),
    Down(down::Options),
    Graph(graph::Options),
    Exec(exec::Options),
}

/// Where labs are, for every help.
const DIRECTORY: &str = "\
Environment:
  NSM_RUN_DIR   where labs keep their state (default: /run/nsm; for an ordinary user $XDG_RUNTIME_DIR/nsm)
  RUST_LOG      what is logged on standard error, such as debug or nsm_sdk=trace (default: warn)
  NO_COLOR      no colours";

/// Bring up a whole lab on this machine from one file: nodes, network services, endpoints and pods.
///
/// Every node is a network namespace with a manager and a forwarder, joined to the others by an underlay; every endpoint and
/// every pod has a network namespace of its own, by the name nsm-LAB.NAME under /run/netns. It stays up until it is
/// interrupted or taken down with `nsm down`. Brought up again while it is up, it becomes what the file says now: what is the
/// same is not touched.
///
/// Nothing is changed in the network of this machine. As an ordinary user it continues in a user namespace of its own, where
/// the system allows that; its namespaces have no names then, and `nsm exec` enters them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
The file has YAML documents, in the shape of Kubernetes where Kubernetes has one:
  Node             apiVersion: v1; without any there is one, node-1
  NetworkService   apiVersion: networkservicemesh.io/v1, as in Kubernetes
  Pod              apiVersion: v1; a workload with metadata.labels, spec.nodeName, and the annotation
                   {ANNOTATION}: kernel://service/interface?label=value,memif://…
  Endpoint         apiVersion: {API_VERSION}; with metadata.labels, spec.nodeName, spec.services,
                   spec.type (icmp-responder, passthrough, firewall), spec.cidrPrefixes, spec.dnsConfigs, spec.filter

Examples:
  nsm up examples/labs/two-nodes.yaml            until Ctrl-C
  nsm up --watch mesh.yaml                       and every edit of the file is applied
  nsm up --detach mesh.yaml                      in the background; nsm down mesh.yaml ends it
  nsm exec web -- ping -c 3 172.16.1.0           from another terminal

Exit codes:
  0    it was up, and nothing was left; in the background: it is up
  1    something failed, or something was left: it says where, why, and what to do
  2    the command line is wrong

{DIRECTORY}"))]
pub(crate) struct Options {
    /// The file of the lab.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The name of the lab (default: that of the file, without what stands behind the dot).
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Apply every edit of the file while it is up. A file with a mistake changes nothing.
    #[arg(long)]
    watch: bool,

    /// Go on in the background as soon as it is up.
    #[arg(long)]
    detach: bool,

    /// How long connections may take to come up before it is said why they do not, in seconds. They are tried on.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=3600))]
    timeout: u16,

    /// What `--detach` starts.
    #[arg(long, hide = true, conflicts_with = "detach")]
    in_background: bool,
}

impl Options {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }
}

/// Runs a command to its end.
pub(crate) fn main(command: Command) -> ExitCode {
    match command {
        Command::Up(options) => up(&options),
        Command::Down(options) => down::main(&options),
        Command::Graph(options) => graph::main(options),
        Command::Exec(options) => exec::main(&options),
    }
}

fn up(options: &Options) -> ExitCode {
    let story = Story::new(false);
    let begun = || {
        let text = mesh::text(&options.file)?;
        let mesh = Mesh::parse(&options.file.display().to_string(), &text)?;
        let file = std::fs::canonicalize(&options.file).map_err(|error| Failure::of("file", &error))?;
        let room = Room::for_file(&file, options.name.as_deref())?;
        Ok((text, mesh, file, room))
    };
    let done = begun().and_then(|(text, mesh, file, room)| {
        if room.is_up() {
            return again(&room, &file, text, &story);
        }
        if options.detach {
            return background::start(&room, &story);
        }
        life::live(options, &file, &mesh, &room, &story)
    });
    done.unwrap_or_else(|failure| failed(&story, &failure))
}

/// It is up: it becomes what the file says now, and that may be what it is.
fn again(room: &Room, file: &Path, text: String, story: &Story) -> Result<ExitCode, Failure> {
    let view = room.view()?;
    if view.file != file {
        let cause = format!("a lab {} is up, from {}", room.name, view.file.display());
        return Err(Failure::at("lab", cause, "take it down, or give this one another --name"));
    }
    let process = view.process.unwrap_or_default();
    match room.ask(&Ask::Apply { file: file.display().to_string(), text })? {
        Reply::Applied { changes, unchanged } => {
            let same = plural(unchanged, "document");
            if changes.is_empty() {
                story.say(&format!(
                    "{} is up already, as process {process}: {same} as they are, nothing to change",
                    room.name
                ));
            } else {
                story
                    .say(&format!("{} is up already, as process {process}: {same} as they are, changed is", room.name));
                changes.iter().for_each(|change| story.say(&format!("  {change}")));
            }
            story.say("");
            graph::draw(story, &room.view()?);
            Ok(ExitCode::SUCCESS)
        }
        Reply::Failed(failure) => Err(failure),
        other => Err(Failure::at("lab", format!("it answered {other:?}"), "it is of another version: take it down")),
    }
}

/// The lab that is meant: that of a file or a name, or the only one that is up.
fn which(file: Option<&Path>, name: Option<&str>) -> Result<Room, Failure> {
    let room = match (file, name) {
        (Some(file), name) => Some(Room::for_file(file, name)?),
        (None, Some(name)) => Some(Room::of(name)?),
        (None, None) => None,
    };
    if let Some(room) = room {
        return if room.is_up() {
            Ok(room)
        } else {
            Err(Failure::at("lab", format!("no lab {} is up", room.name), format!("bring it up: {}", bring_up(file))))
        };
    }
    let mut up: Vec<Room> = Room::all()?.into_iter().filter(Room::is_up).collect();
    match (up.pop(), up.as_slice()) {
        (Some(only), []) => Ok(only),
        (None, _) => Err(Failure::at("lab", "no lab is up", format!("bring one up: {}", bring_up(None)))),
        (Some(last), others) => {
            let names: Vec<&str> = others.iter().chain([&last]).map(|room| room.name.as_str()).collect();
            let cause = format!("several labs are up: {}", names.join(", "));
            Err(Failure::at("lab", cause, format!("say which one: --name {}", last.name)))
        }
    }
}

fn bring_up(file: Option<&Path>) -> String {
    format!("nsm up {}", file.map_or_else(|| "FILE".to_owned(), |file| file.display().to_string()))
}

/// Says what failed.
fn failed(story: &Story, failure: &Failure) -> ExitCode {
    story.failed(failure);
    ExitCode::FAILURE
}
