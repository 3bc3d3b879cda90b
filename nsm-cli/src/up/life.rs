//! The life of a lab: it comes up, answers questions, follows its file, and is taken down.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::control::{Ask, Asked, Control, Reply};
use super::diff::What;
use super::mesh::Mesh;
use super::room::Room;
use super::running::Running;
use super::view::View;
use super::{Options, background, graph, watch};
use crate::failure::Failure;
use crate::interrupt;
use crate::lab::{self, Lab, Left, Naming, Trail};
use crate::logging;
use crate::story::{Story, plural};

/// A lab of this process.
struct Life<'l> {
    options: &'l Options,
    file: &'l Path,
    room: &'l Room,
    story: &'l Story,
    running: Running,
}

/// Lives it. An ordinary user begins anew as root of a user namespace.
pub(super) fn live(
    options: &Options,
    file: &Path,
    mesh: &Mesh,
    room: &Room,
    story: &Story,
) -> Result<ExitCode, Failure> {
    // Before any thread is started.
    lab::obtain()?;
    if options.in_background {
        background::leave_terminal();
    }
    logging::start(Trail::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::of("runtime", &error))?;
    runtime.block_on(from_up_to_down(options, file, mesh, room, story))
}

async fn from_up_to_down(
    options: &Options,
    file: &Path,
    mesh: &Mesh,
    room: &Room,
    story: &Story,
) -> Result<ExitCode, Failure> {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    lab::descriptors(count(mesh.nodes.len()), count(mesh.endpoints.len()), count(mesh.pods.len()))?;
    let Some(held) = room.take()? else {
        let cause = format!("a lab {} has come up in this moment", room.name);
        return Err(Failure::at("lab", cause, "try again"));
    };
    for what in held.clear().await? {
        story.told("cleared", &format!("{what}, of a lab that was killed"));
    }
    let interrupt = interrupt::listen()?;
    let naming = Naming::Marked { prefix: room.prefix(), mark: room.mark() };
    let domain = format!("{}.lab", room.name.to_lowercase());
    let lab = Lab::new(&domain, room.sockets()?, naming, Trail::default()).await?;
    let listener = UnixListener::bind(room.control()).map_err(|error| Failure::of("control", &error))?;

    let ending = interrupt.child_token();
    let (mut control, mut questions) = Control::start(listener, &ending);
    let watching = options.watch.then(|| tokio::spawn(watch::follow(file.to_owned(), control.sender())));
    let mut life = Life { options, file, room, story, running: Running::new(lab) };
    let lived = life.live(mesh, &mut questions, &ending).await;
    if let Some(watching) = watching {
        watching.abort();
    }
    drop(questions);
    let mut ended = life.end(lived.as_ref().err(), control.stop_listening().await).await;
    ended.behind.extend(held.remove());
    story.told("census", ended.census());
    story.left_behind(&ended.behind);
    control.tell_the_end(&Reply::Ended { closed: ended.closed(), left: ended.behind.clone() }).await;
    if let Some(failure) = ended.failures.first().filter(|_| lived.is_ok()) {
        story.failed(failure);
    }
    let ok = lived.is_ok() && ended.behind.is_empty() && ended.failures.is_empty();
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Life<'_> {
    /// Up, and until it is to end.
    async fn live(
        &mut self,
        mesh: &Mesh,
        questions: &mut mpsc::Receiver<Asked>,
        ending: &CancellationToken,
    ) -> Result<(), Failure> {
        let Some(up) = unless_ended(ending, self.come_up(mesh)).await else {
            return Ok(());
        };
        up?;
        if self.options.in_background {
            background::go();
        }
        while let Some(Some((ask, reply))) = unless_ended(ending, questions.recv()).await {
            let Some(answer) = unless_ended(ending, self.answer(ask)).await else {
                return Ok(());
            };
            let _gone = reply.send(answer);
        }
        Ok(())
    }

    async fn come_up(&mut self, mesh: &Mesh) -> Result<(), Failure> {
        let story = self.story;
        let user = if nsm_kernel::privileges().in_user_namespace { ", in a user namespace" } else { "" };
        story.title(&format!("Lab {} on this machine{user}", self.room.name));
        self.running.start_nodes(&mesh.nodes, story).await?;
        self.running.become_like(mesh, story).await?;
        self.connect().await;
        story.say("");
        graph::draw(story, &self.view());
        story.say("");
        let end = if self.options.in_background { "nsm down" } else { "Ctrl-C or nsm down" };
        let name = &self.room.name;
        story.say(&format!("It stays up until {end}. From another terminal:"));
        if let Some((pod, command)) = self.first_ping() {
            story.say(&format!("  nsm exec --name {name} {pod} -- {command}"));
        }
        story.say(&format!("  nsm graph --name {name}"));
        story.say(&format!("  nsm down --name {name}"));
        Ok(())
    }

    /// Waits for connections, and says which do not come up, and why.
    async fn connect(&self) {
        let begun = self.story.begin();
        let missing = self.running.settled(self.options.timeout()).await;
        let count = self.view().wires.len();
        let up = count - missing.len();
        self.story.done(begun, "connected", &format!("{up} of {}", plural(count, "connection")));
        for (url, failure) in missing {
            let unasked = || Failure::at("lab", "it has not been answered yet", "wait, and look with nsm graph");
            let failure = failure.unwrap_or_else(unasked);
            self.story.failed(&Failure { hop: format!("{url}, {}", failure.hop), ..failure });
        }
    }

    /// A pod and what it can ping.
    fn first_ping(&self) -> Option<(String, String)> {
        let view = self.view();
        let wire = view.wires.iter().find(|wire| !wire.peers.is_empty())?;
        let peer = wire.peers.first()?.split('/').next()?.to_owned();
        Some((wire.pod.clone(), format!("ping -c 3 {peer}")))
    }

    async fn answer(&mut self, ask: Ask) -> Reply {
        match ask {
            Ask::View => Reply::View(Box::new(self.view())),
            Ask::Apply { file, text } => match self.apply(&file, &text).await {
                Ok((changes, unchanged)) => Reply::Applied { changes, unchanged },
                Err(failure) => {
                    self.story.failed(&failure);
                    Reply::Failed(failure)
                }
            },
            Ask::Down => Reply::Failed(Failure::at("lab", "it is being taken down", "wait for it")),
        }
    }

    /// Becomes what a text says. What was changed, and how many documents are as they were.
    async fn apply(&mut self, file: &str, text: &str) -> Result<(Vec<String>, usize), Failure> {
        let mesh = Mesh::parse(file, text)?;
        let steps = self.running.become_like(&mesh, self.story).await?;
        if !steps.is_empty() {
            self.connect().await;
        }
        // What was added, changed or removed is not what is the same.
        let changed = steps.iter().filter(|step| step.what != What::Removed).count();
        let unchanged = self.running.mesh().size() + mesh.nodes.len() - changed;
        Ok((steps.iter().map(ToString::to_string).collect(), unchanged))
    }

    fn view(&self) -> View {
        View { lab: self.room.name.clone(), file: self.file.to_owned(), ..self.running.view() }
    }

    /// Takes everything down, and says why.
    async fn end(self, failure: Option<&Failure>, strangers: BTreeSet<String>) -> Left {
        self.story.say("");
        if let Some(failure) = failure {
            self.story.failed(failure);
            self.story.say("");
        }
        let begun = self.story.begin();
        let left = self.running.take_down(strangers).await;
        self.story.done(begun, "closed", &left.closed());
        left
    }
}

/// What a future comes to, or nothing if the lab is to end before that.
async fn unless_ended<T>(ending: &CancellationToken, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = ending.cancelled() => None,
        outcome = future => Some(outcome),
    }
}
