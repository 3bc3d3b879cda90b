//! `nsm quickstart`: a mesh on this machine, from nothing to packets and back to nothing.

mod clients;
mod connected;
mod document;
mod phases;
mod picture;
mod play;
mod report;
mod roles;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::interrupt::{self, INTERRUPTED};
use crate::lab::{self, Lab, Left, Naming, Sockets, Trail};
use crate::logging;
use crate::story::Story;
use connected::Connected;
use document::Documents;
use report::Report;

/// Bring up a whole mesh on this machine, send packets through it, and take it down again.
///
/// One process starts a registry, a manager, a Linux forwarder and an endpoint, each serving gRPC with mutual TLS on a
/// unix socket of its own, and lets clients in network namespaces of their own ask for a network service. Packets are
/// sent both ways through the new interfaces; then everything is closed, and a census proves that nothing is left.
///
/// Nothing is changed in the network of this machine. As root it runs at once; as an ordinary user it continues in a
/// user namespace of its own, where the system allows that.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  nsm quickstart                               one node, one client, one endpoint
  nsm quickstart --nodes 2                     over two nodes, joined by a VXLAN
  nsm quickstart --clients 50 --json           fifty clients, one JSON document
  nsm quickstart --keep                        stay up, to look around with ip and ping
  nsm quickstart --file my-service.yaml        a network service of one's own

Exit codes:
  0    packets flowed, and nothing was left
  1    something failed, or something was left: it says where, why, and what to do
  2    the command line is wrong
  130  interrupted, and everything was cleaned up

Environment:
  RUST_LOG   what is logged on standard error, such as debug or nsm_sdk=trace (default: warn)
  NO_COLOR   no colours")]
pub(crate) struct Options {
    /// Nodes, each with a manager and a forwarder; endpoints are on the last one, clients on the others.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    nodes: u8,

    /// Clients, each in a network namespace of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=2000))]
    clients: u16,

    /// Endpoints, each in a network namespace of its own; clients are spread over them.
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=200))]
    endpoints: u8,

    /// YAML documents to apply in place of the built-in ones: NetworkServices, and NetworkServiceEndpoints for the
    /// labels of endpoints.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,

    /// What each client asks for (default: interface `nsm-1` of the first service).
    #[arg(long, value_name = "URL")]
    request: Option<String>,

    /// How long a client tries, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=3600))]
    timeout: u16,

    /// Print one JSON document in place of the story.
    #[arg(long)]
    json: bool,

    /// Stay up until Ctrl-C, and print how to look around.
    #[arg(long)]
    keep: bool,
}

impl Options {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }
}

/// Runs it to its end.
pub(crate) fn main(options: Options) -> ExitCode {
    let story = Story::new(options.json);
    // Before any thread is started: an ordinary user continues in another process image.
    if let Err(failure) = lab::obtain() {
        return refused(failure, &story);
    }
    let trail = Trail::default();
    logging::start(trail.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(options, trail, &story)),
        Err(error) => refused(Failure::of("runtime", &error), &story),
    }
}

/// Ends before anything was started.
fn refused(failure: Failure, story: &Story) -> ExitCode {
    story.failed(&failure);
    Report::new(Vec::new(), Some(failure), Vec::new()).finish(story, false)
}

async fn run(options: Options, trail: Trail, story: &Story) -> ExitCode {
    let prepare = async || {
        lab::descriptors(options.nodes.into(), options.endpoints.into(), options.clients.into())?;
        let documents = Documents::read(options.file.as_deref())?;
        let naming = if options.keep { Naming::Plain } else { Naming::Nameless };
        Ok((interrupt::listen()?, documents, Lab::new("quickstart.nsm", Sockets::create()?, naming, trail).await?))
    };
    let (interrupt, documents, mut lab) = match prepare().await {
        Ok(prepared) => prepared,
        Err(failure) => return refused(failure, story),
    };
    let mut connected = Vec::new();
    let played = tokio::select! {
        biased;
        () = interrupt.cancelled() => None,
        played = play::play(&options, &documents, story, &mut lab, &mut connected) => Some(played),
    };
    let failure = match played {
        None => Some(Failure::at("quickstart", "it was interrupted", "run it again")),
        Some(Err(failure)) => Some(failure),
        Some(Ok(())) => None,
    };
    let interrupted = interrupt.is_cancelled();
    if failure.is_none() && options.keep {
        keep(story, &lab, &connected, &interrupt).await;
    }
    let report = finish(lab, connected, failure, story).await;
    report.finish(story, interrupted)
}

/// Stays up, and tells how to look around.
async fn keep(story: &Story, lab: &Lab, connected: &[Connected], interrupt: &CancellationToken) {
    look_around(story, lab, connected);
    interrupt.cancelled().await;
    story.say("");
}

/// How to look around while it stays up.
fn look_around(story: &Story, lab: &Lab, connected: &[Connected]) {
    let mut lines = vec!["It stays up until Ctrl-C. From another terminal:".to_owned()];
    for one in connected.iter().take(2) {
        let peer = one.peers.first().map(|net| net.addr().to_string()).unwrap_or_default();
        for (name, command) in [(&one.name, format!("ping -c 3 {peer}")), (&one.endpoint, "ip addr".to_owned())] {
            let found = lab.workloads.iter().find(|workload| workload.name == *name);
            lines.extend(found.map(|workload| format!("  {:<10}  {} {command}", name, workload.enter())));
        }
    }
    for line in lines {
        // With --json standard output is for the document alone.
        if story.is_json() {
            let _unread = writeln!(std::io::stderr(), "{line}");
        } else {
            story.say(&line);
        }
    }
}

async fn finish(lab: Lab, connected: Vec<Connected>, failure: Option<Failure>, story: &Story) -> Report {
    if let Some(failure) = &failure {
        story.failed(failure);
        story.say("");
    }
    let begun = story.begin();
    let left = lab.take_down().await;
    story.done(begun, "closed", &left.closed());
    story.told("census", left.census());
    let Left { behind, failures, .. } = left;
    story.left_behind(&behind);
    let unclosed = failures.into_iter().next().filter(|_| failure.is_none());
    if let Some(failure) = &unclosed {
        story.failed(failure);
    }
    Report::new(connected, failure.or(unclosed), behind)
}

/// The exit code.
fn code(ok: bool, interrupted: bool) -> ExitCode {
    match (ok, interrupted) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(INTERRUPTED),
        (false, false) => ExitCode::FAILURE,
    }
}
