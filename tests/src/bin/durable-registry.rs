//! A registry with a store, for tests that kill it: `durable-registry SOCKET STORE [BYTES]`.
//!
//! It says `ready` when it serves. With a number of bytes its store is on a file system of its own of that size, which
//! only it sees, and which ends with it.

#![allow(clippy::expect_used, reason = "a test's helper that cannot go on says where it stopped")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nsm_api::registry::network_service_endpoint_registry_server::NetworkServiceEndpointRegistryServer;
use nsm_api::registry::network_service_registry_server::NetworkServiceRegistryServer;
use nsm_chain::grpc;
use nsm_sdk::identity::{HmacTokens, Policy, PolicySet};
use nsm_sdk::registry::stacks::{Admission, MemoryRegistry};
use nsm_sdk::transport::{BindOptions, Server, Transport};
use nsm_store::Store;

/// What it ends with where this machine lets nobody mount a file system.
const NOT_HERE: i32 = 77;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, store, rest @ ..] = arguments.as_slice() else {
        panic!("usage: durable-registry SOCKET STORE [BYTES]");
    };
    if let [bytes] = rest
        && let Err(error) = small_disk(Path::new(store).parent().expect("a directory"), bytes)
    {
        eprintln!("no file system of its own: {error}");
        std::process::exit(NOT_HERE);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(socket, store));
}

async fn serve(socket: &str, store: &str) {
    let tokens = Arc::new(HmacTokens::new(&"spiffe://mesh/registry".parse().expect("an id")));
    let policies = PolicySet::of([Policy::TokensValid, Policy::TokensExpired, Policy::ClientAllowed]);
    let store = Store::open(store).unwrap_or_else(|error| panic!("{error}"));
    let registry = MemoryRegistry::builder("registry", Admission::by(tokens.clone()).policies(policies))
        .default_expiration(Duration::from_secs(3600))
        .restore(&store.journals())
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let server = Server::new(Transport::insecure(tokens))
        .with(NetworkServiceRegistryServer::new(grpc::Server::new(registry.services)))
        .with(NetworkServiceEndpointRegistryServer::new(grpc::Server::new(registry.endpoints)));
    let address = format!("unix://{socket}").parse().expect("an address");
    let serving = server.bind(&[address], &BindOptions::default()).await.expect("a socket");
    println!("ready");
    std::io::stdout().flush().expect("a reader");
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a signal");
    term.recv().await;
    serving.shutdown().await;
}

/// Mounts a file system of that size there, in a mount namespace of our own.
fn small_disk(directory: &Path, bytes: &str) -> nix::Result<()> {
    std::fs::create_dir_all(directory).expect("a directory");
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        let written = std::fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| std::fs::write("/proc/self/uid_map", format!("0 {user} 1")))
            .and_then(|()| std::fs::write("/proc/self/gid_map", format!("0 {group} 1")));
        written.map_err(|_| nix::Error::EPERM)?;
    }
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    let options = format!("size={bytes}");
    mount(Some("store"), directory, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
}
