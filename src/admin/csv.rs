//! `/stats;csv`: the table of HAProxy (its management guide, 9.1), so that what reads HAProxy reads tidegate.
//!
//! A listener is a FRONTEND, a pool a BACKEND, which stands behind its servers. A column is filled where tidegate knows
//! the same thing that HAProxy means, and empty where it has no such thing: agents, caches, compression, HTTP/2. Averages (`qtime` and
//! so on) are of the last minute, in milliseconds, rates of the last second, maxima of all time.

use std::fmt::Display;

use super::view::{Backend, Check, Http, Latency, Listener, Pool, Status, Summary, View};
use crate::stats::latency::{Stage, Window};

/// As HAProxy 2.6 orders them.
const COLUMNS: &str = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,\
    status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,\
    rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,\
    hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,\
    last_agt,qtime,ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,\
    check_fall,check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,\
    intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,\
    ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,\
    agg_server_check_status,agg_check_status,-,ssl_sess,ssl_reused_sess,ssl_failed_handshake,h2_headers_rcvd,\
    h2_data_rcvd,h2_settings_rcvd,h2_rst_stream_rcvd,h2_goaway_rcvd,h2_detected_conn_protocol_errors,\
    h2_detected_strm_protocol_errors,h2_rst_stream_resp,h2_goaway_resp,h2_open_connections,h2_backend_open_streams,\
    h2_total_connections,h2_backend_total_streams,h1_open_connections,h1_open_streams,h1_total_connections,\
    h1_total_streams,h1_bytes_in,h1_bytes_out,h1_spliced_bytes_in,h1_spliced_bytes_out";

/// Whether this path asks for the table: `/stats;csv`, and what scrapers make of an address by appending `;csv`,
/// `/;csv` or `;csv;norefresh`.
pub(super) fn is_asked(path: &str) -> bool {
    let Some((page, options)) = path.split_once(';') else { return false };
    matches!(page, "/" | "/stats" | "/stats/") && options.split(';').any(|option| option == "csv")
}

/// The table, with its line of names.
pub(super) fn encode(view: &View) -> String {
    let mut text = format!("# {COLUMNS},\n");
    for (number, listener) in (1..).zip(&view.listeners) {
        row(&mut text, |column| frontend(view, listener, number, column));
    }
    for (number, pool) in (view.listeners.len() + 1..).zip(&view.pools) {
        let about = About { view, pool, number };
        for (place, backend) in (1..).zip(&pool.backends) {
            row(&mut text, |column| about.server(backend, place, column));
        }
        row(&mut text, |column| about.whole(column));
    }
    text
}

fn row(text: &mut String, cell: impl Fn(&str) -> Option<String>) {
    for column in COLUMNS.split(',') {
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

fn shown(value: impl Display) -> Option<String> {
    Some(value.to_string())
}

fn frontend(view: &View, listener: &Listener, number: usize, column: &str) -> Option<String> {
    let ended = |reasons: &[&str]| {
        let ends = listener.endings.iter().filter(|ending| reasons.contains(&ending.reason.as_str()));
        ends.map(|ending| ending.count).sum::<u64>()
    };
    match column {
        "pxname" => shown(&listener.name),
        "svname" => shown("FRONTEND"),
        "scur" => shown(listener.open),
        "smax" => shown(listener.open_max),
        "slim" => shown(listener.max_connections.map_or(view.plane.capacity as u64, u64::from)),
        "stot" | "conn_tot" => shown(listener.accepted),
        "bin" => shown(listener.bytes_in),
        "bout" => shown(listener.bytes_out),
        // Clients that said all they had to, and may not come in.
        "dreq" => shown(ended(&["unknown server name", "untrusted PROXY header", "too many TLS handshakes"])),
        // Clients over a limit.
        "dcon" => shown(ended(&["too many connections from its address", "too fast from its address", "too fast"])),
        // Clients that did not say what they had to.
        "ereq" => shown(ended(&[
            "first bytes timeout",
            "TLS handshake timeout",
            "TLS handshake failed",
            "no TLS",
            "bad ClientHello",
            "bad HTTP request",
            "bad PROXY header",
        ])),
        "ssl_failed_handshake" => {
            // Where TLS does not end here, no handshake has failed.
            let unread = listener.handshakes.map_or(0, |_| ended(&["bad ClientHello"]));
            shown(unread + ended(&["TLS handshake timeout", "TLS handshake failed"]))
        }
        "eint" => shown(ended(&["internal error"])),
        "status" => shown(if view.draining { "STOP" } else { "OPEN" }),
        "pid" => shown(1),
        "iid" => shown(number),
        "sid" | "type" => shown(0),
        "rate" | "conn_rate" => shown(listener.rate.now),
        "rate_max" | "conn_rate_max" => shown(listener.rate.max),
        "rate_lim" => shown(listener.rate_limit.map_or(0, |limit| limit.ceil() as u64)),
        "dses" => shown(0),
        "req_rate" => shown(listener.request_rate.now),
        "req_rate_max" => shown(listener.request_rate.max),
        "req_tot" => shown(listener.http.as_ref().map_or(0, |http| http.requests)),
        "mode" => shown(mode(listener.sniffs_http)),
        "ssl_sess" => shown(listener.handshakes.map_or(0, |handshakes| handshakes.full)),
        "ssl_reused_sess" => shown(listener.handshakes.map_or(0, |handshakes| handshakes.resumed)),
        "-" => shown('-'),
        _ => responses(listener.http.iter(), listener.sniffs_http, column),
    }
}

/// A pool, which is a proxy of HAProxy's too.
struct About<'a> {
    view: &'a View,
    pool: &'a Pool,
    number: usize,
}

impl About<'_> {
    fn server(&self, backend: &Backend, place: usize, column: &str) -> Option<String> {
        let latency = [&backend.latency];
        let checks = backend.checks.as_ref();
        let last = checks.and_then(|checks| checks.last.as_ref());
        match column {
            "svname" => shown(&backend.name),
            "scur" | "used_conn_cur" => shown(backend.open),
            "smax" => shown(backend.open_max),
            "slim" => backend.max_connections.and_then(shown),
            "status" => shown(match backend {
                Backend { status: Status::Leaving, .. } => "DRAIN",
                Backend { up: false, .. } => "DOWN",
                Backend { weight: 0, .. } => "DRAIN",
                Backend { checks: None, .. } => "no check",
                _ => "UP",
            }),
            "weight" | "uweight" => shown(backend.weight),
            "act" => shown(u8::from(!backend.backup)),
            "bck" => shown(u8::from(backend.backup)),
            "chkfail" => checks.and_then(|checks| shown(checks.failed)),
            "chkdown" => checks.and_then(|_| shown(backend.downs)),
            "lastchg" => shown(self.since(backend.since)),
            "rate" => shown(backend.rate.now),
            "rate_max" => shown(backend.rate.max),
            "downtime" => checks.and_then(|_| shown(backend.downtime as u64)),
            "sid" => shown(place),
            "type" => shown(2),
            "check_status" => last.and_then(|check| shown(self.check_status(check))),
            "check_code" => last.and_then(status_code).and_then(shown),
            "check_duration" => last.and_then(|check| shown(check.took_us / 1000)),
            "last_chk" => last.and_then(|check| check.reason.clone()),
            "check_rise" => last.and(self.pool.rise).and_then(shown),
            "check_fall" => last.and(self.pool.fall).and_then(shown),
            "check_health" => last.and_then(|check| self.check_health(backend, check)).and_then(shown),
            "check_desc" => last.and_then(|check| {
                let layer = if self.pool.health.as_deref() == Some("tcp") { "Layer4" } else { "Layer7" };
                shown(format_args!("{layer} check {}", if check.passed { "passed" } else { "failed" }))
            }),
            "addr" => shown(&backend.address),
            _ => self.both(std::slice::from_ref(backend), latency, column),
        }
    }

    fn whole(&self, column: &str) -> Option<String> {
        let backends = &self.pool.backends;
        let in_use = |backup: bool| backends.iter().filter(move |backend| backend.up && backend.backup == backup);
        match column {
            "svname" => shown("BACKEND"),
            "scur" => shown(self.pool.open),
            "smax" => shown(self.pool.open_max),
            // As many as its backends may have; HAProxy's `fullconn` is about that.
            "slim" => backends
                .iter()
                .filter(|backend| backend.weight > 0)
                .map(|backend| backend.max_connections.map(u64::from))
                .sum::<Option<u64>>()
                .filter(|&limit| limit > 0)
                .and_then(shown),
            "chkdown" => shown(self.pool.downs),
            "lastchg" => shown(self.since(self.pool.since)),
            "downtime" => shown(self.pool.downtime as u64),
            "rate" => shown(self.pool.rate.now),
            "rate_max" => shown(self.pool.rate.max),
            "stot" => shown(self.pool.refused + backends.iter().map(|backend| backend.connections).sum::<u64>()),
            "status" => shown(if self.pool.usable { "UP" } else { "DOWN" }),
            "weight" | "uweight" => {
                let active = in_use(false).map(|backend| u64::from(backend.weight)).sum::<u64>();
                let backup = || in_use(true).map(|backend| u64::from(backend.weight)).sum::<u64>();
                shown(if active > 0 { active } else { backup() })
            }
            "act" => shown(in_use(false).count()),
            "bck" => shown(in_use(true).count()),
            "sid" => shown(0),
            "type" => shown(1),
            "algo" => shown(match self.pool.balance.as_str() {
                "round_robin" => "roundrobin",
                "least_connections" => "leastconn",
                "ip_hash" => "source",
                // HAProxy's random is one of two.
                "power_of_two" => "random",
                other => other,
            }),
            _ => self.both(backends, backends.iter().map(|backend| &backend.latency), column),
        }
    }

    /// What is the same for a server and for all of a pool.
    fn both<'a, L>(&self, backends: &[Backend], latency: L, column: &str) -> Option<String>
    where
        L: IntoIterator<Item = &'a Latency>,
    {
        let sum = |value: fn(&Backend) -> u64| shown(backends.iter().map(value).sum::<u64>());
        let seen = || backends.iter().filter_map(|backend| backend.http.as_ref());
        let stage = |column: &str| match column.trim_end_matches("_max") {
            "qtime" => Some(Stage::Queue),
            "ctime" => Some(Stage::Connect),
            "rtime" if self.is_http() => Some(Stage::HttpFirstByte),
            "rtime" => Some(Stage::FirstByte),
            "ttime" => Some(Stage::Session),
            _ => None,
        };
        match column {
            "pxname" => shown(&self.pool.name),
            "pid" => shown(1),
            "iid" => shown(self.number),
            // Who gets no backend is not made to wait for one.
            "qcur" | "qmax" => shown(0),
            "stot" | "lbtot" => sum(|backend| backend.connections),
            "bin" => sum(|backend| backend.bytes_in),
            "bout" => sum(|backend| backend.bytes_out),
            "econ" => sum(|backend| backend.connect_failures),
            "eresp" | "srv_abrt" => sum(|backend| backend.failures),
            // Each is tried with another backend.
            "wretr" | "wredis" => sum(|backend| backend.retries),
            "connect" => sum(|backend| backend.connections + backend.connect_failures),
            "cli_abrt" => sum(|backend| backend.client_aborts),
            "lastsess" => match backends.iter().filter_map(|backend| backend.last_session).reduce(f64::max) {
                Some(last) => shown(self.since(last)),
                None => shown(-1),
            },
            "ssl_sess" => sum(|backend| backend.handshakes.map_or(0, |handshakes| handshakes.full)),
            "ssl_reused_sess" => sum(|backend| backend.handshakes.map_or(0, |handshakes| handshakes.resumed)),
            "req_tot" => self.is_http().then(|| seen().map(|http| http.requests).sum::<u64>()).and_then(shown),
            "mode" => shown(mode(self.is_http())),
            "-" => shown('-'),
            _ => match stage(column) {
                Some(stage) if column.ends_with("_max") => shown(millis(
                    in_window(latency, stage, Window::All).map(|all| all.max_us as f64).fold(0.0, f64::max),
                )),
                Some(stage) => shown(millis(mean(in_window(latency, stage, Window::Minute)))),
                None => responses(seen(), self.is_http(), column),
            },
        }
    }

    /// Whole seconds since then.
    fn since(&self, then: f64) -> u64 {
        (self.view.time - then).max(0.0) as u64
    }

    /// Whether HTTP is watched on its way to this pool.
    fn is_http(&self) -> bool {
        self.view.listeners.iter().any(|listener| listener.sniffs_http && listener.pools.contains(&self.pool.name))
    }

    /// How far a server is from going down: from 0, which is down, to `rise + fall - 1`. In between, how many checks in a
    /// row have passed or failed is not known.
    fn check_health(&self, backend: &Backend, last: &Check) -> Option<u32> {
        match (backend.up, last.passed) {
            (true, true) => Some(self.pool.rise?.saturating_add(self.pool.fall?).saturating_sub(1)),
            (false, false) => Some(0),
            _ => None,
        }
    }

    /// HAProxy's word for how a check ended: the layer, and what it met.
    fn check_status(&self, check: &Check) -> &'static str {
        let is_tcp = self.pool.health.as_deref() == Some("tcp");
        match check.reason.as_deref().unwrap_or_default() {
            _ if check.passed => {
                if is_tcp {
                    "L4OK"
                } else {
                    "L7OK"
                }
            }
            reason if reason.starts_with("timed out") => {
                if is_tcp {
                    "L4TOUT"
                } else {
                    "L7TOUT"
                }
            }
            "refused" | "reset" | "unreachable" | "no such socket" | "permission denied" | "backlog full" => "L4CON",
            _ if is_tcp => "L4CON",
            reason if reason.starts_with("status ") => "L7STS",
            _ => "L7RSP",
        }
    }
}

/// The status that a health check of HTTP did not want.
fn status_code(check: &Check) -> Option<u16> {
    check.reason.as_deref()?.strip_prefix("status ")?.parse().ok()
}

fn mode(is_http: bool) -> &'static str {
    if is_http { "http" } else { "tcp" }
}

/// The responses of the class that a column is of; `None` when it is of none, or HTTP is not watched.
fn responses<'a>(seen: impl Iterator<Item = &'a Http>, is_watched: bool, column: &str) -> Option<String> {
    let class = column.strip_prefix("hrsp_").filter(|_| is_watched)?;
    let responses = seen.flat_map(|http| &http.responses).filter(|responses| responses.class == class);
    shown(responses.map(|responses| responses.count).sum::<u64>())
}

fn in_window<'a>(
    latency: impl IntoIterator<Item = &'a Latency>,
    stage: Stage,
    window: Window,
) -> impl Iterator<Item = &'a Summary> {
    latency.into_iter().filter_map(move |latency| latency.get(stage.name())?.get(window.name()))
}

/// In microseconds.
fn mean<'a>(summaries: impl Iterator<Item = &'a Summary>) -> f64 {
    let (mut count, mut sum) = (0, 0.0);
    for summary in summaries {
        count += summary.count;
        sum += summary.mean_us * summary.count as f64;
    }
    if count > 0 { sum / count as f64 } else { 0.0 }
}

fn millis(micros: f64) -> u64 {
    (micros / 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::{Checks, Handshakes, Rate, Responses};

    /// The cells of a row that are not empty, by the names of their columns.
    fn filled(cell: impl Fn(&str) -> Option<String>) -> String {
        let cells = COLUMNS.split(',').filter_map(|column| Some(format!("{column}={}", cell(column)?)));
        cells.collect::<Vec<_>>().join(" ")
    }

    fn http(class: &str, count: u64) -> Option<Http> {
        let responses = vec![Responses { method: "GET".to_owned(), class: class.to_owned(), count }];
        Some(Http { requests: count + 1, unanswered: 1, opaque: 0, responses })
    }

    fn latency(stage: Stage, count: u64, mean_us: f64) -> Latency {
        let summary = Summary { count, mean_us, max_us: 9_499, ..Summary::default() };
        let windows = [Window::All, Window::TenSeconds, Window::Minute];
        let windows = windows.map(|window| (window.name().to_owned(), summary)).into_iter().collect();
        Latency::from([(stage.name().to_owned(), windows)])
    }

    fn view() -> View {
        let listener = Listener {
            name: "web".to_owned(),
            sniffs_http: true,
            pools: vec!["w".to_owned()],
            http: http("2xx", 7),
            ..Listener::default()
        };
        let backend = |name: &str, mean| Backend {
            name: name.to_owned(),
            up: true,
            weight: 2,
            http: http("5xx", 3),
            latency: latency(Stage::Connect, 20, mean),
            ..Backend::default()
        };
        let pool = Pool {
            name: "w".to_owned(),
            balance: "power_of_two".to_owned(),
            health: Some("http".to_owned()),
            rise: Some(2),
            fall: Some(3),
            usable: true,
            backends: vec![backend("one", 1_000.0), backend("two", 4_000.0)],
            ..Pool::default()
        };
        View { time: 1_000.0, listeners: vec![listener], pools: vec![pool], ..View::default() }
    }

    #[test]
    fn http_is_counted_where_it_is_watched() {
        let view = view();
        let about = About { view: &view, pool: &view.pools[0], number: 2 };
        let frontend = |column: &str| frontend(&view, &view.listeners[0], 1, column);
        assert_eq!(
            ["mode", "hrsp_2xx", "hrsp_5xx", "hrsp_other", "req_tot"].map(frontend).map(Option::unwrap),
            ["http", "7", "0", "0", "8"]
        );
        let whole = |column: &str| about.whole(column);
        assert_eq!(
            ["mode", "hrsp_2xx", "hrsp_5xx", "req_tot", "algo"].map(whole).map(Option::unwrap),
            ["http", "0", "6", "8", "random"]
        );
        assert_eq!(about.server(&view.pools[0].backends[0], 1, "hrsp_5xx").unwrap(), "3");
    }

    #[test]
    fn times_are_of_the_last_minute_and_rounded() {
        let view = view();
        let about = About { view: &view, pool: &view.pools[0], number: 2 };
        let [one, two] = &view.pools[0].backends[..] else { unreachable!("two") };
        assert_eq!(about.server(one, 1, "ctime").unwrap(), "1");
        assert_eq!(about.server(two, 2, "ctime").unwrap(), "4");
        // 2.5 ms, in the middle.
        assert_eq!(about.whole("ctime").unwrap(), "3");
        assert_eq!(
            (about.whole("ctime_max").unwrap(), about.whole("ttime").unwrap()),
            ("9".to_owned(), "0".to_owned())
        );
    }

    #[test]
    fn a_backend_is_not_the_sum_of_its_servers() {
        let mut view = view();
        let pool = &mut view.pools[0];
        (pool.rate, pool.open, pool.open_max, pool.downs) = (Rate { now: 3, max: 30 }, 2, 12, 1);
        (pool.since, pool.downtime) = (989.5, 7.9);
        for (backend, last_session) in pool.backends.iter_mut().zip([None, Some(996.0)]) {
            backend.rate = Rate { now: 2, max: 20 };
            (backend.open_max, backend.downs, backend.since) = (10, 5, 900.0);
            (backend.client_aborts, backend.last_session) = (4, last_session);
            backend.handshakes = Some(Handshakes { full: 1, resumed: 6 });
        }
        let said = |view: &View, columns: &str| {
            let about = About { view, pool: &view.pools[0], number: 2 };
            let [one, two] = &view.pools[0].backends[..] else { unreachable!("two") };
            let row = |cell: &dyn Fn(&str) -> Option<String>| {
                columns.split(' ').map(|column| cell(column).unwrap_or_default()).collect::<Vec<_>>().join(" ")
            };
            [
                row(&|column| about.server(one, 1, column)),
                row(&|column| about.server(two, 2, column)),
                row(&|column| about.whole(column)),
            ]
        };
        assert_eq!(said(&view, "rate rate_max smax"), ["2 20 10", "2 20 10", "3 30 12"]);
        assert_eq!(said(&view, "scur chkdown downtime lastchg"), ["0   100", "0   100", "2 1 7 10"]);
        assert_eq!(said(&view, "lastsess cli_abrt"), ["-1 4", "4 4", "4 8"]);
        view.pools[0].backends[0].last_session = Some(997.0);
        assert_eq!(said(&view, "lastsess"), ["3", "4", "3"]);
        assert_eq!(said(&view, "ssl_sess ssl_reused_sess"), ["1 6", "1 6", "2 12"]);
        // A pool's limit is that of its servers, when each has one that may have connections at all.
        view.pools[0].backends[0].max_connections = Some(50);
        assert_eq!(said(&view, "slim"), ["50", "", ""]);
        view.pools[0].backends[1].max_connections = Some(7);
        assert_eq!(said(&view, "slim"), ["50", "7", "57"]);
        view.pools[0].backends[0] = Backend { weight: 0, ..Backend::default() };
        assert_eq!(said(&view, "slim"), ["", "7", "7"]);
        view.pools[0].backends[1].weight = 0;
        assert_eq!(said(&view, "slim"), ["", "7", ""]);
    }

    #[test]
    fn status_says_what_checks_found() {
        let mut view = view();
        let said = |view: &View, backend: Backend| {
            let about = About { view, pool: &view.pools[0], number: 2 };
            let columns = ["status", "check_status", "check_code", "check_health"];
            columns.map(|column| about.server(&backend, 1, column).unwrap_or_default()).join(" ")
        };
        let checked = |up: bool, reason: Option<&str>| {
            let reason = reason.map(str::to_owned);
            let last = Some(Check { time: 1.0, took_us: 1_999, passed: reason.is_none(), reason });
            Backend { up, weight: 1, checks: Some(Checks { count: 1, failed: 0, last }), ..Backend::default() }
        };
        for (up, reason, wanted) in [
            (true, None, "UP L7OK  4"),
            (true, Some("status 503"), "UP L7STS 503 "),
            (false, Some("status 503"), "DOWN L7STS 503 0"),
            (false, Some("timed out after 1s"), "DOWN L7TOUT  0"),
            (false, Some("refused"), "DOWN L4CON  0"),
            (false, Some("answer is not HTTP"), "DOWN L7RSP  0"),
            (false, None, "DOWN L7OK  "),
        ] {
            assert_eq!(said(&view, checked(up, reason)), wanted);
        }
        assert_eq!(said(&view, Backend { weight: 0, ..checked(true, None) }), "DRAIN L7OK  4");
        assert_eq!(said(&view, Backend { checks: None, ..checked(true, None) }), "no check   ");
        view.pools[0].health = Some("tcp".to_owned());
        assert_eq!(said(&view, checked(false, Some("timed out after 1s"))), "DOWN L4TOUT  0");
        view.draining = true;
        let status = |view: &View| frontend(view, &view.listeners[0], 1, "status").unwrap();
        assert_eq!(status(&view), "STOP");
    }

    #[test]
    fn each_row_has_a_cell_for_each_column() {
        let text = encode(&view());
        let columns = COLUMNS.split(',').count();
        assert_eq!(columns, 128);
        assert!(text.lines().all(|line| line.split(',').count() == columns + 1), "{text}");
        assert_eq!(text.lines().count(), 1 + 1 + 3);
        let of_frontend = filled(|column| frontend(&view(), &view().listeners[0], 1, column));
        assert!(
            of_frontend.starts_with("pxname=web svname=FRONTEND scur=0 smax=0 slim=0 stot=0 bin=0"),
            "{of_frontend}"
        );
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
