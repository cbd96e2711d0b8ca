//! Which metrics there are, and what they say now.
//!
//! Labels are names of the configuration and words of a closed set, never anything of a client. What has no value (a limit
//! that is none, a stage that nothing was measured of) is left out.

use prometheus_client::registry::Unit;

use super::family::{Labels, MetricFamily, SampleValue, counter, gauge};
use super::traffic::{backends, listeners, pools};
use crate::admin::snapshot_model::{LogStats, Process, ServedCertificate, Snapshot, TlsFiles, TlsOwner};
use crate::stats::latency::Latencies;

/// All of them.
pub(super) fn families(snapshot: &Snapshot, latencies: &Latencies) -> Vec<MetricFamily> {
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

fn whole(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let plane = &snapshot.plane;
    let build = vec![("version", snapshot.version.clone()), ("commit", snapshot.commit.clone())];
    let one = |value: SampleValue| vec![(Labels::new(), value)];
    vec![
        // A gauge, which every reader knows, and not an info, of which older ones know nothing.
        gauge(
            "tidegate_build_info",
            "Version and commit of the running program; always 1",
            None,
            vec![(build, SampleValue::Whole(1))],
        ),
        gauge(
            "tidegate_uptime",
            "Seconds since the process started",
            Some(Unit::Seconds),
            one(SampleValue::Real(snapshot.uptime)),
        ),
        gauge(
            "tidegate_ready",
            "1 if every pool in use has an available backend and the process is not draining, as /readyz",
            None,
            one(snapshot.ready.into()),
        ),
        gauge(
            "tidegate_draining",
            "1 while draining: no new connections are accepted",
            None,
            one(snapshot.draining.into()),
        ),
        gauge("tidegate_workers", "Worker threads", None, one(plane.workers.into())),
        gauge("tidegate_connections_open", "Connections open now", None, one(plane.open.into())),
        gauge("tidegate_connections_capacity", "Limit of open connections", None, one(plane.capacity.into())),
        counter(
            "tidegate_dropped_samples",
            "Latency samples dropped because the stats thread fell behind",
            None,
            one(plane.dropped_samples.into()),
        ),
    ]
}

/// As Prometheus' own libraries name them.
fn process(process: &Process, started: f64) -> Vec<MetricFamily> {
    let one = |value: SampleValue| vec![(Labels::new(), value)];
    let (seconds, bytes) = (Some(Unit::Seconds), Some(Unit::Bytes));
    vec![
        counter(
            "process_cpu",
            "CPU time used, user and system",
            seconds.clone(),
            one(SampleValue::Real(process.cpu_seconds)),
        ),
        gauge("process_resident_memory", "Resident memory", bytes.clone(), one(process.resident_bytes.into())),
        gauge("process_virtual_memory", "Virtual memory", bytes, one(process.virtual_bytes.into())),
        gauge("process_open_fds", "Open file descriptors", None, one(process.open_fds.into())),
        gauge("process_max_fds", "Limit of open file descriptors", None, one(process.max_fds.into())),
        gauge("process_threads", "Threads", None, one(process.threads.into())),
        gauge(
            "process_start_time",
            "Start time of the process, as Unix time",
            seconds,
            one(SampleValue::Real(started)),
        ),
    ]
}

fn certificates(certificates: &[ServedCertificate]) -> Vec<MetricFamily> {
    let each = |value: fn(&ServedCertificate) -> f64| {
        let mut values: Vec<(Labels, SampleValue)> = Vec::new();
        for certificate in certificates {
            let mut labels = of_owner(&certificate.owner);
            labels.push(("path", certificate.path.clone()));
            // The same file may be named twice.
            if !values.iter().any(|(known, _)| *known == labels) {
                values.push((labels, SampleValue::Real(value(certificate))));
            }
        }
        values
    };
    let seconds = Some(Unit::Seconds);
    vec![
        gauge(
            "tidegate_certificate_not_before",
            "Start of the certificate's validity, as Unix time",
            seconds.clone(),
            each(|c| c.not_before),
        ),
        gauge(
            "tidegate_certificate_not_after",
            "End of the certificate's validity, as Unix time",
            seconds,
            each(|c| c.not_after),
        ),
    ]
}

fn tls_files(all: &[TlsFiles]) -> Vec<MetricFamily> {
    let each = |value: fn(&TlsFiles) -> SampleValue| -> Vec<_> {
        all.iter().map(|files| (of_owner(&files.owner), value(files))).collect()
    };
    vec![
        counter("tidegate_tls_files_replaced", "Changed TLS files put into service", None, each(|f| f.replaced.into())),
        counter("tidegate_tls_files_rejected", "Changed TLS files rejected", None, each(|f| f.rejected.into())),
        gauge(
            "tidegate_tls_files_stale",
            "1 while the TLS files on disk are rejected and older ones are in service",
            None,
            each(|f| (!f.faults.is_empty()).into()),
        ),
    ]
}

fn logs(logs: &[LogStats]) -> [MetricFamily; 2] {
    let each = |value: fn(&LogStats) -> u64| -> Vec<_> {
        logs.iter().map(|log| (vec![("log", log.name.clone())], SampleValue::Whole(value(log)))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::{protobuf, text};
    use crate::admin::snapshot_model::{BackendStats, HttpStats, ListenerStats, PoolStats, ResponseCount};
    use crate::stats::http::{Method, StatusClass};

    fn snapshot() -> Snapshot {
        let responses = vec![ResponseCount { method: Method::Get, class: StatusClass::Successful, count: 7 }];
        let http = Some(HttpStats { requests: 9, no_response: 2, passthrough: 1, responses });
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
                rejected: 3,
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
            "tidegate_listener_http_no_response_total{listener=\"in\"} 2",
            "tidegate_listener_http_passthrough_total{listener=\"in\"} 1",
            "tidegate_backend_http_requests_total{pool=\"p\",backend=\"b\"} 9",
            "tidegate_backend_http_responses_total{pool=\"p\",backend=\"b\",method=\"GET\",class=\"2xx\"} 7",
            "tidegate_backend_http_no_response_total{pool=\"p\",backend=\"b\"} 2",
            "tidegate_backend_http_passthrough_total{pool=\"p\",backend=\"b\"} 1",
            "tidegate_backend_downtime_seconds_total{pool=\"p\",backend=\"b\"} 1.5",
            "tidegate_certificate_not_after_seconds{listener=\"listener in\",path=\"c.pem\"} 0.0",
            "tidegate_tls_files_rejected_total{pool=\"p q\"} 3",
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
            families(&snapshot(), &Latencies::default()).iter().map(MetricFamily::sample_name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
