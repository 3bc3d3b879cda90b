//! What is there, once a minute.

use nsm_tests::mesh::Failure;

use crate::churn::{Churn, KEPT, KILLED, Tally};

/// What some roles hold together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// KiB that are resident.
    pub(crate) resident: u64,
    /// KiB that are allocated and not freed: what the role itself holds. The rest is the allocator's, and the program.
    pub(crate) heap: u64,
    pub(crate) descriptors: u64,
    pub(crate) tasks: u64,
}

#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) tally: Tally,
    /// One by one, in the order of [`KEPT`].
    pub(crate) each: Vec<Held>,
    pub(crate) kept: Held,
    pub(crate) killed: Held,
    /// Connections at clients.
    pub(crate) open: usize,
    /// Interfaces with a forwarder's mark.
    pub(crate) links: usize,
    /// Interfaces, and connections at managers and forwarders, that nobody wants.
    pub(crate) left: usize,
}

impl Count {
    pub(crate) async fn take(churn: &mut Churn, tally: Tally) -> Result<Self, Failure> {
        let mut open = 0;
        let mut each = Vec::new();
        for name in KEPT {
            each.push(held(churn, name, &mut open).await?);
        }
        let kept = sum(&each);
        let mut others = Vec::new();
        for name in KILLED {
            others.push(held(churn, name, &mut open).await?);
        }
        let killed = sum(&others);
        let (links, left) = (churn.mesh.wire_ends().await?, churn.left().await?);
        Ok(Self { tally, each, kept, killed, open, links, left })
    }

    pub(crate) fn heading() -> String {
        let kept: Vec<String> = KEPT.iter().map(|name| format!("{name:>11}")).collect();
        format!(
            "Roles that are never killed: {}. Killed: {}. RSS and heap in KiB.\n{:>6} {:>5} {:>6} {:>6} {:>7} | {} {:>6} {:>6} {:>6} | {:>11} {:>6} {:>6} | {:>5} {:>4} {:>6}",
            KEPT.join(", "),
            KILLED.join(", "),
            "minute",
            "open",
            "kills",
            "calls",
            "healed",
            kept.join(" "),
            "heap",
            "fds",
            "tasks",
            "killed: RSS",
            "fds",
            "tasks",
            "links",
            "left",
            "failed",
        )
    }

    pub(crate) fn line(&self, minute: u64) -> String {
        let each: Vec<String> = self.each.iter().map(|held| format!("{:>11}", held.resident)).collect();
        format!(
            "{minute:>6} {:>5} {:>6} {:>6} {:>6}ms | {} {:>6} {:>6} {:>6} | {:>11} {:>6} {:>6} | {:>5} {:>4} {:>6}",
            self.open,
            self.tally.kills,
            self.tally.connected + self.tally.closed,
            self.tally.longest.as_millis(),
            each.join(" "),
            self.kept.heap,
            self.kept.descriptors,
            self.kept.tasks,
            self.killed.resident,
            self.killed.descriptors,
            self.killed.tasks,
            self.links,
            self.left,
            self.tally.failed.len(),
        )
    }
}

async fn held(churn: &mut Churn, name: &str, open: &mut usize) -> Result<Held, Failure> {
    let process = churn.mesh.process(name)?;
    let count = process.count().await?;
    if name.starts_with("client") {
        *open += count.connections;
    }
    let heap = count.heap.max(0).cast_unsigned() / 1024;
    Ok(Held { resident: process.resident()?, heap, descriptors: process.descriptors()?, tasks: count.tasks })
}

fn sum(all: &[Held]) -> Held {
    all.iter().fold(Held::default(), |sum, held| Held {
        resident: sum.resident + held.resident,
        heap: sum.heap + held.heap,
        descriptors: sum.descriptors + held.descriptors,
        tasks: sum.tasks + held.tasks,
    })
}
