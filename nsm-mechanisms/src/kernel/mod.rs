//! The KERNEL mechanism: an interface of a workload.

mod accept;
mod liveness;
mod offer;
mod tags;
mod transit;
mod workload;

pub use accept::KernelAccept;
pub use liveness::KernelLiveness;
pub use offer::KernelOffer;
pub use transit::KernelTransit;
pub use workload::Workload;
