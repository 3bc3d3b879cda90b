//! `nsm graph`: a mesh as a picture, of text or SVG.

mod svg;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use super::mesh::Mesh;
use super::room::Room;
use super::view::{State, View};
use super::{DIRECTORY, which};
use crate::failure::Failure;
use crate::story::{Story, plural};

pub(super) use text::draw;

/// Draw a mesh: nodes, pods, endpoints, and the wires between them.
///
/// Of a lab that is up it shows what is there: interfaces, addresses, what carries each wire, and what is down. Of the file of
/// a lab that is not up it shows what is asked for, and the endpoint that the rules of the network service choose.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  nsm graph                                  the lab that is up
  nsm graph mesh.yaml                        that of a file, whether it is up or not
  nsm graph mesh.yaml --svg mesh.svg         as a picture for a page

{DIRECTORY}"))]
pub(crate) struct Options {
    /// The file of the lab (default: the only lab that is up).
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// The name of the lab (default: that of the file, without what stands behind the dot).
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Write it as SVG to this file, `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,

    /// Print it as one JSON document.
    #[arg(long)]
    json: bool,
}

/// Draws.
pub(crate) fn main(options: Options) -> ExitCode {
    let story = Story::new(false);
    match drawn(&options, &story) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => super::failed(&story, &failure),
    }
}

fn drawn(options: &Options, story: &Story) -> Result<(), Failure> {
    let view = view(options)?;
    if options.json {
        let text = serde_json::to_string_pretty(&view).map_err(|error| Failure::of("graph", &error))?;
        story.document(&text);
        return Ok(());
    }
    let Some(path) = &options.svg else {
        draw(story, &view);
        return Ok(());
    };
    let picture = svg::picture(&view);
    if path.as_os_str() == "-" {
        story.document(picture.trim_end());
        return Ok(());
    }
    let failed = |error: std::io::Error| {
        Failure::at("graph", format!("{}: {error}", path.display()), "give the path of a file that can be written")
    };
    std::fs::write(path, picture).map_err(failed)?;
    story.say(&format!("{} written", path.display()));
    Ok(())
}

fn view(options: &Options) -> Result<View, Failure> {
    let Some(file) = &options.file else {
        return which(None, options.name.as_deref())?.view();
    };
    let room = Room::for_file(file, options.name.as_deref())?;
    if room.is_up() {
        return room.view();
    }
    Ok(View::planned(&room.name, file.clone(), &Mesh::read(file)?))
}

/// The first line of a picture: what there is.
fn summary(view: &View) -> String {
    let up = view.wires.iter().filter(|wire| wire.state == State::Up).count();
    let wires = plural(view.wires.len(), "connection");
    let state = match view.process {
        None => format!("{wires} planned"),
        Some(_) if up == view.wires.len() => format!("{wires} up"),
        Some(_) => format!("{up} of {wires} up"),
    };
    [
        plural(view.nodes.len(), "node"),
        plural(view.services.len(), "network service"),
        plural(view.endpoints.len(), "endpoint"),
        plural(view.pods.len(), "pod"),
        state,
    ]
    .join(", ")
}
