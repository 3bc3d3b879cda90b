use nix::sys::signal::Signal;
use nsm_kernel::Netns;

use crate::kit::{Lab, Room, TWO_NODES, ping_all, printed};

async fn killed(room: &Room) -> bool {
    let Some(mut lab) = room.up(&[]).await else { return false };
    kill(&mut lab).await;
    true
}

async fn kill(lab: &mut Lab<'_>) {
    lab.signal(Signal::SIGKILL);
    assert_eq!(lab.ended().await, None, "killed");
}

#[tokio::test]
async fn after_a_crash_the_next_up_removes_what_is_ours_and_nothing_else() {
    let room = Room::new(TWO_NODES);
    if !killed(&room).await {
        return;
    }
    if nsm_kernel::privileges().in_user_namespace {
        return println!("SKIPPED: names are for root");
    }
    assert_eq!(room.names().len(), 10, "they outlive the process");
    // By its name it could be ours; it does not carry our mark.
    let foreign = Netns::create_named(&format!("nsm-{}.foreign", room.lab)).await.unwrap();
    let lab = room.up(&[]).await.unwrap();
    assert!(lab.story().contains("cleared") && lab.story().contains("of a lab that was killed"), "{}", lab.story());
    assert_eq!(ping_all(&room.view()).await, 2 * 7);
    assert_eq!(room.names().len(), 11);
    assert_eq!(&Netns::open(foreign.path()).unwrap(), foreign.netns());
    drop(foreign);
    lab.end().await;
}

#[tokio::test]
async fn after_a_crash_down_removes_what_is_left() {
    let room = Room::new(TWO_NODES);
    if !killed(&room).await {
        return;
    }
    let said = printed(room.of_file("down", &[]).output().unwrap());
    assert!(said.contains("nothing left"), "{said}");
    room.assert_gone();
}

#[tokio::test]
async fn a_namespace_of_somebody_else_is_not_taken() {
    if nsm_kernel::privileges().obstacle.is_some() || nsm_kernel::privileges().in_user_namespace {
        return println!("SKIPPED: names are for root");
    }
    let room = Room::new(TWO_NODES);
    let taken = format!("nsm-{}.web", room.lab);
    let foreign = Netns::create_named(&taken).await.unwrap();
    let output = room.of_file("up", &[]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("ip netns delete {taken}")) && said.contains("nothing left"), "{said}");
    assert_eq!(room.names(), ["web"], "all of the lab is gone, and what is not stays");
    drop(foreign);
    room.assert_gone();
}
