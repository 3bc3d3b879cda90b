use std::os::unix::fs::PermissionsExt;

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::transport::{Listener, TransportError};

#[tokio::test]
async fn health_tells_serving_for_each_service_and_the_whole() {
    let address = memory();
    let _handle = Echo::default().serve(&insecure(), &address).await;
    let mut health = HealthClient::new(channels(&insecure()).get(&address).await.unwrap());
    for name in ["", "networkservice.NetworkService", "connection.MonitorConnection"] {
        let answer = health.check(HealthCheckRequest { service: name.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{name:?}");
    }
    let unknown = health.check(HealthCheckRequest { service: "other".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn one_server_listens_on_several_addresses() {
    let directory = Directory::new();
    let addresses = [directory.socket("a.sock"), any_port(), memory()];
    let server = Server::new(insecure()).with(NetworkServiceServer::new(Echo::default()));
    let handle = server.bind(&addresses, &BindOptions::default()).await.unwrap();
    assert!(!handle.addresses()[1].to_string().ends_with(":0"));
    let channels = channels(&insecure());
    for address in handle.addresses() {
        ask(&channels.get(address).await.unwrap(), "").await.unwrap();
    }
    assert_eq!(handle.to_string().matches(", ").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_streams_at_once_and_lets_calls_finish() {
    let (address, echo) = (memory(), Echo::default());
    let handle = echo.serve(&insecure(), &address).await;
    let link = channels(&insecure()).get(&address).await.unwrap();
    let mut events = watch(&link).await.unwrap();
    let slow = tokio::spawn({
        let link = link.clone();
        async move { ask(&link, "wait").await }
    });
    echo.waiting.notified().await;
    let before = tokio::time::Instant::now();
    let stopping = tokio::spawn(handle.shutdown());
    let ended = events.message().await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "the server is shutting down"));
    assert!(!stopping.is_finished());
    echo.release.notify_one();
    slow.await.unwrap().unwrap();
    stopping.await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert!(matches!(channels(&insecure()).get(&address).await, Err(TransportError::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_ends_is_dropped_after_the_grace() {
    let (address, echo) = (memory(), Echo::default());
    let options = ServeOptions { grace: Duration::from_secs(3), ..ServeOptions::default() };
    let handle = echo.serve_with(&insecure(), &address, options).await;
    let link = channels(&insecure()).get(&address).await.unwrap();
    let stuck = tokio::spawn(async move { ask(&link, "wait").await });
    echo.waiting.notified().await;
    let before = tokio::time::Instant::now();
    handle.shutdown().await;
    assert_eq!(before.elapsed().as_secs(), 3);
    assert_eq!(stuck.await.unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn dropping_the_handle_stops_the_server() {
    let (address, echo) = (memory(), Echo::default());
    let handle = echo.serve(&insecure(), &address).await;
    let link = channels(&insecure()).get(&address).await.unwrap();
    let stuck = tokio::spawn({
        let link = link.clone();
        async move { ask(&link, "wait").await }
    });
    echo.waiting.notified().await;
    drop(handle);
    assert_eq!(stuck.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(ask(&link, "").await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_socket_file_is_open_to_all_and_removed_with_the_server() {
    let directory = Directory::new();
    let address = directory.socket("a.sock");
    let handle = Echo::default().serve(&insecure(), &address).await;
    assert_eq!(path(&address).metadata().unwrap().permissions().mode() & 0o777, 0o777);
    handle.shutdown().await;
    assert!(!path(&address).exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
    let directory = Directory::new();
    let address = directory.socket("a.sock");
    drop(std::os::unix::net::UnixListener::bind(path(&address)).unwrap());
    let listener = Listener::bind(&address, &BindOptions::default()).await.unwrap();
    let second = Listener::bind(&address, &BindOptions::default()).await;
    assert!(matches!(second, Err(TransportError::AddressInUse { .. })), "{second:?}");
    drop(listener);
    std::fs::write(path(&address), "precious").unwrap();
    let over_file = Listener::bind(&address, &BindOptions::default()).await;
    assert!(matches!(over_file, Err(TransportError::AddressInUse { .. })), "{over_file:?}");
    assert_eq!(std::fs::read_to_string(path(&address)).unwrap(), "precious");
}

#[tokio::test]
async fn a_successors_socket_file_survives_the_predecessor() {
    let directory = Directory::new();
    let address = directory.socket("a.sock");
    let first = Listener::bind(&address, &BindOptions::default()).await.unwrap();
    std::fs::remove_file(path(&address)).unwrap();
    let _second = Listener::bind(&address, &BindOptions::default()).await.unwrap();
    drop(first);
    assert!(path(&address).exists());
}

#[tokio::test]
async fn a_port_or_directory_that_cannot_be_had_is_an_error() {
    let taken = Listener::bind(&any_port(), &BindOptions::default()).await.unwrap();
    let again = Listener::bind(taken.address(), &BindOptions::default()).await;
    assert!(matches!(again, Err(TransportError::AddressInUse { .. })), "{again:?}");
    let below_a_file = Address::Unix("/dev/null/a.sock".into());
    let bound = Listener::bind(&below_a_file, &BindOptions::default()).await;
    assert!(matches!(bound, Err(TransportError::Bind { .. })), "{bound:?}");
}
