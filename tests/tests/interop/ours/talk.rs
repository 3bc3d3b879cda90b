//! A role's conversation with the test.

use std::future::Future;
use std::io::Write;

use tokio::sync::mpsc;

use super::Failure;
use crate::language::Event;

/// Tells events. Copies talk to the same test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Talk;

/// A command of the test.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) number: String,
    pub(super) verb: String,
    pub(super) arguments: Vec<String>,
}

impl Command {
    pub(super) fn argument(&self, at: usize) -> Result<&str, Failure> {
        self.arguments.get(at).map(String::as_str).ok_or_else(|| format!("{} needs more words", self.verb).into())
    }
}

impl Talk {
    pub(super) const fn new() -> Self {
        Self
    }

    pub(super) fn tell(self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            // A reader that has gone ends this process through standard input.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }

    /// What became of a command.
    pub(super) fn answer(self, number: &str, done: Result<Event, Failure>) {
        match done {
            Ok(event) => self.tell(&event.to(number)),
            Err(failure) => {
                let code = failure.downcast_ref::<nsm_chain::Error>().map(|error| format!("{:?}", error.code()));
                let mut error = failure.to_string();
                let mut cause = failure.source();
                while let Some(because) = cause {
                    error = format!("{error}: {because}");
                    cause = because.source();
                }
                let failed = Event { error, code: code.unwrap_or_default(), ..Event::new("failed") };
                self.tell(&failed.to(number));
            }
        }
    }

    /// Does what the test says, each command in a task of its own, until it says `leave` or nothing more.
    /// Whether it said `leave`, with the number of that.
    pub(super) async fn obey<F>(self, act: impl Fn(Command) -> F) -> Option<String>
    where
        F: Future<Output = Result<Event, Failure>> + Send + 'static,
    {
        // A thread, because a blocked read would hold up the end of the runtime.
        let (send, mut lines) = mpsc::channel::<String>(16);
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                if send.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        while let Some(line) = lines.recv().await {
            let mut words = line.split_whitespace().map(str::to_owned);
            let (Some(number), Some(verb)) = (words.next(), words.next()) else { continue };
            if verb == "leave" {
                return Some(number);
            }
            let doing = act(Command { number: number.clone(), verb, arguments: words.collect() });
            tokio::spawn(async move { self.answer(&number, doing.await) });
        }
        None
    }
}
