use std::collections::BTreeSet;
use std::sync::Mutex;

use nsm_api::{Connection, Mechanism};
use nsm_chain::{Begin, Call, Chain, Element, Next, elements};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{Class, Programmed, Wire};

const SECOND: Duration = Duration::from_secs(1);
const PACE: Pace = Pace { every: Duration::from_secs(30), everywhere: 4, grace: Duration::from_secs(100) };

use std::time::Duration;

/// A data plane whose state a test sets.
#[derive(Clone, Default, Debug)]
struct Bench(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    strays: Mutex<BTreeSet<&'static str>>,
    drifted: Mutex<Vec<Arc<str>>>,
    mended: Mutex<Option<Mended>>,
    disturbed: Mutex<Vec<Arc<str>>>,
    told: Notify,
    log: Mutex<Vec<(u64, String)>>,
    begun: Mutex<Option<Instant>>,
}

impl Bench {
    fn log(&self, what: impl Into<String>) {
        let begun = *self.0.begun.lock().unwrap().get_or_insert_with(Instant::now);
        self.0.log.lock().unwrap().push((begun.elapsed().as_secs(), what.into()));
    }

    fn take_log(&self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.0.log.lock().unwrap())
    }

    fn of(&self, what: &str) -> Vec<u64> {
        self.0.log.lock().unwrap().iter().filter(|(_, text)| text == what).map(|(at, _)| *at).collect()
    }

    fn disturb(&self, id: &str) {
        self.0.disturbed.lock().unwrap().push(id.into());
        self.0.told.notify_one();
    }
}

impl Dataplane for Bench {
    type Lease = ();

    fn accepts(&self, _payload: &str) -> Vec<&'static str> {
        Vec::new()
    }

    fn offers(&self, _id: &str, _class: Class, _payload: &str) -> Vec<Mechanism> {
        Vec::new()
    }

    fn accept(&self, _id: &str, _mechanism: &mut Mechanism, _held: Option<&()>) -> Result<()> {
        Ok(())
    }

    async fn connect(&self, _wire: &Wire) -> Result<Programmed> {
        Ok(Programmed::Made)
    }

    async fn disconnect(&self, _id: &str) -> Result<()> {
        Ok(())
    }
}

impl Reconciled for Bench {
    type Stray = &'static str;

    async fn census(&self, reach: Reach) -> Census<&'static str> {
        self.log(format!("{reach:?}"));
        let strays = match reach {
            Reach::Everywhere => self.0.strays.lock().unwrap().iter().copied().collect(),
            Reach::Wires => Vec::new(),
        };
        Census { strays, drifted: self.0.drifted.lock().unwrap().clone() }
    }

    async fn remove(&self, stray: &&'static str) -> Result<bool> {
        self.log(format!("remove {stray}"));
        if *stray == "stuck" {
            return Err(nsm_chain::Error::internal("stuck"));
        }
        Ok(self.0.strays.lock().unwrap().remove(stray))
    }

    async fn mend(&self, id: &str) -> Result<Mended> {
        self.log(format!("mend {id}"));
        Ok(self.0.mended.lock().unwrap().unwrap_or(Mended::Whole))
    }

    async fn disturbed(&self) -> Vec<Arc<str>> {
        loop {
            let told = std::mem::take(&mut *self.0.disturbed.lock().unwrap());
            if !told.is_empty() {
                return told;
            }
            self.0.told.notified().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_looks_at_its_pace_and_everywhere_now_and_then() {
    let bench = Bench::default();
    let _reconcile = Reconcile::start(bench.clone(), PACE).await;
    sleep(Duration::from_secs(600)).await;
    let (wires, everywhere) = (bench.of("Wires"), bench.of("Everywhere"));
    assert_eq!(everywhere[0], 0);
    assert!((16..=27).contains(&(wires.len() + everywhere.len())), "{wires:?} {everywhere:?}");
    assert!(everywhere.len() * 3 <= wires.len() + 3 && everywhere.len() >= 4, "{wires:?} {everywhere:?}");
    let mut all: Vec<_> = wires.into_iter().chain(everywhere).collect();
    all.sort_unstable();
    assert!(all.windows(2).all(|two| (22..=38).contains(&(two[1] - two[0]))), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_up_in_time_is_removed_and_what_cannot_be_is_tried_again() {
    let bench = Bench::default();
    bench.0.strays.lock().unwrap().extend(["left", "taken up", "stuck"]);
    let reconcile = Reconcile::start(bench.clone(), PACE).await;
    sleep(SECOND).await;
    bench.0.strays.lock().unwrap().remove("taken up");
    sleep(98 * SECOND).await;
    assert_eq!(bench.of("remove left"), Vec::<u64>::new());
    sleep(2 * SECOND).await;
    assert_eq!((bench.of("remove left"), bench.of("remove stuck")), (vec![100], vec![100]));
    // No longer found by the look everywhere at some 120 s; or asked for before it, and found to be owned.
    assert!(bench.of("remove taken up").len() <= 1);
    sleep(102 * SECOND).await;
    assert_eq!(bench.of("remove stuck"), [100, 200]);
    bench.take_log();
    drop(reconcile);
    sleep(600 * SECOND).await;
    assert_eq!(bench.take_log(), []);
}

#[tokio::test(start_paused = true)]
async fn a_disturbed_wire_is_mended_at_once_and_who_fights_back_is_met_once_a_second() {
    let bench = Bench::default();
    let _reconcile = Reconcile::start(bench.clone(), PACE).await;
    *bench.0.mended.lock().unwrap() = Some(Mended::Remade);
    for _ in 0..50 {
        bench.disturb("1");
        sleep(SECOND / 10).await;
    }
    assert!((5..=6).contains(&bench.of("mend 1").len()), "{:?}", bench.take_log());
    // What is whole costs a look, and no pause.
    *bench.0.mended.lock().unwrap() = Some(Mended::Whole);
    sleep(2 * SECOND).await;
    bench.take_log();
    for _ in 0..10 {
        bench.disturb("2");
        sleep(SECOND / 10).await;
    }
    assert_eq!(bench.of("mend 2").len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_wire_that_a_look_finds_changed_is_mended() {
    let bench = Bench::default();
    let _reconcile = Reconcile::start(bench.clone(), PACE).await;
    bench.0.drifted.lock().unwrap().push("1".into());
    sleep(40 * SECOND).await;
    assert_eq!(bench.of("mend 1").len(), 1);
}

/// Counts Closes that reach the rest of the chain.
#[derive(Clone, Default)]
struct Closes(Arc<Mutex<Vec<String>>>);

impl Element for Closes {
    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.0.lock().unwrap().push(call.connection().id.clone());
        next.close(call).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_workload_is_gone_is_closed_and_no_other() {
    let (bench, closes) = (Bench::default(), Closes::default());
    let begin = Arc::new(Begin::default());
    let reconcile = Reconcile::start(bench.clone(), PACE).await;
    let chain = Chain::new("forwarder", elements![Arc::clone(&begin), reconcile, closes.clone()]).unwrap();
    for id in ["1", "2", "3"] {
        chain.request(Call::new(Connection { id: id.into(), ..Default::default() })).await.unwrap();
    }
    chain.close(Call::new(Connection { id: "3".into(), ..Default::default() })).await.unwrap();
    *bench.0.mended.lock().unwrap() = Some(Mended::Gone);
    bench.disturb("2");
    bench.disturb("3");
    sleep(SECOND).await;
    assert_eq!(*closes.0.lock().unwrap(), ["3", "2"]);
    assert_eq!(begin.handles().len(), 1);
}
