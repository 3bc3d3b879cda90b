//! How long a connection lives, and what keeps it alive.

mod backoff;
mod heal;
mod on_idle;
mod reason;
mod refresh;
mod retry;
mod timeout;
mod upstream_refresh;

pub use backoff::Backoff;
pub(crate) use heal::is_refusal;
pub use heal::{Heal, Liveness};
pub use on_idle::OnIdle;
pub use reason::Reason;
pub use refresh::Refresh;
pub use retry::Retry;
pub use timeout::Timeout;
pub use upstream_refresh::UpstreamRefresh;
