//! Clients: namespaces for them, their Requests, and their packets.

use std::time::Duration;

use futures::StreamExt;
use nsm_api::{Connection, ServiceUrl};
use tokio::time::Instant;

use super::Options;
use super::connected::Connected;
use crate::failure::Failure;
use crate::lab::{Client, Lab};
use crate::story::Story;

/// How many clients ask at the same time: enough to keep the machine busy, and few enough that what is measured is not
/// mostly how they wait for each other.
const ASKING: usize = 4;

/// How long nothing may be said while clients wait.
const SILENCE: Duration = Duration::from_secs(2);

/// A connection, when it was asked for and when it was there.
pub(super) struct Answer {
    pub(super) connection: Connection,
    pub(super) asked: Instant,
    pub(super) there: Instant,
}

/// Starts the clients, has them ask for what the URL says, and sends packets through what they got. What was connected
/// is told also if a later step fails.
pub(super) async fn connect(
    options: &Options,
    url: &ServiceUrl,
    story: &Story,
    lab: &mut Lab,
    connected: &mut Vec<Connected>,
) -> Result<(), Failure> {
    let clients = start(options, story, lab).await?;
    let begun = story.begin();
    lab.trail.start();
    let (answers, failed) = ask_all(options, url, story, lab).await;
    let times = lab.trail.stop();
    for (client, answer) in lab.clients.iter().zip(answers) {
        connected.push(Connected::new(&client.name, answer, &times, &lab.wires));
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    story.done(begun, "connected", &format!("{url} for {clients}"));

    let begun = story.begin();
    let pinging = connected.iter_mut().map(|one| ping(lab, one));
    let pinged: Vec<_> = futures::stream::iter(pinging).buffered(ASKING).collect().await;
    pinged.into_iter().collect::<Result<(), Failure>>()?;
    let packets: usize = connected.iter().map(|one| one.pings.len()).sum();
    let what = "pings answered, from clients to endpoints and back, IPv4 and IPv6";
    story.done(begun, "packets", &format!("{packets} {what}"));
    Ok(())
}

/// Starts the clients, and says who they are.
async fn start(options: &Options, story: &Story, lab: &mut Lab) -> Result<String, Failure> {
    let begun = story.begin();
    let count = usize::from(options.clients);
    let names: Vec<String> = (1..=count).map(|number| format!("nsc-{number}")).collect();
    lab.add_workloads(names.clone()).await?;
    let with_clients = usize::from(options.nodes).saturating_sub(1).max(1);
    for (at, name) in names.iter().enumerate() {
        lab.add_client(name, at % with_clients)?;
    }
    let (clients, each) = match count {
        1 => ("nsc-1".to_owned(), ""),
        _ => (format!("{count} clients"), "each "),
    };
    let what = format!("{clients}, {each}in a network namespace of its own");
    story.done(begun, "client", &what);
    Ok(clients)
}

/// Has the clients ask, several at once. Answers in the order of the clients, up to the first failure.
async fn ask_all(options: &Options, url: &ServiceUrl, story: &Story, lab: &Lab) -> (Vec<Answer>, Option<Failure>) {
    let asking = lab.clients.iter().map(|client| ask(client, url, options.timeout()));
    let mut asking = futures::stream::iter(asking).buffered(ASKING);
    let mut answers = Vec::new();
    let mut patience = std::pin::pin!(tokio::time::sleep(SILENCE));
    let mut told = false;
    loop {
        tokio::select! {
            answer = asking.next() => match answer {
                Some(Ok(answer)) => answers.push(answer),
                Some(Err(failure)) => return (answers, Some(failure)),
                None => return (answers, None),
            },
            () = &mut patience, if !told => {
                told = true;
                let so_far = format!("{} of {} are connected", answers.len(), lab.clients.len());
                story.told("waiting", &format!("{so_far}; each tries for {} s", options.timeout));
            }
        }
    }
}

async fn ask(client: &Client, url: &ServiceUrl, within: Duration) -> Result<Answer, Failure> {
    let asked = Instant::now();
    let answer = client.request(url, within).await;
    let connection = answer.map_err(|error| Failure::of(&client.name, &error))?;
    Ok(Answer { connection, asked, there: Instant::now() })
}

async fn ping(lab: &Lab, one: &mut Connected) -> Result<(), Failure> {
    let netns = |name: &str| {
        let found = lab.workloads.iter().find(|workload| workload.name == name);
        found.map(|workload| workload.netns.clone()).ok_or_else(|| {
            let cause = format!("it was connected to {name}, which is none of ours");
            Failure::at(&one.name, cause, "see who else is registered")
        })
    };
    let (client, endpoint) = (netns(&one.name)?, netns(&one.endpoint)?);
    one.ping(&client, &endpoint).await
}
