//! What somebody has been told of a connection, and what to tell next.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{BoxStream, Stream, StreamExt};
use tokio::sync::watch;

use super::life::{Phase, Status};
use super::{Change, Ending, Interface};
use crate::lifetime::Reason;

/// What one reader knows.
///
/// What to tell is the difference between that and what there is now. So nobody waits for a slow reader and nothing
/// queues up: what happened in the meantime is told as one change. Only an outage is never left out, be it as short as
/// it may: a reader who knows it as up is told that it was down, and then that it is up.
#[derive(Default)]
pub(super) struct Told {
    phase: Known,
    outages: u64,
    mends: u64,
}

#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    Up(Interface),
    Down,
    Gone,
}

impl Told {
    /// What to tell next, if there is anything.
    pub(super) fn news(&mut self, status: &Status) -> Option<Change> {
        let now = &status.last;
        match (&self.phase, status.phase) {
            (Known::Gone, _) => None,
            (_, Phase::Gone(how)) => Some(self.gone(how, now.clone())),
            (Known::Up(was), Phase::Down) => {
                let was = was.clone();
                Some(self.down(status, was))
            }
            (Known::Up(was), Phase::Up) if self.outages != status.outages => {
                let was = was.clone();
                Some(self.down(status, was))
            }
            (Known::Up(was), Phase::Up) => {
                let what = was.differences(now);
                let mended = std::mem::replace(&mut self.mends, status.mends) != status.mends;
                self.phase = Known::Up(now.clone());
                let why = now.broken().or(status.mended.filter(|_| mended));
                (!what.is_empty()).then(|| Change::Changed { what, why, now: now.clone() })
            }
            (Known::Nothing | Known::Down, Phase::Up) => {
                self.phase = Known::Up(now.clone());
                (self.outages, self.mends) = (status.outages, status.mends);
                Some(Change::Up(now.clone()))
            }
            (Known::Nothing, Phase::Down) => Some(self.down(status, now.clone())),
            (Known::Down, Phase::Down) => None,
        }
    }

    fn down(&mut self, status: &Status, was: Interface) -> Change {
        self.phase = Known::Down;
        self.outages = status.outages;
        Change::Down { why: status.outage.unwrap_or(Reason::Asked), was }
    }

    fn gone(&mut self, how: Ending, was: Interface) -> Change {
        self.phase = Known::Gone;
        Change::Gone { how, was }
    }
}

/// Reads a connection's state.
pub(crate) struct Reader {
    status: watch::Receiver<Status>,
    told: Told,
}

impl Reader {
    pub(crate) fn new(status: watch::Receiver<Status>) -> Self {
        Self { status, told: Told::default() }
    }

    /// The next change; none after the last one.
    async fn next(&mut self) -> Option<Change> {
        loop {
            let status = self.status.borrow_and_update().clone();
            if let Some(change) = self.told.news(&status) {
                return Some(change);
            }
            if matches!(self.told.phase, Known::Gone) {
                return None;
            }
            if self.status.changed().await.is_err() {
                return Some(self.told.gone(Ending::Abandoned, status.last));
            }
        }
    }
}

/// What becomes of one connection: a stream that begins with what it is now and ends with [`Change::Gone`].
///
/// A reader who is slow is told less, never something wrong, and holds nobody up: changes that came between two looks are
/// told as one. An outage is always told, and the last change always matches the state.
pub struct Changes(BoxStream<'static, Change>);

impl Changes {
    pub(crate) fn of(reader: Reader) -> Self {
        let changes = futures::stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) });
        Self(changes.fuse().boxed())
    }

    /// The next change; none after [`Change::Gone`]. It may be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<Change> {
        self.0.next().await
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::FutureExt;
    use nsm_api::Connection;
    use proptest::prelude::*;

    use super::super::life::Life;
    use super::*;

    fn at(endpoint: &str) -> Interface {
        let connection = Connection { network_service_endpoint_name: endpoint.into(), ..Default::default() };
        Interface::of(Arc::new(connection))
    }

    /// What there is to read without waiting.
    fn read(reader: &mut Reader) -> Vec<Change> {
        std::iter::from_fn(|| reader.next().now_or_never().flatten()).collect()
    }

    fn texts(changes: &[Change]) -> Vec<String> {
        let text = |change: &Change| match change {
            Change::Up(now) => format!("up {}", now.endpoint()),
            Change::Changed { what, why, now } => format!("{what:?} {why:?} {}", now.endpoint()),
            Change::Down { why, was } => format!("down {why:?} {}", was.endpoint()),
            Change::Gone { how, was } => format!("gone {how:?} {}", was.endpoint()),
        };
        changes.iter().map(text).collect()
    }

    #[test]
    fn a_reader_who_looks_each_time_is_told_everything_and_a_slow_one_of_the_outage_all_the_same() {
        let life = Life::begin("c".into(), at("a"), None);
        let (mut quick, mut slow) = (Reader::new(life.status()), Reader::new(life.status()));
        let mut told = read(&mut quick);
        assert_eq!(texts(&read(&mut slow)), ["up a"]);
        for event in 0..6 {
            match event {
                0 => life.breaks(Reason::HopLost),
                1 => life.up(at("a")),
                2 => life.up(at("a")),
                3 => life.breaks(Reason::HopLost),
                4 => life.down(Reason::EndpointGone),
                _ => life.up(at("b")),
            }
            told.extend(read(&mut quick));
        }
        let all = [
            "up a",
            "{Path} Some(HopLost) a",
            "{Path} Some(HopLost) a",
            "{Path} Some(HopLost) a",
            "down EndpointGone a",
            "up b",
        ];
        assert_eq!(texts(&told), all);
        assert_eq!(texts(&read(&mut slow)), ["down EndpointGone a", "up b"]);
        assert_eq!(texts(&read(&mut Reader::new(life.status()))), ["up b"], "who comes late is told what there is");
        life.breaks(Reason::ServiceChanged);
        life.up(at("c"));
        assert_eq!(texts(&read(&mut slow)), ["{Endpoint} Some(ServiceChanged) c"], "it is told why it moved");
        life.gone(Ending::Closed);
        drop(life);
        assert_eq!(texts(&read(&mut quick)), ["{Endpoint} Some(ServiceChanged) c", "gone Closed c"][1..]);
        assert!(quick.next().now_or_never().unwrap().is_none());
    }

    #[test]
    fn what_nobody_keeps_any_more_is_abandoned() {
        let life = Life::begin("c".into(), at("a"), None);
        let mut reader = Reader::new(life.status());
        drop(life);
        assert_eq!(texts(&read(&mut reader)), ["up a", "gone Abandoned a"]);
    }

    /// Whether changes come in the order in which they may.
    fn is_consistent(changes: &[Change]) -> bool {
        let (mut up, mut over) = (None, false);
        changes.iter().all(|change| {
            let may = match (change, up) {
                (Change::Up(_), None | Some(false)) | (Change::Down { .. }, None | Some(true)) => true,
                (Change::Changed { what, .. }, Some(true)) => !what.is_empty(),
                (Change::Gone { .. }, _) => true,
                _ => false,
            };
            up = Some(matches!(change, Change::Up(_) | Change::Changed { .. }));
            may && !std::mem::replace(&mut over, matches!(change, Change::Gone { .. }))
        })
    }

    proptest! {
        #[test]
        fn however_slow_a_reader_the_order_holds_and_the_end_is_right(
            events in prop::collection::vec((0..6_u8, any::<bool>()), 1..40),
            gone in any::<bool>(),
        ) {
            let heard: Arc<Mutex<Vec<Change>>> = Arc::default();
            let hears = Arc::clone(&heard);
            let listener = move |_: &str, change: &Change| hears.lock().unwrap().push(change.clone());
            let life = Life::begin("c".into(), at("a"), Some(Arc::new(listener)));
            let (mut reader, mut told) = (Reader::new(life.status()), Vec::new());
            for (event, looks) in events {
                match event {
                    0 => life.up(at("a")),
                    1 => life.up(at("b")),
                    2 => life.breaks(Reason::NextHopLost),
                    3 => life.down(Reason::PacketsStopped),
                    4 => life.down(Reason::EndpointGone),
                    _ => life.breaks(Reason::ServiceChanged),
                }
                if looks {
                    told.extend(read(&mut reader));
                }
            }
            if gone {
                life.gone(Ending::Closed);
            }
            told.extend(read(&mut reader));
            let (up, endpoint) = (life.status().borrow().is_up(), life.status().borrow().interface().endpoint().to_owned());

            for changes in [&told, &*heard.lock().unwrap()] {
                prop_assert!(is_consistent(changes));
                let last = changes.last().unwrap();
                prop_assert_eq!(matches!(last, Change::Gone { .. }), gone);
                prop_assert_eq!(matches!(last, Change::Up(_) | Change::Changed { .. }), up);
                let is_down = matches!(last, Change::Down { .. });
                prop_assert!(is_down || last.interface().endpoint() == endpoint);
            }
        }
    }
}
