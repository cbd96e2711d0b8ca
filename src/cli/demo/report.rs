//! What the demo prints. Text only; where the numbers come from is not known here.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate::admin::snapshot_model::LatencySummary;
use tidegate::control::status::ChangeEvent;

use super::backends::{BackendKind, KINDS};
use super::load;
use super::places::DemoPlaces;
use super::tally::StepTally;

/// Lines between two headers: they stay on one screen.
pub(super) const LINES_A_HEADER: u64 = 20;

/// What is said at the beginning.
pub(super) struct Welcome<'a> {
    pub(super) places: &'a DemoPlaces,
    /// Addresses that were wanted and are not available, and why.
    pub(super) moved: Vec<String>,
    pub(super) backends: &'a [(BackendKind, SocketAddr)],
    /// The text of the configuration.
    pub(super) config: &'a str,
    /// HTTP is watched, and clients keep connections.
    pub(super) has_http: bool,
    /// How long the steps take, and the whole demo.
    pub(super) steps: Duration,
    pub(super) end: Duration,
}

/// What the demo is, the configuration it runs with, and what to try.
pub(super) fn welcome(welcome: &Welcome<'_>) -> String {
    let Welcome { places, moved, backends, config, has_http, steps, end } = welcome;
    let mut text = format!("tidegate demo: {} HTTP backends behind {}\n", backends.len(), places.url());
    // Writing to a String cannot fail, here and below.
    for moved in moved {
        let _ = writeln!(text, "({moved})");
    }
    let _ = writeln!(text, "The dashboard, with everything that is measured: http://{}/\n", places.dashboard);
    for (kind, backend) in *backends {
        let speed = match kind.delay {
            Duration::ZERO => "answers at once".to_owned(),
            delay => format!("answers after {delay:?}"),
        };
        let _ = writeln!(text, "    {:<6} {backend}  weight {}, {speed}", kind.name, kind.weight);
    }
    let _ = writeln!(text, "\nThe configuration that it runs with, {}:\n", places.config.display());
    for line in config.lines() {
        let _ = writeln!(text, "    {line}");
    }
    let by_hand = [
        places.curl("", 1),
        format!("for i in $(seq 20); do {}; done | sort | uniq -c", places.curl("-s", 1)),
        places.curl("-s", 3),
    ];
    let _ = writeln!(
        text,
        "\nTry, in another terminal, which backend gets a connection, how twenty of them are shared out,\n\
         and that requests on one connection stay with one backend:\n"
    );
    commands(&mut text, &by_hand);
    if *has_http {
        text.push_str(
            "\nHTTP is watched (sniff: http): the dashboard shows requests and status classes. Add some:\n\n",
        );
        commands(&mut text, &[places.curl("-s", 1) + "status/404", places.curl("-s", 1) + "status/503"]);
    }
    text.push_str("\nWhat the demo does by itself, you can do too, at any time. To a backend:\n\n");
    commands(&mut text, &["stop", "reset", "start"].map(|verb| places.switch("quick", verb)));
    text.push_str(
        "\nBy the admin interface (docs/api.md); the last one applies the file above when you have changed it:\n\n",
    );
    let changes = [
        places.patch("heavy", r#"{"state": "drain"}"#),
        places.patch("heavy", r#"{"state": "ready"}"#),
        places.patch("slow", r#"{"weight": 4}"#),
        places.call("POST", "/api/reload", ""),
    ];
    commands(&mut text, &changes);
    text.push_str("\nThe same by tidegate's own commands, and what it knows:\n\n");
    let of_tidegate =
        ["drain demo/heavy", "ready demo/heavy", "weight demo/slow 4", "reload", "top", "explain --client 127.0.0.1"];
    commands(&mut text, &of_tidegate.map(|arguments| places.command(arguments)));
    let connections = match has_http {
        true => format!("{} of them on a connection, and 3 of 40 for an error (404, 503)", load::REQUESTS),
        false => "each on a connection of its own".to_owned(),
    };
    let _ = writeln!(
        text,
        "\n{} clients of the demo's own make {} requests a second together, {connections}.\n\
         The steps that now follow take about {} s. The demo ends after {} s, or on Ctrl-C.",
        load::CLIENTS,
        load::RATE,
        steps.as_secs(),
        end.as_secs(),
    );
    text
}

fn commands(text: &mut String, commands: &[String]) {
    for command in commands {
        let _ = writeln!(text, "    {command}");
    }
}

/// Where it listens instead of where it should.
pub(super) fn moved(what: &str, wanted: SocketAddr, why: &std::io::Error) -> String {
    let why = match why.kind() {
        std::io::ErrorKind::AddrInUse => "is in use".to_owned(),
        _ => format!("is not available, {why}"),
    };
    format!("{wanted} {why}: {what} has another port")
}

/// A step begins. `by_hand` is the command by which a user does the same; empty for none.
pub(super) fn step(elapsed: Duration, name: &str, meaning: &str, by_hand: &str) -> String {
    let mut text = format!("\n{} == {name} ==\n", time(elapsed));
    for line in meaning.lines() {
        let _ = writeln!(text, "{:>8}   {line}", "");
    }
    if !by_hand.is_empty() {
        let _ = writeln!(text, "{:>8}   By hand: {by_hand}", "");
    }
    text
}

/// All steps are over.
pub(super) fn rest(elapsed: Duration, name: &str) -> String {
    step(elapsed, name, "These were all steps. The commands above work until the end.", "")
}

/// Something has happened.
pub(super) fn event(elapsed: Duration, what: &str) -> String {
    format!("{} {what}\n", time(elapsed))
}

fn time(elapsed: Duration) -> String {
    format!("{:>8} *", format!("{:.1} s", elapsed.as_secs_f64()))
}

/// Health checks have taken a backend out or back.
pub(super) fn transition(name: &str, is_up: bool, reason: Option<&str>) -> String {
    match (is_up, reason) {
        (true, _) => format!("{name} is up: its health checks pass"),
        (false, Some(reason)) => format!("{name} is down: {reason}"),
        (false, None) => format!("{name} is down"),
    }
}

/// A change that somebody has asked for.
pub(super) fn change(event: &ChangeEvent, is_own: bool) -> String {
    let by = if is_own { String::new() } else { format!(" ({} by {})", event.action, event.actor) };
    match &event.refused {
        Some(why) => format!("refused{by}: {why}"),
        None if event.changes.is_empty() => format!("nothing has changed{by}"),
        None => format!("changed{by}: {}", event.changes.join(", ")),
    }
}

/// The state of things at one moment.
pub(super) struct Moment {
    pub(super) elapsed: Duration,
    /// Answers a second since the last one.
    pub(super) rate: f64,
    /// Requests of the clients that have failed so far.
    pub(super) failed: u64,
    pub(super) open: usize,
    pub(super) backends: Vec<BackendColumn>,
}

/// What a line says of a backend.
pub(super) struct BackendColumn {
    pub(super) name: String,
    /// Why it gets no connections.
    pub(super) out_of_service: Option<&'static str>,
    /// Its answers a second.
    pub(super) rate: f64,
}

/// The header of the lines.
pub(super) fn header(moment: &Moment) -> String {
    let mut text = format!("\n{:>8}{:>11}{:>8}{:>6}", "time", "answers/s", "failed", "open");
    for BackendColumn { name, .. } in &moment.backends {
        let _ = write!(text, "{name:>10}");
    }
    text.push('\n');
    text
}

/// The line of the moment.
pub(super) fn line(moment: &Moment) -> String {
    let time = format!("{:.0} s", moment.elapsed.as_secs_f64());
    let mut text = format!("{time:>8}{:>11.0}{:>8}{:>6}", moment.rate, moment.failed, moment.open);
    for BackendColumn { out_of_service, rate, .. } in &moment.backends {
        let cell = match out_of_service {
            None => format!("{rate:.0}"),
            Some(why) if *rate >= 0.5 => format!("{why} {rate:.0}"),
            Some(why) => (*why).to_owned(),
        };
        let _ = write!(text, "{cell:>10}");
    }
    text.push('\n');
    text
}

/// What the clients saw in each step. `missed` are the steps that the demo's end came before.
pub(super) fn what_clients_saw(elapsed: Duration, steps: &[StepTally], total: &StepTally, missed: &[&str]) -> String {
    let mut text = format!("\nAfter {:.1} s. What the demo's clients saw:\n\n", elapsed.as_secs_f64());
    let _ =
        write!(text, "  {:<28}{:>9}{:>7}{:>8}{:>10}{:>9}", "step", "requests", "conns", "failed", "pause", "noticed");
    for kind in KINDS {
        let _ = write!(text, "{:>7}", kind.name);
    }
    text.push('\n');
    for step in steps.iter().chain([total]) {
        let noticed = step.noticed.map_or("-".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()));
        let pause = format!("{:.0} ms", step.longest_pause.as_secs_f64() * 1_000.0);
        let StepTally { name, connections, failed, .. } = step;
        let _ = write!(text, "  {name:<28}{:>9}{connections:>7}{failed:>8}{pause:>10}{noticed:>9}", step.requests());
        for kind in KINDS {
            let _ = write!(text, "{:>7}", step.by_backend.get(kind.name).copied().unwrap_or_default());
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "\n  failed: without the answer expected. pause: the longest time that one client had no such answer; each\n  \
         requests every {:?}. noticed: how long health checks took. Numbers by backend are answers.",
        load::PERIOD
    );
    for step in steps {
        if let Some(why) = &step.first_failure {
            let _ = writeln!(text, "  First failure while \"{}\": {why}.", step.name);
        }
    }
    if total.failed == 0 {
        let _ = writeln!(text, "  All {} requests were answered as expected.", total.answered);
    }
    if !missed.is_empty() {
        let _ = writeln!(text, "  Not reached before the end: {}.", missed.join("; "));
    }
    text
}

/// What is waited for at the end.
pub(super) fn draining(open: usize, limit: Duration) -> String {
    let open = if open == 1 { "1 connection is".to_owned() } else { format!("{open} connections are") };
    format!("\nDraining: {open} still open, for {limit:?} at most. Ctrl-C does not wait for that.\n")
}

/// What tidegate counted of a backend.
#[derive(Default)]
pub(super) struct ReportRow {
    pub(super) name: String,
    pub(super) connections: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Connects that failed.
    pub(super) connect_failures: u64,
    /// Connections that ended by its fault.
    pub(super) failures: u64,
    /// `None` when there was none.
    pub(super) first_byte: Option<LatencySummary>,
}

impl ReportRow {
    fn add(&mut self, other: &ReportRow) {
        self.connections += other.connections;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.connect_failures += other.connect_failures;
        self.failures += other.failures;
    }
}

/// The table of all backends with its total. `first_byte` is that of all backends together, `cut` the connections that
/// did not end by themselves.
pub(super) fn what_tidegate_counted(backends: &[ReportRow], first_byte: Option<LatencySummary>, cut: usize) -> String {
    let mut text = format!(
        "\nWhat tidegate counted, other clients included:\n\n  {:<9}{:>12}{:>12}{:>12}{:>9}{:>8}{:>12}{:>12}\n",
        "backend", "connections", "bytes in", "bytes out", "refused", "broken", "p50", "p99"
    );
    let mut total = ReportRow { name: "total".to_owned(), first_byte, ..ReportRow::default() };
    for row in backends {
        total.add(row);
        push_row(&mut text, row);
    }
    push_row(&mut text, &total);
    text.push_str(
        "\n  refused: connects that failed, after which another backend was tried. broken: connections that ended by\n  \
         the backend's fault. p50, p99: from a request's first byte to the first byte of its answer.\n",
    );
    if cut > 0 {
        let _ = writeln!(text, "  Cut at the end: {cut}.");
    }
    text
}

fn push_row(text: &mut String, row: &ReportRow) {
    let shown =
        |pick: fn(LatencySummary) -> u64| row.first_byte.map_or("-".to_owned(), |summary| millis(pick(summary)));
    let _ = writeln!(
        text,
        "  {:<9}{:>12}{:>12}{:>12}{:>9}{:>8}{:>12}{:>12}",
        row.name,
        row.connections,
        bytes(row.bytes_in),
        bytes(row.bytes_out),
        row.connect_failures,
        row.failures,
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
            let bytes_in = 1024;
            ReportRow {
                name: name.into(),
                connections,
                bytes_in,
                connect_failures: 1,
                failures: 2,
                first_byte,
                ..ReportRow::default()
            }
        };
        let all = Some(LatencySummary { count: 2, p50_us: 1000, p99_us: 5000, ..LatencySummary::default() });
        let text = what_tidegate_counted(&[row("a", 3, 1000), row("b", 4, 5000), ReportRow::default()], all, 0);
        let total: Vec<&str> = text.lines().find(|line| line.contains("total")).unwrap().split_whitespace().collect();
        assert_eq!(total[..8], ["total", "7", "2.0", "KiB", "0", "B", "2", "4"]);
        assert!(total[8].starts_with("1.0") && total[10].starts_with("5.0"), "{total:?}");
        assert!(text.contains(" -"), "a backend without connections has no p50:\n{text}");
        assert!(!text.contains("Cut"), "{text}");
    }

    fn moment() -> Moment {
        let column = |name: &str, out_of_service, rate| BackendColumn { name: name.to_owned(), out_of_service, rate };
        Moment {
            elapsed: Duration::from_secs(359_999),
            rate: 99_999.0,
            failed: 1_000_000,
            open: 1_000,
            backends: vec![
                column("quick", None, 20.4),
                column("slow", Some("down"), 0.0),
                column("heavy", Some("drain"), 1.6),
            ],
        }
    }

    #[test]
    fn a_backend_out_of_service_says_why() {
        let cells: Vec<String> = line(&moment()).split_whitespace().map(str::to_owned).collect();
        assert_eq!(cells[5..], ["20", "down", "drain", "2"]);
    }

    #[test]
    fn changes_of_others_say_whose_they_are() {
        let event = |refused: Option<&str>, changes: &[&str]| ChangeEvent {
            actor: "unix uid=0 gid=0 pid=7".to_owned(),
            action: "PATCH /x".to_owned(),
            refused: refused.map(str::to_owned),
            generation: 2,
            changes: changes.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(change(&event(None, &["a: 1 -> 2"]), true), "changed: a: 1 -> 2");
        assert_eq!(change(&event(None, &["a", "b"]), false), "changed (PATCH /x by unix uid=0 gid=0 pid=7): a, b");
        assert_eq!(change(&event(Some("no"), &[]), true), "refused: no");
        assert_eq!(change(&event(None, &[]), true), "nothing has changed");
    }

    #[test]
    fn nothing_but_commands_is_wider_than_a_terminal() {
        let step = StepTally {
            name: "a reload: quick has weight 3",
            connections: 99_999,
            answered: 9_999_999,
            failed: 99_999,
            longest_pause: Duration::from_secs(99),
            by_backend: KINDS.iter().map(|kind| (kind.name, 99_999)).collect(),
            first_failure: Some("connection reset by peer".to_owned()),
            noticed: Some(Duration::from_secs(9)),
        };
        let text = header(&moment())
            + &line(&moment())
            + &what_clients_saw(Duration::ZERO, std::slice::from_ref(&step), &step, &["a", "b"])
            + &what_tidegate_counted(&[], None, 1);
        for line in text.lines() {
            assert!(line.chars().count() <= 110, "{line}");
        }
    }
}
