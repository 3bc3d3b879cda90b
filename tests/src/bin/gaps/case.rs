//! What is done to the mesh, and what it may cost.

use std::time::Duration;

/// One way to break something.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) steps: &'static [Step],
    pub(crate) bound: Bound,
}

impl Case {
    /// Whether a pause before the first try would show.
    pub(crate) fn is_tight(&self) -> bool {
        matches!(self.bound, Bound::Gap(bound) if bound < EXTENDED_GAP)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// All of these die at the same time, and then come back one after the other.
    Restart(&'static [&'static str]),
    /// As `Restart`, and the endpoint that serves each client dies with them, and stays dead until all is well.
    RestartAndEndpoint(&'static [&'static str]),
    /// The endpoint's process dies; its interface is still there and answers pings.
    EndpointDies,
    /// The endpoint stops without a word: its process is frozen, its interfaces answer no more, its connections stay open.
    EndpointFreezes,
    /// The second node is cut off, and all of its processes die with it.
    NodeDies,
    /// Somebody sets the client's interface down.
    LinkDown,
}

/// What a case may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// No packet.
    Nothing,
    /// At the 99th percentile, this long without an answer.
    Gap(Duration),
}

/// Between two checks whether packets flow, of clients that check.
pub(crate) const LIVENESS: Duration = Duration::from_millis(200);

const CONTROL: Bound = Bound::Gap(Duration::from_millis(100));
const DATA: Bound = Bound::Gap(Duration::from_millis(600));
/// The bound of the reference's own extended tests.
const EXTENDED_GAP: Duration = Duration::from_secs(10);
const EXTENDED: Bound = Bound::Gap(EXTENDED_GAP);

const SYSTEM: &[&str] = &["registry", "nsmgr-1", "nsmgr-2", "nsmgr-3", "forwarder-1", "forwarder-2", "forwarder-3"];
const IN_A_ROW: &[Step] = &[
    Step::Restart(&["forwarder-1"]),
    Step::Restart(&["forwarder-2"]),
    Step::Restart(&["forwarder-3"]),
    Step::Restart(&["nsmgr-1"]),
    Step::Restart(&["nsmgr-2"]),
    Step::Restart(&["nsmgr-3"]),
    Step::Restart(&["registry"]),
    Step::Restart(SYSTEM),
];

pub(crate) const CASES: &[Case] = &[
    Case { name: "H1 forwarder, near", steps: &[Step::Restart(&["forwarder-1"])], bound: Bound::Nothing },
    Case {
        name: "H1 forwarders, far",
        steps: &[Step::Restart(&["forwarder-2", "forwarder-3"])],
        bound: Bound::Nothing,
    },
    Case {
        name: "H1 forwarders, all",
        steps: &[Step::Restart(&["forwarder-1", "forwarder-2", "forwarder-3"])],
        bound: Bound::Nothing,
    },
    Case { name: "H2 manager, near", steps: &[Step::Restart(&["nsmgr-1"])], bound: Bound::Nothing },
    Case { name: "H2 managers, far", steps: &[Step::Restart(&["nsmgr-2", "nsmgr-3"])], bound: Bound::Nothing },
    Case { name: "H2 managers, all", steps: &[Step::Restart(&["nsmgr-1", "nsmgr-2", "nsmgr-3"])], bound: EXTENDED },
    Case { name: "H3 endpoint dies", steps: &[Step::EndpointDies], bound: CONTROL },
    Case { name: "H3 endpoint freezes", steps: &[Step::EndpointFreezes], bound: DATA },
    Case { name: "H4 registry", steps: &[Step::Restart(&["registry"])], bound: Bound::Nothing },
    Case { name: "H4 registry, endpoint", steps: &[Step::RestartAndEndpoint(&["registry"])], bound: EXTENDED },
    Case {
        name: "H4 registry, far forwarders",
        steps: &[Step::Restart(&["registry", "forwarder-2", "forwarder-3"])],
        bound: Bound::Nothing,
    },
    Case {
        name: "H4 registry, far managers",
        steps: &[Step::Restart(&["registry", "nsmgr-2", "nsmgr-3"])],
        bound: Bound::Nothing,
    },
    Case { name: "H5 near manager, endpoint", steps: &[Step::RestartAndEndpoint(&["nsmgr-1"])], bound: EXTENDED },
    Case {
        name: "H5 near manager, forwarder",
        steps: &[Step::Restart(&["nsmgr-1", "forwarder-1"])],
        bound: Bound::Nothing,
    },
    Case {
        name: "H5 far managers, endpoint",
        steps: &[Step::RestartAndEndpoint(&["nsmgr-2", "nsmgr-3"])],
        bound: EXTENDED,
    },
    Case { name: "H6 whole system", steps: &[Step::Restart(SYSTEM)], bound: EXTENDED },
    Case { name: "H7 interface set down", steps: &[Step::LinkDown], bound: DATA },
    Case { name: "H10 all, in a row", steps: IN_A_ROW, bound: EXTENDED },
    // Last: a link to a node that comes back is half open for a while.
    Case { name: "H2 node dies", steps: &[Step::NodeDies], bound: EXTENDED },
];
