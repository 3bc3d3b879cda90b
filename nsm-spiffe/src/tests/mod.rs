//! Agents and workloads over real sockets.

mod agents;
mod federation;
mod rotation;
mod waiting;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nsm_sdk::identity::{DevAuthority, SvidSource};
use nsm_sdk::transport::Address;

use crate::{AgentHandle, AgentState, DevAgent, Obstacle, Options, WorkloadApi};

/// A directory of its own below the system's one for temporary files, removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("nsm-spiffe-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Follows the agent here, quickly.
    fn follow(&self) -> WorkloadApi {
        self.follow_with(Options::default())
    }

    fn follow_with(&self, options: Options) -> WorkloadApi {
        let quick = Options {
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_millis(50),
            patience: Duration::from_millis(300),
            ..options
        };
        WorkloadApi::connect_with(&self.endpoint(), quick).unwrap()
    }

    async fn serve(&self, agent: DevAgent) -> AgentHandle {
        agent.serve(&Address::Unix(self.socket())).await.unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn agent(authority: &DevAuthority) -> DevAgent {
    DevAgent::new(authority.clone()).identity("/workload")
}

fn authority() -> DevAuthority {
    DevAuthority::new("example.org").unwrap()
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn ready(identity: &WorkloadApi) {
    identity.ready(PATIENCE).await.unwrap();
}

/// Waits for a state with an obstacle like that.
async fn stuck(identity: &WorkloadApi, obstacle: impl Fn(&Obstacle) -> bool) -> AgentState {
    let mut states = identity.states();
    let wanted = states.wait_for(|state| state.obstacle.as_ref().is_some_and(&obstacle));
    let state = tokio::time::timeout(PATIENCE, wanted).await;
    state.unwrap_or_else(|_| panic!("{}", identity.state())).unwrap().clone()
}

async fn following(identity: &WorkloadApi) {
    let mut states = identity.states();
    let wanted = states.wait_for(AgentState::is_following);
    tokio::time::timeout(PATIENCE, wanted).await.unwrap_or_else(|_| panic!("{}", identity.state())).unwrap();
}

/// Waits until the source is as wanted; it is looked at after each change.
async fn until(identity: &WorkloadApi, wanted: impl Fn(&WorkloadApi) -> bool) {
    let mut changed = identity.changed();
    let change = changed.wait_for(|_| wanted(identity));
    tokio::time::timeout(PATIENCE, change).await.expect("a change").unwrap();
}
