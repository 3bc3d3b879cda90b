//! What happens, in order.

use futures::StreamExt;
use nsm_api::ServiceUrl;
use tokio::time::Instant;

use super::connected::Connected;
use super::document::Documents;
use super::story::Story;
use super::{Options, picture, table};
use crate::failure::Failure;
use crate::lab::{Client, Lab};

/// How many clients ask at the same time: as many as keep two processors busy without queueing behind each other.
const ASKING: usize = 8;

/// Brings everything up, connects the clients and sends packets. What was connected is told even if a later step fails.
pub(super) async fn play(
    options: &Options,
    documents: &Documents,
    story: &Story,
    lab: &mut Lab,
    connected: &mut Vec<Connected>,
) -> Result<(), Failure> {
    story.title("A network service mesh on this machine");
    let url = wanted(options, documents)?;
    start_roles(options, documents, story, lab).await?;
    connect(options, &url, story, lab, connected).await?;
    for one in connected.iter().take(1) {
        story.say("");
        picture::draw(story, one);
    }
    story.say("");
    table::print(story, connected);
    story.say("");
    Ok(())
}

fn wanted(options: &Options, documents: &Documents) -> Result<ServiceUrl, Failure> {
    let text = options.request.clone().unwrap_or_else(|| documents.url());
    let remedy = "write kernel://<service>/<interface of at most 15 characters>?<label>=<value>";
    text.parse().map_err(|error: nsm_api::service_url::ServiceUrlError| Failure::at("nsc-1", error.to_string(), remedy))
}

async fn start_roles(options: &Options, documents: &Documents, story: &Story, lab: &mut Lab) -> Result<(), Failure> {
    let begun = story.begin();
    let nodes = usize::from(options.nodes);
    lab.lay_network(nodes).await?;
    if nodes > 1 {
        story.done(begun, "underlay", &format!("{nodes} nodes in namespaces, joined by a network of their own"));
    }
    let begun = story.begin();
    let url = lab.start_registry().await?;
    story.done(begun, "registry", &format!("registry at {url}"));

    for at in 0..nodes {
        let begun = story.begin();
        let node = lab.start_manager().await?;
        story.done(begun, "manager", &node.manager.to_string());
        let begun = story.begin();
        let forwarder = lab.start_forwarder(at).await?;
        story.done(begun, "forwarder", &format!("{forwarder}, registered"));
    }

    let begun = story.begin();
    lab.apply(documents.services.clone()).await?;
    for service in &documents.services {
        let payload = if service.payload.is_empty() { "IP" } else { &service.payload };
        story.done(begun, "service", &format!("{} for {payload}, of {}", service.name, documents.source));
    }

    let last = nodes - 1;
    for (number, serves) in (1..=options.endpoints).zip(documents.serves.iter().cycle()) {
        let begun = story.begin();
        let name = format!("nse-{number}");
        lab.add_workload(name.clone(), options.keep).await?;
        let endpoint = lab.start_endpoint(&name, number, last, serves).await?;
        let services = serves.keys().cloned().collect::<Vec<_>>().join(", ");
        story.done(begun, "endpoint", &format!("{} serves {services}, in a network namespace of its own", endpoint.name));
    }
    Ok(())
}

async fn connect(
    options: &Options,
    url: &ServiceUrl,
    story: &Story,
    lab: &mut Lab,
    connected: &mut Vec<Connected>,
) -> Result<(), Failure> {
    let begun = story.begin();
    let count = usize::from(options.clients);
    let names: Vec<String> = (1..=count).map(|number| format!("nsc-{number}")).collect();
    lab.add_workloads(names.clone(), options.keep).await?;
    let with_clients = usize::from(options.nodes).saturating_sub(1).max(1);
    for (at, name) in names.iter().enumerate() {
        lab.add_client(name, at % with_clients)?;
    }
    let clients = if count == 1 { "nsc-1" } else { &format!("{count} clients") };
    story.done(begun, "client", &format!("{clients}, each in a network namespace of its own"));

    let begun = story.begin();
    lab.trail.start();
    let asking = lab.clients.iter().map(|client| ask(client, url, options.timeout()));
    let mut asking = futures::stream::iter(asking).buffered(ASKING);
    let mut answers = Vec::new();
    while let Some(answer) = asking.next().await {
        answers.push(answer?);
    }
    drop(asking);
    let times = lab.trail.stop();
    let shown = options.request.clone().unwrap_or_else(|| format!("kernel://{}/nsm-1", url.service));
    story.done(begun, "connected", &format!("{shown} for {clients}"));

    let begun = story.begin();
    for (client, answer) in lab.clients.iter().zip(answers) {
        connected.push(Connected::new(&client.name, answer, &times, &lab.wires));
    }
    let pinging = connected.iter_mut().map(|one| ping(lab, one));
    let pinged: Vec<Result<(), Failure>> = futures::stream::iter(pinging).buffered(ASKING).collect().await;
    pinged.into_iter().collect::<Result<(), _>>()?;
    let packets: usize = connected.iter().map(|one| one.pings.len()).sum();
    story.done(begun, "packets", &format!("{packets} pings answered, from clients to endpoints and back, IPv4 and IPv6"));
    Ok(())
}

/// A connection, when it was asked for and when it was there.
pub(super) struct Answer {
    pub(super) connection: nsm_api::Connection,
    pub(super) asked: Instant,
    pub(super) there: Instant,
}

async fn ask(client: &Client, url: &ServiceUrl, within: std::time::Duration) -> Result<Answer, Failure> {
    let asked = Instant::now();
    let connection = client.request(url, within).await.map_err(|error| Failure::of(&client.name, &error))?;
    Ok(Answer { connection, asked, there: Instant::now() })
}

async fn ping(lab: &Lab, one: &mut Connected) -> Result<(), Failure> {
    let netns = |name: &str| {
        let found = lab.workloads.iter().find(|workload| workload.name == name);
        found.map(|workload| workload.netns.clone()).ok_or_else(|| {
            Failure::at(&one.name, format!("it was connected to {name}, which is none of ours"), "see who else is registered")
        })
    };
    let (client, endpoint) = (netns(&one.name)?, netns(&one.endpoint)?);
    one.ping(&client, &endpoint).await
}
