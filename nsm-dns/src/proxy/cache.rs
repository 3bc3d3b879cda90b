//! Answers that are still good.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{RData, Record};
use tokio::time::Instant;

use super::answer::{Worth, worth};
use super::question::Question;

/// Larger answers, in octets, are asked for again: a full cache of these takes a few megabytes.
const LARGEST: usize = 4096;
/// No answer is kept longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Nor is it kept longer that there is none (RFC 2308, 5).
const ABSENT_LONGEST: Duration = Duration::from_secs(3600);

/// The answers of servers that know the same, for as long as they said; the one asked for least recently goes when there are
/// too many.
#[derive(Debug)]
pub(super) struct Cache {
    most: usize,
    kept: HashMap<Question, Kept>,
    /// By when they were asked for.
    used: BTreeMap<u64, Question>,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    answer: Message,
    since: Instant,
    ends: Instant,
    used: u64,
}

impl Cache {
    /// Keeps so many answers.
    pub(super) fn of(most: usize) -> Self {
        Self { most, kept: HashMap::new(), used: BTreeMap::new(), uses: 0 }
    }

    /// The answer, its records as much older as they are.
    pub(super) fn get(&mut self, question: &Question) -> Option<Message> {
        let now = Instant::now();
        if self.kept.get(question)?.ends <= now {
            self.forget(question);
            return None;
        }
        self.uses += 1;
        let kept = self.kept.get_mut(question)?;
        self.used.remove(&kept.used);
        kept.used = self.uses;
        self.used.insert(self.uses, question.clone());
        let mut answer = kept.answer.clone();
        let age = now.duration_since(kept.since).as_secs().try_into().unwrap_or(u32::MAX);
        let Message { answers, authorities, additionals, .. } = &mut answer;
        for record in answers.iter_mut().chain(authorities).chain(additionals) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(answer)
    }

    /// Keeps an answer, if it may be kept.
    pub(super) fn keep(&mut self, question: &Question, answer: &Message) {
        let Some(good) = good_for(answer).filter(|good| !good.is_zero()) else { return };
        if answer.to_vec().map_or(true, |octets| octets.len() > LARGEST) {
            return;
        }
        self.forget(question);
        while self.kept.len() >= self.most {
            let Some((_, oldest)) = self.used.pop_first() else { return };
            self.kept.remove(&oldest);
        }
        self.uses += 1;
        let since = Instant::now();
        let kept = Kept { answer: answer.clone(), since, ends: since + good, used: self.uses };
        self.used.insert(kept.used, question.clone());
        self.kept.insert(question.clone(), kept);
    }

    fn forget(&mut self, question: &Question) {
        if let Some(kept) = self.kept.remove(question) {
            self.used.remove(&kept.used);
        }
    }
}

/// How long it may be kept; none: not at all.
fn good_for(answer: &Message) -> Option<Duration> {
    let seconds = |ttl: u32| Duration::from_secs(ttl.into());
    match worth(answer) {
        Worth::Failed => None,
        Worth::Records => {
            let least = answer.all_sections().map(|record| record.ttl).min()?;
            Some(seconds(least).min(LONGEST))
        }
        // As the zone says (RFC 2308, 5); without its word not at all.
        Worth::Absent | Worth::Empty => {
            let least = answer.authorities.iter().filter_map(absent_for).min()?;
            Some(seconds(least).min(ABSENT_LONGEST))
        }
    }
}

fn absent_for(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{OpCode, ResponseCode};
    use hickory_resolver::proto::rr::rdata::SOA;
    use hickory_resolver::proto::rr::{Name, RecordType};

    use super::super::testing::question;
    use super::*;

    fn address(ttl: u32) -> Record {
        Record::from_rdata(
            Name::from_ascii("web.my.domain.").unwrap(),
            ttl,
            RData::A(std::net::Ipv4Addr::LOCALHOST.into()),
        )
    }

    fn found(ttl: u32) -> Message {
        let mut answer = Message::response(0, OpCode::Query);
        answer.add_answer(address(ttl));
        answer
    }

    fn absent(ttl: u32, minimum: u32) -> Message {
        let mut answer = Message::error_msg(0, OpCode::Query, ResponseCode::NXDomain);
        let root = Name::root();
        let soa = SOA::new(root.clone(), root.clone(), 1, 2, 3, 4, minimum);
        answer.add_authority(Record::from_rdata(root, ttl, RData::SOA(soa)));
        answer
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ages_and_ends() {
        let mut cache = Cache::of(10);
        let asked = question("web.my.domain.", RecordType::A);
        cache.keep(&asked, &found(30));
        pass(10).await;
        assert_eq!(cache.get(&asked).unwrap().answers[0].ttl, 20);
        assert!(cache.get(&question("web.my.domain.", RecordType::AAAA)).is_none());
        pass(19).await;
        assert_eq!(cache.get(&asked).unwrap().answers[0].ttl, 1);
        pass(1).await;
        assert!(cache.get(&asked).is_none());
        assert!(cache.kept.is_empty() && cache.used.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn that_there_is_none_is_kept_as_the_zone_says() {
        let mut cache = Cache::of(10);
        let asked = question("no.my.domain.", RecordType::A);
        for (answer, seconds) in [(absent(600, 20), 20), (absent(7, 20), 7), (absent(1 << 30, 1 << 30), 3600)] {
            cache.keep(&asked, &answer);
            pass(seconds - 1).await;
            assert!(cache.get(&asked).is_some(), "{answer:?}");
            pass(1).await;
            assert!(cache.get(&asked).is_none(), "{answer:?}");
        }
        let mut wordless = absent(60, 60);
        wordless.authorities.clear();
        cache.keep(&asked, &wordless);
        assert!(cache.get(&asked).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_kept_is_not() {
        let mut cache = Cache::of(10);
        let asked = question("web.my.domain.", RecordType::A);
        cache.keep(&asked, &found(0));
        cache.keep(&asked, &Message::error_msg(0, OpCode::Query, ResponseCode::ServFail));
        let mut large = found(60);
        large.answers = vec![address(60); 400];
        cache.keep(&asked, &large);
        assert!(cache.kept.is_empty());
        // A thousand years are a day.
        cache.keep(&asked, &found(u32::MAX));
        pass(24 * 3600).await;
        assert!(cache.get(&asked).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_asked_for_goes_first() {
        let mut cache = Cache::of(2);
        let [a, b, c] = ["a.", "b.", "c."].map(|name| question(name, RecordType::A));
        cache.keep(&a, &found(60));
        cache.keep(&b, &found(60));
        cache.keep(&b, &found(60));
        assert!(cache.get(&a).is_some());
        cache.keep(&c, &found(60));
        assert!(cache.get(&b).is_none());
        assert!(cache.get(&a).is_some() && cache.get(&c).is_some());
        assert_eq!((cache.kept.len(), cache.used.len()), (2, 2));
    }
}
