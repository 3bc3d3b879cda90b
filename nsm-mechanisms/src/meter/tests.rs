use std::sync::Mutex;

use nsm_api::{Connection, Mechanism, Path, PathSegment};
use nsm_chain::{Begin, Call, Chain, Error, OwnedNext, Result, elements, from_fn};

use super::*;
use crate::{Class, Programmed, Wire};

/// Counts what the test says.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<HashMap<Arc<str>, Traffic>>>);

impl Dataplane for Told {
    type Lease = ();

    fn accepts(&self, _payload: &str) -> Vec<&'static str> {
        Vec::new()
    }

    fn offers(&self, _id: &str, _class: Class, _payload: &str) -> Vec<Mechanism> {
        Vec::new()
    }

    fn accept(&self, _id: &str, _mechanism: &mut Mechanism, _held: Option<&()>) -> Result<()> {
        Ok(())
    }

    async fn connect(&self, _wire: &Wire) -> Result<Programmed> {
        Ok(Programmed::Unchanged)
    }

    async fn disconnect(&self, _id: &str) -> Result<()> {
        Ok(())
    }
}

impl Metered for Told {
    async fn traffic(&self, id: &str) -> Option<Traffic> {
        self.0.lock().unwrap().get(id).cloned()
    }

    async fn all_traffic(&self) -> HashMap<Arc<str>, Traffic> {
        self.0.lock().unwrap().clone()
    }
}

fn asked(id: &str) -> Call {
    let segment = |name: &str, id: &str| PathSegment { name: name.into(), id: id.into(), ..Default::default() };
    let mut client = segment("nsc", "c");
    client.metrics.insert("client_interface".into(), "KERNEL/nsm-1".into());
    Call::new(Connection {
        id: id.into(),
        network_service: "ns".into(),
        path: Some(Path { index: 1, path_segments: vec![client, segment("fwd", id)] }),
        ..Default::default()
    })
}

#[tokio::test]
async fn what_has_passed_is_told_in_the_path_and_on_the_page_until_the_close() {
    let told = Told::default();
    let meter = Meter::new(told.clone());
    let readings = meter.readings();
    let answer = from_fn(|call: Call, _next: OwnedNext| async move {
        if call.connection().network_service.is_empty() { Err(Error::not_found("no service")) } else { Ok(call) }
    });
    let chain = Chain::new("fwd", elements![Begin::default(), meter, answer]).unwrap();
    // Nothing is counted yet.
    let call = chain.request(asked("1")).await.unwrap();
    assert!(call.connection().current_segment().unwrap().metrics.is_empty());

    let passed =
        |n: u64| Passed { rx_bytes: n, tx_bytes: n + 1, rx_packets: n + 2, tx_packets: n + 3, drops: n + 4, errors: n };
    let traffic =
        Traffic { caller: passed(10), next: passed(20), reasons: BTreeMap::from([("rate_limit", 5), ("no", 0)]) };
    told.0.lock().unwrap().insert("1".into(), traffic);
    let call = chain.request(asked("1")).await.unwrap();
    let metrics: Vec<_> =
        call.connection().current_segment().unwrap().metrics.iter().map(|(k, v)| format!("{k} {v}")).collect();
    assert_eq!(
        metrics,
        [
            "client_drops 24",
            "client_rx_bytes 20",
            "client_rx_packets 22",
            "client_tx_bytes 21",
            "client_tx_packets 23",
            "server_drops 14",
            "server_rx_bytes 10",
            "server_rx_packets 12",
            "server_tx_bytes 11",
            "server_tx_packets 13",
        ]
    );

    let mut refused = asked("2");
    refused.connection_mut().network_service.clear();
    chain.request(refused).await.unwrap_err();
    let page = readings.prometheus("").await;
    let labels = r#"connection_id="1",network_service="ns",nsc="nsc",nsc_interface="KERNEL/nsm-1",nse_interface="""#;
    for line in [
        "wires 1".to_owned(),
        r#"requests_total{outcome="Ok"} 2"#.to_owned(),
        r#"requests_total{outcome="NotFound"} 1"#.to_owned(),
        format!("server_rx_bytes_total{{{labels}}} 10"),
        format!("client_drops_total{{{labels}}} 24"),
        format!("client_errors_total{{{labels}}} 20"),
        format!(r#"drops_by_reason_total{{{labels},reason="rate_limit"}} 5"#),
    ] {
        assert!(page.lines().any(|said| said == line), "{line}\n{page}");
    }
    assert!(!page.contains("reason=\"no\""), "{page}");
    assert!(readings.prometheus("nsm").await.contains("\nnsm_server_tx_packets_total{"));

    chain.close(Call::new(call.share())).await.unwrap();
    let page = readings.prometheus("").await;
    assert!(page.contains("wires 0\n") && !page.contains("connection_id"), "{page}");
}

#[tokio::test]
async fn a_page_stays_readable_whatever_ids_peers_choose() {
    let told = Told::default();
    let meter = Meter::new(told.clone());
    let readings = meter.readings();
    let chain = Chain::new("fwd", elements![Begin::default(), meter]).unwrap();
    let long = "x".repeat(200);
    for id in ["a\nb", "a?b", &format!("{long}1"), &format!("{long}2")] {
        told.0.lock().unwrap().insert(id.into(), Traffic::default());
        chain.request(asked(id)).await.unwrap();
    }
    let page = readings.prometheus("").await;
    let lines: Vec<_> = page.lines().filter(|line| line.starts_with("server_drops_total")).collect();
    assert!(page.contains("wires 4\n") && lines.len() == 1, "{page}");
}
