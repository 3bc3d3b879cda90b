//! One agent for each role and one for the clients, all of one authority.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nsm_sdk::identity::DevAuthority;
use nsm_sdk::transport::Address;
use nsm_spiffe::{AgentHandle, DevAgent};

use crate::{Failure, Step};

/// The roles that are processes, in the order in which they start.
pub(crate) const ROLES: [&str; 4] = ["registry", "nsmgr", "forwarder", "endpoint"];
pub(crate) const CLIENT: &str = "client";

pub(crate) struct Agents {
    authority: DevAuthority,
    directory: PathBuf,
    lifetime: Duration,
    running: Vec<AgentHandle>,
    rotations: usize,
}

impl Agents {
    pub(crate) async fn start(directory: &Path, lifetime: Duration) -> Result<Self, Failure> {
        let authority = DevAuthority::new("example.org")?;
        let mut agents =
            Self { authority, directory: directory.to_owned(), lifetime, running: Vec::new(), rotations: 0 };
        agents.serve().await?;
        Ok(agents)
    }

    async fn serve(&mut self) -> Result<(), Failure> {
        for name in ROLES.into_iter().chain([CLIENT]) {
            let agent = DevAgent::new(self.authority.clone()).identity(&format!("/{name}")).lifetime(self.lifetime);
            self.running.push(agent.serve(&Address::Unix(socket(&self.directory, name))).await?);
        }
        Ok(())
    }

    pub(crate) async fn take(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            // While the agents are gone nothing is rotated.
            Step::Rotate if self.running.is_empty() => {}
            Step::Rotate => {
                self.running.iter().for_each(AgentHandle::rotate);
                self.rotations += 1;
            }
            Step::Prepare => self.authority.prepare()?,
            Step::Activate => {
                self.authority.activate()?;
                self.rotations += 1;
            }
            Step::Retire => self.authority.retire()?,
            Step::Stop => {
                for agent in self.running.drain(..) {
                    agent.stop().await;
                }
            }
            Step::Restart => {
                self.serve().await?;
                self.rotations += 1;
            }
        }
        Ok(())
    }

    /// How often all have got new certificates.
    pub(crate) fn rotations(&self) -> usize {
        self.rotations
    }
}

fn socket(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("agent-{name}.sock"))
}

/// As `SPIFFE_ENDPOINT_SOCKET` names it.
pub(crate) fn endpoint(directory: &Path, name: &str) -> String {
    format!("unix://{}", socket(directory, name).display())
}
