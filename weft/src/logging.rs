//! The log: one line a message on stderr.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Opens the log at the level of `-v`. Only our own messages are shown: what a library says about its requests could
/// carry a secret. `parts` says which part of the process it is that speaks: the name of its thread.
pub fn init(verbosity: u8, parts: bool) {
    let level = match verbosity {
        0 | 1 => Level::INFO,
        2..=5 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let format = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_thread_names(parts)
        .with_target(verbosity >= 2);
    let ours = [
        "weft",
        "reconciler",
        "controllers",
        "node",
        "flanneld_rs",
        "tunnel",
        "kernel",
        "proxy",
        "dns",
        "source",
        "source",
    ];
    let ours = Targets::new().with_targets(ours.map(|part| (part, level)));
    tracing_subscriber::registry()
        .with(format)
        .with(ours)
        .init();
}
