//! Servers that know the same, and what they have said.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};

use super::answer::{Worth, first_who_knows, worth};
use super::cache::Cache;
use super::counters::Counted;
use super::exchange::Asking;
use super::question::{Question, refused};

/// How many answers of one view are kept.
const KEPT: usize = 1024;
/// More servers are not asked at the same time.
const MOST_SERVERS: usize = 8;

/// The servers of one DNS configuration: each knows what the others know, and who answers first counts. Its cache ends with it.
#[derive(Debug)]
pub(super) struct View {
    /// For whom they are there, for the log.
    owner: Arc<str>,
    servers: Vec<SocketAddr>,
    cache: Mutex<Cache>,
    failing: AtomicBool,
}

impl View {
    pub(super) fn new(owner: Arc<str>, mut servers: Vec<SocketAddr>) -> Self {
        if servers.len() > MOST_SERVERS {
            tracing::warn!(%owner, "of {} DNS servers {MOST_SERVERS} are asked", servers.len());
            servers.truncate(MOST_SERVERS);
        }
        Self { owner, servers, cache: Mutex::new(Cache::of(KEPT)), failing: AtomicBool::new(false) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// What they say, or have said.
    pub(super) async fn ask(&self, asking: &Asking, question: &Question) -> Message {
        if let Some(answer) = self.cache().get(question) {
            asking.counters.count(Counted::Kept);
            return answer;
        }
        let answer = first_who_knows(self.servers.iter().map(|server| self.ask_one(asking, *server, question))).await;
        let failed = worth(&answer) == Worth::Failed;
        self.tell(failed, question);
        if !failed {
            self.cache().keep(question, &answer);
        }
        answer
    }

    async fn ask_one(&self, asking: &Asking, server: SocketAddr, question: &Question) -> Message {
        asking.ask(server, question).await.unwrap_or_else(|silence| {
            tracing::debug!(owner = %self.owner, %server, name = %question.name, "DNS server: {silence}");
            refused(ResponseCode::ServFail)
        })
    }

    /// Says it when they fail, once until they do not.
    fn tell(&self, failed: bool, question: &Question) {
        if self.failing.swap(failed, Ordering::Relaxed) == failed {
            return;
        }
        let servers = &self.servers;
        if failed {
            tracing::warn!(owner = %self.owner, name = %question.name, "no DNS server of {servers:?} has an answer");
        } else {
            tracing::info!(owner = %self.owner, "DNS servers {servers:?} answer again");
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
