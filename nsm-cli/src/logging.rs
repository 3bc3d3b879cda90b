//! Logs go to standard error; `RUST_LOG` says how much.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

use crate::lab::{TRAIL_TARGET, Trail};

/// What is kept quiet unless `RUST_LOG` names it: every frame of every connection would bury what the mesh does.
const QUIET: [&str; 4] = ["h2", "hyper", "hyper_util", "tower"];

/// Warnings and worse unless `RUST_LOG` says otherwise; and the times of Requests for `trail`.
pub(crate) fn start(trail: Trail) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let text =
        fmt::layer().with_writer(std::io::stderr).with_ansi(coloured(&std::io::stderr())).with_filter(filter(&wanted));
    let times = trail.with_filter(Targets::new().with_target(TRAIL_TARGET, LevelFilter::TRACE));
    tracing_subscriber::registry().with(text).with(times).init();
}

/// How much a role logs, to be changed while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Verbosity {
    filter: reload::Handle<EnvFilter, Registry>,
    configured: String,
}

/// Logs from this level on unless `RUST_LOG` says otherwise.
pub(crate) fn at(level: LevelFilter) -> Verbosity {
    let configured =
        std::env::var("RUST_LOG").ok().filter(|wanted| !wanted.is_empty()).unwrap_or_else(|| level.to_string());
    let (filter, handle) = reload::Layer::new(filter(&configured));
    let text = fmt::layer().with_writer(std::io::stderr).with_ansi(coloured(&std::io::stderr()));
    tracing_subscriber::registry().with(filter).with(text).init();
    Verbosity { filter: handle, configured }
}

impl Verbosity {
    /// All there is, but for frames of connections.
    pub(crate) fn everything(&self) {
        self.set("trace");
    }

    /// What it was at first.
    pub(crate) fn as_configured(&self) {
        self.set(&self.configured);
    }

    fn set(&self, wanted: &str) {
        match self.filter.reload(filter(wanted)) {
            Ok(()) => tracing::info!(wanted, "what is logged has changed"),
            Err(error) => tracing::warn!(%error, "what is logged cannot be changed"),
        }
    }
}

/// Whether colours are wanted there (<https://no-color.org>).
pub(crate) fn coloured(out: &impl IsTerminal) -> bool {
    out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn filter(wanted: &str) -> EnvFilter {
    let filter = if wanted.is_empty() { EnvFilter::new("warn") } else { EnvFilter::new(wanted) };
    let quiet = QUIET.into_iter().filter(|target| !wanted.contains(target));
    let quiet = quiet.filter_map(|target| format!("{target}=warn").parse().ok());
    quiet.fold(filter, EnvFilter::add_directive)
}

#[cfg(test)]
mod tests {
    #[test]
    fn frames_are_logged_only_when_asked_for_by_name() {
        assert!(super::filter("debug").to_string().contains("h2=warn"));
        assert!(!super::filter("debug,h2=trace").to_string().contains("h2=warn"));
    }
}
