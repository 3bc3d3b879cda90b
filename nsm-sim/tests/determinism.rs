//! The same seed gives the same run, whatever ran before or beside it.

use std::collections::HashMap;
use std::time::Duration;

use nsm_sim::Simulation;
use nsm_sim::storm::{Profile, Storm};
use uuid::Uuid;

/// What a run may depend on: the order of a map, ids, the clocks, pauses between tries.
fn run(seed: u64) -> (Vec<u32>, Vec<Uuid>, std::time::SystemTime, Vec<Duration>) {
    Simulation::new(seed).run(async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let map: HashMap<u32, ()> = (0..100).map(|number| (number, ())).collect();
        let ids = (0..3).map(|_| Uuid::new_v4()).collect();
        let mut pauses = nsm_sdk::lifetime::Backoff::of(Duration::from_secs(1), Duration::from_secs(60), "c-1");
        (map.into_keys().collect(), ids, nsm_chain::time::now(), (0..5).map(|_| pauses.pause()).collect())
    })
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = run(7);
    assert_eq!(first, run(7));
    let other = run(8);
    assert_ne!(first.0, other.0, "the order of a map");
    assert_ne!(first.1, other.1, "ids");
    assert_ne!(first.3, other.3, "pauses");
    assert_eq!(first.2, other.2, "the clock");
    let beside = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|seed| scope.spawn(move || run(seed + 6))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(beside[1], first);
}

#[test]
fn the_same_storm_leaves_the_same_trace() {
    for profile in Profile::ALL {
        let first = Storm::new(profile, 3).run().trace;
        // What a run before this one leaves behind in the process must not reach it.
        let other = Storm::new(profile, 4).run().trace;
        assert_ne!(first, other, "{}: a trace that says nothing", profile.name());
        assert_eq!(first, Storm::new(profile, 3).run().trace, "{}", profile.name());
    }
}

#[test]
fn outside_a_simulation_random_is_random() {
    assert_ne!(Uuid::new_v4(), Uuid::new_v4());
    let keys = || {
        std::thread::spawn(|| Vec::from_iter(std::collections::HashSet::from([1, 2, 3, 4, 5, 6, 7, 8, 9])))
            .join()
            .unwrap()
    };
    assert!((0..20).any(|_| keys() != keys()));
}
