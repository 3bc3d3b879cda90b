//! Starting the roles of the mesh.

use nsm_sdk::roles::Running;

use super::Options;
use super::document::Documents;
use crate::failure::Failure;
use crate::lab::{Function, Lab};
use crate::story::Story;

/// Starts registry, managers, forwarders and endpoints, and applies the documents.
pub(super) async fn start(
    options: &Options,
    documents: &Documents,
    story: &Story,
    lab: &mut Lab,
) -> Result<(), Failure> {
    let directory = lab.directory().display().to_string();
    story.told("sockets", &format!("in {directory}, removed at the end"));
    let begun = story.begin();
    let nodes = usize::from(options.nodes);
    let names: Vec<String> = (1..=nodes).map(|number| format!("node-{number}")).collect();
    if nodes > 1 {
        lab.lay_network(&names).await?;
        story.done(begun, "underlay", &format!("{nodes} nodes in namespaces, joined by a network of their own"));
    }
    let begun = story.begin();
    let directory = format!("unix://{directory}/");
    let shown = |role: &Running| role.to_string().replace(&directory, "");
    let registry = lab.start_registry().await?;
    story.done(begun, "registry", &shown(registry));

    for at in 0..nodes {
        let begun = story.begin();
        let node = lab.start_manager(&(at + 1).to_string()).await?;
        story.done(begun, "manager", &shown(&node.manager));
        let begun = story.begin();
        let forwarder = lab.start_forwarder(at).await?;
        story.done(begun, "forwarder", &format!("{}, registered", shown(forwarder)));
    }

    apply(documents, story, lab).await?;
    start_endpoints(options, documents, story, lab).await
}

async fn apply(documents: &Documents, story: &Story, lab: &mut Lab) -> Result<(), Failure> {
    let begun = story.begin();
    lab.apply(documents.services.clone()).await?;
    for service in &documents.services {
        let payload = if service.payload.is_empty() { "IP" } else { &service.payload };
        story.done(begun, "service", &format!("{} for {payload}, of {}", service.name, documents.source));
    }
    Ok(())
}

async fn start_endpoints(
    options: &Options,
    documents: &Documents,
    story: &Story,
    lab: &mut Lab,
) -> Result<(), Failure> {
    let last = usize::from(options.nodes).saturating_sub(1);
    for (number, serves) in (1..=options.endpoints).zip(documents.serves.iter().cycle()) {
        let begun = story.begin();
        let name = format!("nse-{number}");
        lab.add_workload(name.clone()).await?;
        let endpoint = lab.start_endpoint(&name, &Function::numbered(number)?, last, serves, Vec::new()).await?;
        let services = serves.keys().cloned().collect::<Vec<_>>().join(", ");
        story.done(
            begun,
            "endpoint",
            &format!("{} serves {services}, in a network namespace of its own", endpoint.name),
        );
    }
    Ok(())
}
