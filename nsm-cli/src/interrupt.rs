//! Ctrl-C.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// What a shell expects of a program that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Is cancelled by the first SIGINT, SIGTERM or SIGHUP (the terminal is closed), so that everything is taken down. The second ends the process at once:
/// namespaces end with it, sockets in the file system stay.
pub(crate) fn listen() -> Result<CancellationToken, Failure> {
    let failed = |error: std::io::Error| Failure::of("signals", &error);
    let (mut int, mut term) =
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?);
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let first = CancellationToken::new();
    let told = first.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hangup.recv() => {} }
            if told.is_cancelled() {
                std::process::exit(i32::from(INTERRUPTED));
            }
            told.cancel();
        }
    });
    Ok(first)
}
