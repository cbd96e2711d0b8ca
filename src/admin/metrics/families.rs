//! Which metrics there are, and what they say now.
//!
//! Labels are names of the configuration and words of a closed set, never anything of a client. What has no value (a limit
//! that is none, a stage that nothing was measured of) is left out.

use prometheus_client::registry::Unit;

use super::super::snapshot_model::{
    BackendStats, CheckStats, HttpStats, ListenerStats, LogStats, PoolStats, Process, ServedCertificate, Snapshot,
    TerminationStats, TlsFiles, TlsOwner,
};
pub(super) use super::buckets::Distribution;
use crate::stats::latency::{Latencies, Measured, Stage};

/// Names and values of a metric's labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Metrics of one name.
#[derive(Debug)]
pub(super) struct Family {
    /// Without its unit, and without the `_total` of a counter.
    pub(super) name: &'static str,
    /// What it says, for people.
    pub(super) help: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) values: Values,
}

/// The values of a family, each with its labels.
#[derive(Debug)]
pub(super) enum Values {
    Counters(Vec<(Labels, Number)>),
    Gauges(Vec<(Labels, Number)>),
    Histograms(Vec<(Labels, Distribution)>),
}

/// The value of a counter or a gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl Family {
    /// The name of its samples: with the unit, and with the `_total` of a counter.
    pub(super) fn sample_name(&self) -> String {
        let unit = self.unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
        let total = if matches!(self.values, Values::Counters(_)) { "_total" } else { "" };
        format!("{}{unit}{total}", self.name)
    }

    fn is_empty(&self) -> bool {
        match &self.values {
            Values::Counters(values) | Values::Gauges(values) => values.is_empty(),
            Values::Histograms(values) => values.is_empty(),
        }
    }
}

/// All of them.
pub(super) fn families(snapshot: &Snapshot, latencies: &Latencies) -> Vec<Family> {
    let mut families = whole(snapshot);
    families.extend(process(&snapshot.process, snapshot.started));
    families.extend(listeners(snapshot, latencies));
    families.extend(pools(snapshot));
    families.extend(backends(snapshot, latencies));
    families.extend(certificates(&snapshot.certificates));
    families.extend(tls_files(&snapshot.tls_files));
    families.extend(logs(&snapshot.logs));
    families.retain(|family| !family.is_empty());
    families
}

fn whole(snapshot: &Snapshot) -> Vec<Family> {
    let plane = &snapshot.plane;
    let build = vec![("version", snapshot.version.clone()), ("commit", snapshot.commit.clone())];
    let one = |value: Number| vec![(Labels::new(), value)];
    vec![
        // A gauge, which every reader knows, and not an info, of which older ones know nothing.
        gauge("tidegate_build_info", "The program: always 1", None, vec![(build, Number::Whole(1))]),
        gauge("tidegate_uptime", "Since the start", Some(Unit::Seconds), one(Number::Real(snapshot.uptime))),
        gauge(
            "tidegate_ready",
            "Whether each pool in use has a backend, and nothing drains",
            None,
            one(snapshot.ready.into()),
        ),
        gauge(
            "tidegate_draining",
            "Whether no new connection is accepted any more",
            None,
            one(snapshot.draining.into()),
        ),
        gauge("tidegate_workers", "Threads that move bytes", None, one(plane.workers.into())),
        gauge("tidegate_sessions_open", "Connections open now", None, one(plane.open.into())),
        gauge("tidegate_sessions_capacity", "Connections that may be open at once", None, one(plane.capacity.into())),
        counter("tidegate_lost_samples", "Measurements that were lost", None, one(plane.lost_samples.into())),
    ]
}

/// As Prometheus' own libraries name them.
fn process(process: &Process, started: f64) -> Vec<Family> {
    let one = |value: Number| vec![(Labels::new(), value)];
    let (seconds, bytes) = (Some(Unit::Seconds), Some(Unit::Bytes));
    vec![
        counter("process_cpu", "CPU time, user and system", seconds.clone(), one(Number::Real(process.cpu_seconds))),
        gauge("process_resident_memory", "Memory that is resident", bytes.clone(), one(process.resident_bytes.into())),
        gauge("process_virtual_memory", "Address space", bytes, one(process.virtual_bytes.into())),
        gauge("process_open_fds", "Open descriptors", None, one(process.open_fds.into())),
        gauge("process_max_fds", "Descriptors it may have", None, one(process.max_fds.into())),
        gauge("process_threads", "Threads", None, one(process.threads.into())),
        gauge("process_start_time", "When it started, since 1970", seconds, one(Number::Real(started))),
    ]
}

fn listeners(snapshot: &Snapshot, latencies: &Latencies) -> Vec<Family> {
    let all = || snapshot.listeners.iter().map(|listener| (of_listener(listener), listener));
    let each = |value: fn(&ListenerStats) -> Option<Number>| -> Vec<_> {
        all().filter_map(|(labels, listener)| Some((labels, value(listener)?))).collect()
    };
    let endings = |refusals: bool| {
        all().flat_map(move |(labels, listener)| {
            let endings = listener.endings.iter().filter(move |ending| ending.termination.is_refusal() || !refusals);
            endings.map(move |TerminationStats { termination, count }| {
                let mut labels = labels.clone();
                labels.push(("end", termination.to_string()));
                if !refusals {
                    let (side, code) = (termination.cause().name(), termination.code());
                    labels.extend([("side", side.to_owned()), ("code", code.to_owned())]);
                }
                (labels, Number::Whole(*count))
            })
        })
    };
    let handshakes = all().flat_map(|(labels, listener)| {
        let kinds = listener.handshakes.map(|counted| [("full", counted.full), ("resumed", counted.resumed)]);
        kinds.into_iter().flatten().map(move |(kind, count)| {
            let mut labels = labels.clone();
            labels.push(("kind", kind.to_owned()));
            (labels, Number::Whole(count))
        })
    });
    let mut families = vec![
        gauge("tidegate_listener_sessions_open", "Connections open now", None, each(|l| some(l.open))),
        gauge(
            "tidegate_listener_sessions_open_max",
            "The most that were open at once",
            None,
            each(|l| some(l.open_max)),
        ),
        gauge(
            "tidegate_listener_sessions_limit",
            "Connections that may be open at once",
            None,
            each(|l| l.max_connections.map(Into::into)),
        ),
        counter("tidegate_listener_sessions", "Connections accepted", None, each(|l| some(l.accepted))),
        counter("tidegate_listener_sessions_ended", "How connections ended", None, endings(false).collect()),
        counter("tidegate_listener_refusals", "Clients that were refused", None, endings(true).collect()),
        counter("tidegate_listener_bytes_in", "Bytes of clients, handed to backends", None, each(|l| some(l.bytes_in))),
        counter(
            "tidegate_listener_bytes_out",
            "Bytes of backends, handed to clients",
            None,
            each(|l| some(l.bytes_out)),
        ),
        counter("tidegate_listener_retries", "Connects tried again elsewhere", None, each(|l| some(l.retries))),
        counter("tidegate_listener_tls_handshakes", "TLS handshakes that succeeded", None, handshakes.collect()),
    ];
    let names = [
        "tidegate_listener_http_requests",
        "tidegate_listener_http_responses",
        "tidegate_listener_http_unanswered",
        "tidegate_listener_http_opaque",
    ];
    families.extend(http(names, || all().filter_map(|(labels, l)| Some((labels, l.http.as_ref()?)))));
    let measured = all().map(|(labels, l)| (labels, latencies.listener(l.id)));
    families.push(latency("tidegate_listener_latency", measured));
    families
}

fn pools(snapshot: &Snapshot) -> Vec<Family> {
    let each = |value: fn(&PoolStats) -> Number| -> Vec<_> {
        snapshot.pools.iter().map(|pool| (vec![("pool", pool.name.clone())], value(pool))).collect()
    };
    let seconds = Some(Unit::Seconds);
    vec![
        gauge("tidegate_pool_usable", "Whether a connection gets a backend now", None, each(|p| p.usable.into())),
        gauge("tidegate_pool_backends", "Backends", None, each(|p| p.backends.len().into())),
        gauge("tidegate_pool_backends_up", "Backends that take connections", None, each(|p| p.up.into())),
        counter("tidegate_pool_refusals", "Connections that got no backend", None, each(|p| p.refused.into())),
        counter("tidegate_pool_retries", "Connects tried again elsewhere", None, each(|p| p.retries.into())),
        gauge("tidegate_pool_sessions_open", "Connections its backends have now", None, each(|p| p.open.into())),
        gauge("tidegate_pool_sessions_open_max", "The most they had at once", None, each(|p| p.open_max.into())),
        counter("tidegate_pool_downs", "How often it became unusable", None, each(|p| p.downs.into())),
        counter(
            "tidegate_pool_downtime",
            "How long it was unusable",
            seconds.clone(),
            each(|p| Number::Real(p.downtime)),
        ),
        gauge(
            "tidegate_pool_status_since",
            "When it became usable or unusable, since 1970",
            seconds,
            each(|p| Number::Real(p.since)),
        ),
    ]
}

fn backends(snapshot: &Snapshot, latencies: &Latencies) -> Vec<Family> {
    let all = || snapshot.pools.iter().flat_map(|pool| pool.backends.iter().map(|b| (of_backend(pool, b), b)));
    let each = |value: fn(&BackendStats) -> Option<Number>| -> Vec<_> {
        all().filter_map(|(labels, backend)| Some((labels, value(backend)?))).collect()
    };
    let seconds = Some(Unit::Seconds);
    let mut families = vec![
        gauge(
            "tidegate_backend_up",
            "Whether it takes connections",
            None,
            each(|b| (b.status() != Status::Leaving).then(|| b.up.into())),
        ),
        gauge(
            "tidegate_backend_checked",
            "Whether it has health checks; without, it is up as long as its name resolves",
            None,
            each(|b| Some(b.checks.is_some().into())),
        ),
        gauge("tidegate_backend_weight", "As configured", None, each(|b| some(u64::from(b.weight)))),
        gauge(
            "tidegate_backend_backup",
            "Whether it is used only when no other can be",
            None,
            each(|b| Some(b.backup.into())),
        ),
        gauge("tidegate_backend_sessions_open", "Connections it has now", None, each(|b| some(b.open))),
        gauge("tidegate_backend_sessions_open_max", "The most it had at once", None, each(|b| some(b.open_max))),
        gauge(
            "tidegate_backend_sessions_limit",
            "Connections it may have at once",
            None,
            each(|b| b.max_connections.map(Into::into)),
        ),
        counter("tidegate_backend_sessions", "Connections it was given", None, each(|b| some(b.connections))),
        counter("tidegate_backend_connection_errors", "Connects that failed", None, each(|b| some(b.connect_failures))),
        counter("tidegate_backend_retries", "Connects tried again elsewhere", None, each(|b| some(b.retries))),
        counter("tidegate_backend_failures", "Connections that ended by its fault", None, each(|b| some(b.failures))),
        counter(
            "tidegate_backend_client_aborts",
            "Connections that ended by the client's fault",
            None,
            each(|b| some(b.client_aborts)),
        ),
        counter("tidegate_backend_bytes_in", "Bytes of clients that it was handed", None, each(|b| some(b.bytes_in))),
        counter(
            "tidegate_backend_bytes_out",
            "Bytes it sent that clients were handed",
            None,
            each(|b| some(b.bytes_out)),
        ),
        counter("tidegate_backend_checks", "Health checks", None, each(|b| some(b.checks.as_ref()?.count))),
        counter(
            "tidegate_backend_check_failures",
            "Health checks that failed",
            None,
            each(|b| some(b.checks.as_ref()?.failed)),
        ),
        gauge(
            "tidegate_backend_check_duration",
            "The last health check",
            seconds.clone(),
            each(|b| last_check(b.checks.as_ref()?)),
        ),
        counter("tidegate_backend_downs", "How often it went down", None, each(|b| some(b.downs))),
        counter(
            "tidegate_backend_downtime",
            "How long it was down",
            seconds.clone(),
            each(|b| Some(Number::Real(b.downtime))),
        ),
        gauge(
            "tidegate_backend_status_since",
            "When it went up or down, since 1970",
            seconds.clone(),
            each(|b| Some(Number::Real(b.since))),
        ),
        gauge(
            "tidegate_backend_last_session",
            "When it was given its last connection, since 1970",
            seconds,
            each(|b| b.last_session.map(Number::Real)),
        ),
    ];
    let names = [
        "tidegate_backend_http_requests",
        "tidegate_backend_http_responses",
        "tidegate_backend_http_unanswered",
        "tidegate_backend_http_opaque",
    ];
    families.extend(http(names, || all().filter_map(|(labels, b)| Some((labels, b.http.as_ref()?)))));
    let measured = all().map(|(labels, b)| (labels, latencies.backend(b.id)));
    families.push(latency("tidegate_backend_latency", measured));
    families
}

/// Requests, responses, those without, and connections that are not watched any more.
fn http<'a, I: Iterator<Item = (Labels, &'a HttpStats)>>(names: [&'static str; 4], all: impl Fn() -> I) -> [Family; 4] {
    let [requests, responses, unanswered, opaque] = names;
    let each = |value: fn(&HttpStats) -> u64| -> Vec<_> {
        all().map(|(labels, http)| (labels, Number::Whole(value(http)))).collect()
    };
    let by_class = all().flat_map(|(labels, http)| {
        http.responses.iter().map(move |responses| {
            let mut labels = labels.clone();
            let (method, class) = (responses.method.name(), responses.class.name());
            labels.extend([("method", method.to_owned()), ("class", class.to_owned())]);
            (labels, Number::Whole(responses.count))
        })
    });
    [
        counter(requests, "HTTP requests, answered or not", None, each(|http| http.requests)),
        counter(responses, "HTTP requests that were answered", None, by_class.collect()),
        counter(unanswered, "HTTP requests whose connection ended first", None, each(|http| http.unanswered)),
        counter(opaque, "Connections that turned into no HTTP to be watched", None, each(|http| http.opaque)),
    ]
}

fn latency<'a>(name: &'static str, all: impl Iterator<Item = (Labels, Option<&'a Measured>)>) -> Family {
    let histograms = all.flat_map(|(labels, measured)| {
        Stage::ALL.into_iter().filter_map(move |stage| {
            let distribution = Distribution::of(measured?.stage(stage)?.total())?;
            let mut labels = labels.clone();
            labels.push(("stage", stage.name().to_owned()));
            Some((labels, distribution))
        })
    });
    let values = Values::Histograms(histograms.collect());
    Family { name, help: "How long each stage of a connection took", unit: Some(Unit::Seconds), values }
}

fn certificates(certificates: &[ServedCertificate]) -> Vec<Family> {
    let each = |value: fn(&ServedCertificate) -> f64| {
        let mut values: Vec<(Labels, Number)> = Vec::new();
        for certificate in certificates {
            let mut labels = of_owner(&certificate.owner);
            labels.push(("path", certificate.path.clone()));
            // The same file may be named twice.
            if !values.iter().any(|(known, _)| *known == labels) {
                values.push((labels, Number::Real(value(certificate))));
            }
        }
        values
    };
    let seconds = Some(Unit::Seconds);
    vec![
        gauge(
            "tidegate_certificate_not_before",
            "From when it is valid, since 1970",
            seconds.clone(),
            each(|c| c.not_before),
        ),
        gauge("tidegate_certificate_not_after", "Until when it is valid, since 1970", seconds, each(|c| c.not_after)),
    ]
}

fn tls_files(all: &[TlsFiles]) -> Vec<Family> {
    let each = |value: fn(&TlsFiles) -> Number| -> Vec<_> {
        all.iter().map(|files| (of_owner(&files.owner), value(files))).collect()
    };
    vec![
        counter(
            "tidegate_tls_files_replaced",
            "Changes of TLS files put in service",
            None,
            each(|f| f.replaced.into()),
        ),
        counter(
            "tidegate_tls_files_refused",
            "Changes of TLS files that were refused",
            None,
            each(|f| f.refused.into()),
        ),
        gauge(
            "tidegate_tls_files_stale",
            "Whether what the TLS files hold now was refused, and is not in service",
            None,
            each(|f| (!f.faults.is_empty()).into()),
        ),
    ]
}

fn logs(logs: &[LogStats]) -> [Family; 2] {
    let each = |value: fn(&LogStats) -> u64| -> Vec<_> {
        logs.iter().map(|log| (vec![("log", log.name.clone())], Number::Whole(value(log)))).collect()
    };
    [
        counter(
            "tidegate_log_write_errors",
            "LogStats lines that could not be written",
            None,
            each(|log| log.write_errors),
        ),
        counter(
            "tidegate_log_dropped_lines",
            "LogStats lines dropped because the writer did not keep up",
            None,
            each(|log| log.dropped_lines),
        ),
    ]
}

fn of_owner(owner: &TlsOwner) -> Labels {
    match owner {
        TlsOwner::Listener(name) => vec![("listener", name.clone())],
        TlsOwner::Pool(name) => vec![("pool", name.clone())],
    }
}

fn of_listener(listener: &ListenerStats) -> Labels {
    vec![("listener", listener.name.clone())]
}

fn of_backend(pool: &PoolStats, backend: &BackendStats) -> Labels {
    vec![("pool", pool.name.clone()), ("backend", backend.name.clone())]
}

fn last_check(checks: &CheckStats) -> Option<Number> {
    Some(Number::Real(checks.last.as_ref()?.took_us as f64 / 1e6))
}

fn some(value: u64) -> Option<Number> {
    Some(Number::Whole(value))
}

fn counter(name: &'static str, help: &'static str, unit: Option<Unit>, values: Vec<(Labels, Number)>) -> Family {
    Family { name, help, unit, values: Values::Counters(values) }
}

fn gauge(name: &'static str, help: &'static str, unit: Option<Unit>, values: Vec<(Labels, Number)>) -> Family {
    Family { name, help, unit, values: Values::Gauges(values) }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(value)
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Number {
        Number::Whole(value.into())
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Number {
        Number::Whole(value as u64)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Number {
        Number::Whole(value.into())
    }
}

impl From<Number> for f64 {
    fn from(value: Number) -> f64 {
        match value {
            Number::Whole(value) => value as f64,
            Number::Real(value) => value,
        }
    }
}

/// Written without a fraction where it has none; the error is the value as it is written otherwise.
impl TryFrom<Number> for i64 {
    type Error = f64;

    fn try_from(value: Number) -> Result<i64, f64> {
        match value {
            Number::Whole(whole) => i64::try_from(whole).map_err(|_| whole as f64),
            Number::Real(real) => Err(real),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::{protobuf, text};
    use crate::admin::snapshot_model::ResponseCount;
    use crate::stats::http::{Method, StatusClass};

    fn snapshot() -> Snapshot {
        let responses = vec![ResponseCount { method: Method::Get, class: StatusClass::Successful, count: 7 }];
        let http = Some(HttpStats { requests: 9, unanswered: 2, opaque: 1, responses });
        let backend =
            BackendStats { name: "b".to_owned(), http: http.clone(), downtime: 1.5, ..BackendStats::default() };
        let certificate = ServedCertificate {
            owner: TlsOwner::Listener("listener in".to_owned()),
            path: "c.pem".to_owned(),
            names: Vec::new(),
            key: String::new(),
            not_before: 0.0,
            not_after: 0.0,
        };
        Snapshot {
            listeners: vec![ListenerStats { name: "in".to_owned(), http, ..ListenerStats::default() }],
            pools: vec![PoolStats { name: "p".to_owned(), backends: vec![backend], ..PoolStats::default() }],
            certificates: vec![certificate.clone(), certificate],
            tls_files: vec![TlsFiles {
                owner: TlsOwner::Pool("p q".to_owned()),
                replaced: 0,
                refused: 3,
                faults: Vec::new(),
            }],
            ..Snapshot::default()
        }
    }

    #[test]
    fn http_is_there_where_it_was_seen() {
        let text = text::encode(families(&snapshot(), &Latencies::default())).unwrap();
        for line in [
            "tidegate_listener_http_requests_total{listener=\"in\"} 9",
            "tidegate_listener_http_responses_total{listener=\"in\",method=\"GET\",class=\"2xx\"} 7",
            "tidegate_listener_http_unanswered_total{listener=\"in\"} 2",
            "tidegate_listener_http_opaque_total{listener=\"in\"} 1",
            "tidegate_backend_http_requests_total{pool=\"p\",backend=\"b\"} 9",
            "tidegate_backend_http_responses_total{pool=\"p\",backend=\"b\",method=\"GET\",class=\"2xx\"} 7",
            "tidegate_backend_http_unanswered_total{pool=\"p\",backend=\"b\"} 2",
            "tidegate_backend_http_opaque_total{pool=\"p\",backend=\"b\"} 1",
            "tidegate_backend_downtime_seconds_total{pool=\"p\",backend=\"b\"} 1.5",
            "tidegate_certificate_not_after_seconds{listener=\"listener in\",path=\"c.pem\"} 0.0",
            "tidegate_tls_files_refused_total{pool=\"p q\"} 3",
            "tidegate_tls_files_stale{pool=\"p q\"} 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("tidegate_certificate_not_after_seconds{").count(), 1, "{text}");
        let nothing = text::encode(families(&Snapshot::default(), &Latencies::default())).unwrap();
        assert!(!nothing.contains("_http_") && !nothing.contains("latency"), "{nothing}");
    }

    #[test]
    fn names_are_those_of_the_text_in_protobuf_too() {
        let bytes = protobuf::encode(families(&snapshot(), &Latencies::default()));
        let has = |name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(has("tidegate_backend_downtime_seconds_total") && has("process_resident_memory_bytes"));
    }

    #[test]
    fn no_name_comes_twice() {
        let mut names: Vec<String> =
            families(&snapshot(), &Latencies::default()).iter().map(Family::sample_name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
