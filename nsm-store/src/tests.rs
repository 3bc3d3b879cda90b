use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nsm_api::NetworkServiceEndpoint;
use nsm_chain::{Call, Code};
use nsm_sdk::registry::stacks::{Admission, MemoryRegistry};
use nsm_sdk::registry::{Entry, Kept};

use super::*;

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nsm-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn store(&self) -> PathBuf {
        self.0.join("deep/registry")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn endpoint(number: usize) -> NetworkServiceEndpoint {
    NetworkServiceEndpoint {
        name: format!("nse-{number}"),
        network_service_names: vec!["vpn".into()],
        url: format!("tcp://10.0.0.1:{number}"),
        ..Default::default()
    }
}

fn entry(number: usize) -> Entry<NetworkServiceEndpoint> {
    let name: Arc<str> = format!("nse-{number}").into();
    let owners = vec![(Arc::clone(&name), Some("spiffe://mesh/alice".into()))];
    Entry { name, record: Some(Arc::new(endpoint(number))), owners }
}

/// A file with so many endpoints in it.
async fn filled(directory: &Directory, count: usize) {
    let journal = Store::open(directory.store()).unwrap().journals().endpoints;
    let appended = (0..count).map(|number| journal.append(entry(number), Box::new(|| {})));
    for appended in futures::future::join_all(appended).await {
        appended.unwrap();
    }
}

async fn load(path: PathBuf) -> Result<Kept<NetworkServiceEndpoint>, String> {
    let store = Store::open(path).map_err(|error| error.to_string())?;
    store.journals().endpoints.load().await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_is_kept_is_read_again_in_a_file_for_its_owner_alone() {
    let directory = Directory::new();
    filled(&directory, 100).await;
    let kept = load(directory.store()).await.unwrap();
    assert_eq!((kept.records.len(), kept.owners.len()), (100, 100));
    assert!(kept.records.iter().all(|record| (0..100).any(|number| **record == endpoint(number))));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory.store()), mode(directory.store().parent().unwrap())), (0o600, 0o700));
    std::fs::set_permissions(directory.store(), std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(directory.store()).unwrap());
    assert_eq!(mode(&directory.store()), 0o600);
}

#[tokio::test]
async fn changes_take_effect_in_order_and_before_their_caller_goes_on() {
    let directory = Directory::new();
    let journal = Store::open(directory.store()).unwrap().journals().endpoints;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let appended = (0..1000).map(|number| {
        let seen = Arc::clone(&seen);
        journal.append(entry(number), Box::new(move || seen.lock().unwrap().push(number)))
    });
    for (number, appended) in appended.enumerate() {
        // Dropped before it is polled, nothing happens; polled, it happens whoever waits.
        if number % 3 == 0 {
            drop(futures::poll!(appended));
        } else {
            appended.await.unwrap();
            assert_eq!(seen.lock().unwrap().last(), Some(&number));
        }
    }
    assert!(seen.lock().unwrap().is_sorted());
}

#[tokio::test]
async fn a_store_belongs_to_one_at_a_time() {
    let directory = Directory::new();
    let store = Store::open(directory.store()).unwrap();
    let error = Store::open(directory.store()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(store);
    Store::open(directory.store()).unwrap();
}

#[tokio::test]
async fn a_later_format_and_other_files_are_refused_and_left_as_they_are() {
    let directory = Directory::new();
    filled(&directory, 1).await;
    let about = redb::TableDefinition::<&str, u64>::new("about");
    let database = redb::Database::open(directory.store()).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(about).unwrap().insert("format", 2).unwrap();
    writing.commit().unwrap();
    drop(database);
    let error = Store::open(directory.store()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");

    let other = directory.0.join("notes.txt");
    std::fs::write(&other, "not a store, but something that somebody needs\n".repeat(1000)).unwrap();
    let error = Store::open(&other).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert!(std::fs::read_to_string(&other).unwrap().starts_with("not a store"));

    let database = redb::Database::create(directory.0.join("other.redb")).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(redb::TableDefinition::<&str, &str>::new("mine")).unwrap();
    writing.commit().unwrap();
    drop(database);
    let error = Store::open(directory.0.join("other.redb")).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
}

/// Each byte may be wrong, and the file may end anywhere: all is there, or an error says what is the matter.
#[tokio::test]
async fn a_damaged_file_is_an_error_or_none_the_worse() {
    let directory = Directory::new();
    filled(&directory, 50).await;
    let whole = std::fs::read(directory.store()).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let damaged = directory.0.join("damaged");
    let (mut errors, mut fine) = (0, 0);
    let mut try_it = async |bytes: &[u8], what: String| {
        std::fs::write(&damaged, bytes).unwrap();
        match load(damaged.clone()).await {
            Ok(kept) => {
                assert_eq!((kept.records.len(), kept.owners.len()), (50, 50), "{what}");
                fine += 1;
            }
            Err(error) => {
                assert!(error.contains("damaged"), "{what}: {error}");
                errors += 1;
            }
        }
    };
    // All of the header, which says what is the latest, and some of the rest.
    let (header, rest) = used.split_at(used.partition_point(|at| *at < 512));
    for at in header.iter().chain(rest.iter().step_by((rest.len() / 100).max(1))) {
        let mut bytes = whole.clone();
        bytes[*at] ^= 1 << (at % 8);
        try_it(&bytes, format!("byte {at}")).await;
    }
    for part in 1..16 {
        try_it(&whole[..whole.len() * part / 16], format!("{part} sixteenths")).await;
    }
    println!("{errors} errors, {fine} none the worse");
    assert!(errors > 0);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_an_error_that_says_so() {
    let directory = Directory::new();
    std::fs::create_dir_all(&directory.0).unwrap();
    std::fs::write(directory.0.join("file"), "").unwrap();
    let error = Store::open(directory.0.join("file/registry")).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }) && error.to_string().contains("file/registry"), "{error}");
}

#[tokio::test]
async fn a_registry_whose_store_is_gone_refuses_and_still_answers() {
    let directory = Directory::new();
    let store = Store::open(directory.store()).unwrap();
    let registry = MemoryRegistry::builder("registry", Admission::open()).restore(&store.journals()).await.unwrap();
    registry.endpoints.request(Call::new(endpoint(1))).await.unwrap();
    store.queue.file().fail();
    let error = registry.endpoints.request(Call::new(endpoint(2))).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(!error.to_string().contains(directory.store().to_str().unwrap()), "{error}");
    drop((registry, store));
    assert_eq!(load(directory.store()).await.unwrap().records.len(), 1);
}
