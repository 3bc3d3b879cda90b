//! The wire of Network Service Mesh: messages, and typed views over them.
