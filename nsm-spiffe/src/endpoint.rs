use std::env;

use spiffe::transport::Endpoint;

/// The variable that names the agent's socket (SPIFFE Workload Endpoint specification, §4).
pub const ENDPOINT_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// There is no agent to ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The variable is not set.
    #[error("{ENDPOINT_SOCKET} is not set; set it to the agent's socket, such as unix:///run/spire/sockets/agent.sock")]
    NotSet,
    /// A text that names no agent.
    #[error("{text:?} names no Workload API: {reason}; write unix:///path or tcp://ip:port")]
    Invalid {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

pub(crate) fn parse(text: &str) -> Result<Endpoint, EndpointError> {
    let invalid = |reason: String| EndpointError::Invalid { text: text.chars().take(200).collect(), reason };
    Endpoint::parse(text).map_err(|error| invalid(error.to_string()))
}

pub(crate) fn from_env() -> Result<String, EndpointError> {
    match env::var(ENDPOINT_SOCKET) {
        Ok(text) if !text.is_empty() => Ok(text),
        Ok(_) | Err(env::VarError::NotPresent) => Err(EndpointError::NotSet),
        Err(env::VarError::NotUnicode(text)) => Err(EndpointError::Invalid {
            text: text.to_string_lossy().into_owned(),
            reason: "it is no UTF-8".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_the_specification_are_read_and_others_refused_with_a_reason() {
        for text in ["unix:///run/spire/agent.sock", "unix:/run/agent.sock", "tcp://127.0.0.1:8081", "tcp://[::1]:8081"]
        {
            parse(text).unwrap();
        }
        for (text, reason) in [
            ("/run/agent.sock", "URI"),
            ("unix://run/agent.sock", "authority"),
            ("unix:///", "path"),
            ("tcp://localhost:8081", "IP address"),
            ("tcp://127.0.0.1", "port"),
            ("tcp://127.0.0.1:8081/api", "path"),
            ("https://127.0.0.1:8081", "unix: or tcp:"),
            ("unix:///run/agent.sock?a=b", "query"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{text}: {error}");
        }
    }
}
