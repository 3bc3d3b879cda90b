use std::sync::Arc;

use nsm_chain::{Begin, Chain, elements};

use super::*;
use crate::registry::testing::{Hand, Nse, Probe, find, named, names, nse, register, seconds};
use crate::registry::{Expire, Memory, RegistrationTime};

struct Mesh {
    client: Chain<Endpoints>,
    registry: Chain<Endpoints>,
    probe: Arc<Probe>,
    timers: Timers,
}

fn mesh(life: u64) -> Mesh {
    let expire = Expire::after(seconds(life), Timers::default());
    let list = elements![Begin::default(), RegistrationTime::default(), expire, Memory::default()];
    let registry = Chain::new("registry", list).unwrap();
    let (probe, timers) = (Arc::new(Probe::default()), Timers::default());
    let refresh = RefreshRegistration::new(timers.clone()).seeded(7);
    let list = elements![Begin::initiator(), refresh, Arc::clone(&probe), Hand(registry.clone())];
    Mesh { client: Chain::new("nse", list).unwrap(), registry, probe, timers }
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_refreshed_before_two_thirds_of_its_life() {
    let mesh = mesh(60);
    register(&mesh.client, nse("nse-1", &[])).await.unwrap();
    let since = find(&mesh.registry, named("nse-1")).await[0].initial_registration_time;
    mesh.probe.take();
    tokio::time::sleep(seconds(35)).await;
    assert!(mesh.probe.take().is_empty());
    tokio::time::sleep(seconds(6)).await;
    assert_eq!(mesh.probe.take(), ["+nse-1"]);
    tokio::time::sleep(seconds(3600)).await;
    assert!(mesh.probe.take().len() >= 89);
    let found = find(&mesh.registry, named("nse-1")).await;
    assert_eq!(found[0].initial_registration_time, since);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_asks_for_a_new_end() {
    let mesh = mesh(60);
    let asked = Nse { expiration_time: Some((time::now() + seconds(9)).into()), ..nse("nse-1", &[]) };
    register(&mesh.client, asked).await.unwrap();
    tokio::time::sleep(seconds(7)).await;
    let end = expiration(&find(&mesh.registry, named("nse-1")).await[0]).unwrap();
    assert!((seconds(58)..=seconds(59)).contains(&time::until(end)), "{:?}", time::until(end));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_is_tried_until_it_works() {
    let mesh = mesh(60);
    register(&mesh.client, nse("nse-1", &[])).await.unwrap();
    mesh.probe.take();
    mesh.probe.fail(12);
    tokio::time::sleep(seconds(40)).await;
    tokio::time::sleep(seconds(100)).await;
    let tries = mesh.probe.take().len();
    assert!((13..=16).contains(&tries), "{tries}");
    assert_eq!(names(&mesh.registry, named("")).await, ["nse-1"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_refreshed_after_unregistering_not_even_by_a_try_under_way() {
    let mesh = mesh(60);
    for number in 0..100 {
        register(&mesh.client, nse(&format!("nse-{number}"), &[])).await.unwrap();
    }
    mesh.probe.fail(1000);
    tokio::time::sleep(seconds(41)).await;
    mesh.probe.fail(0);
    for number in 0..100 {
        mesh.client.close(Call::new(nse(&format!("nse-{number}"), &[]))).await.unwrap();
    }
    mesh.probe.take();
    assert_eq!(mesh.timers.armed(), 0);
    tokio::time::sleep(seconds(100)).await;
    assert_eq!(mesh.probe.take(), [""; 0]);
    assert!(names(&mesh.registry, named("")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn registering_twice_keeps_one_timer() {
    let mesh = mesh(60);
    register(&mesh.client, nse("nse-1", &[])).await.unwrap();
    tokio::time::sleep(seconds(20)).await;
    register(&mesh.client, nse("nse-1", &["more"])).await.unwrap();
    assert_eq!(mesh.timers.armed(), 1);
    mesh.probe.take();
    tokio::time::sleep(seconds(35)).await;
    assert!(mesh.probe.take().is_empty());
    tokio::time::sleep(seconds(6)).await;
    assert_eq!(mesh.probe.take(), ["+nse-1"]);
    assert_eq!(find(&mesh.registry, named("")).await[0].network_service_names, ["more"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_has_ended_already_is_asked_for_again_without_haste() {
    let mesh = mesh(0);
    register(&mesh.client, nse("nse-1", &[])).await.unwrap();
    tokio::time::sleep(seconds(10)).await;
    let tries = mesh.probe.take().len();
    assert!((8..=12).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn what_registered_at_one_moment_does_not_come_back_at_one() {
    let mesh = mesh(60);
    let refresh = RefreshRegistration::new(mesh.timers.clone());
    let list = elements![Begin::initiator(), refresh, Arc::clone(&mesh.probe), Hand(mesh.registry.clone())];
    let client = Chain::new("nse", list).unwrap();
    for number in 0..100 {
        register(&client, nse(&format!("nse-{number}"), &[])).await.unwrap();
    }
    mesh.probe.take();
    tokio::time::sleep(seconds(36)).await;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let together = mesh.probe.take().len();
        assert!(together <= 15, "{together} of 100 within a tenth of a second");
    }
}
