//! Metrics of listeners, pools and backends.

use prometheus_client::registry::Unit;

use super::family::{Labels, MetricFamily, SampleValue, counter, gauge, latency, of_listener};
use super::{datagrams, http, queries};
use crate::admin::snapshot_model::{
    BackendStats, BackendStatus, CheckStats, ListenerStats, PoolStats, Snapshot, TerminationStats,
};
use crate::config::model::{AdminState, ListenerState};
use crate::stats::database::ServerRole;
use crate::stats::latency::Latencies;

pub(super) fn listeners(snapshot: &Snapshot, latencies: &Latencies) -> Vec<MetricFamily> {
    let all = || snapshot.listeners.iter().map(|listener| (of_listener(listener), listener));
    let each = |value: fn(&ListenerStats) -> Option<SampleValue>| -> Vec<_> {
        all().filter_map(|(labels, listener)| Some((labels, value(listener)?))).collect()
    };
    let terminations = |rejections_only: bool| {
        all().flat_map(move |(labels, listener)| {
            let terminations =
                listener.terminations.iter().filter(move |ended| ended.termination.is_rejection() || !rejections_only);
            terminations.map(move |TerminationStats { termination, count }| {
                let mut labels = labels.clone();
                labels.push(("reason", termination.to_string()));
                if !rejections_only {
                    let (side, code) = (termination.cause().name(), termination.code());
                    labels.extend([("side", side.to_owned()), ("code", code.to_owned())]);
                }
                (labels, SampleValue::Whole(*count))
            })
        })
    };
    let handshakes = all().flat_map(|(labels, listener)| {
        let kinds = listener.handshakes.map(|counted| [("full", counted.full), ("resumed", counted.resumed)]);
        kinds.into_iter().flatten().map(move |(kind, count)| {
            let mut labels = labels.clone();
            labels.push(("kind", kind.to_owned()));
            (labels, SampleValue::Whole(count))
        })
    });
    let states = [ListenerState::Ready, ListenerState::Paused, ListenerState::Drain];
    let admin_states = all().flat_map(|(labels, listener)| {
        states.map(|state| {
            let mut labels = labels.clone();
            labels.push(("state", state.name().to_owned()));
            (labels, (listener.state == state).into())
        })
    });
    let mut families = vec![
        gauge(
            "tidegate_listener_admin_state",
            "1 for the administrative state that the listener is in, 0 for the others",
            None,
            admin_states.collect(),
        ),
        gauge("tidegate_listener_connections_open", "Connections open now", None, each(|l| some(l.open))),
        gauge(
            "tidegate_listener_connections_open_max",
            "Most connections open at once",
            None,
            each(|l| some(l.open_max)),
        ),
        gauge(
            "tidegate_listener_connections_limit",
            "Limit of open connections",
            None,
            each(|l| l.max_connections.map(Into::into)),
        ),
        counter("tidegate_listener_connections", "Connections accepted", None, each(|l| some(l.accepted))),
        counter(
            "tidegate_listener_connections_ended",
            "Connections ended, by reason and by the side that caused it",
            None,
            terminations(false).collect(),
        ),
        counter(
            "tidegate_listener_rejections",
            "Connections closed without a backend, by reason",
            None,
            terminations(true).collect(),
        ),
        counter(
            "tidegate_listener_bytes_in",
            "Bytes sent by clients and written to backends",
            None,
            each(|l| some(l.bytes_in)),
        ),
        counter(
            "tidegate_listener_bytes_out",
            "Bytes sent by backends and written to clients",
            None,
            each(|l| some(l.bytes_out)),
        ),
        counter(
            "tidegate_listener_retries",
            "Failed connects that were retried on another backend",
            None,
            each(|l| some(l.retries)),
        ),
        counter(
            "tidegate_listener_tls_handshakes",
            "TLS handshakes completed, full or resumed",
            None,
            handshakes.collect(),
        ),
    ];
    families.extend(datagrams::families(|| all().filter_map(|(labels, l)| Some((labels, l.datagrams.as_ref()?)))));
    let names = [
        "tidegate_listener_http_requests",
        "tidegate_listener_http_responses",
        "tidegate_listener_http_no_response",
        "tidegate_listener_http_passthrough",
    ];
    families.extend(http::families(names, || all().filter_map(|(labels, l)| Some((labels, l.http.as_ref()?)))));
    let open = each(|l| l.requests_open.map(Into::into));
    families.push(gauge("tidegate_listener_http_requests_open", "HTTP requests under way", None, open));
    families
        .extend(queries::families(queries::OF_LISTENERS, || all().map(|(labels, l)| (labels, l.queries.as_slice()))));
    let measured = all().map(|(labels, l)| (labels, latencies.listener(l.id)));
    families.push(latency("tidegate_listener_latency", measured));
    families
}

pub(super) fn pools(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let each = |value: fn(&PoolStats) -> SampleValue| -> Vec<_> {
        snapshot.pools.iter().map(|pool| (vec![("pool", pool.name.clone())], value(pool))).collect()
    };
    let seconds = Some(Unit::Seconds);
    vec![
        gauge("tidegate_pool_usable", "1 if a new connection would get a backend", None, each(|p| p.usable.into())),
        gauge("tidegate_pool_backends", "Backends", None, each(|p| p.present().into())),
        gauge(
            "tidegate_pool_backends_up",
            "Backends that are up, in neither drain nor maintenance",
            None,
            each(|p| p.up.into()),
        ),
        counter(
            "tidegate_pool_rejections",
            "Connections for which no backend was available",
            None,
            each(|p| p.rejected.into()),
        ),
        gauge(
            "tidegate_pool_fails_open",
            "1 while fewer backends are up than fail_open wants, so that all are used",
            None,
            each(|p| p.fails_open.into()),
        ),
        gauge(
            "tidegate_pool_primary_conflict",
            "1 while more than one backend states that it is the primary, where one is wanted",
            None,
            each(|p| p.primary_conflict.into()),
        ),
        gauge(
            "tidegate_pool_queue_size",
            "Connections that may wait in the queue",
            None,
            each(|p| p.queue.size.into()),
        ),
        gauge(
            "tidegate_pool_queue_connections",
            "Connections that wait for a backend",
            None,
            each(|p| p.queue.waiting.into()),
        ),
        gauge(
            "tidegate_pool_queue_connections_max",
            "Most connections that waited at once",
            None,
            each(|p| p.queue.waiting_max.into()),
        ),
        counter("tidegate_pool_queued", "Connections that waited for a backend", None, each(|p| p.queue.queued.into())),
        counter(
            "tidegate_pool_queue_overflows",
            "Connections rejected as the queue was full",
            None,
            each(|p| p.queue.overflowed.into()),
        ),
        counter(
            "tidegate_pool_queue_timeouts",
            "Connections rejected after queue.timeout",
            None,
            each(|p| p.queue.timed_out.into()),
        ),
        gauge(
            "tidegate_pool_persistent_clients",
            "Clients whose backend persist remembers",
            None,
            snapshot
                .pools
                .iter()
                .filter_map(|p| Some((vec![("pool", p.name.clone())], SampleValue::Whole(p.persistent_clients?))))
                .collect(),
        ),
        counter(
            "tidegate_pool_retries",
            "Failed connects that were retried on another backend",
            None,
            each(|p| p.retries.into()),
        ),
        gauge(
            "tidegate_pool_connections_open",
            "Connections open now, over all backends",
            None,
            each(|p| p.open.into()),
        ),
        gauge(
            "tidegate_pool_connections_open_max",
            "Most connections open at once, over all backends",
            None,
            each(|p| p.open_max.into()),
        ),
        counter(
            "tidegate_pool_down_transitions",
            "Times the last available backend went down",
            None,
            each(|p| p.downs.into()),
        ),
        counter(
            "tidegate_pool_downtime",
            "Time without an available backend",
            seconds.clone(),
            each(|p| SampleValue::Real(p.downtime)),
        ),
        gauge(
            "tidegate_pool_status_since",
            "Last change between usable and unusable, as Unix time",
            seconds,
            each(|p| SampleValue::Real(p.since)),
        ),
    ]
}

pub(super) fn backends(snapshot: &Snapshot, latencies: &Latencies) -> Vec<MetricFamily> {
    let all = || snapshot.pools.iter().flat_map(|pool| pool.backends.iter().map(|b| (of_backend(pool, b), b)));
    let each = |value: fn(&BackendStats) -> Option<SampleValue>| -> Vec<_> {
        all().filter_map(|(labels, backend)| Some((labels, value(backend)?))).collect()
    };
    let states = [AdminState::Ready, AdminState::Drain, AdminState::Maintenance];
    let present = all().filter(|(_, backend)| backend.status() != BackendStatus::Leaving);
    let admin_states = present.flat_map(|(labels, backend)| {
        states.map(|state| {
            let mut labels = labels.clone();
            labels.push(("state", state.name().to_owned()));
            (labels, (backend.admin_state == state).into())
        })
    });
    let roles = all().filter_map(|(labels, backend)| Some((labels, backend.role?))).flat_map(|(labels, current)| {
        [ServerRole::Primary, ServerRole::Replica, ServerRole::Synced].map(|role| {
            let mut labels = labels.clone();
            labels.push(("role", role.name().to_owned()));
            (labels, (current == role).into())
        })
    });
    let seconds = Some(Unit::Seconds);
    let mut families = vec![
        gauge(
            "tidegate_backend_up",
            "1 if the backend is up; in the states drain and maintenance it takes no new connections all the same",
            None,
            each(|b| (b.status() != BackendStatus::Leaving).then(|| b.up.into())),
        ),
        gauge(
            "tidegate_backend_checked",
            "1 if it has health checks; without them it is up as long as its name resolves",
            None,
            each(|b| Some(b.checks.is_some().into())),
        ),
        gauge(
            "tidegate_backend_admin_state",
            "1 for the administrative state that the backend is in, 0 for the others",
            None,
            admin_states.collect(),
        ),
        gauge(
            "tidegate_backend_weight",
            "Configured weight; 0 takes no new connections",
            None,
            each(|b| some(u64::from(b.weight))),
        ),
        gauge(
            "tidegate_backend_backup",
            "1 if it is a backup, used only while no other backend is available",
            None,
            each(|b| Some(b.backup.into())),
        ),
        gauge("tidegate_backend_connections_open", "Connections open now", None, each(|b| some(b.open))),
        gauge(
            "tidegate_backend_connections_open_max",
            "Most connections open at once",
            None,
            each(|b| some(b.open_max)),
        ),
        gauge(
            "tidegate_backend_connections_limit",
            "Limit of open connections (max_connections)",
            None,
            each(|b| b.max_connections.map(Into::into)),
        ),
        counter("tidegate_backend_connections", "Connections established", None, each(|b| some(b.connections))),
        counter(
            "tidegate_backend_connection_errors",
            "Connects that failed, retries included",
            None,
            each(|b| some(b.connect_failures)),
        ),
        counter(
            "tidegate_backend_retries",
            "Failed connects that were retried on another backend",
            None,
            each(|b| some(b.retries)),
        ),
        counter(
            "tidegate_backend_failures",
            "Established connections that the backend reset, lost, or broke TLS on",
            None,
            each(|b| some(b.failures)),
        ),
        counter(
            "tidegate_backend_client_aborts",
            "Established connections that the client reset, lost, or broke TLS on",
            None,
            each(|b| some(b.client_aborts)),
        ),
        counter(
            "tidegate_backend_bytes_in",
            "Bytes sent by clients and written to the backend",
            None,
            each(|b| some(b.bytes_in)),
        ),
        counter(
            "tidegate_backend_bytes_out",
            "Bytes sent by the backend and written to clients",
            None,
            each(|b| some(b.bytes_out)),
        ),
        counter("tidegate_backend_checks", "Health checks completed", None, each(|b| some(b.checks.as_ref()?.count))),
        counter(
            "tidegate_backend_check_failures",
            "Health checks that failed",
            None,
            each(|b| some(b.checks.as_ref()?.failed)),
        ),
        gauge(
            "tidegate_backend_check_duration",
            "Duration of the last health check",
            seconds.clone(),
            each(|b| last_check(b.checks.as_ref()?)),
        ),
        gauge(
            "tidegate_backend_role",
            "1 for the role that a database states in its health check, 0 for the others; none while it is not known",
            None,
            roles.collect(),
        ),
        gauge(
            "tidegate_backend_lag",
            "Bytes that a replica is behind the primary of its pool",
            Some(Unit::Bytes),
            each(|b| some(b.lag_bytes?)),
        ),
        gauge(
            "tidegate_backend_lag",
            "Seconds that a replica is behind its primary, by its own account",
            seconds.clone(),
            each(|b| Some(SampleValue::Real(b.lag_seconds?))),
        ),
        gauge(
            "tidegate_backend_ejected",
            "1 while outlier detection leaves the backend out",
            None,
            each(|b| Some(b.ejected.into())),
        ),
        counter("tidegate_backend_ejections", "Ejections by outlier detection", None, each(|b| some(b.ejections))),
        counter(
            "tidegate_backend_down_transitions",
            "Times the backend went from up to down",
            None,
            each(|b| some(b.downs)),
        ),
        counter(
            "tidegate_backend_downtime",
            "Time the backend was down",
            seconds.clone(),
            each(|b| Some(SampleValue::Real(b.downtime))),
        ),
        gauge(
            "tidegate_backend_status_since",
            "Last change between up and down, as Unix time",
            seconds.clone(),
            each(|b| Some(SampleValue::Real(b.since))),
        ),
        gauge(
            "tidegate_backend_last_connection",
            "Time of the last connection established, as Unix time",
            seconds,
            each(|b| b.last_session.map(SampleValue::Real)),
        ),
    ];
    let names = [
        "tidegate_backend_http_requests",
        "tidegate_backend_http_responses",
        "tidegate_backend_http_no_response",
        "tidegate_backend_http_passthrough",
    ];
    families.extend(http::families(names, || all().filter_map(|(labels, b)| Some((labels, b.http.as_ref()?)))));
    let open = each(|b| b.requests_open.map(Into::into));
    families.push(gauge("tidegate_backend_http_requests_open", "HTTP requests under way", None, open));
    families
        .extend(queries::families(queries::OF_BACKENDS, || all().map(|(labels, b)| (labels, b.queries.as_slice()))));
    let measured = all().map(|(labels, b)| (labels, latencies.backend(b.id)));
    families.push(latency("tidegate_backend_latency", measured));
    families
}

fn of_backend(pool: &PoolStats, backend: &BackendStats) -> Labels {
    vec![("pool", pool.name.clone()), ("backend", backend.name.clone())]
}

fn last_check(checks: &CheckStats) -> Option<SampleValue> {
    Some(SampleValue::Real(checks.last.as_ref()?.took_us as f64 / 1e6))
}

fn some(value: u64) -> Option<SampleValue> {
    Some(SampleValue::Whole(value))
}
