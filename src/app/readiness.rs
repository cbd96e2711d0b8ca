//! Log lines for readiness: the line `started` says that the listeners are open, `ready` that each accepts and that each of their
//! pools has a backend, as `/readyz` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{MissedTickBehavior, interval};

use crate::admin::{serves, why_not_serving};
use crate::pool;
use crate::server::DataPlane;

/// Reasons in one log line; `/readyz` has them all.
const MAX_REASONS: usize = 3;

/// Logs whether the process is ready, and then each change, until it drains.
pub(super) async fn report(plane: Arc<DataPlane>, mut was_ready: bool, draining: Arc<AtomicBool>) {
    let mut ticks = interval(pool::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if draining.load(Ordering::Relaxed) {
            return;
        }
        if serves(&plane) != was_ready {
            was_ready = log(&plane);
        }
    }
}

/// Logs whether the process is ready. True if it is.
pub(super) fn log(plane: &DataPlane) -> bool {
    let reasons = why_not_serving(plane);
    match reasons.as_slice() {
        [] => tracing::info!("ready"),
        reasons => tracing::warn!(reason = in_words(reasons), "not ready"),
    }
    reasons.is_empty()
}

fn in_words(reasons: &[String]) -> String {
    let mut text = reasons.iter().take(MAX_REASONS).map(String::as_str).collect::<Vec<_>>().join("; ");
    if let more @ 1.. = reasons.len().saturating_sub(MAX_REASONS) {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_reasons_are_a_short_line() {
        let reasons: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        assert_eq!(in_words(&reasons[..1]), "a");
        assert_eq!(in_words(&reasons[..3]), "a; b; c");
        assert_eq!(in_words(&reasons), "a; b; c; and 2 more");
    }
}
