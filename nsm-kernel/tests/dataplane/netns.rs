use nsm_kernel::{Error, Netns, Underlay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    common::{in_a_user_namespace, skipped},
    needs_net_admin,
};

#[tokio::test]
async fn sockets_are_made_inside_and_used_from_here() {
    needs_net_admin!();
    let here = Netns::current().unwrap();
    let underlay = Underlay::create(3, "10.20.0.0/29".parse().unwrap()).await.unwrap();
    let [_, first, last] = underlay.nodes() else { panic!("three nodes") };
    let listener = last.netns.tcp_listener((last.ip(), 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(first.netns.tcp_connect(address), listener.accept());
    let (mut stream, peer) = accepted.unwrap();
    assert_eq!(peer.ip(), first.ip());
    connected.unwrap().write_all(b"hello").await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
    assert_eq!(Netns::current().unwrap(), here, "no thread of the runtime was moved");

    let error = first.netns.tcp_connect(([10, 20, 0, 1], 9).into()).await.unwrap_err();
    assert_eq!(error.errno(), Some(nix::libc::ECONNREFUSED), "{error}");
    let error = first.netns.udp_socket(address).await.unwrap_err();
    assert_eq!(error.errno(), Some(nix::libc::EADDRNOTAVAIL), "{error}");
}

#[tokio::test]
async fn an_underlay_with_more_nodes_than_addresses_is_refused() {
    needs_net_admin!();
    let error = Underlay::create(3, "10.20.0.0/30".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("2 host addresses for 3 nodes"), "{error}");
}

#[tokio::test]
async fn a_namespace_is_reachable_by_its_path_while_a_handle_lives() {
    needs_net_admin!();
    let netns = Netns::create().await.unwrap();
    let (path, id) = (netns.path(), netns.id());
    assert_eq!(Netns::open(&path).unwrap().id(), id);
    assert_ne!(id, Netns::current().unwrap().id());
    let loopback = netns.udp_socket(([127, 0, 0, 1], 0).into()).await.unwrap();
    loopback.send_to(b"self", loopback.local_addr().unwrap()).await.unwrap();
    loopback.recv(&mut [0; 8]).await.expect("the loopback interface is up");
}

#[test]
fn blocking_callers_need_no_runtime() {
    needs_net_admin!();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let netns = runtime.block_on(Netns::create()).unwrap();
    let inside = netns.run_blocking(Netns::current).unwrap();
    assert_eq!(inside, netns);
}

#[tokio::test]
async fn a_name_is_mounted_and_goes_with_its_guard() {
    needs_net_admin!();
    if in_a_user_namespace() {
        skipped(&"/run/netns is not ours in a user namespace");
        return;
    }
    let name = format!("nsmt-{}", std::process::id());
    let named = Netns::create_named(&name).await.unwrap();
    let path = named.path().to_owned();
    assert_eq!(Netns::open(&path).unwrap(), *named.netns());
    let taken = Netns::create_named(&name).await.unwrap_err();
    assert_eq!(taken.errno(), Some(nix::libc::EEXIST), "{taken}");
    assert!(matches!(Netns::create_named("../x").await, Err(Error::InvalidNetnsName { .. })));
    drop(named);
    assert!(!path.exists());
    assert!(matches!(Netns::open(&path), Err(Error::NamespaceGone { .. })));
}

#[tokio::test]
async fn a_named_namespace_is_found_by_its_mark_and_no_other_is() {
    needs_net_admin!();
    if in_a_user_namespace() {
        skipped(&"/run/netns is not ours in a user namespace");
        return;
    }
    let mark = format!("nsmt mark {}", std::process::id());
    let marked = Netns::create().await.unwrap().named(&format!("nsmt-{}.marked", std::process::id()), &mark).await;
    let marked = marked.unwrap();
    let other = Netns::create().await.unwrap().named(&format!("nsmt-{}.other", std::process::id()), "nsmt other").await;
    let (path, other) = (marked.path().to_owned(), other.unwrap());
    // As after a crash: nobody remembers the name.
    std::mem::forget(marked);
    let found = Netns::named_with_mark(&mark).await.unwrap();
    assert_eq!(found.iter().map(|named| named.path()).collect::<Vec<_>>(), [path.as_path()]);
    drop(found);
    assert!(!path.exists());
    assert!(other.path().exists());
}
