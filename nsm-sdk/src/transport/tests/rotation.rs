use tonic::Code;

use super::*;

#[tokio::test]
async fn rotation_opens_new_connections_and_leaves_streams_and_calls_alone() {
    let authority = DevAuthority::new("example.org").unwrap();
    let (client, server) = (mtls(&authority, "/client"), mtls(&authority, "/server"));
    let (address, echo) = (memory(), Echo::default());
    let _handle = echo.serve(&server, &address).await;
    let link = channels(&client).get(&address).await.unwrap();
    let first = link.peer().unwrap();
    let mut events = watch(&link).await.unwrap();
    let slow = tokio::spawn({
        let link = link.clone();
        async move { ask(&link, "wait").await }
    });
    echo.waiting.notified().await;

    authority.rotate().unwrap();
    // The server tells the client to open a new connection; it may take some calls until that has arrived.
    for _ in 0..1000 {
        assert_eq!(ask(&link, "").await.unwrap(), "spiffe://example.org/client");
        if link.peer().unwrap().certificate != first.certificate {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_ne!(link.peer().unwrap().certificate, first.certificate);

    // What was under way goes on over the old connection: the call first, then the next event of the stream.
    echo.release.notify_waiters();
    let (event, answer) = tokio::join!(events.message(), slow);
    assert!(event.unwrap().is_some());
    assert_eq!(answer.unwrap().unwrap(), "spiffe://example.org/client");
}

#[tokio::test]
async fn no_call_fails_while_identities_rotate_under_load() {
    let authority = DevAuthority::new("example.org").unwrap();
    let (client, server) = (mtls(&authority, "/client"), mtls(&authority, "/server"));
    let directory = Directory::new();
    for address in [directory.socket("a.sock"), any_port()] {
        let handle = Echo::default().serve(&server, &address).await;
        let channels = channels(&client);
        let link = channels.get(&handle.addresses()[0]).await.unwrap();
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let link = link.clone();
                tokio::spawn(async move {
                    for _ in 0..100 {
                        ask(&link, "").await?;
                    }
                    Ok::<_, Status>(())
                })
            })
            .collect();
        while callers.iter().any(|caller| !caller.is_finished()) {
            authority.rotate().unwrap();
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
        handle.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_calls_token_is_refused_when_it_is_another_callers() {
    let authority = DevAuthority::new("example.org").unwrap();
    let address = memory();
    let echo = Echo::default();
    let _handle = echo.serve(&mtls(&authority, "/server"), &address).await;
    let (one, other) = (mtls(&authority, "/one"), mtls(&authority, "/other"));
    let link = channels(&one).get(&address).await.unwrap();
    let foreign = channels(&other).get(&address).await.unwrap().token().unwrap();
    // A header that a caller sets itself is replaced by the right one.
    let mut request = Request::new(NetworkServiceRequest::default());
    nsm_chain::grpc::headers::send_token(request.metadata_mut(), &foreign).unwrap();
    NetworkServiceClient::new(link.clone()).request(request).await.unwrap();
    // And the server would have found out.
    let leaf = &link.token().unwrap().text;
    let certificate = crate::identity::peer_of(other.source().unwrap().svid().unwrap().chain()).unwrap().certificate;
    assert!(echo.verifier.verify(leaf, &certificate, time::now()).is_err());
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_ends_for_good_fails_with_that_reason() {
    let authority = DevAuthority::new("example.org").unwrap();
    let address = memory();
    let _handle = Echo::default().serve(&mtls(&authority, "/server"), &address).await;
    let svid = authority.sign("/client", Duration::from_secs(60)).unwrap();
    let bundles = crate::identity::Bundles::clone(&authority.bundles());
    let source = crate::identity::FixedSvid::new(svid, bundles);
    let link = channels(&Transport::mtls(Arc::new(source), Duration::from_secs(600))).get(&address).await.unwrap();
    ask(&link, "").await.unwrap();
    tokio::time::advance(Duration::from_secs(62)).await;
    let status = ask(&link, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("expired"), "{status}");
}
