//! Choosing a mechanism among what the caller would like.

use nsm_api::Mechanism;
use nsm_chain::{Call, Code, Error, Result};

/// Calls `attempt` with the mechanism that the connection has, or with each preference in order until one succeeds.
/// Only mechanisms whose type is `supported` are attempted.
///
/// Each of several preferences is attempted on a clone, so that one that fails leaves no trace in the next. An attempt
/// that fails must have undone itself.
pub(crate) async fn select<F, Fut>(mut call: Call, supported: &[&str], attempt: F) -> Result<Call>
where
    F: Fn(Call) -> Fut,
    Fut: Future<Output = Result<Call>>,
{
    if let Some(mechanism) = &call.connection().mechanism {
        if !supported.contains(&mechanism.r#type.as_str()) {
            return Err(unsupported(std::slice::from_ref(mechanism), supported));
        }
        return attempt(call).await;
    }
    let mut causes = Vec::new();
    let wanted: Vec<_> =
        call.preferences().iter().filter(|m| supported.contains(&m.r#type.as_str())).cloned().collect();
    let count = wanted.len();
    for (at, mechanism) in wanted.into_iter().enumerate() {
        if at + 1 == count {
            call.connection_mut().mechanism = Some(mechanism);
            return match attempt(call).await {
                Err(error) if !causes.is_empty() => {
                    causes.push(error);
                    Err(Error::all_failed(format!("each of the {count} mechanisms offered failed"), causes))
                }
                result => result,
            };
        }
        let mut clone = call.clone();
        clone.connection_mut().mechanism = Some(mechanism);
        match attempt(clone).await {
            Ok(call) => return Ok(call),
            // Nobody waits for the next one; or whoever would have to take it is not there.
            Err(error) if matches!(error.code(), Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable) => {
                return Err(error);
            }
            Err(error) => causes.push(error),
        }
    }
    Err(unsupported(call.preferences(), supported))
}

fn unsupported(offered: &[Mechanism], supported: &[&str]) -> Error {
    let offered: Vec<_> = offered.iter().map(|mechanism| mechanism.r#type.as_str()).collect();
    Error::unsupported(format!(
        "no common mechanism: the caller offers {}, here {} can be used",
        list(&offered),
        list(supported)
    ))
    .hint("ask for a mechanism that both sides have")
}

fn list(types: &[&str]) -> String {
    // What a peer sent: neither endless nor able to break the line.
    const SHOWN: usize = 8;
    if types.is_empty() {
        return "none".to_owned();
    }
    let mut text: Vec<_> = types
        .iter()
        .take(SHOWN)
        .map(|name| name.chars().take(16).collect::<String>().escape_debug().to_string())
        .collect();
    if types.len() > SHOWN {
        text.push(format!("{} more", types.len() - SHOWN));
    }
    text.join(", ")
}
