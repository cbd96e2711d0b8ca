//! `/stats;csv`: the table of HAProxy (its management guide, 9.1), so that what reads HAProxy reads tidegate.
//!
//! A listener is a FRONTEND, a pool a BACKEND that follows its servers. Which column shows what is in [`columns`].

mod columns;
mod rows;

use self::columns::{COLUMNS, Column};
use self::rows::{Frontend, Group, Server};
use super::snapshot_model::Snapshot;

/// Whether this path asks for the table: `/stats;csv`, and what scrapers make of an address by appending `;csv`,
/// `/;csv` or `;csv;norefresh`.
pub(super) fn is_asked(path: &str) -> bool {
    let Some((page, options)) = path.split_once(';') else { return false };
    matches!(page, "/" | "/stats" | "/stats/") && options.split(';').any(|option| option == "csv")
}

/// The table, with its line of names.
pub(super) fn encode(snapshot: &Snapshot) -> String {
    let mut text = "# ".to_owned();
    line(&mut text, |column| Some(column.name.to_owned()));
    for (number, listener) in (1..).zip(&snapshot.listeners) {
        let frontend = Frontend { snapshot, listener, number };
        line(&mut text, |column| column.of_frontend(&frontend));
    }
    for (number, pool) in (snapshot.listeners.len() + 1..).zip(&snapshot.pools) {
        let group = |backends, departed| Group { snapshot, pool, backends, number, departed };
        for (place, backend) in (1..).zip(&pool.backends) {
            let server = Server { group: group(std::slice::from_ref(backend), None), backend, place };
            line(&mut text, |column| column.of_server(&server));
        }
        line(&mut text, |column| column.of_backend(&group(&pool.backends, Some(&pool.departed))));
    }
    text
}

fn line(text: &mut String, cell: impl Fn(&Column) -> Option<String>) {
    for column in &COLUMNS {
        text.push_str(&quoted(&cell(column).unwrap_or_default()));
        text.push(',');
    }
    text.push('\n');
}

/// A value in quotes where it needs them (RFC 4180, 2).
fn quoted(value: &str) -> String {
    match value.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::snapshot_model::{
        BackendStats, CheckKind, CheckResult, CheckStats, HandshakeStats, HttpStats, Latency, LatencySummary,
        ListenerStats, PoolStats, RateStats, ResponseCount,
    };
    use crate::config::model::Balance;
    use crate::stats::http::{Method, StatusClass};
    use crate::stats::latency::{Stage, Window};

    fn column(name: &str) -> &'static Column {
        COLUMNS.iter().find(|column| column.name == name).unwrap()
    }

    fn of_frontend(snapshot: &Snapshot, name: &str) -> Option<String> {
        column(name).of_frontend(&Frontend { snapshot, listener: &snapshot.listeners[0], number: 1 })
    }

    fn group(snapshot: &Snapshot) -> Group<'_> {
        let pool = &snapshot.pools[0];
        Group { snapshot, pool, backends: &pool.backends, number: 2, departed: Some(&pool.departed) }
    }

    fn of_backend(snapshot: &Snapshot, name: &str) -> Option<String> {
        column(name).of_backend(&group(snapshot))
    }

    fn of_server(snapshot: &Snapshot, backend: &BackendStats, place: usize, name: &str) -> Option<String> {
        let group = Group { backends: std::slice::from_ref(backend), departed: None, ..group(snapshot) };
        column(name).of_server(&Server { group, backend, place })
    }

    fn http(class: StatusClass, count: u64) -> Option<HttpStats> {
        let responses = vec![ResponseCount { method: Method::Get, class, count }];
        Some(HttpStats { requests: count + 1, no_response: 1, passthrough: 0, responses })
    }

    fn latency(stage: Stage, count: u64, mean_us: f64) -> Latency {
        let summary = LatencySummary { count, mean_us, max_us: 9_499, ..LatencySummary::default() };
        [Window::All, Window::TenSeconds, Window::Minute].map(|window| ((stage, window), summary)).into_iter().collect()
    }

    fn snapshot() -> Snapshot {
        let listener = ListenerStats {
            name: "web".to_owned(),
            counts_requests: true,
            pools: vec!["w".to_owned()],
            http: http(StatusClass::Successful, 7),
            ..ListenerStats::default()
        };
        let backend = |name: &str, mean| BackendStats {
            name: name.to_owned(),
            up: true,
            weight: 2,
            http: http(StatusClass::ServerError, 3),
            latency: latency(Stage::Connect, 20, mean),
            ..BackendStats::default()
        };
        let pool = PoolStats {
            name: "w".to_owned(),
            balance: Balance::PowerOfTwo,
            health: Some(CheckKind::Http),
            rise: Some(2),
            fall: Some(3),
            usable: true,
            backends: vec![backend("one", 1_000.0), backend("two", 4_000.0)],
            ..PoolStats::default()
        };
        Snapshot { time: 1_000.0, listeners: vec![listener], pools: vec![pool], ..Snapshot::default() }
    }

    #[test]
    fn http_is_counted_where_it_is_watched() {
        let snapshot = snapshot();
        let frontend = |column: &str| of_frontend(&snapshot, column);
        assert_eq!(
            ["mode", "hrsp_2xx", "hrsp_5xx", "hrsp_other", "req_tot"].map(frontend).map(Option::unwrap),
            ["http", "7", "0", "0", "8"]
        );
        let whole = |column: &str| of_backend(&snapshot, column);
        assert_eq!(
            ["mode", "hrsp_2xx", "hrsp_5xx", "req_tot", "algo"].map(whole).map(Option::unwrap),
            ["http", "0", "6", "8", "random"]
        );
        assert_eq!(of_server(&snapshot, &snapshot.pools[0].backends[0], 1, "hrsp_5xx").unwrap(), "3");
    }

    #[test]
    fn times_are_of_the_last_minute_and_rounded() {
        let snapshot = snapshot();
        let [one, two] = &snapshot.pools[0].backends[..] else { unreachable!("two") };
        assert_eq!(of_server(&snapshot, one, 1, "ctime").unwrap(), "1");
        assert_eq!(of_server(&snapshot, two, 2, "ctime").unwrap(), "4");
        // 2.5 ms, in the middle.
        assert_eq!(of_backend(&snapshot, "ctime").unwrap(), "3");
        assert_eq!(
            (of_backend(&snapshot, "ctime_max").unwrap(), of_backend(&snapshot, "ttime").unwrap()),
            ("9".to_owned(), "0".to_owned())
        );
    }

    #[test]
    fn a_backend_is_not_the_sum_of_its_servers() {
        let mut snapshot = snapshot();
        let pool = &mut snapshot.pools[0];
        (pool.rate, pool.open, pool.open_max, pool.downs) = (RateStats { now: 3, max: 30 }, 2, 12, 1);
        (pool.since, pool.downtime) = (989.5, 7.9);
        for (backend, last_session) in pool.backends.iter_mut().zip([None, Some(996.0)]) {
            backend.rate = RateStats { now: 2, max: 20 };
            (backend.open_max, backend.downs, backend.since) = (10, 5, 900.0);
            (backend.client_aborts, backend.last_session) = (4, last_session);
            backend.handshakes = Some(HandshakeStats { full: 1, resumed: 6 });
        }
        let said = |snapshot: &Snapshot, columns: &str| {
            let [one, two] = &snapshot.pools[0].backends[..] else { unreachable!("two") };
            let row = |cell: &dyn Fn(&str) -> Option<String>| {
                columns.split(' ').map(|column| cell(column).unwrap_or_default()).collect::<Vec<_>>().join(" ")
            };
            [
                row(&|column| of_server(snapshot, one, 1, column)),
                row(&|column| of_server(snapshot, two, 2, column)),
                row(&|column| of_backend(snapshot, column)),
            ]
        };
        assert_eq!(said(&snapshot, "rate rate_max smax"), ["2 20 10", "2 20 10", "3 30 12"]);
        assert_eq!(said(&snapshot, "scur chkdown downtime lastchg"), ["0   100", "0   100", "2 1 7 10"]);
        assert_eq!(said(&snapshot, "lastsess cli_abrt"), ["-1 4", "4 4", "4 8"]);
        snapshot.pools[0].backends[0].last_session = Some(997.0);
        assert_eq!(said(&snapshot, "lastsess"), ["3", "4", "3"]);
        assert_eq!(said(&snapshot, "ssl_sess ssl_reused_sess"), ["1 6", "1 6", "2 12"]);
        // A pool's limit is that of its servers, when each has one that may have connections at all.
        snapshot.pools[0].backends[0].max_connections = Some(50);
        assert_eq!(said(&snapshot, "slim"), ["50", "", ""]);
        snapshot.pools[0].backends[1].max_connections = Some(7);
        assert_eq!(said(&snapshot, "slim"), ["50", "7", "57"]);
        snapshot.pools[0].backends[0] = BackendStats { weight: 0, ..BackendStats::default() };
        assert_eq!(said(&snapshot, "slim"), ["", "7", "7"]);
        snapshot.pools[0].backends[1].weight = 0;
        assert_eq!(said(&snapshot, "slim"), ["", "7", ""]);
    }

    #[test]
    fn status_says_what_checks_found() {
        let mut snapshot = snapshot();
        let said = |snapshot: &Snapshot, backend: BackendStats| {
            let columns = ["status", "check_status", "check_code", "check_health"];
            columns.map(|column| of_server(snapshot, &backend, 1, column).unwrap_or_default()).join(" ")
        };
        let checked = |up: bool, reason: Option<&str>| {
            let reason = reason.map(str::to_owned);
            let last = Some(CheckResult { time: 1.0, took_us: 1_999, passed: reason.is_none(), reason });
            BackendStats {
                up,
                weight: 1,
                checks: Some(CheckStats { count: 1, failed: 0, last }),
                ..BackendStats::default()
            }
        };
        for (up, reason, wanted) in [
            (true, None, "UP L7OK  4"),
            (true, Some("status 503"), "UP L7STS 503 "),
            (false, Some("status 503"), "DOWN L7STS 503 0"),
            (false, Some("timed out after 1s"), "DOWN L7TOUT  0"),
            (false, Some("connection refused"), "DOWN L4CON  0"),
            (false, Some("answer is not HTTP"), "DOWN L7RSP  0"),
            (false, None, "DOWN L7OK  "),
        ] {
            assert_eq!(said(&snapshot, checked(up, reason)), wanted);
        }
        assert_eq!(said(&snapshot, BackendStats { weight: 0, ..checked(true, None) }), "DRAIN L7OK  4");
        assert_eq!(said(&snapshot, BackendStats { checks: None, ..checked(true, None) }), "no check   ");
        snapshot.pools[0].health = Some(CheckKind::Tcp);
        assert_eq!(said(&snapshot, checked(false, Some("timed out after 1s"))), "DOWN L4TOUT  0");
        snapshot.draining = true;
        assert_eq!(of_frontend(&snapshot, "status").unwrap(), "STOP");
    }

    #[test]
    fn each_row_has_a_cell_for_each_column() {
        let text = encode(&snapshot());
        let columns = COLUMNS.len();
        assert_eq!(columns, 128);
        assert!(text.lines().all(|line| line.split(',').count() == columns + 1), "{text}");
        assert_eq!(text.lines().count(), 1 + 1 + 3);
        let snapshot = snapshot();
        let filled = COLUMNS.iter().filter_map(|it| Some(format!("{}={}", it.name, of_frontend(&snapshot, it.name)?)));
        let of_frontend = filled.collect::<Vec<_>>().join(" ");
        assert!(
            of_frontend.starts_with("pxname=web svname=FRONTEND scur=0 smax=0 slim=0 stot=0 bin=0"),
            "{of_frontend}"
        );
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
