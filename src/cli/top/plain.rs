//! `--once`: the table as plain text, without escape codes, or as JSON with exact numbers. Pure.

use std::fmt::Write;

use serde_json::json;
use tidegate::admin::snapshot_model::Snapshot;
use tidegate::stats::latency::Window;

use super::rows::{Row, Selection, rows};
use super::units::{count, latency, span};

/// Names over the columns. Rates are of the last 10 s, bytes of all time.
const HEADINGS: [&str; 10] = ["BACKEND", "STATE", "OPEN", "CONN/S", "IN", "OUT", "FAIL", "P50", "P99", "MAX"];

/// For people, and for scripts that cut columns.
pub(super) fn text(snapshot: &Snapshot, choice: &Selection) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows(snapshot, None, choice).iter().map(cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();

    let mut text = heading(snapshot);
    // A write to a string never fails.
    _ = writeln!(
        text,
        "{}, {}; connections a second: last 10s; bytes: since the start",
        choice.stage.name(),
        during(choice.window)
    );
    for line in lines {
        let mut row = String::new();
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            match column {
                0 => _ = write!(row, "{cell:width$}"),
                1 => _ = write!(row, "  {cell:width$}"),
                _ => _ = write!(row, "  {cell:>width$}"),
            }
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// For programs.
pub(super) fn json(snapshot: &Snapshot, choice: &Selection) -> serde_json::Value {
    let listeners = snapshot.listeners.iter();
    let listeners = serde_json::Value::from_iter(
        listeners.map(|it| json!({ "name": it.name, "state": it.state, "open": it.open, "accepted": it.accepted })),
    );
    json!({
        "time": snapshot.time,
        "version": snapshot.version,
        "uptime": snapshot.uptime,
        "ready": snapshot.ready,
        "not_ready": snapshot.not_ready,
        "config": snapshot.config,
        "predecessors": snapshot.predecessors,
        "listeners": listeners,
        "open": snapshot.plane.open,
        "capacity": snapshot.plane.capacity,
        "stage": choice.stage.name(),
        "window": choice.window.name(),
        "rows": rows(snapshot, None, choice),
    })
}

/// What there is to say of the whole, in a line or two.
fn heading(snapshot: &Snapshot) -> String {
    let mut text = format!(
        "tidegate {}, up {}, {} of {} connections, {}\n",
        clean(&snapshot.version),
        span(snapshot.uptime),
        snapshot.plane.open,
        snapshot.plane.capacity,
        readiness(snapshot)
    );
    for reason in &snapshot.not_ready {
        _ = writeln!(text, "{}", clean(reason));
    }
    if let Some(trouble) = snapshot.config.trouble() {
        _ = writeln!(text, "{}", clean(&trouble));
    }
    for line in lost_log_lines(snapshot).chain(left_behind(snapshot)) {
        _ = writeln!(text, "{}", clean(&line));
    }
    text
}

/// What processes that upgrades have replaced have left, while there are any.
pub(super) fn left_behind(snapshot: &Snapshot) -> Option<String> {
    let connections: usize = snapshot.predecessors.iter().map(|process| process.connections).sum();
    let processes = match snapshot.predecessors.len() {
        0 => return None,
        1 => "1 replaced process drains".to_owned(),
        several => format!("{several} replaced processes drain"),
    };
    let plural = if connections == 1 { "" } else { "s" };
    Some(format!("{processes}: {connections} connection{plural} left"))
}

/// Each log that cannot be written, and why.
pub(super) fn lost_log_lines(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    snapshot.logs.iter().filter_map(|log| {
        let error = log.error.as_ref()?;
        Some(format!("{} log cannot be written: {error} ({} lines lost)", log.name, log.write_errors))
    })
}

/// A window of time in words.
pub(super) fn during(window: Window) -> String {
    match window {
        Window::All => "since the start".to_owned(),
        window => format!("last {}", window.name()),
    }
}

/// In a word.
pub(super) fn readiness(snapshot: &Snapshot) -> &'static str {
    match (snapshot.ready, snapshot.draining) {
        (true, _) => "ready",
        (false, true) => "DRAINING",
        (false, false) => "NOT READY",
    }
}

fn cells(row: &Row) -> [String; 10] {
    let measured = |micros: Option<u64>| micros.map_or_else(|| "-".to_owned(), latency);
    [
        name(row),
        row.state.word().to_owned(),
        row.open.to_string(),
        count(row.per_second),
        count(row.bytes_in as f64),
        count(row.bytes_out as f64),
        row.failures.to_string(),
        measured(row.p50_us),
        measured(row.p99_us),
        measured(row.max_us),
    ]
}

/// A backend's name is indented under that of its pool.
pub(super) fn name(row: &Row) -> String {
    match (&row.backend, row.backends) {
        (Some(backend), _) => match &row.database {
            Some(database) => format!("  {} ({})", clean(backend), clean(database)),
            None => format!("  {}", clean(backend)),
        },
        (None, Some((up, all))) => format!("{} {up}/{all}", clean(&row.pool)),
        (None, None) => clean(&row.pool),
    }
}

/// Without what could mean something to a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
