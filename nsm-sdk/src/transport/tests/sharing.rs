use std::io;
use std::net::SocketAddr;

use futures::future::{BoxFuture, join_all};
use tokio::net::TcpStream;
use tonic::Code;

use super::*;
use crate::transport::{CurrentNamespace, Listener, SocketFactory, TransportError};

#[tokio::test]
async fn a_hundred_who_ask_at_once_share_one_connection() {
    let directory = Directory::new();
    let address = directory.socket("a.sock");
    let transport = insecure();
    // Counts connections in front of a real server.
    let mut front = Listener::bind(&address, &BindOptions::default()).await.unwrap();
    let behind = directory.socket("b.sock");
    let _handle = Echo::default().serve(&transport, &behind).await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let relay = tokio::spawn(async move {
        loop {
            let mut near = front.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let mut far = tokio::net::UnixStream::connect(path(&behind)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let channels = channels(&transport);
    let links = join_all((0..100).map(|_| channels.get(&address))).await;
    let answers = join_all(links.iter().map(|link| ask(link.as_ref().unwrap(), ""))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    assert_eq!(channels.len(), 1);
    relay.abort();
}

#[tokio::test]
async fn a_link_finds_a_restarted_server_at_once() {
    let directory = Directory::new();
    let authority = DevAuthority::new("example.org").unwrap();
    let (client, server) = (mtls(&authority, "/client"), mtls(&authority, "/server"));
    for address in [directory.socket("a.sock"), memory()] {
        let channels = channels(&client);
        let first = Echo::default().serve(&server, &address).await;
        let link = channels.get(&address).await.unwrap();
        ask(&link, "").await.unwrap();
        first.shutdown().await;
        for _ in 0..10 {
            let echo = Echo::default();
            let next = echo.serve(&server, &address).await;
            ask(&link, "").await.unwrap();
            ask(&channels.get(&address).await.unwrap(), "").await.unwrap();
            assert_eq!(echo.calls.load(Ordering::SeqCst), 2);
            next.shutdown().await;
        }
    }
}

#[tokio::test]
async fn without_a_server_a_call_is_unavailable_and_the_link_recovers() {
    let directory = Directory::new();
    let address = directory.socket("a.sock");
    let channels = channels(&insecure());
    let handle = Echo::default().serve(&insecure(), &address).await;
    let link = channels.get(&address).await.unwrap();
    handle.shutdown().await;
    let status = ask(&link, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("nothing is at unix://"), "{status}");
    let _handle = Echo::default().serve(&insecure(), &address).await;
    ask(&link, "").await.unwrap();
    ask(&channels.get(&address).await.unwrap(), "").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_calls_deadline_holds_here_too() {
    let address = memory();
    let _handle = Echo::default().serve(&insecure(), &address).await;
    let link = channels(&insecure()).get(&address).await.unwrap();
    let connection = Connection { network_service: "wait".into(), ..Connection::default() };
    let mut request =
        Request::new(NetworkServiceRequest { connection: Some(connection), ..NetworkServiceRequest::default() });
    request.set_timeout(Duration::from_secs(5));
    let before = tokio::time::Instant::now();
    let status = NetworkServiceClient::new(link).request(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(before.elapsed().as_secs(), 5);
}

/// Panics at the first connection, as code of others may.
#[derive(Debug, Default)]
struct Faulty(AtomicUsize);

impl SocketFactory for Faulty {
    fn tcp_listener(&self, address: SocketAddr) -> io::Result<std::net::TcpListener> {
        CurrentNamespace.tcp_listener(address)
    }

    fn tcp_connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        assert_ne!(self.0.fetch_add(1, Ordering::SeqCst), 0, "a fault at the first connection");
        CurrentNamespace.tcp_connect(address)
    }
}

#[tokio::test]
async fn a_dial_that_panicked_is_not_the_last_one() {
    let address = any_port();
    let server = Echo::default().serve(&insecure(), &address).await;
    let sockets = Arc::new(Faulty::default());
    let channels = Channels::new(insecure(), DialOptions { sockets, ..DialOptions::default() });
    let error = channels.get(&server.addresses()[0]).await.unwrap_err();
    assert!(matches!(error, TransportError::Closed { .. }), "{error}");
    channels.get(&server.addresses()[0]).await.unwrap();
}
