use std::fmt;
use std::sync::Arc;

use nsm_sdk::identity::IdentityError;

/// How it stands between a workload and its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentState {
    /// The agent's endpoint, as it was given.
    pub endpoint: Arc<str>,
    /// What keeps us from following the agent; none: we follow it.
    pub obstacle: Option<Obstacle>,
}

/// What stands between a workload and its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// Nothing has been heard yet: we have only begun.
    Starting,
    /// The socket file is not there.
    NoSuchFile,
    /// The socket is there, and nobody listens on it.
    Refused,
    /// The system does not let us use the socket.
    AccessDenied,
    /// The agent knows no identity for this workload.
    NoIdentity {
        /// In the agent's words.
        said: String,
    },
    /// It took the call and said nothing.
    Silent,
    /// It ended the stream of updates, or broke off.
    Lost,
    /// It has sent no new certificate in the old one's time.
    NotRenewed,
    /// It sent something that cannot be used.
    Unusable(IdentityError),
    /// Anything else.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

impl AgentState {
    /// Whether what the agent says reaches us.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.obstacle.is_none()
    }

    /// Why there is no SVID.
    pub(crate) fn no_svid(&self) -> IdentityError {
        match &self.obstacle {
            Some(Obstacle::Unusable(error)) => error.clone(),
            _ => IdentityError::NoSvid { reason: self.to_string() },
        }
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.obstacle {
            None => write!(f, "following the agent at {}", self.endpoint),
            Some(obstacle) => write!(f, "waiting for the agent at {}: {obstacle}", self.endpoint),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("nothing heard yet"),
            Self::NoSuchFile => {
                f.write_str("no such file (does the agent run, and is its socket's directory mounted here?)")
            }
            Self::Refused => f.write_str("connection refused (nobody listens on that socket)"),
            Self::AccessDenied => f.write_str("permission denied (this user may not use that socket)"),
            Self::NoIdentity { said } => write!(
                f,
                "it knows no identity for this workload (register an entry whose selectors match it; the agent says {said:?})"
            ),
            Self::Silent => f.write_str("it accepts the call and says nothing"),
            Self::Lost => f.write_str("it broke off"),
            Self::NotRenewed => f.write_str("it has sent no new certificate in time"),
            Self::Unusable(error) => write!(f, "it sent what cannot be used: {error}"),
            Self::Failed { reason } => f.write_str(reason),
        }
    }
}
