//! What a request is, whether it succeeded, and how long it took: for the formats that speak of requests whatever is
//! balanced.
//!
//! Where HTTP is watched (`sniff: http`) a request is a request. Elsewhere it is a connection:
//!
//! | | a connection | HTTP |
//! |---|---|---|
//! | total | was accepted | was seen |
//! | failed | was refused, ended by its backend's fault, or by a defect of tidegate's | got a 5xx, tidegate's own 503 among them, or no whole answer |
//! | succeeded | has ended otherwise | got any other answer |
//! | latency | `turnaround` | `http_response` |
//! | rate | ended within the last 10 s | answered within the last 10 s |
//!
//! Connections that are still open are neither failed nor succeeded.
//!
//! For a backend, total are the connections that it was given (or the requests on them); failed are also connects that
//! failed, which are no part of total, as the connection went on to another backend or was refused.

use std::collections::BTreeSet;

use crate::admin::snapshot_model::{BackendStats, HttpStats, Latency, ListenerStats, Snapshot};
use crate::stats::http::StatusClass;
use crate::stats::latency::{Stage, Window};
use crate::stats::termination::{Cause, Termination};

/// Seconds of the window that rates are of.
const SPAN: f64 = 10.0;

/// Requests of a listener, a backend, or several of these.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RequestTotals {
    pub(super) total: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Connects that were tried again with another backend.
    pub(super) retries: u64,
    /// Within the last 10 s.
    recent: u64,
    /// How many were timed, and how long they took together.
    timed: (u64, f64),
}

impl RequestTotals {
    /// Of all listeners.
    pub(super) fn of_view(snapshot: &Snapshot) -> RequestTotals {
        snapshot.listeners.iter().map(RequestTotals::of_listener).fold(RequestTotals::default(), RequestTotals::with)
    }

    /// Of one listener.
    pub(super) fn of_listener(listener: &ListenerStats) -> RequestTotals {
        let (total, failed, succeeded) = match listener.counts_requests {
            true => {
                let (seen, bad) = listener.http.as_ref().map(seen).unwrap_or_default();
                (seen, bad, seen.saturating_sub(bad))
            }
            false => {
                let ended = listener.terminations.iter();
                let failed = ended.filter(|ended| is_failure(ended.termination)).map(|ended| ended.count).sum();
                (listener.accepted, failed, listener.ended.saturating_sub(failed))
            }
        };
        let (recent, timed) = times(&listener.latency, listener.counts_requests);
        RequestTotals { total, succeeded, failed, retries: listener.retries, recent, timed }
    }

    /// Of one backend; `http` says whether HTTP is watched on the way to it.
    pub(super) fn of_backend(backend: &BackendStats, http: bool) -> RequestTotals {
        let (total, bad) = match http {
            true => backend.http.as_ref().map(seen).unwrap_or_default(),
            false => (backend.connections, backend.failures),
        };
        let done = if http { total } else { total.saturating_sub(backend.open) };
        let (recent, timed) = times(&backend.latency, http);
        RequestTotals {
            total,
            succeeded: done.saturating_sub(bad),
            failed: bad + backend.connect_failures,
            retries: backend.retries,
            recent,
            timed,
        }
    }

    fn with(self, other: RequestTotals) -> RequestTotals {
        RequestTotals {
            total: self.total + other.total,
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            retries: self.retries + other.retries,
            recent: self.recent + other.recent,
            timed: (self.timed.0 + other.timed.0, self.timed.1 + other.timed.1),
        }
    }

    /// The mean rate of the last 10 s.
    pub(super) fn per_second(&self) -> f64 {
        self.recent as f64 / SPAN
    }

    /// The mean latency since the start; 0 before the first.
    pub(super) fn average_ms(&self) -> f64 {
        match self.timed {
            (0, _) => 0.0,
            (count, sum_us) => (sum_us / count as f64).round() / 1000.0,
        }
    }
}

/// The pools to which HTTP is watched on the way.
pub(super) fn http_pools(snapshot: &Snapshot) -> BTreeSet<&str> {
    let sniffing = snapshot.listeners.iter().filter(|listener| listener.counts_requests);
    sniffing.flat_map(|listener| listener.pools.iter().map(String::as_str)).collect()
}

/// Whether the client was refused, or the backend or tidegate is to blame for the end.
fn is_failure(termination: Termination) -> bool {
    match termination {
        Termination::Closed(_) => false,
        Termination::InternalError => true,
        _ => termination.is_rejection() || termination.cause() == Cause::Backend,
    }
}

/// Requests, and those of them that failed.
fn seen(http: &HttpStats) -> (u64, u64) {
    let errors = http.responses.iter().filter(|responses| responses.class == StatusClass::ServerError);
    (http.requests, errors.map(|responses| responses.count).sum::<u64>() + http.no_response)
}

fn times(latency: &Latency, http: bool) -> (u64, (u64, f64)) {
    let (rate, time) =
        if http { (Stage::HttpResponse, Stage::HttpResponse) } else { (Stage::Session, Stage::Turnaround) };
    let recent = latency.get(rate, Window::TenSeconds).map_or(0, |summary| summary.count);
    let timed = latency.get(time, Window::All).map_or((0, 0.0), |all| (all.count, all.count as f64 * all.mean_us));
    (recent, timed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::snapshot_model::{LatencySummary, ResponseCount, TerminationStats};
    use crate::stats::http::Method;
    use crate::stats::termination::Side;

    fn latency<const N: usize>(measured: [(Stage, Window, u64, f64); N]) -> Latency {
        let summary = |count, mean_us| LatencySummary { count, mean_us, ..LatencySummary::default() };
        measured.map(|(stage, window, count, mean_us)| ((stage, window), summary(count, mean_us))).into_iter().collect()
    }

    #[test]
    fn a_connection_is_a_request() {
        let listener = ListenerStats {
            accepted: 100,
            ended: 90,
            rejected: 7,
            retries: 4,
            terminations: [
                (Termination::Closed(Side::Client), 40),
                (Termination::Closed(Side::Backend), 20),
                (Termination::Reset(Side::Client), 10),
                (Termination::IdleTimeout, 6),
                (Termination::Reset(Side::Backend), 5),
                (Termination::BackendDown, 1),
                (Termination::InternalError, 1),
                (Termination::NoBackend, 3),
                (Termination::ConnectFailed, 4),
            ]
            .map(|(termination, count)| TerminationStats { termination, count })
            .into(),
            latency: latency([
                (Stage::Session, Window::TenSeconds, 25, 1.0),
                (Stage::Turnaround, Window::All, 4, 2500.0),
            ]),
            ..ListenerStats::default()
        };
        let requests = RequestTotals::of_listener(&listener);
        assert_eq!((requests.total, requests.succeeded, requests.failed, requests.retries), (100, 76, 14, 4));
        assert_eq!((requests.per_second(), requests.average_ms()), (2.5, 2.5));
        // Means are weighted by what they are means of.
        let snapshot = Snapshot {
            listeners: vec![
                listener,
                ListenerStats {
                    latency: latency([(Stage::Turnaround, Window::All, 12, 500.0)]),
                    ..ListenerStats::default()
                },
            ],
            ..Snapshot::default()
        };
        assert_eq!(RequestTotals::of_view(&snapshot).average_ms(), 1.0);
        assert_eq!(RequestTotals::default().average_ms(), 0.0);
    }

    #[test]
    fn with_http_a_request_is_a_request() {
        let responses = |class, count| ResponseCount { method: Method::Get, class, count };
        let http = HttpStats {
            requests: 60,
            no_response: 2,
            passthrough: 1,
            responses: vec![
                responses(StatusClass::Successful, 50),
                responses(StatusClass::ClientError, 5),
                responses(StatusClass::ServerError, 3),
            ],
        };
        let listener = ListenerStats {
            counts_requests: true,
            accepted: 9,
            ended: 9,
            rejected: 4,
            http: Some(http.clone()),
            latency: latency([
                (Stage::Session, Window::TenSeconds, 9, 1.0),
                (Stage::HttpResponse, Window::TenSeconds, 30, 1.0),
            ]),
            ..ListenerStats::default()
        };
        let requests = RequestTotals::of_listener(&listener);
        assert_eq!((requests.total, requests.succeeded, requests.failed), (60, 55, 5));
        assert_eq!(requests.per_second(), 3.0);

        let backend = BackendStats { connections: 5, connect_failures: 6, http: Some(http), ..BackendStats::default() };
        let requests = RequestTotals::of_backend(&backend, true);
        assert_eq!((requests.total, requests.succeeded, requests.failed), (60, 55, 11));
        let requests = RequestTotals::of_backend(&BackendStats { failures: 2, open: 1, ..backend }, false);
        assert_eq!((requests.total, requests.succeeded, requests.failed), (5, 2, 8));
    }
}
