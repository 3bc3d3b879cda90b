//! Linux networking for Network Service Mesh: namespaces, links, addresses, routes, liveness.
