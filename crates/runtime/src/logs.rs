//! Log lines on stderr: for people, or as JSON for machines that collect them.

use std::io;

use tracing::Level;

use crate::config::LogFormat;

/// Sends everything the node logs to stderr. Only the first call of a process has an effect.
pub fn start(format: LogFormat) {
    let lines =
        tracing_subscriber::fmt().with_max_level(Level::INFO).with_writer(io::stderr).with_target(false);
    // A process that logs elsewhere already (a test that runs several nodes) keeps doing so.
    let _ = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
