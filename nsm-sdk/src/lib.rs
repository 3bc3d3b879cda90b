//! Network Service Mesh: elements, identity, transport and stacks.
