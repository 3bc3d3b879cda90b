use std::collections::BTreeSet;

use crate::kit::{Room, steps, texts};

#[test]
fn one_node_carries_packets_and_leaves_nothing() {
    let room = Room::new();
    let Some(run) = room.run(&[]) else { return };
    let [client] = run.assert_ok().as_slice() else { panic!("{:#}", run.report) };
    assert_eq!((&client["name"], &client["endpoint"]), (&"nsc-1".into(), &"nse-1".into()));
    assert_eq!(steps(client, "name"), ["nsc-1", "nsmgr-1", "forwarder-1", "nse-1"]);
    assert_eq!(steps(client, "id").into_iter().collect::<BTreeSet<_>>().len(), 4);
    assert_eq!(client["interface"], "nsm-1");
    assert_eq!(client["path"][2]["server_interface"], "KERNEL/nsm-1");
    assert!(client["peer_interface"].as_str().unwrap().starts_with("ns-first"));
    assert_eq!(texts(&client["addresses"]), ["10.1.0.1/32", "fd00:0:0:1::1/128"]);
    assert_eq!(texts(&client["peer_addresses"]), ["10.1.0.0/32", "fd00:0:0:1::/128"]);
    assert_eq!(client["ping_ok"], true);
    assert!(client["first_ping_us"].as_u64().unwrap() > 0);
    room.assert_empty();
}

#[test]
fn the_phases_of_a_request_are_all_of_its_time() {
    let room = Room::new();
    let Some(run) = room.run(&["--nodes", "2", "--clients", "3"]) else {
        return;
    };
    for client in run.assert_ok() {
        let phases = client["phases_us"].as_object().unwrap();
        let hops = steps(client, "name").into_iter().skip(1).map(|name| format!("hop:{name}"));
        let named = ["client", "discovery", "programming", "answer"].map(str::to_owned);
        let expected: BTreeSet<String> = hops.chain(named).collect();
        assert_eq!(phases.keys().cloned().collect::<BTreeSet<_>>(), expected);
        for phase in ["client", "discovery", "programming", "answer", "hop:nsmgr-1", "hop:forwarder-2"] {
            assert!(phases[phase].as_u64().unwrap() > 0, "{client:#}");
        }
        let sum: u64 = phases.values().map(|phase| phase.as_u64().unwrap()).sum();
        let setup = client["setup_us"].as_u64().unwrap();
        // Each phase lost less than a microsecond to rounding.
        assert!(sum <= setup && setup - sum <= phases.len() as u64 + 1, "{sum} of {setup}");
    }
}

#[test]
fn two_nodes_are_joined_by_a_tunnel() {
    let room = Room::new();
    let Some(run) = room.run(&["--nodes", "2"]) else {
        return;
    };
    let [client] = run.assert_ok().as_slice() else { panic!("{:#}", run.report) };
    let path = ["nsc-1", "nsmgr-1", "forwarder-1", "nsmgr-2", "forwarder-2", "nse-1"];
    assert_eq!(steps(client, "name"), path);
    assert_eq!(client["path"][2]["client_interface"], "VXLAN/");
    assert_eq!(client["path"][4]["server_interface"], "VXLAN/");
    assert_eq!(client["mtu"], 1446);
    room.assert_empty();
}

#[test]
fn many_clients_are_spread_over_endpoints_and_share_no_address() {
    let room = Room::new();
    let Some(run) = room.run(&["--clients", "12", "--endpoints", "3"]) else {
        return;
    };
    let clients = run.assert_ok();
    let endpoints: BTreeSet<_> = clients.iter().map(|client| client["endpoint"].as_str().unwrap()).collect();
    assert_eq!(endpoints, BTreeSet::from(["nse-1", "nse-2", "nse-3"]));
    let addresses = clients
        .iter()
        .flat_map(|client| texts(&client["addresses"]).into_iter().chain(texts(&client["peer_addresses"])));
    assert_eq!(addresses.collect::<BTreeSet<_>>().len(), 12 * 4);
    assert!(clients.iter().all(|client| client["ping_ok"] == true));
}

#[test]
fn many_clients_over_many_nodes_leave_nothing() {
    let room = Room::new();
    let Some(run) = room.run(&["--nodes", "3", "--clients", "20", "--endpoints", "2"]) else {
        return;
    };
    let clients = run.assert_ok();
    assert_eq!(clients.len(), 20);
    assert!(clients.iter().all(|client| client["path"].as_array().unwrap().len() == 6));
    room.assert_empty();
}

#[test]
fn two_at_the_same_time_do_not_disturb_each_other() {
    let rooms = [Room::new(), Room::new()];
    let runs: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = rooms.iter().map(|room| scope.spawn(|| room.run(&["--nodes", "2"]))).collect();
        started.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for run in runs.into_iter().flatten() {
        run.assert_ok();
    }
}
