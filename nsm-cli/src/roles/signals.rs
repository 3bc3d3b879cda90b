//! The signals of the reference's programs.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::logging::Verbosity;

/// Is cancelled by the first INT, TERM, HUP or QUIT, so that everything is closed. The second ends the process at once,
/// as if it had not been caught. USR1 logs all there is, USR2 as configured.
pub(super) fn listen(verbosity: Verbosity) -> Result<CancellationToken, Failure> {
    let on = |kind| signal(kind).map_err(|error: std::io::Error| Failure::of("signals", &error));
    let mut int = on(SignalKind::interrupt())?;
    let mut term = on(SignalKind::terminate())?;
    let mut hup = on(SignalKind::hangup())?;
    let mut quit = on(SignalKind::quit())?;
    let (mut louder, mut as_configured) = (on(SignalKind::user_defined1())?, on(SignalKind::user_defined2())?);
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        loop {
            let ending = tokio::select! {
                _ = int.recv() => SignalKind::interrupt(),
                _ = term.recv() => SignalKind::terminate(),
                _ = hup.recv() => SignalKind::hangup(),
                _ = quit.recv() => SignalKind::quit(),
                _ = louder.recv() => { verbosity.everything(); continue; }
                _ = as_configured.recv() => { verbosity.as_configured(); continue; }
            };
            if told.is_cancelled() {
                // What a shell expects of a program that a signal ended.
                std::process::exit(128 + ending.as_raw_value());
            }
            tracing::info!("closing; a second signal ends at once");
            told.cancel();
        }
    });
    Ok(stop)
}
