use nsm_api::registry::NetworkService;
use nsm_chain::{Begin, Chain, elements};

use super::*;
use crate::connect::{Connect, InProcess};
use crate::registry::testing::{Nse, Probe, named, names, nse, register, seconds, service, settle};
use crate::registry::{Endpoints, Memory, Services};

struct Mesh {
    hops: InProcess<Endpoints>,
    probe: Arc<Probe>,
    client: Chain<Endpoints>,
}

fn mesh() -> Mesh {
    let (hops, probe) = (InProcess::default(), Arc::new(Probe::default()));
    let connect = Connect::new(hops.links()).to("mem://registry");
    let list = elements![Begin::initiator(), RegistrationHeal::<Nse>::default(), Arc::clone(&probe), connect];
    Mesh { hops, probe, client: Chain::new("nse", list).unwrap() }
}

impl Mesh {
    fn serve(&self) -> (Chain<Endpoints>, Arc<Memory<Nse>>) {
        let memory = Arc::new(Memory::default());
        let registry = Chain::new("registry", elements![Arc::clone(&memory)]).unwrap();
        self.hops.serve("mem://registry", registry.clone());
        (registry, memory)
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_restarts_is_filled_again_by_its_clients() {
    let mesh = mesh();
    let (_, first) = mesh.serve();
    let all: Vec<_> = (0..50).map(|number| format!("nse-{number:02}")).collect();
    for name in &all {
        register(&mesh.client, nse(name, &["vpn"])).await.unwrap();
    }
    settle().await;
    assert_eq!(first.watchers(), 1);
    let (fresh, memory) = mesh.serve();
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(names(&fresh, named("")).await, all);
    assert_eq!(memory.watchers(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_filled_again_within_a_second_however_long_it_was_away() {
    let mesh = mesh();
    mesh.serve();
    register(&mesh.client, nse("nse-1", &[])).await.unwrap();
    settle().await;
    mesh.hops.stop("mem://registry");
    mesh.probe.take();
    tokio::time::sleep(seconds(600)).await;
    let tries = mesh.probe.take().len();
    assert!((700..1600).contains(&tries), "{tries}");
    let (fresh, _) = mesh.serve();
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(names(&fresh, named("")).await, ["nse-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_registry_forgets_while_it_is_up_is_registered_again() {
    let mesh = mesh();
    let (registry, memory) = mesh.serve();
    register(&mesh.client, nse("nse-1", &[])).await.unwrap();
    settle().await;
    registry.close(Call::new(nse("nse-1", &[]))).await.unwrap();
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(memory.len(), 1);
}

/// Lets watches through a second late.
struct Late;

impl Element<Endpoints> for Late {
    async fn monitor(&self, watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
        tokio::time::sleep(seconds(1)).await;
        next.monitor(watch).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_restarts_before_a_watch_is_open_there_is_filled_again() {
    let mesh = mesh();
    let connect = Connect::new(mesh.hops.links()).to("mem://registry");
    let list = elements![Begin::initiator(), RegistrationHeal::<Nse>::default(), Late, connect];
    let client = Chain::new("nse", list).unwrap();
    mesh.serve();
    for name in ["a", "b"] {
        register(&client, nse(name, &[])).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (fresh, memory) = mesh.serve();
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(names(&fresh, named("")).await, ["a", "b"]);
    assert_eq!(memory.watchers(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_cannot_be_made_again_at_once_is_tried_again() {
    let mesh = mesh();
    mesh.serve();
    register(&mesh.client, nse("nse-1", &[])).await.unwrap();
    settle().await;
    mesh.probe.fail(5);
    let (fresh, _) = mesh.serve();
    tokio::time::sleep(seconds(20)).await;
    assert_eq!(names(&fresh, named("")).await, ["nse-1"]);
}

#[tokio::test(start_paused = true)]
async fn unregistering_ends_it() {
    let mesh = mesh();
    let (registry, memory) = mesh.serve();
    for name in ["a", "b"] {
        register(&mesh.client, nse(name, &[])).await.unwrap();
    }
    settle().await;
    // The watched one goes: the other is watched.
    mesh.client.close(Call::new(nse("a", &[]))).await.unwrap();
    settle().await;
    assert_eq!(memory.watchers(), 1);
    registry.close(Call::new(nse("b", &[]))).await.unwrap();
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(names(&registry, named("")).await, ["b"]);
    mesh.client.close(Call::new(nse("b", &[]))).await.unwrap();
    settle().await;
    assert_eq!((memory.len(), memory.watchers()), (0, 0));
    let (fresh, _) = mesh.serve();
    tokio::time::sleep(seconds(60)).await;
    assert!(names(&fresh, named("")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn network_services_come_back_too() {
    let hops = InProcess::<Services>::default();
    let serve = || {
        let memory = Arc::new(Memory::<NetworkService>::default());
        hops.serve("mem://registry", Chain::new("registry", elements![Arc::clone(&memory)]).unwrap());
        memory
    };
    serve();
    let heal = RegistrationHeal::<NetworkService>::default();
    let connect = Connect::new(hops.links()).to("mem://registry");
    let client = Chain::new("nse", elements![Begin::initiator(), heal, connect]).unwrap();
    register(&client, service("vpn")).await.unwrap();
    settle().await;
    let fresh = serve();
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(fresh.len(), 1);
}
