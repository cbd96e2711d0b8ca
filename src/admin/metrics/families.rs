//! Which metrics there are, and what they say now.
//!
//! Labels are names of the configuration and words of a closed set, never anything of a client. What has no value (a limit
//! that is none, a stage that nothing was measured of) is left out.

use prometheus_client::registry::Unit;

use super::family::{Labels, MetricFamily, SampleValue, counter, gauge};
use super::http::routes;
use super::traffic::{backends, listeners, pools};
use crate::admin::snapshot_model::{
    ConfigStats, GeoIpStats, LogStats, Process, ServedCertificate, Snapshot, TlsFiles, TlsOwner,
};
use crate::stats::latency::Latencies;

/// All of them.
pub(super) fn families(snapshot: &Snapshot, latencies: &Latencies) -> Vec<MetricFamily> {
    let mut families = whole(snapshot);
    families.extend(config(&snapshot.config));
    families.extend(process(&snapshot.process, snapshot.started));
    families.extend(listeners(snapshot, latencies));
    families.extend(routes(snapshot, latencies));
    families.extend(pools(snapshot));
    families.extend(backends(snapshot, latencies));
    families.extend(certificates(&snapshot.certificates));
    families.extend(tls_files(&snapshot.tls_files));
    families.extend(snapshot.geoip.iter().flat_map(geoip));
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
            "1 if every listener accepts, every pool in use has an available backend and the process is not draining, as \
             /readyz",
            None,
            one(snapshot.ready.into()),
        ),
        gauge(
            "tidegate_draining",
            "1 while draining: shutdown.delay has begun, or no new connections are accepted",
            None,
            one(snapshot.draining.into()),
        ),
        gauge(
            "tidegate_upgrade_draining",
            "Processes that upgrades have replaced and that still drain",
            None,
            one(snapshot.predecessors.len().into()),
        ),
        gauge(
            "tidegate_upgrade_draining_connections",
            "Open connections of the processes that upgrades have replaced; they are not in the other metrics",
            None,
            one(snapshot.predecessors.iter().map(|it| it.connections).sum::<usize>().into()),
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
        counter(
            "tidegate_admin_rejected_connections",
            "Connections to the admin interface closed by admin.allow",
            None,
            one(snapshot.admin.rejected.into()),
        ),
        counter(
            "tidegate_admin_failed_handshakes",
            "Failed TLS handshakes of the admin interface",
            None,
            one(snapshot.admin.failed_handshakes.into()),
        ),
    ]
}

fn config(config: &ConfigStats) -> [MetricFamily; 4] {
    let one = |value: SampleValue| vec![(Labels::new(), value)];
    [
        gauge(
            "tidegate_config_generation",
            "Number of the configuration in effect: 1 at the start, one more with each change",
            None,
            one(config.generation.into()),
        ),
        gauge(
            "tidegate_config_last_reload_successful",
            "1 if the last reload was applied, 0 if it was refused",
            None,
            one(config.last_reload_succeeded.into()),
        ),
        gauge(
            "tidegate_config_last_reload_success_timestamp",
            "When the last reload was applied or the process started, as Unix time",
            Some(Unit::Seconds),
            one(SampleValue::Real(config.last_reload_success)),
        ),
        gauge(
            "tidegate_config_file_differs",
            "1 while the configuration file is not what is in effect",
            None,
            one(config.file_differs.is_some().into()),
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

fn geoip(stats: &GeoIpStats) -> [MetricFamily; 5] {
    let one = |value: SampleValue| vec![(Labels::new(), value)];
    [
        gauge(
            "tidegate_geoip_built_timestamp",
            "When the database of countries in service was made",
            Some(Unit::Seconds),
            one(SampleValue::Real(stats.built)),
        ),
        gauge(
            "tidegate_geoip_ranges",
            "Ranges of addresses in the database of countries in service",
            None,
            one(stats.ranges.into()),
        ),
        counter(
            "tidegate_geoip_replaced",
            "Changes of the database of countries that went into service",
            None,
            one(stats.replaced.into()),
        ),
        counter(
            "tidegate_geoip_rejected",
            "Changes of the database of countries that were rejected: the one before stays in service",
            None,
            one(stats.rejected.into()),
        ),
        gauge(
            "tidegate_geoip_stale",
            "1 while the file of the database of countries has content that is not in service",
            None,
            one(stats.fault.is_some().into()),
        ),
    ]
}

fn logs(logs: &[LogStats]) -> [MetricFamily; 3] {
    let each = |value: fn(&LogStats) -> u64| -> Vec<_> {
        logs.iter().map(|log| (vec![("log", log.name.clone())], SampleValue::Whole(value(log)))).collect()
    };
    [
        counter("tidegate_log_write_errors", "Log lines that could not be written", None, each(|log| log.write_errors)),
        counter(
            "tidegate_log_dropped_lines",
            "Log lines dropped because the writer did not keep up",
            None,
            each(|log| log.dropped_lines),
        ),
        counter(
            "tidegate_log_truncated_lines",
            "Log lines cut at the largest size of a syslog message",
            None,
            each(|log| log.truncated_lines),
        ),
    ]
}

fn of_owner(owner: &TlsOwner) -> Labels {
    match owner {
        TlsOwner::Listener(name) => vec![("listener", name.clone())],
        TlsOwner::Pool(name) => vec![("pool", name.clone())],
        TlsOwner::Admin => vec![("interface", "admin".to_owned())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::{protobuf, text};
    use crate::admin::snapshot_model::{BackendStats, HttpStats, ListenerStats, PoolStats, QueryStats, ResponseCount};
    use crate::config::model::{AdminState, ListenerState};
    use crate::stats::http::{Method, StatusClass};
    use crate::stats::queries::{PassthroughReason, QueryCounts, QueryEvent, QueryProtocol, StatementKind};

    fn queries() -> Vec<QueryStats> {
        let (mut counts, protocol) = (QueryCounts::default(), QueryProtocol::Postgres);
        let answered = |statement, pipelined| QueryEvent::Answered { statement, failed: false, pipelined };
        for event in [
            answered(protocol.statement(b"SELECT"), false),
            answered(protocol.statement(b"SELECT"), true),
            answered(StatementKind::OTHER, true),
            QueryEvent::Failed(protocol.error_class(b"42")),
            QueryEvent::Unanswered,
            QueryEvent::Passthrough(PassthroughReason::Encrypted),
        ] {
            counts.count(protocol, event);
        }
        QueryStats::of(&counts)
    }

    fn snapshot() -> Snapshot {
        let responses = vec![ResponseCount { method: Method::Get, class: StatusClass::Successful, count: 7 }];
        let http = Some(HttpStats { requests: 9, no_response: 2, passthrough: 1, responses });
        let backend = BackendStats {
            name: "b".to_owned(),
            admin_state: AdminState::Drain,
            http: http.clone(),
            queries: queries(),
            downtime: 1.5,
            ..BackendStats::default()
        };
        let certificate = ServedCertificate {
            owner: TlsOwner::Listener("listener in".to_owned()),
            path: "c.pem".to_owned(),
            names: Vec::new(),
            key: String::new(),
            not_before: 0.0,
            not_after: 0.0,
        };
        Snapshot {
            config: ConfigStats {
                generation: 7,
                file_differs: Some("refused".to_owned()),
                last_reload_succeeded: false,
                last_reload_success: 3.5,
                ..ConfigStats::default()
            },
            listeners: vec![ListenerStats {
                name: "in".to_owned(),
                state: ListenerState::Paused,
                http,
                ..ListenerStats::default()
            }],
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
            "tidegate_config_generation{} 7",
            "tidegate_config_last_reload_successful{} 0",
            "tidegate_config_last_reload_success_timestamp_seconds{} 3.5",
            "tidegate_config_file_differs{} 1",
            "tidegate_listener_admin_state{listener=\"in\",state=\"ready\"} 0",
            "tidegate_listener_admin_state{listener=\"in\",state=\"paused\"} 1",
            "tidegate_listener_admin_state{listener=\"in\",state=\"drain\"} 0",
            "tidegate_backend_admin_state{pool=\"p\",backend=\"b\",state=\"ready\"} 0",
            "tidegate_backend_admin_state{pool=\"p\",backend=\"b\",state=\"drain\"} 1",
            "tidegate_backend_admin_state{pool=\"p\",backend=\"b\",state=\"maintenance\"} 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("tidegate_certificate_not_after_seconds{").count(), 1, "{text}");
        let nothing = text::encode(families(&Snapshot::default(), &Latencies::default())).unwrap();
        assert!(!nothing.contains("_http_") && !nothing.contains("latency"), "{nothing}");
    }

    #[test]
    fn queries_are_there_where_they_were_seen() {
        let mut snapshot = snapshot();
        snapshot.listeners[0].queries = queries();
        let text = text::encode(families(&snapshot, &Latencies::default())).unwrap();
        for (owner, labels) in [("listener", "listener=\"in\""), ("backend", "pool=\"p\",backend=\"b\"")] {
            let labels = format!("{labels},protocol=\"postgres\"");
            for line in [
                format!("queries_total{{{labels},statement=\"SELECT\"}} 2"),
                format!("queries_total{{{labels},statement=\"other\"}} 1"),
                format!("query_errors_total{{{labels},class=\"42\"}} 1"),
                format!("queries_pipelined_total{{{labels}}} 2"),
                format!("queries_no_response_total{{{labels}}} 1"),
                format!("query_passthrough_total{{{labels},reason=\"encrypted\"}} 1"),
            ] {
                let line = format!("tidegate_{owner}_{line}");
                assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
            }
        }
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
