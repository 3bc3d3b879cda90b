//! What happens, in order.

use nsm_api::ServiceUrl;
use nsm_api::mechanism::KERNEL;

use super::connected::Connected;
use super::document::Documents;
use super::{Options, clients, picture, roles, table};
use crate::failure::Failure;
use crate::lab::Lab;
use crate::story::Story;

/// Brings everything up, connects the clients and sends packets. What was connected is told even if a later step fails.
pub(super) async fn play(
    options: &Options,
    documents: &Documents,
    story: &Story,
    lab: &mut Lab,
    connected: &mut Vec<Connected>,
) -> Result<(), Failure> {
    let user = if nsm_kernel::privileges().in_user_namespace { ", in a user namespace" } else { "" };
    story.title(&format!("A network service mesh on this machine{user}"));
    let url = wanted(options, documents)?;
    roles::start(options, documents, story, lab).await?;
    clients::connect(options, &url, story, lab, connected).await?;
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
    let remedy = "write kernel://service/interface";
    let url: ServiceUrl =
        text.parse().map_err(|error: nsm_api::service_url::ServiceUrlError| Failure::of("nsc-1", &error))?;
    if url.mechanism != KERNEL {
        let cause = format!("{text} asks for {}, and packets are sent through kernel interfaces only", url.mechanism);
        return Err(Failure::at("nsc-1", cause, remedy));
    }
    Ok(url)
}
