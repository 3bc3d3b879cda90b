use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, stream};
use nsm_api::NetworkServiceEndpoint as Nse;
use nsm_chain::{Closed, Code};
use tokio::time::{Instant, timeout};

use crate::kit::{Client, Registry, nse};

const NAMES: usize = 10_000;
const CLIENTS: usize = 8;
/// Calls of one client at the same time.
const AT_ONCE: usize = 64;
const KILLS: usize = 5;

/// What the registry has told its clients.
#[derive(Default)]
struct Told {
    registered: BTreeMap<String, Nse>,
    unregistered: BTreeSet<String>,
    asked: BTreeSet<String>,
    /// After a call without an answer.
    asked_again: BTreeSet<String>,
}

impl Told {
    fn asks(&mut self, name: &str) {
        if !self.asked.insert(name.to_owned()) {
            self.asked_again.insert(name.to_owned());
        }
    }
}

/// What every client does: registers its names, and unregisters each fifth again.
struct Work {
    told: Mutex<Told>,
    acknowledged: AtomicUsize,
}

impl Work {
    async fn one(&self, client: &Client, number: usize) -> nsm_chain::Result<()> {
        let name = format!("nse-{number}");
        if self.told.lock().unwrap().unregistered.contains(&name) {
            return Ok(());
        }
        if !self.told.lock().unwrap().registered.contains_key(&name) {
            self.told.lock().unwrap().asks(&name);
            let answer = client.register(nse(&name)).await?;
            self.told.lock().unwrap().registered.insert(name.clone(), answer);
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        if number.is_multiple_of(5) {
            // From here on both is right until the answer is there.
            self.told.lock().unwrap().registered.remove(&name);
            client.unregister(nse(&name)).await?;
            self.told.lock().unwrap().unregistered.insert(name);
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// All clients at once, until the work is done or the registry is gone.
    async fn run(&self, clients: &[Client]) {
        let share = NAMES / clients.len();
        let each = clients.iter().enumerate().map(|(at, client)| async move {
            let mut calls = stream::iter(at * share..(at + 1) * share)
                .map(|number| self.one(client, number))
                .buffer_unordered(AT_ONCE);
            while let Some(outcome) = calls.next().await {
                if outcome.is_err() {
                    break;
                }
            }
        });
        futures::future::join_all(each).await;
    }

    fn check(&self, found: &[Arc<Nse>], when: &str) {
        let told = self.told.lock().unwrap();
        let found: BTreeMap<&str, &Nse> = found.iter().map(|nse| (nse.name.as_str(), &**nse)).collect();
        for (name, answer) in &told.registered {
            assert_eq!(found.get(name.as_str()), Some(&answer), "{when}: {name} was registered");
        }
        for name in &told.unregistered {
            assert!(!found.contains_key(name.as_str()), "{when}: {name} was unregistered");
        }
    }
}

/// What a watcher of everything knows, and of what it was told though it knew.
#[derive(Default)]
struct View {
    known: BTreeMap<String, Arc<Nse>>,
    needless: Vec<String>,
}

impl View {
    fn learn(&mut self, change: nsm_chain::Change<Nse>) {
        let name = change.record.name.clone();
        let news = if change.deleted {
            self.known.remove(&name).is_some()
        } else {
            self.known.insert(name.clone(), Arc::clone(&change.record)).is_none_or(|before| before != change.record)
        };
        if !news {
            self.needless.push(name);
        }
    }
}

/// Five times the registry is killed in the middle of registrations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_registry_comes_back_with_all_it_acknowledged() {
    let mut registry = Registry::new();
    assert!(registry.start());
    let clients: Vec<_> = (0..CLIENTS).map(|number| registry.client(&format!("client-{number}"))).collect();
    let mallory = registry.client("mallory");
    let watcher = registry.client("watcher");
    let view = Arc::new(Mutex::new(View::default()));
    let mut changes = watcher.lasting.finder().watch_endpoints(Nse::default()).await.unwrap();
    let watching = tokio::spawn({
        let view = Arc::clone(&view);
        async move {
            while let Some(change) = changes.next().await {
                view.lock().unwrap().learn(change.unwrap());
            }
        }
    });

    let work = Work { told: Mutex::default(), acknowledged: AtomicUsize::new(0) };
    let seed = std::env::var("NSM_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("NSM_TEST_SEED={seed}");
    let mut points = seed;
    let mut busy = Duration::ZERO;
    for kill in 1..=KILLS {
        points = points.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let goal = work.acknowledged.load(Ordering::SeqCst) + 500 + (points >> 33) as usize % 1500;
        let begun = Instant::now();
        let killer = async {
            while work.acknowledged.load(Ordering::SeqCst) < goal {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            registry.kill();
            begun.elapsed()
        };
        busy += timeout(Duration::from_secs(60), async { tokio::join!(killer, work.run(&clients)).0 }).await.unwrap();

        let back = Instant::now();
        assert!(registry.start());
        let restarted = back.elapsed();
        let found = patiently(async || mallory.find_all().await).await;
        work.check(&found, &format!("kill {kill}"));
        let told: Vec<String> = work.told.lock().unwrap().registered.keys().step_by(97).cloned().collect();
        for name in &told {
            assert_eq!(mallory.register(nse(name)).await.unwrap_err().code(), Code::PermissionDenied, "{name}");
            assert_eq!(mallory.unregister(nse(name)).await.unwrap_err().code(), Code::PermissionDenied, "{name}");
        }
        println!(
            "kill {kill} after {} acknowledged: {} found, {} refused to another identity, back in {restarted:?}",
            work.acknowledged.load(Ordering::SeqCst),
            found.len(),
            told.len(),
        );
    }

    let begun = Instant::now();
    while work.told.lock().unwrap().registered.len() < NAMES * 4 / 5
        || work.told.lock().unwrap().unregistered.len() < NAMES / 5
    {
        timeout(Duration::from_secs(60), work.run(&clients)).await.unwrap();
    }
    busy += begun.elapsed();
    let acknowledged = work.acknowledged.load(Ordering::SeqCst);
    println!("{acknowledged} acknowledged at {:.0} a second", acknowledged as f64 / busy.as_secs_f64());

    // Whoever watched all the time knows the same as whoever asks now, and was told nothing twice.
    let found = mallory.find_all().await.unwrap();
    work.check(&found, "at the end");
    assert_eq!(found.len(), NAMES * 4 / 5);
    let found: BTreeMap<String, Arc<Nse>> = found.into_iter().map(|nse| (nse.name.clone(), nse)).collect();
    let caught_up = async {
        while view.lock().unwrap().known != found {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), caught_up).await.expect("the watch catches up");
    let mut needless = std::mem::take(&mut view.lock().unwrap().needless);
    // A Register that changes nothing is told too.
    needless.retain(|name| !work.told.lock().unwrap().asked_again.contains(name));
    assert_eq!(needless, Vec::<String>::new());
    watching.abort();

    // What came through all of it is still its owner's to unregister.
    let client = &clients[0];
    assert_eq!(client.unregister(nse("nse-1")).await.unwrap(), Closed::Done);
    registry.kill();
    assert!(registry.start());
    let found = patiently(async || mallory.find_all().await).await;
    assert_eq!((found.len(), found.iter().any(|nse| nse.name == "nse-1")), (NAMES * 4 / 5 - 1, false));
}

/// Until connections that broke are made anew.
pub(crate) async fn patiently<T>(mut work: impl AsyncFnMut() -> nsm_chain::Result<T>) -> T {
    let trying = async {
        loop {
            match work().await {
                Ok(done) => return done,
                Err(error) if error.code() == Code::Unavailable => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(Duration::from_secs(20), trying).await.expect("the registry is back")
}
