//! The headers beside calls: theirs read as they were meant, and ours for their check.

use std::time::{Duration, SystemTime};

use nsm_chain::grpc::headers::{receive_path, receive_token, send_path, send_token};
use nsm_chain::{PathToken, RegistryPath, Token};
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;

use crate::corpus::read;

#[derive(Serialize, Deserialize)]
pub(crate) struct Headers {
    paths: Vec<PathHeader>,
    tokens: Vec<TokenHeader>,
}

#[derive(Serialize, Deserialize)]
struct PathHeader {
    name: String,
    index: usize,
    tokens: Vec<String>,
    text: String,
}

impl PathHeader {
    fn path(&self) -> RegistryPath {
        RegistryPath { index: self.index, tokens: self.tokens.iter().cloned().map(PathToken).collect() }
    }
}

#[derive(Serialize, Deserialize)]
struct TokenHeader {
    name: String,
    token: String,
    expires: String,
    seconds: i64,
    nanos: u32,
}

impl TokenHeader {
    fn token(&self) -> Token {
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let base = if self.seconds < 0 { SystemTime::UNIX_EPOCH - whole } else { SystemTime::UNIX_EPOCH + whole };
        Token { text: self.token.as_str().into(), expires: base + Duration::from_nanos(self.nanos.into()) }
    }
}

fn corpus() -> Headers {
    read("headers.json")
}

/// The same values with our texts.
pub(crate) fn ours() -> Headers {
    let mut headers = corpus();
    for header in &mut headers.paths {
        let mut metadata = MetadataMap::new();
        send_path(&mut metadata, &header.path()).unwrap();
        header.text = one(&metadata, "path");
    }
    for header in &mut headers.tokens {
        let mut metadata = MetadataMap::new();
        send_token(&mut metadata, &header.token()).unwrap();
        header.token = one(&metadata, "nsm-client-token");
        header.expires = one(&metadata, "nsm-client-token-expires");
    }
    headers
}

fn one(metadata: &MetadataMap, key: &str) -> String {
    let values: Vec<_> = metadata.get_all(key).iter().collect();
    assert_eq!(values.len(), 1, "{key}");
    values[0].to_str().unwrap().to_owned()
}

#[test]
fn path_headers_of_the_reference_are_read() {
    for header in corpus().paths {
        let mut metadata = MetadataMap::new();
        metadata.insert("path", header.text.parse().unwrap());
        assert_eq!(receive_path(&metadata).unwrap(), Some(header.path()), "{}", header.name);
    }
}

#[test]
fn our_path_headers_are_those_of_the_reference() {
    for (theirs, ours) in corpus().paths.iter().zip(ours().paths) {
        // Go escapes what HTML would need, and writes an absent list and segment as null.
        if !["escapes", "none", "null segment"].contains(&theirs.name.as_str()) {
            assert_eq!(ours.text, theirs.text, "{}", theirs.name);
        }
    }
}

#[test]
fn token_headers_of_the_reference_are_read_in_every_zone() {
    for header in corpus().tokens {
        let mut metadata = MetadataMap::new();
        metadata.insert("nsm-client-token", header.token.parse().unwrap());
        metadata.insert("nsm-client-token-expires", header.expires.parse().unwrap());
        assert_eq!(receive_token(&metadata).unwrap(), Some(header.token()), "{}", header.name);
    }
}
