//! From a question to what there is to say.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::Inner;
use super::answer::{Worth, first_in_order, first_with_records, worth};
use super::counters::Counted;
use super::question::{Question, refused};
use super::table::Table;

/// How long a question may take, whatever is done about it.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// So often the same may be asked at the same time. More is a loop through somebody else.
pub(super) const MOST_ALIKE: usize = 64;

impl Inner {
    pub(super) fn looped(&self) -> Message {
        self.asking.counters.count(Counted::Loop);
        refused(ResponseCode::ServFail)
    }

    /// What there is to say.
    pub(super) async fn resolve(&self, question: &Question) -> Message {
        let Some(_asking) = Alike::one_more(&self.alike, question) else { return self.looped() };
        let found = tokio::time::timeout(LIMIT, self.look_up(question)).await;
        found.unwrap_or_else(|_| refused(ResponseCode::ServFail))
    }

    async fn look_up(&self, question: &Question) -> Message {
        if question.name.is_localhost() {
            return this_machine(question);
        }
        let table = self.table();
        if table.is_search_artefact(&question.name) {
            return refused(ResponseCode::NXDomain);
        }
        let is_short = question.name.num_labels() == 1 && matches!(question.kind, RecordType::A | RecordType::AAAA);
        let names = if is_short { table.expanded(&question.name) } else { Vec::new() };
        if names.is_empty() {
            return self.ask(&table, question).await;
        }
        let each = names.into_iter().chain([question.name.clone()]);
        first_in_order(each.map(|name| self.ask_under(&table, question, name))).await
    }

    async fn ask(&self, table: &Table, question: &Question) -> Message {
        let servers = table.servers_of(&question.name).iter();
        first_with_records(servers.map(|source| source.view().ask(&self.asking, question))).await
    }

    /// Asks for what a name stands for, and says that it does.
    async fn ask_under(&self, table: &Table, question: &Question, name: Name) -> Message {
        let mut answer = self.ask(table, &question.about(name.clone())).await;
        if name != question.name && worth(&answer) >= Worth::Empty {
            let ttl = answer.all_sections().map(|record| record.ttl).min().unwrap_or(0);
            let alias = Record::from_rdata(question.name.clone(), ttl, RData::CNAME(CNAME(name)));
            answer.answers.insert(0, alias);
        }
        answer
    }
}

fn this_machine(question: &Question) -> Message {
    const TTL: u32 = 86_400;
    let mut answer = Message::response(0, OpCode::Query);
    let data = match question.kind {
        RecordType::A => RData::A(Ipv4Addr::LOCALHOST.into()),
        RecordType::AAAA => RData::AAAA(Ipv6Addr::LOCALHOST.into()),
        _ => return answer,
    };
    answer.add_answer(Record::from_rdata(question.name.clone(), TTL, data));
    answer
}

/// One of the same questions that are asked at the same time.
struct Alike<'a> {
    all: &'a Mutex<HashMap<Question, usize>>,
    question: &'a Question,
}

impl<'a> Alike<'a> {
    fn one_more(all: &'a Mutex<HashMap<Question, usize>>, question: &'a Question) -> Option<Self> {
        let mut counted = all.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counted.entry(question.clone()).or_default();
        if *count >= MOST_ALIKE {
            return None;
        }
        *count += 1;
        Some(Self { all, question })
    }
}

impl Drop for Alike<'_> {
    fn drop(&mut self) {
        let mut counted = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counted.get_mut(self.question) {
            *count -= 1;
            if *count == 0 {
                counted.remove(self.question);
            }
        }
    }
}
