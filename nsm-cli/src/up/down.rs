//! `nsm down`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::DIRECTORY;
use super::control::{Ask, Reply};
use super::room::Room;
use crate::failure::Failure;
use crate::lab;
use crate::story::Story;

/// Take a lab down, and prove that nothing of it is left.
///
/// Connections are closed, roles stopped and namespaces ended by the process of the lab, which counts what is left; then it is
/// looked for names that carry the mark of the lab. Of a lab that was killed, what it left is removed: only what carries its
/// mark. Taking down what is not up is no mistake.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  nsm down                  the only lab there is
  nsm down mesh.yaml        that of a file
  nsm down --name mesh      that of a name

Exit codes:
  0    it is down, and nothing is left
  1    something is left, or several labs are up and none is named

{DIRECTORY}"))]
pub(crate) struct Options {
    /// The file of the lab (default: the only lab there is).
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// The name of the lab (default: that of the file, without what stands behind the dot).
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// How long a lab that has answered may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// Takes down.
pub(crate) fn main(options: &Options) -> ExitCode {
    let story = Story::new(false);
    match down(options, &story) {
        Ok(code) => code,
        Err(failure) => super::failed(&story, &failure),
    }
}

fn down(options: &Options, story: &Story) -> Result<ExitCode, Failure> {
    let room = match (&options.file, &options.name) {
        (Some(file), name) => Room::for_file(file, name.as_deref())?,
        (None, Some(name)) => Room::of(name)?,
        (None, None) => {
            let mut all = Room::all()?;
            all.retain(|room| room.is_up() || room.exists());
            match (all.pop(), all.as_slice()) {
                (None, _) => {
                    story.say("no lab is up, and none has left anything");
                    return Ok(ExitCode::SUCCESS);
                }
                (Some(only), []) => only,
                (Some(last), others) => {
                    let names: Vec<&str> = others.iter().chain([&last]).map(|room| room.name.as_str()).collect();
                    let cause = format!("there are several labs: {}", names.join(", "));
                    return Err(Failure::at("lab", cause, format!("say which one: --name {}", last.name)));
                }
            }
        }
    };
    let mut left = Vec::new();
    if room.is_up() {
        match room.ask(&Ask::Down)? {
            Reply::Ended { closed, left: behind } => {
                story.told("closed", &closed);
                left.extend(behind);
            }
            Reply::Failed(failure) => return Err(failure),
            other => return Err(Failure::at("lab", format!("it answered {other:?}"), "it is of another version")),
        }
    } else if !room.exists() {
        story.say(&format!("no lab {} is up, and it has left nothing", room.name));
        return Ok(ExitCode::SUCCESS);
    }
    left.extend(cleared(&room, story)?);
    let census = if left.is_empty() {
        format!("nothing left of lab {}: interfaces, addresses, routes, rules, sockets, namespaces, names", room.name)
    } else {
        "this is left:".to_owned()
    };
    story.told("census", &census);
    story.left_behind(&left);
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks for what carries the mark of a lab that has ended, removes it, and says what is left all the same.
fn cleared(room: &Room, story: &Story) -> Result<Vec<String>, Failure> {
    let until = SystemTime::now() + ENDING;
    let held = loop {
        match room.take()? {
            Some(held) => break held,
            None if SystemTime::now() < until => std::thread::sleep(Duration::from_millis(10)),
            None => return Ok(vec![format!("the process of lab {}", room.name)]),
        }
    };
    // Names are made by root, and only root may remove them; an ordinary user has none.
    if nix::unistd::geteuid().is_root() {
        lab::obtain()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::of("runtime", &error))?;
        for what in runtime.block_on(held.clear())? {
            story.told("cleared", &format!("{what}, of a lab that was killed"));
        }
    }
    Ok(held.remove().into_iter().collect())
}
