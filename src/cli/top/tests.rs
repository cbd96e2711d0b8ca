//! What is on the screen, of views that are made up.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use tidegate::admin::snapshot_model::{
    BackendStats, BackendStatus, CheckKind, CheckStats, DrainingPredecessor, Latency, LatencySummary, ListenerStats,
    LogStats, PlaneStats, PoolStats, RateStats, Snapshot,
};
use tidegate::config::model::Balance;
use tidegate::stats::latency::{Stage, Window};

use super::plain;
use super::rows::{RowState, Selection, Sort, rows, traffic};
use super::screen::{Seen, draw, shown};
use super::state::{Flow, Interface, Told};

fn choice(sort: Sort) -> Selection {
    Selection { sort, reversed: false, stage: Stage::Turnaround, window: Window::TenSeconds, filter: String::new() }
}

fn backend(name: &str, p50_us: u64) -> BackendStats {
    let summary =
        LatencySummary { count: 50, p50_us, p99_us: p50_us * 10, max_us: p50_us * 100, ..LatencySummary::default() };
    BackendStats {
        name: name.to_owned(),
        address: format!("10.0.0.1:{p50_us}"),
        weight: 1,
        up: true,
        connections: 100,
        checks: Some(CheckStats::default()),
        latency: [Stage::Turnaround, Stage::Connect]
            .map(|stage| ((stage, Window::TenSeconds), summary))
            .into_iter()
            .collect(),
        ..BackendStats::default()
    }
}

fn pool(name: &str, backends: Vec<BackendStats>) -> PoolStats {
    let up = backends.iter().filter(|backend| backend.up).count();
    // Not what can be made of its backends' percentiles: it has histograms of its own.
    let summary = LatencySummary { count: 150, p50_us: 80, p99_us: 3_000, max_us: 70_000, ..LatencySummary::default() };
    let latency = Latency::from_iter([((Stage::Turnaround, Window::TenSeconds), summary)]);
    PoolStats {
        name: name.to_owned(),
        balance: Balance::IpHash,
        health: Some(CheckKind::Tcp),
        up,
        usable: up > 0,
        latency,
        backends,
        ..PoolStats::default()
    }
}

/// The same without health checks.
fn unchecked(pool: PoolStats) -> PoolStats {
    let backends = pool.backends.into_iter().map(|backend| BackendStats { checks: None, ..backend }).collect();
    PoolStats { health: None, backends, ..pool }
}

fn snapshot() -> Snapshot {
    let down = BackendStats {
        up: false,
        reason: Some("refused".to_owned()),
        since: 900.0,
        connect_failures: 3,
        failures: 1,
        latency: Default::default(),
        ..backend("db-2", 7)
    };
    let full = BackendStats { max_connections: Some(5), open: 5, bytes_in: 12_345, ..backend("db-3", 70) };
    let gone = pool("gone", vec![BackendStats { up: false, ..backend("g", 1) }]);
    Snapshot {
        version: "1.2.3".to_owned(),
        time: 1000.0,
        started: 100.0,
        uptime: 900.0,
        ready: true,
        plane: PlaneStats { open: 5, capacity: 4000, ..PlaneStats::default() },
        listeners: vec![ListenerStats { accepted: 77, rejected: 2, ..ListenerStats::default() }],
        pools: vec![pool("db", vec![backend("db-1", 700), down, full]), gone],
        ..Snapshot::default()
    }
}

/// As text, without the spaces at the ends of lines.
fn screen(seen: &Seen, interface: &Interface, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, seen, interface)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn seen(snapshot: Snapshot) -> Seen {
    Seen { address: "127.0.0.1:9900".to_owned(), snapshot: Some(snapshot), ..Seen::default() }
}

#[test]
fn everything_is_there_at_80_by_24() {
    let mut later = snapshot();
    later.time = 1002.0;
    (later.listeners[0].accepted, later.listeners[0].bytes_in, later.listeners[0].bytes_out) = (107, 4000, 3_000_000);
    later.pools[0].backends[0].connections += 30;
    later.pools[0].backends[0].bytes_in += 4000;
    later.pools[0].backends[0].bytes_out += 3_000_000;
    let mut interface = Interface::new(choice(Sort::Config));
    interface.selected = 2;
    let seen = Seen { previous: Some(snapshot()), ..seen(later) };
    let lines = screen(&seen, &interface, 80, 24);
    let expected = [
        "tidegate 1.2.3  up 15m 0s  connections 5 of 4000  ready  127.0.0.1:9900",
        "accepted 107  rejected 2  now 15 conn/s, 2000 B/s in, 1.50M B/s out",
        "turnaround, last 10s",
        "BACKEND            STATE      OPEN CONN/S  IN/S OUT/S  FAIL    P50    P99    MAX",
        "db 2/3             part          5     15  2000 1.50M     4   80µs 3.00ms 70.0ms",
        "  db-1             up            0     15  2000 1.50M     0  700µs 7.00ms 70.0ms",
        "  db-2             DOWN          0      0     0     0     4      -      -      -",
        "  db-3             full          5      0     0     0     0   70µs  700µs 7.00ms",
        "gone 0/1           DOWN          0      0     0     0     0   80µs 3.00ms 70.0ms",
        "  g                DOWN          0      0     0     0     0    1µs   10µs  100µs",
    ];
    assert_eq!(lines[..10], expected);
    assert!(lines[10..22].iter().all(String::is_empty));
    assert_eq!(lines[22], "db-2: DOWN for 1m 42s: refused, 10.0.0.1:7, weight 1");
    assert_eq!(lines[23], "q quit  ? help  s sort  r reverse  t stage  w window  / filter  Enter change");
}

#[test]
fn a_small_or_a_large_terminal_is_no_trouble() {
    let mut interface = Interface::new(choice(Sort::P99));
    for (width, height) in [(1, 1), (10, 3), (79, 5), (80, 7), (300, 100)] {
        for helping in [false, true] {
            interface.helping = helping;
            screen(&seen(snapshot()), &interface, width, height);
            screen(&Seen::default(), &interface, width, height);
        }
    }
}

#[test]
fn a_thousand_backends_are_scrolled_through() {
    let many = (0..1000).map(|n| backend(&format!("b{n:03}"), n + 1)).collect();
    let seen = seen(Snapshot { pools: vec![pool("many", many)], ..snapshot() });
    let mut interface = Interface::new(choice(Sort::Config));
    let top = screen(&seen, &interface, 80, 24);
    assert!(top[4].starts_with("many 1000/1000") && top[5].starts_with("  b000"), "{top:?}");
    interface.selected = 1000;
    let bottom = screen(&seen, &interface, 80, 24);
    assert!(bottom[21].starts_with("  b999") && bottom[22].starts_with("b999: up"), "{bottom:?}");
    interface.choice.filter = "B12".to_owned();
    let found = screen(&seen, &interface, 80, 24);
    assert_eq!(found[2], "turnaround, last 10s  /B12  10 found");
    assert!(found[5].starts_with("  b120") && found[14].starts_with("  b129") && found[15].is_empty(), "{found:?}");
    interface.choice.filter = "nobody".to_owned();
    assert!(screen(&seen, &interface, 80, 24)[3].starts_with("Nothing has this in its name"));
}

#[test]
fn trouble_is_said_and_the_last_look_stays() {
    let mut seen = Seen { address: "here:1".to_owned(), ..Seen::default() };
    let interface = Interface::new(choice(Sort::Config));
    assert_eq!(screen(&seen, &interface, 80, 24)[..2], ["tidegate at here:1", "asking ..."]);
    seen.take(Err("cannot be reached\nmore".to_owned()));
    assert_eq!(screen(&seen, &interface, 80, 24)[1], "NO ANSWER trying again: cannot be reached");
    seen.take(Ok(snapshot()));
    assert!(screen(&seen, &interface, 80, 24)[1].starts_with("accepted 77"));
    seen.take(Err("gone".to_owned()));
    let lines = screen(&seen, &interface, 80, 24);
    assert!(lines[1].starts_with("NO ANSWER") && lines[5].starts_with("  db-1"), "{lines:?}");
    let mut unready = snapshot();
    (unready.ready, unready.not_ready) = (false, vec!["no backend of pool gone is up".to_owned(), "more".to_owned()]);
    seen.take(Ok(unready));
    assert_eq!(screen(&seen, &interface, 80, 24)[1], "NOT READY no backend of pool gone is up (and 1 more)");
}

#[test]
fn every_key_is_explained() {
    let mut interface = Interface::new(choice(Sort::Config));
    interface.helping = true;
    let lines = screen(&seen(snapshot()), &interface, 80, 24).concat();
    for word in [
        "drain",
        "ready",
        "maintenance",
        "weight",
        "sort",
        "reverse",
        "stage",
        "window",
        "/ ",
        "PageUp",
        "quit",
        "turnaround",
        "of all its",
        "unchecked",
    ] {
        assert!(lines.contains(word), "{word}");
    }
    assert!(Stage::ALL.iter().all(|stage| lines.contains(stage.name())));
}

#[test]
fn a_file_that_is_not_in_effect_is_said_above() {
    let mut snapshot = snapshot();
    snapshot.config.file_differs = Some("the last reload was refused: x.yaml:3: no".to_owned());
    let line = "the configuration file is not in effect: the last reload was refused: x.yaml:3: no";
    assert_eq!(plain::text(&snapshot, &choice(Sort::Config)).lines().nth(1), Some(line));
    assert_eq!(plain::json(&snapshot, &choice(Sort::Config))["config"]["last_reload_succeeded"], true);
    let lines = screen(&seen(snapshot), &Interface::new(choice(Sort::Config)), 100, 24);
    assert_eq!(lines[1], format!("CONFIG {line}"));
}

#[test]
fn the_selected_backend_is_what_a_change_is_of() {
    let of = |name: &str, entry: &str, open| BackendStats {
        entry: Some(entry.to_owned()),
        open,
        ..backend(&format!("{entry}@{name}"), 1)
    };
    let mut leaving = backend("old", 1);
    leaving.status = BackendStatus::Leaving;
    let backends = vec![of("a", "db", 3), of("b", "db", 4), of("c", "dbx", 9), leaving];
    let seen = seen(Snapshot { pools: vec![pool("p", backends)], ..snapshot() });
    let mut interface = Interface::new(choice(Sort::Config));
    let mut target = |selected| {
        interface.selected = selected;
        shown(&seen, &interface, 24).target.map(|it| (it.name(), it.addresses, it.open))
    };
    assert_eq!(target(0), None, "a pool");
    assert_eq!(target(1), Some(("p/db".to_owned(), 2, 7)));
    assert_eq!(target(3), Some(("p/dbx".to_owned(), 1, 9)));
    assert_eq!(target(4), None, "it was removed");
}

#[test]
fn questions_and_outcomes_are_in_the_bottom_line() {
    let mut interface = Interface::new(choice(Sort::Config));
    interface.selected = 1;
    let seen = seen(snapshot());
    let press = |key, interface: &mut Interface| {
        let flow = interface.press(KeyEvent::from(key), &shown(&seen, interface, 24));
        (flow, screen(&seen, interface, 80, 24).remove(23))
    };
    let (_, line) = press(KeyCode::Enter, &mut interface);
    assert_eq!(line, "db/db-1:  d drain   r ready   m maintenance   w weight   Esc back");
    let (_, line) = press(KeyCode::Char('d'), &mut interface);
    assert_eq!(line, "drain db/db-1? y/n   no open connections");
    let (flow, line) = press(KeyCode::Char('y'), &mut interface);
    assert!(matches!(flow, Flow::Change(target, _) if target.entry == "db-1"));
    assert_eq!(line, "changing ...");
    interface.changed(Told::Failed("changes over TCP require a token\nmore".to_owned()));
    assert_eq!(screen(&seen, &interface, 80, 24)[23], "FAILED changes over TCP require a token");
    let (_, line) = press(KeyCode::Home, &mut interface);
    assert!(line.starts_with("q quit"), "{line}");
    let (_, line) = press(KeyCode::Char('d'), &mut interface);
    assert_eq!(line, "FAILED select a backend: up, down");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let evil = Snapshot { pools: vec![pool("p\x1b[2J", vec![backend("b\x07\x1b]0;x", 1)])], ..snapshot() };
    let text = plain::text(&evil, &choice(Sort::Config));
    assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
    let lines = screen(&seen(evil), &Interface::new(choice(Sort::Config)), 80, 24).concat();
    assert!(!lines.contains('\x1b') && lines.contains("p?[2J"), "{lines}");
}

#[test]
fn sorted_by_each_key() {
    let mut snapshot = snapshot();
    snapshot.pools.truncate(1);
    let backends = &mut snapshot.pools[0].backends;
    (backends[0].bytes_out, backends[2].bytes_out) = (5, 9);
    let order = |sort, reversed| -> String {
        let rows = rows(&snapshot, None, &Selection { reversed, ..choice(sort) });
        rows.iter().filter_map(|row| row.backend.as_ref()?.chars().last()).collect()
    };
    let cases = [
        (Sort::Config, "123"),
        (Sort::Name, "123"),
        (Sort::State, "231"),
        (Sort::Open, "312"),
        (Sort::Rate, "132"),
        (Sort::In, "312"),
        (Sort::Out, "312"),
        (Sort::Failures, "213"),
        (Sort::P50, "132"),
        (Sort::P99, "132"),
        (Sort::Max, "132"),
    ];
    for (sort, wanted) in cases {
        assert_eq!(order(sort, false), wanted, "{sort:?}");
    }
    assert_eq!(order(Sort::State, true), "132");
    let pools: Vec<RowState> =
        rows(&self::snapshot(), None, &choice(Sort::State)).iter().map(|row| row.state).collect();
    assert_eq!(pools[0], RowState::Down, "the pool that is down comes first, with its backends");
}

#[test]
fn rates_are_differences_of_the_same_process() {
    let rate = |previous: &Snapshot| rows(&snapshot(), Some(previous), &choice(Sort::Config))[1].rate_in;
    let mut before = snapshot();
    before.time -= 4.0;
    assert_eq!(rate(&before), Some(0.0));
    before.started -= 1.0;
    assert_eq!(rate(&before), None, "it has started anew since");
    assert_eq!(rate(&snapshot()), None, "no time has passed");
    // Before, the connects of the last 10 s.
    assert_eq!(rows(&snapshot(), None, &choice(Sort::Config))[1].per_second, 5.0);
}

#[test]
fn once_as_a_table_and_as_json() {
    let text = plain::text(&snapshot(), &choice(Sort::Config));
    let expected = "\
tidegate 1.2.3, up 15m 0s, 5 of 4000 connections, ready
turnaround, last 10s; connections a second: last 10s; bytes: since the start
BACKEND   STATE  OPEN  CONN/S     IN  OUT  FAIL    P50     P99     MAX
db 2/3    part      5      10  12.3k    0     4   80µs  3.00ms  70.0ms
  db-1    up        0       5      0    0     0  700µs  7.00ms  70.0ms
  db-2    DOWN      0       0      0    0     4      -       -       -
  db-3    full      5       5  12.3k    0     0   70µs   700µs  7.00ms
gone 0/1  DOWN      0       5      0    0     0   80µs  3.00ms  70.0ms
  g       DOWN      0       5      0    0     0    1µs    10µs   100µs
";
    assert_eq!(text, expected);
    let json = plain::json(&snapshot(), &choice(Sort::Config));
    assert_eq!((&json["rows"][1]["backend"], &json["rows"][1]["p99_us"]), (&"db-1".into(), &7000.into()));
    assert_eq!((&json["rows"][3]["state"], &json["rows"][3]["bytes_in"]), (&"full".into(), &12_345.into()));
    assert_eq!(json["rows"][0]["backends"], serde_json::json!([2, 3]));
}

#[test]
fn a_filter_hides_backends_and_leaves_their_pool_whole() {
    let filtered =
        |filter: &str| rows(&snapshot(), None, &Selection { filter: filter.to_owned(), ..choice(Sort::Config) });
    let (all, one) = (filtered(""), filtered("db-3"));
    assert_eq!(one.len(), 2);
    assert_eq!(one[0], all[0], "open, bytes, failures and percentiles are those of all three backends");
    assert_eq!(one[1], all[3]);
    let json = plain::json(&snapshot(), &Selection { filter: "db-3".to_owned(), ..choice(Sort::Config) });
    assert_eq!((&json["rows"][0]["p99_us"], &json["rows"][0]["failures"]), (&3_000.into(), &4.into()));
}

#[test]
fn without_health_checks_nothing_is_up() {
    let backends = vec![backend("a", 1), BackendStats { weight: 0, ..backend("b", 2) }, backend("c", 3)];
    let mut snapshot = Snapshot { pools: vec![unchecked(pool("p", backends))], ..snapshot() };
    snapshot.pools[0].backends[2].max_connections = Some(0);
    let states = |snapshot: &Snapshot| {
        rows(snapshot, None, &choice(Sort::Config)).iter().map(|row| row.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&snapshot), [RowState::Unchecked, RowState::Unchecked, RowState::Off, RowState::Full]);
    assert_eq!(plain::json(&snapshot, &choice(Sort::Config))["rows"][1]["state"], "unchecked");
    let mut interface = Interface::new(choice(Sort::Config));
    let lines = screen(&seen(snapshot.clone()), &interface, 80, 24);
    assert_eq!(lines[22], "p: ip_hash, health checks: none, 3 of 3 unchecked, rejected 0, retries 0");
    interface.selected = 1;
    let lines = screen(&seen(snapshot.clone()), &interface, 80, 24);
    assert_eq!(lines[22], "a: unchecked, no health check, 10.0.0.1:1, weight 1");
    // A name that does not resolve takes no connections, checked or not.
    (snapshot.pools[0].backends[0].up, snapshot.pools[0].up) = (false, 2);
    assert_eq!(states(&snapshot)[..2], [RowState::Part, RowState::Down]);
    let lines = screen(&seen(snapshot), &interface, 80, 24);
    assert!(lines[22].starts_with("a: DOWN for") && lines[22].contains("not yet resolved"), "{}", lines[22]);
}

#[test]
fn traffic_is_that_of_all_listeners() {
    let listener = |name: &str, accepted, bytes_in, now| ListenerStats {
        name: name.to_owned(),
        accepted,
        bytes_in,
        rate: RateStats { now, max: 99 },
        ..ListenerStats::default()
    };
    let before = Snapshot { listeners: vec![listener("a", 10, 0, 0), listener("b", 100, 500, 0)], ..snapshot() };
    let mut now = Snapshot { listeners: vec![listener("b", 103, 700, 3), listener("a", 15, 0, 2)], ..snapshot() };
    now.time += 2.0;
    assert_eq!((traffic(&now, None).accepted, traffic(&now, None).bytes), (5.0, None));
    let both = traffic(&now, Some(&before));
    assert_eq!((both.accepted, both.bytes), (4.0, Some((100.0, 0.0))));
}

#[test]
fn a_log_that_cannot_be_written_is_an_alarm() {
    let mut snapshot = snapshot();
    let log = |name: &str, error: Option<&str>| LogStats {
        name: name.to_owned(),
        write_errors: 3,
        error: error.map(str::to_owned),
        ..LogStats::default()
    };
    snapshot.logs = vec![log("process", None), log("access", Some("No space left on device"))];
    let line = "access log cannot be written: No space left on device (3 lines lost)";
    let lines = screen(&seen(snapshot.clone()), &Interface::new(choice(Sort::Config)), 80, 24);
    assert_eq!(lines[1], format!("LOG {line}"));
    assert!(plain::text(&snapshot, &choice(Sort::Config)).lines().any(|known| known == line));
}

#[test]
fn replaced_processes_are_shown_while_they_drain() {
    let process = |pid: u32, connections: usize| DrainingPredecessor { pid, connections };
    let mut snapshot = snapshot();
    snapshot.predecessors = vec![process(7, 3)];
    let line = "1 replaced process drains: 3 connections left";
    assert!(plain::text(&snapshot, &choice(Sort::Config)).lines().any(|known| known == line));
    snapshot.predecessors.push(process(5, 4));
    let line = "UPGRADE 2 replaced processes drain: 7 connections left";
    assert_eq!(screen(&seen(snapshot.clone()), &Interface::new(choice(Sort::Config)), 80, 24)[1], line);
    let json = plain::json(&snapshot, &choice(Sort::Config));
    assert_eq!(json["predecessors"][1], serde_json::json!({ "pid": 5, "connections": 4 }));
}
