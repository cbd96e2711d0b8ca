//! What the demo prints. Text only; where the numbers come from is not known here.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate::admin::snapshot_model::LatencySummary;
use tidegate::net::addr::Address;

use super::backends::BackendKind;
use super::load;

/// Live lines between two headers: they stay on one screen.
const LINES_A_HEADER: u64 = 20;

/// What the demo is, the configuration it runs with, and what to try. `moved` is where it should have listened if
/// that was not possible.
pub(super) fn welcome(
    address: SocketAddr,
    moved: Option<SocketAddr>,
    dashboard: Option<&Address>,
    backends: &[(BackendKind, SocketAddr)],
    config: &str,
) -> String {
    let mut text = format!("tidegate demo: {} HTTP backends behind http://{address}/\n", backends.len());
    // Writing to a String cannot fail, here and below.
    if let Some(moved) = moved {
        let _ = writeln!(text, "({moved} is not available, so this is another port)");
    }
    if let Some(dashboard) = dashboard {
        let _ = writeln!(text, "The dashboard, with everything that is measured: http://{dashboard}/");
    }
    text.push('\n');
    for (kind, backend) in backends {
        let speed = match kind.delay {
            Duration::ZERO => "answers at once".to_owned(),
            delay => format!("answers after {delay:?}"),
        };
        let _ = writeln!(text, "    {:<6} {backend}  weight {}, {speed}", kind.name, kind.weight);
    }
    text.push_str("\nThe configuration that it runs with:\n\n");
    for line in config.lines() {
        let _ = writeln!(text, "    {line}");
    }
    let _ = write!(
        text,
        "\n\
         Try, in another terminal, whom a connection comes to, how twenty of them are shared out,\n\
         and that requests on one connection stay with one backend:\n\
         \n    curl http://{address}/\
         \n    for i in $(seq 20); do curl -s http://{address}/; done | sort | uniq -c\
         \n    curl -s http://{address}/ http://{address}/ http://{address}/\n\
         \n\
         {} clients of the demo's own open {} connections a second. Ctrl-C ends it.\n",
        load::CLIENTS,
        load::RATE,
    );
    text
}

/// The state of things at one moment.
pub(super) struct Moment {
    pub(super) elapsed: Duration,
    pub(super) connections: u64,
    /// Connections a second since the last one.
    pub(super) rate: f64,
    pub(super) open: usize,
    /// The name of each backend, and its connections.
    pub(super) backends: Vec<(String, u64)>,
    /// Requests of the load that failed.
    pub(super) errors: u64,
}

/// The line of the moment; `number` counts them from 0.
pub(super) fn live(number: u64, moment: &Moment) -> String {
    let mut text = String::new();
    if number.is_multiple_of(LINES_A_HEADER) {
        let _ = write!(text, "\n{:>8}{:>13}{:>8}{:>6}", "time", "connections", "rate", "open");
        for (name, _) in &moment.backends {
            let _ = write!(text, "{name:>9}");
        }
        let _ = writeln!(text, "{:>8}", "errors");
    }
    let time = format!("{:.0} s", moment.elapsed.as_secs_f64());
    let rate = format!("{:.0}/s", moment.rate);
    let _ = write!(text, "{time:>8}{:>13}{rate:>8}{:>6}", moment.connections, moment.open);
    for (_, connections) in &moment.backends {
        let _ = write!(text, "{connections:>9}");
    }
    let _ = writeln!(text, "{:>8}", moment.errors);
    text
}

/// What is waited for at the end.
pub(super) fn draining(open: usize, limit: Duration) -> String {
    let open = if open == 1 { "1 connection is".to_owned() } else { format!("{open} connections are") };
    format!("\nDraining: {open} still open, for {limit:?} at most. Ctrl-C does not wait for that.\n")
}

/// A line of the summary.
#[derive(Default)]
pub(super) struct ReportRow {
    pub(super) name: String,
    pub(super) connections: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Connects that failed.
    pub(super) errors: u64,
    /// `None` when there was none.
    pub(super) first_byte: Option<LatencySummary>,
}

impl ReportRow {
    fn add(&mut self, other: &ReportRow) {
        self.connections += other.connections;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.errors += other.errors;
    }
}

/// How it went as a whole.
pub(super) struct DemoOutcome<'a> {
    pub(super) elapsed: Duration,
    /// Connections that did not end by themselves.
    pub(super) cut: usize,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) first_failure: Option<&'a str>,
}

/// The table of all backends with its total, and how the load fared. `first_byte` is that of all backends together.
pub(super) fn summary(backends: &[ReportRow], first_byte: Option<LatencySummary>, outcome: &DemoOutcome<'_>) -> String {
    let mut text = format!(
        "\nAfter {:.1} s:\n\n  {:<9}{:>12}{:>12}{:>12}{:>8}{:>12}{:>12}\n",
        outcome.elapsed.as_secs_f64(),
        "backend",
        "connections",
        "bytes in",
        "bytes out",
        "errors",
        "p50",
        "p99"
    );
    let mut total = ReportRow { name: "total".to_owned(), first_byte, ..ReportRow::default() };
    for row in backends {
        total.add(row);
        push_row(&mut text, row);
    }
    push_row(&mut text, &total);
    text.push_str(
        "\n  p50, p99: from a request's first byte to the first byte of its answer. errors: failed connects.\n",
    );
    let answered = outcome.answered;
    let _ = match (outcome.failed, outcome.first_failure) {
        (0, _) => writeln!(text, "  The demo's own clients had {answered} requests answered, each as expected."),
        (failed, first) => writeln!(
            text,
            "  The demo's own clients had {answered} requests answered as expected, and {failed} not;\n  the first one: {}",
            first.unwrap_or("unknown")
        ),
    };
    if outcome.cut > 0 {
        let _ = writeln!(text, "  Cut at the end: {}.", outcome.cut);
    }
    text
}

fn push_row(text: &mut String, row: &ReportRow) {
    let shown =
        |pick: fn(LatencySummary) -> u64| row.first_byte.map_or("-".to_owned(), |summary| millis(pick(summary)));
    let _ = writeln!(
        text,
        "  {:<9}{:>12}{:>12}{:>12}{:>8}{:>12}{:>12}",
        row.name,
        row.connections,
        bytes(row.bytes_in),
        bytes(row.bytes_out),
        row.errors,
        shown(|summary| summary.p50_us),
        shown(|summary| summary.p99_us)
    );
}

fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1_000.0)
}

fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = units[0];
    for next in &units[1..] {
        // What would be shown as 1024.0 is one of the next.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn bytes_have_the_unit_that_suits_them() {
        for (count, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }

    #[test]
    fn the_total_has_the_values_of_all() {
        let row = |name: &str, connections, micros| {
            let first_byte =
                Some(LatencySummary { count: 1, p50_us: micros, p99_us: micros, ..LatencySummary::default() });
            ReportRow { name: name.into(), connections, bytes_in: 1024, bytes_out: 0, errors: 1, first_byte }
        };
        let outcome = DemoOutcome {
            elapsed: Duration::from_secs(1),
            cut: 0,
            answered: 1,
            failed: 2,
            first_failure: Some("connect: refused"),
        };
        let all = Some(LatencySummary { count: 2, p50_us: 1000, p99_us: 5000, ..LatencySummary::default() });
        let text = summary(&[row("a", 3, 1000), row("b", 4, 5000), ReportRow::default()], all, &outcome);
        let total: Vec<&str> = text.lines().find(|line| line.contains("total")).unwrap().split_whitespace().collect();
        assert_eq!(total[..7], ["total", "7", "2.0", "KiB", "0", "B", "2"]);
        assert!(total[7].starts_with("1.0") && total[9].starts_with("5.0"), "{total:?}");
        assert!(text.contains(" -"), "a backend without connections has no p50:\n{text}");
        assert!(text.contains("and 2 not;\n  the first one: connect: refused"), "{text}");
    }

    #[test]
    fn nothing_is_wider_than_a_terminal() {
        let moment = Moment {
            elapsed: Duration::from_secs(359_999),
            connections: 99_999_999,
            rate: 9_999.0,
            open: 1_000,
            backends: vec![("quick".into(), 9_999_999); 3],
            errors: 1_000,
        };
        let outcome =
            DemoOutcome { elapsed: Duration::ZERO, cut: 1, answered: 99_999_999, failed: 0, first_failure: None };
        let text = live(0, &moment) + &summary(&[], None, &outcome);
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
