//! What brings other implementations down, or makes them hang: here each is answered, and the next caller is served.

use nsm_api::connection::{Connection, Path, PathSegment};
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_api::networkservice::network_service_client::NetworkServiceClient;
use nsm_api::registry::network_service_registry_client::NetworkServiceRegistryClient;
use nsm_api::registry::{NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceQuery};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request};

use crate::kit::Mesh;
use crate::tokens::{Caller, FRESH, beside, nse};

/// What comes of a Register with these `path` headers, in this order.
async fn register(alice: &Caller, paths: &[&[u8]]) -> Code {
    let mut request = beside(nse("nse-1"), &alice.token().text, FRESH);
    request.metadata_mut().remove("path");
    for path in paths {
        request.metadata_mut().append("path", MetadataValue::<Ascii>::try_from(*path).unwrap());
    }
    alice.registry().register(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn the_path_header() {
    let mesh = Mesh::start().await;
    let many = format!(r#"{{"Index":0,"PathSegments":[{}{{}}]}}"#, "{},".repeat(300));
    for role in [&mesh.registry, &mesh.manager] {
        let alice = Caller::new(&mesh, "alice", role).await;
        for (what, paths, code) in [
            ("fresh", &[FRESH.as_bytes()][..], Code::Ok),
            ("a list that is null", &[br#"{"PathSegments":null}"#], Code::Ok),
            ("a segment that is null", &[br#"{"Index":0,"PathSegments":[null]}"#], Code::Ok),
            ("a token that is null", &[br#"{"Index":0,"PathSegments":[{"token":null}]}"#], Code::InvalidArgument),
            ("an empty object", &[b"{}"], Code::Ok),
            ("names in another case, and more of them", &[br#"{"index":0,"pathSegments":[],"x":1}"#], Code::Ok),
            ("several, the last one counts", &[b"junk", FRESH.as_bytes()], Code::Ok),
            ("several, the last one is junk", &[FRESH.as_bytes(), b"junk"], Code::InvalidArgument),
            // Accepted, but there is no token to judge then.
            ("none", &[], Code::PermissionDenied),
            ("empty", &[b""], Code::InvalidArgument),
            ("junk", &[b"}{"], Code::InvalidArgument),
            ("no object", &[b"[]"], Code::InvalidArgument),
            ("no text", &[b"\xff\xfe"], Code::InvalidArgument),
            ("an index past the end", &[br#"{"Index":7,"PathSegments":[{"token":""}]}"#], Code::InvalidArgument),
            ("an index below 0", &[br#"{"Index":-1,"PathSegments":[]}"#], Code::InvalidArgument),
            ("an index beyond all bounds", &[br#"{"Index":18446744073709551616}"#], Code::InvalidArgument),
            ("the largest index there is", &[br#"{"Index":4294967295,"PathSegments":[{}]}"#], Code::InvalidArgument),
            ("many segments", &[many.as_bytes()], Code::InvalidArgument),
        ] {
            assert_eq!(register(&alice, paths).await, code, "{what}, at {role}");
        }
        let huge = format!(r#"{{"Index":0,"PathSegments":[{{"token":"{}"}}]}}"#, "x".repeat(200_000));
        assert_ne!(register(&alice, &[huge.as_bytes()]).await, Code::Ok);
        // The connection may be gone with it; the server is not.
        let alice = Caller::new(&mesh, "alice", role).await;
        assert_eq!(register(&alice, &[FRESH.as_bytes()]).await, Code::Ok);
    }
}

#[tokio::test]
async fn the_token_headers() {
    let mesh = Mesh::start().await;
    let alice = Caller::new(&mesh, "alice", &mesh.registry).await;
    let token = alice.token().text;
    let (text, expires) = ("nsm-client-token", "nsm-client-token-expires");
    type Change = fn(&mut Request<NetworkServiceEndpoint>);
    let changes: [(&str, Change, Code); 6] = [
        ("as they should be", |_| (), Code::Ok),
        (
            "one without the other",
            |request| drop(request.metadata_mut().remove("nsm-client-token-expires")),
            Code::InvalidArgument,
        ),
        (
            "twice",
            |request| assert!(request.metadata_mut().append("nsm-client-token", "b".parse().unwrap())),
            Code::InvalidArgument,
        ),
        (
            "no time",
            |request| drop(request.metadata_mut().insert("nsm-client-token-expires", "soon".parse().unwrap())),
            Code::InvalidArgument,
        ),
        (
            "no text",
            |request| {
                let bytes = MetadataValue::<Ascii>::try_from(&b"\xff"[..]).unwrap();
                request.metadata_mut().insert("nsm-client-token", bytes);
            },
            Code::InvalidArgument,
        ),
        (
            "neither",
            |request| {
                request.metadata_mut().remove("nsm-client-token");
                request.metadata_mut().remove("nsm-client-token-expires");
            },
            Code::PermissionDenied,
        ),
    ];
    for (what, change, code) in changes {
        let mut request = beside(nse("nse-1"), &token, FRESH);
        assert!(request.metadata().contains_key(text) && request.metadata().contains_key(expires));
        change(&mut request);
        let answer = alice.registry().register(request).await;
        assert_eq!(answer.map_or_else(|status| status.code(), |_| Code::Ok), code, "{what}");
    }
}

#[tokio::test]
async fn records_and_queries() {
    let mesh = Mesh::start().await;
    // Through the manager, whose own look-ups are inside the process.
    let alice = Caller::new(&mesh, "alice", &mesh.manager).await;
    let token = alice.token().text;
    let error = alice.registry().register(beside(nse(""), &token, FRESH)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "a record without a name: {error:?}");
    for number in 0..150 {
        alice.registry().register(beside(nse(&format!("nse-{number}")), &token, FRESH)).await.unwrap();
    }
    for role in [&mesh.manager, &mesh.registry] {
        let seeker = Caller::new(&mesh, "seeker", role).await;
        let token = seeker.token().text;
        let found = async |query: NetworkServiceEndpointQuery| {
            let mut stream = seeker.registry().find(beside(query, &token, FRESH)).await.unwrap().into_inner();
            let mut found = 0;
            while stream.message().await.unwrap().is_some() {
                found += 1;
            }
            found
        };
        let like = |nse| NetworkServiceEndpointQuery { network_service_endpoint: Some(nse), watch: false };
        let forwarders = 1;
        assert_eq!(found(NetworkServiceEndpointQuery::default()).await, 150 + forwarders, "without a record inside");
        assert_eq!(found(like(NetworkServiceEndpoint::default())).await, 150 + forwarders, "more than a hundred");
        let never = |seconds, nanos| NetworkServiceEndpoint {
            expiration_time: Some(prost_types::Timestamp { seconds, nanos }),
            ..Default::default()
        };
        for (seconds, nanos) in [(7, 0), (i64::MAX, i32::MAX), (i64::MIN, -1)] {
            assert_eq!(found(like(never(seconds, nanos))).await, 0, "an end that no record has");
        }
        let mut services = NetworkServiceRegistryClient::new(seeker.raw.clone());
        let all = services.find(beside(NetworkServiceQuery::default(), &token, FRESH)).await.unwrap();
        let all = all.into_inner().message().await.unwrap().unwrap();
        assert_eq!(all.network_service.unwrap().name, "vpn", "without a record inside");
    }
    let mut endless = nse("nse-0");
    endless.expiration_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MIN });
    let answer = alice.registry().register(beside(endless, &token, FRESH)).await.unwrap().into_inner();
    assert!(answer.expiration_time.unwrap().seconds < 10_000_000_000, "an end that no clock knows");
}

#[tokio::test]
async fn the_path_of_a_connection() {
    let mesh = Mesh::start().await;
    let alice = Caller::new(&mesh, "alice", &mesh.manager).await;
    let token = alice.token().text;
    let at = |index, names: &[&str]| {
        let segment = |name: &&str| PathSegment { name: (*name).into(), id: (*name).into(), ..Default::default() };
        Some(Path { index, path_segments: names.iter().map(segment).collect() })
    };
    for (what, id, path, code) in [
        ("an index past the end", "nsc", at(1, &["nsc"]), Code::InvalidArgument),
        ("the largest index there is", "nsc", at(u32::MAX, &["nsc"]), Code::InvalidArgument),
        ("an id that is not the segment's", "else", at(0, &["nsc"]), Code::InvalidArgument),
        // We are who began it then, and nobody stands before us.
        ("our own segment at 0", "nsmgr", at(0, &["nsmgr"]), Code::PermissionDenied),
        ("no path at all", "nsc", None, Code::PermissionDenied),
    ] {
        let connection = Connection { id: id.into(), network_service: "vpn".into(), path, ..Default::default() };
        let message = NetworkServiceRequest { connection: Some(connection), mechanism_preferences: Vec::new() };
        let mut client = NetworkServiceClient::new(alice.raw.clone());
        let error = client.request(beside(message, &token, FRESH)).await.unwrap_err();
        assert_eq!(error.code(), code, "{what}: {error:?}");
    }
    let mut client = NetworkServiceClient::new(alice.raw.clone());
    let error = client.request(beside(NetworkServiceRequest::default(), &token, FRESH)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "no connection: {error:?}");
    // Closing what is not there is no harm, and no error.
    client
        .close(beside(Connection::default(), &token, FRESH))
        .await
        .map_or_else(|status| assert_ne!(status.code(), Code::Unknown, "{status:?}"), |_| ());
}
