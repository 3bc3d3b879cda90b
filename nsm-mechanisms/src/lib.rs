//! Mechanisms and forwarder adapters of Network Service Mesh.
