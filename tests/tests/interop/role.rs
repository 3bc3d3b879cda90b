//! A role as a process: theirs or ours, told and heard in the same language.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::language::Event;

/// What a scenario ends with: nothing, or what went wrong, in words.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// How long anything may take that works. Nobody waits for it where all is well.
const PATIENCE: Duration = Duration::from_secs(40);

/// A running role. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Role {
    name: String,
    process: Mutex<Child>,
    stdin: Mutex<ChildStdin>,
    commands: AtomicUsize,
    heard: watch::Receiver<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    events: Vec<Arc<Event>>,
    over: bool,
}

impl Role {
    /// Starts it, and returns when it says that it is ready: its server can be reached, and it is registered.
    pub(crate) async fn start(mut command: Command, name: &str, log: &Path) -> Outcome<(Self, Arc<Event>)> {
        let failed = |error| format!("{name}: {error}");
        let log = File::options().create(true).append(true).open(log).map_err(failed)?;
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(format!("{name} has no pipes"));
        };
        let (tell, heard) = watch::channel(Heard::default());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let event = serde_json::from_str(&line)
                    .unwrap_or_else(|error| Event { error: error.to_string(), ..Event::new("gibberish") });
                tell.send_modify(|heard| heard.events.push(Arc::new(event)));
            }
            tell.send_modify(|heard| heard.over = true);
        });
        let role = Self {
            name: name.to_owned(),
            process: Mutex::new(process),
            stdin: Mutex::new(stdin),
            commands: AtomicUsize::new(1),
            heard,
        };
        let ready = role.hears(0, "ready", |event| event.event == "ready").await?;
        Ok((role, ready))
    }

    /// Kills it, as a crash would.
    pub(crate) async fn kill(self) {
        // It may have gone by itself.
        let _ = self.process.into_inner().kill().await;
    }

    /// How much has been heard so far: where to listen from.
    pub(crate) fn now(&self) -> usize {
        self.heard.borrow().events.len()
    }

    /// Everything heard so far.
    pub(crate) fn history(&self) -> Vec<Arc<Event>> {
        self.heard.borrow().events.clone()
    }

    /// The first event from `since` on that fits.
    pub(crate) async fn hears(&self, since: usize, what: &str, fits: impl Fn(&Event) -> bool) -> Outcome<Arc<Event>> {
        let mut heard = self.heard.clone();
        let find = |heard: &Heard| heard.events.iter().skip(since).find(|event| fits(event)).cloned();
        let waiting = heard.wait_for(|heard| heard.over || find(heard).is_some());
        let found = match timeout(PATIENCE, waiting).await {
            Ok(Ok(heard)) => find(&heard),
            _ => None,
        };
        found.ok_or_else(|| {
            let heard = self.heard.borrow();
            let over = if heard.over { ", and has ended" } else { "" };
            let last = heard.events.iter().skip(since).map(|event| event.event.as_str()).collect::<Vec<_>>();
            format!("{} did not say {what}; it said {last:?}{over}", self.name)
        })
    }

    /// Gives a command, and does not wait for its answer: its number.
    pub(crate) async fn told(&self, words: &str) -> Outcome<String> {
        let number = self.commands.fetch_add(1, Ordering::Relaxed).to_string();
        let line = format!("{number} {words}\n");
        let written = self.stdin.lock().await.write_all(line.as_bytes()).await;
        written.map_err(|error| format!("{} does not listen to {words:?}: {error}", self.name))?;
        Ok(number)
    }

    /// Gives a command, and waits until it has been done.
    pub(crate) async fn does(&self, words: &str) -> Outcome<Arc<Event>> {
        let since = self.now();
        let number = self.told(words).await?;
        let answer = |event: &Event| event.to == number && matches!(&*event.event, "done" | "failed");
        let answer = self.hears(since, &format!("what became of {words:?}"), answer).await?;
        match &*answer.event {
            "done" => Ok(answer),
            _ => Err(format!("{}: {words:?} failed with {}: {}", self.name, answer.code, answer.error)),
        }
    }

    /// Gives a command that answers with one message.
    pub(crate) async fn gives<M: Message + Default>(&self, words: &str) -> Outcome<M> {
        self.does(words).await?.message()
    }
}
