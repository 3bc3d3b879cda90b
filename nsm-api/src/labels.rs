//! Label names with a meaning.

/// Name of the client's node; clients set it from the variable `NODE_NAME`.
pub const NODE_NAME: &str = "nodeName";
/// Name of the client's pod; clients set it from the variable `POD_NAME`.
pub const POD_NAME: &str = "podName";
/// Name of the client's cluster; clients set it from the variable `CLUSTER_NAME`.
pub const CLUSTER_NAME: &str = "clusterName";
/// Name of an SR-IOV token.
pub const SRIOV_TOKEN: &str = "sriovToken";
/// Service domain of an SR-IOV device.
pub const SERVICE_DOMAIN: &str = "serviceDomain";
/// Set to `true` on forwarders that do point to point connections; what a rule without forwarder labels asks for.
pub const P2P: &str = "p2p";
