//! The audit line: when, who, what, before and after, and the result of every change.

use super::outcome::{Applied, Refusal};
use super::request::Actor;

/// Logs a request for a change and its outcome. Values are escaped by the log's formats, so that none can forge a field.
pub fn log(actor: &Actor, action: &str, dry_run: bool, outcome: &Result<Applied, Refusal>) {
    match outcome {
        Ok(applied) => tracing::info!(
            target: "audit",
            actor = actor.0,
            action,
            dry_run,
            result = "applied",
            generation = applied.generation,
            changes = ?applied.changes,
            "audit"
        ),
        Err(refusal) => tracing::warn!(
            target: "audit",
            actor = actor.0,
            action,
            dry_run,
            result = "refused",
            reason = refusal.summary(),
            "audit"
        ),
    }
}
