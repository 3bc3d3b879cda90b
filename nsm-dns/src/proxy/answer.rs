//! What answers are worth, and which of several counts.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_resolver::proto::op::{Message, ResponseCode};

use super::question::refused;

/// How long others may still take once there is an answer that will do.
const GRACE: Duration = Duration::from_secs(1);

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// Nobody could say anything.
    Failed,
    /// There is no such name.
    Absent,
    /// The name is there, and has no records of that kind.
    Empty,
    /// Records.
    Records,
}

/// What an answer is worth.
pub(super) fn worth(answer: &Message) -> Worth {
    match answer.metadata.response_code {
        ResponseCode::NoError if answer.answers.is_empty() => Worth::Empty,
        ResponseCode::NoError => Worth::Records,
        ResponseCode::NXDomain => Worth::Absent,
        _ => Worth::Failed,
    }
}

/// Of servers that know the same: the first who knows.
pub(super) async fn first_who_knows(asked: impl IntoIterator<Item = impl Future<Output = Message>>) -> Message {
    let knows = |answer: &Option<Message>| answer.as_ref().is_some_and(|answer| worth(answer) > Worth::Failed);
    choose(asked, |said| said.iter().position(knows).map(Choice::Now)).await
}

/// Of those who know different things: the first who has records; if nobody has, that there are none counts as soon as all
/// have spoken, or a moment after one has.
pub(super) async fn first_with_records(asked: impl IntoIterator<Item = impl Future<Output = Message>>) -> Message {
    choose(asked, |said| {
        let best = best(said)?;
        match worth(said[best].as_ref()?) {
            Worth::Records => Some(Choice::Now(best)),
            Worth::Failed => None,
            Worth::Absent | Worth::Empty => Some(Choice::Soon(best)),
        }
    })
    .await
}

/// Of several names in the order in which they are preferred: the first that is there. A later one counts if those before
/// it are not there, or say nothing for a moment.
pub(super) async fn first_in_order(asked: impl IntoIterator<Item = impl Future<Output = Message>>) -> Message {
    choose(asked, |said| {
        let there = |answer: &Option<Message>| answer.as_ref().is_some_and(|answer| worth(answer) >= Worth::Empty);
        let first = said.iter().position(there)?;
        let waits = said[..first].iter().any(Option::is_none);
        Some(if waits { Choice::Soon(first) } else { Choice::Now(first) })
    })
    .await
}

enum Choice {
    /// The answer at this place counts.
    Now(usize),
    /// It counts unless a better one comes within a moment.
    Soon(usize),
}

/// The place of the best, the first of equals.
fn best(said: &[Option<Message>]) -> Option<usize> {
    let spoken = said.iter().enumerate().filter_map(|(at, answer)| Some((at, worth(answer.as_ref()?))));
    spoken.rev().max_by_key(|(_, worth)| *worth).map(|(at, _)| at)
}

/// Waits until the judge has chosen among what was said so far; if it never does, the best of all counts.
async fn choose<F: Future<Output = Message>>(
    asked: impl IntoIterator<Item = F>,
    judge: impl Fn(&[Option<Message>]) -> Option<Choice>,
) -> Message {
    let mut waiting: FuturesUnordered<_> =
        asked.into_iter().enumerate().map(|(at, answer)| async move { (at, answer.await) }).collect();
    let mut said = vec![None; waiting.len()];
    let mut moment = pin!(None::<tokio::time::Sleep>);
    let mut chosen = None;
    loop {
        let spoken = tokio::select! {
            spoken = waiting.next() => spoken,
            () = over(moment.as_mut()) => None,
        };
        let Some((at, answer)) = spoken else { break };
        said[at] = Some(answer);
        match judge(&said) {
            Some(Choice::Now(at)) => {
                chosen = Some(at);
                break;
            }
            Some(Choice::Soon(at)) => {
                chosen = Some(at);
                if moment.is_none() {
                    moment.set(Some(tokio::time::sleep(GRACE)));
                }
            }
            None => {}
        }
    }
    let chosen = chosen.or_else(|| best(&said));
    let answer = chosen.and_then(|at| said[at].take());
    answer.unwrap_or_else(|| refused(ResponseCode::ServFail))
}

async fn over(moment: std::pin::Pin<&mut Option<tokio::time::Sleep>>) {
    match moment.as_pin_mut() {
        Some(moment) => moment.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::OpCode;
    use hickory_resolver::proto::rr::{Name, RData, Record};
    use tokio::time::{Instant, sleep};

    use super::*;

    /// `records`, `empty`, `absent` or `failed`, after so many milliseconds; its id says which it is.
    async fn said(id: u16, after: u64, what: &str) -> Message {
        sleep(Duration::from_millis(after)).await;
        let mut answer = Message::response(id, OpCode::Query);
        match what {
            "records" => {
                let data = RData::A(std::net::Ipv4Addr::LOCALHOST.into());
                answer.add_answer(Record::from_rdata(Name::root(), 1, data));
            }
            "absent" => answer.metadata.response_code = ResponseCode::NXDomain,
            "failed" => answer.metadata.response_code = ResponseCode::Refused,
            _ => {}
        }
        answer
    }

    fn all(list: &[(u64, &'static str)]) -> Vec<impl Future<Output = Message>> {
        list.iter().zip(1..).map(|((after, what), id)| said(id, *after, what)).collect()
    }

    /// Which of them counts, counted from 1, and after how many milliseconds.
    async fn chosen(choice: impl Future<Output = Message>) -> (u16, u128) {
        let begun = Instant::now();
        let answer = choice.await;
        (answer.metadata.id, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn of_equals_the_first_who_knows_counts() {
        let list = [(5, "failed"), (30, "records"), (20, "absent")];
        assert_eq!(chosen(first_who_knows(all(&list))).await, (3, 20));
        assert_eq!(chosen(first_who_knows(all(&[(5, "failed"), (9000, "empty")]))).await, (2, 9000));
        assert_eq!(chosen(first_who_knows(all(&[(5, "failed"), (2, "failed")]))).await, (1, 5));
        let none = first_who_knows(all(&[])).await;
        assert_eq!(none.metadata.response_code, ResponseCode::ServFail);
    }

    #[tokio::test(start_paused = true)]
    async fn of_different_ones_records_count_and_that_there_are_none_a_moment_later() {
        let list = [(10, "absent"), (500, "records"), (20, "empty")];
        assert_eq!(chosen(first_with_records(all(&list))).await, (2, 500));
        let list = [(10, "absent"), (5000, "records"), (20, "empty")];
        assert_eq!(chosen(first_with_records(all(&list))).await, (3, 1010));
        assert_eq!(chosen(first_with_records(all(&[(10, "absent"), (30, "failed")]))).await, (1, 30));
        assert_eq!(chosen(first_with_records(all(&[(10, "failed"), (3000, "records")]))).await, (2, 3000));
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_names_the_first_that_is_there_counts() {
        let list = [(50, "absent"), (100, "empty"), (10, "records")];
        assert_eq!(chosen(first_in_order(all(&list))).await, (2, 100));
        let list = [(50, "failed"), (9000, "records"), (10, "records")];
        assert_eq!(chosen(first_in_order(all(&list))).await, (3, 1010));
        assert_eq!(chosen(first_in_order(all(&[(50, "absent"), (60, "absent")]))).await, (1, 60));
        assert_eq!(chosen(first_in_order(all(&[(50, "absent"), (10, "failed")]))).await, (1, 50));
    }
}
