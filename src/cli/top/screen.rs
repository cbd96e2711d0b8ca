//! The screen, of what was seen and what the user has chosen. Pure: it draws into a buffer.
//!
//! Colour is never the only sign: states are words, and what is wrong is bold and reversed.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table};
use tidegate::admin::snapshot_model::{BackendStats, BackendStatus, PoolStats, Snapshot};

use super::plain::{clean, during, left_behind, lost_log_lines, name, readiness};
use super::prompt::ChangeTarget;
use super::rows::{Row, RowState, Sort, rows, traffic};
use super::state::{Interface, Screenful, Told};
use super::units::{count, latency, span};

/// What was seen of a tidegate.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Where.
    pub(super) address: String,
    /// The last look, and the one before.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) previous: Option<Snapshot>,
    /// Why there is none now.
    pub(super) trouble: Option<String>,
}

/// The columns beside the name: heading, width, and what sorts by it.
const COLUMNS: [(&str, u16, Sort); 9] = [
    ("STATE", 9, Sort::State),
    ("OPEN", 5, Sort::Open),
    ("CONN/S", 6, Sort::Rate),
    ("IN/S", 5, Sort::In),
    ("OUT/S", 5, Sort::Out),
    ("FAIL", 5, Sort::Failures),
    ("P50", 6, Sort::P50),
    ("P99", 6, Sort::P99),
    ("MAX", 6, Sort::Max),
];

/// Lines besides those of the table: three above, its heading, two below.
const FRAME: u16 = 6;

const HELP: &str = "\
 s  right    sort by the next column            S  left   by the one before
 r           reverse the order
 t  T        another stage of connections: queue, connect, tls_handshake,
             first_byte, turnaround, session, http_first_byte, http_response,
             query_first_byte, query
 w  W        another window of time: 10s, 1m, 5m, since the start
 /           show only names and addresses with what you type; Esc: all again
 up down     walk, also by k and j; PageUp, PageDown, Home, End
 Enter       change the selected backend: then d drain, r ready,
             m maintenance, w weight; each asks first.   d  m  also at once
 ?  q        this page; quit
 STATE   up; DOWN; unchecked: no health check; full: at its max_connections;
         drain, maint: taken out of service; off: weight 0; part: some of the
         pool are not up. The last lines say since when, and why. A pool's
         line is of all its backends.
 CONN/S  connections given to it in a second.   IN/S OUT/S  bytes in a second,
         to the backend and from it.
 FAIL    connects that failed, and connections that ended by its fault.
 P50 P99 MAX  of the chosen stage and window; of a pool, those of all its
         traffic.";

/// Lines of the table that fit on a screen of this height.
fn page(height: u16) -> usize {
    usize::from(height.saturating_sub(FRAME))
}

/// The lines that the table has.
fn lines(seen: &Seen, interface: &Interface) -> Vec<Row> {
    seen.snapshot.as_ref().map(|snapshot| rows(snapshot, seen.previous.as_ref(), &interface.choice)).unwrap_or_default()
}

/// What a key pressed now is about, on a screen of this height.
pub(super) fn shown(seen: &Seen, interface: &Interface, height: u16) -> Screenful {
    let rows = lines(seen, interface);
    let selected = rows.get(interface.selected.min(rows.len().saturating_sub(1)));
    let target = selected.zip(seen.snapshot.as_ref()).and_then(|(row, snapshot)| ChangeTarget::of(row, snapshot));
    Screenful { lines: rows.len(), page: page(height), target }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, seen: &Seen, interface: &Interface) {
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ]);
    let [first, second, third, body, details, keys] = areas.areas(frame.area());
    let rows = lines(seen, interface);
    frame.render_widget(headline(seen), first);
    frame.render_widget(news(seen), second);
    frame.render_widget(chosen(interface, &rows), third);
    if interface.helping {
        frame.render_widget(Paragraph::new(HELP), body);
    } else if rows.is_empty() {
        let why = match &seen.snapshot {
            Some(_) => "Nothing has this in its name: Esc shows all again.",
            None => "",
        };
        frame.render_widget(Paragraph::new(why), body);
    } else {
        table(frame, body, &rows, interface);
    }
    let selected = rows.get(interface.selected.min(rows.len().saturating_sub(1)));
    if let (Some(row), Some(snapshot)) = (selected, &seen.snapshot) {
        frame.render_widget(Line::raw(describe(row, snapshot)), details);
    }
    frame.render_widget(bottom(interface), keys);
}

fn headline(seen: &Seen) -> Line<'static> {
    let Some(snapshot) = &seen.snapshot else {
        return Line::from(vec![strong("tidegate"), Span::raw(format!(" at {}", clean(&seen.address)))]);
    };
    let state = readiness(snapshot);
    Line::from(vec![
        strong("tidegate"),
        Span::raw(format!(" {}  up {}  ", clean(&snapshot.version), span(snapshot.uptime))),
        Span::raw(format!("connections {} of {}  ", snapshot.plane.open, snapshot.plane.capacity)),
        if snapshot.ready { Span::raw(state) } else { alarm(state) },
        Span::styled(format!("  {}", clean(&seen.address)), Style::new().add_modifier(Modifier::DIM)),
    ])
}

/// What is wrong, or else what goes on.
fn news(seen: &Seen) -> Line<'static> {
    if let Some(trouble) = &seen.trouble {
        let trouble = trouble.lines().next().unwrap_or_default();
        return Line::from(vec![alarm("NO ANSWER"), Span::raw(format!(" trying again: {}", clean(trouble)))]);
    }
    let Some(snapshot) = &seen.snapshot else { return Line::raw("asking ...") };
    if let [reason, others @ ..] = snapshot.not_ready.as_slice() {
        let more = if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
        return Line::from(vec![alarm(readiness(snapshot)), Span::raw(format!(" {}{more}", clean(reason)))]);
    }
    if let Some(trouble) = snapshot.config.trouble() {
        return Line::from(vec![alarm("CONFIG"), Span::raw(format!(" {}", clean(&trouble)))]);
    }
    if let Some(line) = lost_log_lines(snapshot).next() {
        return Line::from(vec![alarm("LOG"), Span::raw(format!(" {}", clean(&line)))]);
    }
    if let Some(line) = left_behind(snapshot) {
        return Line::from(vec![strong("UPGRADE"), Span::raw(format!(" {line}"))]);
    }
    let traffic = traffic(snapshot, seen.previous.as_ref());
    let bytes = traffic.bytes.map(|(into, out)| (count(into), count(out)));
    let (bytes_in, bytes_out) = bytes.unwrap_or_else(|| ("-".to_owned(), "-".to_owned()));
    let accepted: u64 = snapshot.listeners.iter().map(|listener| listener.accepted).sum();
    let rejected: u64 = snapshot.listeners.iter().map(|listener| listener.rejected).sum();
    Line::raw(format!(
        "accepted {accepted}  rejected {rejected}  now {} conn/s, {bytes_in} B/s in, {bytes_out} B/s out",
        count(traffic.accepted),
    ))
}

fn chosen(interface: &Interface, rows: &[Row]) -> Line<'static> {
    let choice = &interface.choice;
    let mut spans = vec![
        strong(choice.stage.name()),
        Span::raw(format!(", {}", during(choice.window))),
        Span::raw(match (choice.sort, choice.reversed) {
            (Sort::Config, false) => String::new(),
            (Sort::Config, true) => "  order reversed".to_owned(),
            (sort, reversed) => format!("  by {}{}", word(sort), if reversed { ", reversed" } else { "" }),
        }),
    ];
    if interface.typing || !choice.filter.is_empty() {
        let shown = rows.iter().filter(|row| row.backend.is_some()).count();
        let cursor = if interface.typing { "_" } else { "" };
        spans.push(strong(&format!("  /{}{cursor}", clean(&choice.filter))));
        spans.push(Span::raw(format!("  {shown} found")));
    }
    Line::from(spans)
}

fn word(sort: Sort) -> &'static str {
    match COLUMNS.iter().find(|(_, _, of)| *of == sort) {
        Some((heading, _, _)) => heading,
        None if sort == Sort::Name => "name",
        None => "configuration",
    }
}

fn table(frame: &mut Frame<'_>, area: Rect, rows: &[Row], interface: &Interface) {
    let page = usize::from(area.height.saturating_sub(1));
    let first = interface.first(rows.len(), page);
    let selected = interface.selected.min(rows.len().saturating_sub(1));
    let shown = rows.iter().enumerate().skip(first).take(page);
    let line = |(place, row): (usize, &Row)| {
        let line = TableRow::new(cells(row));
        match (place == selected, row.backend.is_none()) {
            (true, _) => line.style(Style::new().add_modifier(Modifier::UNDERLINED)),
            (false, true) => line.style(Style::new().add_modifier(Modifier::BOLD)),
            (false, false) => line,
        }
    };
    let heading = |(text, _, sort): (&'static str, u16, Sort)| {
        let is_sorted = interface.choice.sort == sort;
        let style = if is_sorted { Style::new().add_modifier(Modifier::UNDERLINED) } else { Style::new() };
        let text = Text::styled(text, style);
        if sort == Sort::State { Cell::from(text) } else { Cell::from(text.right_aligned()) }
    };
    let header = std::iter::once(Cell::from("BACKEND")).chain(COLUMNS.map(heading));
    let widths = std::iter::once(Constraint::Fill(1)).chain(COLUMNS.map(|(_, width, _)| Constraint::Length(width)));
    let table = Table::new(shown.map(line), widths)
        .header(TableRow::new(header).style(Style::new().add_modifier(Modifier::REVERSED)))
        .column_spacing(1);
    frame.render_widget(table, area);
}

fn cells(row: &Row) -> Vec<Cell<'static>> {
    let state = match row.state {
        RowState::Down => alarm(row.state.word()),
        RowState::Part | RowState::Full => strong(row.state.word()),
        RowState::Drain | RowState::Maintenance => strong(row.state.word()),
        RowState::Leaving | RowState::Off | RowState::Unchecked | RowState::Up => Span::raw(row.state.word()),
    };
    let number = |text: String| Cell::from(Text::from(text).right_aligned());
    let rate = |rate: Option<f64>| number(rate.map_or_else(|| "-".to_owned(), count));
    let measured = |micros: Option<u64>| number(micros.map_or_else(|| "-".to_owned(), latency));
    vec![
        Cell::from(name(row)),
        Cell::from(state),
        number(count(row.open as f64)),
        number(count(row.per_second)),
        rate(row.rate_in),
        rate(row.rate_out),
        number(count(row.failures as f64)),
        measured(row.p50_us),
        measured(row.p99_us),
        measured(row.max_us),
    ]
}

/// The selected line in words.
fn describe(row: &Row, snapshot: &Snapshot) -> String {
    let Some(pool) = snapshot.pools.get(row.place.0) else { return String::new() };
    match row.place.1.and_then(|place| pool.backends.get(place)) {
        Some(backend) => clean(&describe_backend(backend, snapshot)),
        None => clean(&describe_pool(pool)),
    }
}

fn describe_backend(backend: &BackendStats, snapshot: &Snapshot) -> String {
    let since = span(snapshot.time - backend.since);
    let mut text = match (backend.status(), &backend.reason) {
        (BackendStatus::Up, _) => format!("{}: up for {since}", backend.name),
        (BackendStatus::Leaving, _) => format!("{}: removed, gone when its last connection has ended", backend.name),
        (BackendStatus::Drain, _) => format!("{}: drained, takes no new connections", backend.name),
        (BackendStatus::Maintenance, _) => format!("{}: in maintenance, not checked", backend.name),
        (BackendStatus::Unchecked, _) => format!("{}: unchecked, no health check", backend.name),
        (BackendStatus::Down, Some(reason)) => format!("{}: DOWN for {since}: {reason}", backend.name),
        (BackendStatus::Down, None) if backend.checks.is_none() => {
            format!("{}: DOWN for {since}: not yet resolved", backend.name)
        }
        (BackendStatus::Down, None) => format!("{}: DOWN for {since}: not yet checked", backend.name),
    };
    if backend.address != backend.name {
        text.push_str(&format!(", {}", backend.address));
    }
    if let Some(database) = backend.database() {
        text.push_str(&format!(", {database}"));
    }
    text.push_str(&format!(", weight {}", backend.weight));
    if backend.backup {
        text.push_str(", backup");
    }
    if let Some(most) = backend.max_connections {
        text.push_str(&format!(", at most {most} connections"));
    }
    if backend.ejections > 0 {
        text.push_str(&format!(", {} times ejected", backend.ejections));
    }
    if backend.downs > 0 {
        text.push_str(&format!(", {} times down", backend.downs));
    }
    text
}

fn describe_pool(pool: &PoolStats) -> String {
    let (up, all) = (pool.up, pool.backends.len());
    let health = match pool.health {
        Some(kind) => format!("health checks: {}, {up} of {all} up", kind.name()),
        None => format!("health checks: none, {up} of {all} unchecked"),
    };
    let mut text = format!(
        "{}: {}, {health}, rejected {}, retries {}",
        pool.name,
        pool.balance.name(),
        pool.rejected,
        pool.retries
    );
    if pool.queue.size > 0 {
        text.push_str(&format!(", {} of {} wait", pool.queue.waiting, pool.queue.size));
    }
    if pool.fails_open {
        text.push_str(", fail open");
    }
    if pool.primary_conflict {
        text.push_str(", more than one primary");
    }
    text
}

fn bottom(interface: &Interface) -> Line<'static> {
    match (&interface.prompt, &interface.told) {
        (Some(prompt), _) => return Line::from(strong(&clean(&prompt.text()))),
        (None, Some(Told::Done(text))) => return Line::from(strong(&clean(text))),
        (None, Some(Told::Failed(text))) => {
            let text = text.lines().next().unwrap_or_default();
            return Line::from(vec![alarm("FAILED"), Span::raw(format!(" {}", clean(text)))]);
        }
        (None, None) if interface.changing => return Line::from(strong("changing ...")),
        (None, None) => {}
    }
    let text = match (interface.typing, interface.helping) {
        (true, _) => "type a part of a name or an address   Enter done   Esc all again",
        (false, true) => "? back   q quit",
        (false, false) => "q quit  ? help  s sort  r reverse  t stage  w window  / filter  Enter change",
    };
    Line::styled(text, Style::new().fg(Color::Cyan))
}

fn strong(text: &str) -> Span<'static> {
    Span::styled(text.to_owned(), Style::new().add_modifier(Modifier::BOLD))
}

fn alarm(text: &str) -> Span<'static> {
    Span::styled(text.to_owned(), Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED))
}
