//! Logs go to standard error; `RUST_LOG` says how much.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

use crate::lab::Trail;

/// Warnings and worse unless `RUST_LOG` says otherwise; and the times of Requests for `trail`.
pub(crate) fn start(trail: Trail) {
    let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let text = fmt::layer().with_writer(std::io::stderr).with_filter(wanted);
    let times = trail.with_filter(Targets::new().with_target(crate::lab::TRAIL_TARGET, LevelFilter::TRACE));
    tracing_subscriber::registry().with(text).with(times).init();
}
