use super::*;

#[tokio::test(start_paused = true)]
async fn a_link_that_nobody_holds_is_closed_after_the_idle_time() {
    let address = memory();
    let _handle = Echo::default().serve(&insecure(), &address).await;
    let channels = channels(&insecure());
    let link = channels.get(&address).await.unwrap();
    let clone = link.clone();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(channels.len(), 1, "held by two");
    drop(link);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(channels.len(), 1, "held by one");
    drop(clone);
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(channels.len(), 1, "not long enough idle");
    drop(channels.get(&address).await.unwrap());
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(channels.len(), 1, "used in between");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(channels.is_empty());
}

#[tokio::test]
async fn a_failed_dial_leaves_nothing_in_the_pool() {
    let channels = channels(&insecure());
    channels.get(&memory()).await.unwrap_err();
    assert!(channels.is_empty());
}
