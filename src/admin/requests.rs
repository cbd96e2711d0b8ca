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

use std::collections::{BTreeMap, BTreeSet};

use super::view::{Backend, Http, Latency, Listener, Summary, View};
use crate::stats::latency::{Stage, Window};

/// Seconds of the window that rates are of.
const SPAN: f64 = 10.0;

/// Requests of a listener, a backend, or several of these.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Requests {
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

impl Requests {
    /// Of all listeners.
    pub(super) fn of_view(view: &View) -> Requests {
        view.listeners.iter().map(Requests::of_listener).fold(Requests::default(), Requests::with)
    }

    /// Of one listener.
    pub(super) fn of_listener(listener: &Listener) -> Requests {
        let (total, failed, succeeded) = match listener.sniffs_http {
            true => {
                let (seen, bad) = listener.http.as_ref().map(seen).unwrap_or_default();
                (seen, bad, seen.saturating_sub(bad))
            }
            false => {
                let is_failure = |end: &&super::view::TerminationStats| {
                    end.refusal || end.side == "backend" && end.reason != "closed" || end.reason == "internal error"
                };
                let failed = listener.endings.iter().filter(is_failure).map(|end| end.count).sum();
                (listener.accepted, failed, listener.ended.saturating_sub(failed))
            }
        };
        let (recent, timed) = times(&listener.latency, listener.sniffs_http);
        Requests { total, succeeded, failed, retries: listener.retries, recent, timed }
    }

    /// Of one backend; `http` says whether HTTP is watched on the way to it.
    pub(super) fn of_backend(backend: &Backend, http: bool) -> Requests {
        let (total, bad) = match http {
            true => backend.http.as_ref().map(seen).unwrap_or_default(),
            false => (backend.connections, backend.failures),
        };
        let done = if http { total } else { total.saturating_sub(backend.open) };
        let (recent, timed) = times(&backend.latency, http);
        Requests {
            total,
            succeeded: done.saturating_sub(bad),
            failed: bad + backend.connect_failures,
            retries: backend.retries,
            recent,
            timed,
        }
    }

    fn with(self, other: Requests) -> Requests {
        Requests {
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
pub(super) fn http_pools(view: &View) -> BTreeSet<&str> {
    let sniffing = view.listeners.iter().filter(|listener| listener.sniffs_http);
    sniffing.flat_map(|listener| listener.pools.iter().map(String::as_str)).collect()
}

/// Requests, and those of them that failed.
fn seen(http: &Http) -> (u64, u64) {
    let errors: u64 = http.responses.iter().filter(|r| r.class == "5xx").map(|r| r.count).sum();
    (http.requests, errors + http.unanswered)
}

fn times(latency: &Latency, http: bool) -> (u64, (u64, f64)) {
    let (rate, time) =
        if http { (Stage::HttpResponse, Stage::HttpResponse) } else { (Stage::Session, Stage::Turnaround) };
    let summary = |stage: Stage, window: Window| {
        latency.get(stage.name()).and_then(|windows: &BTreeMap<String, Summary>| windows.get(window.name()))
    };
    let recent = summary(rate, Window::TenSeconds).map_or(0, |summary| summary.count);
    let timed = summary(time, Window::All).map_or((0, 0.0), |all| (all.count, all.count as f64 * all.mean_us));
    (recent, timed)
}

#[cfg(test)]
mod tests {
    use super::super::view::{Responses, TerminationStats};
    use super::*;

    fn latency(stage: &str, window: &str, count: u64, mean_us: f64) -> (String, BTreeMap<String, Summary>) {
        (stage.to_owned(), [(window.to_owned(), Summary { count, mean_us, ..Summary::default() })].into())
    }

    fn ending(end: &str, side: &str, reason: &str, refusal: bool, count: u64) -> TerminationStats {
        TerminationStats {
            end: end.to_owned(),
            side: side.to_owned(),
            reason: reason.to_owned(),
            code: String::new(),
            refusal,
            count,
        }
    }

    #[test]
    fn a_connection_is_a_request() {
        let listener = Listener {
            accepted: 100,
            ended: 90,
            refused: 7,
            retries: 4,
            endings: vec![
                ending("client closed", "client", "closed", false, 40),
                ending("backend closed", "backend", "closed", false, 20),
                ending("client reset", "client", "reset", false, 10),
                ending("idle timeout", "tidegate", "idle timeout", false, 6),
                ending("backend reset", "backend", "reset", false, 5),
                ending("backend down", "backend", "down", false, 1),
                ending("internal error", "tidegate", "internal error", false, 1),
                ending("refused: no backend", "tidegate", "no backend", true, 3),
                ending("refused: connect failed", "backend", "connect failed", true, 4),
            ],
            latency: [latency("session", "10s", 25, 1.0), latency("turnaround", "all", 4, 2500.0)].into(),
            ..Listener::default()
        };
        let requests = Requests::of_listener(&listener);
        assert_eq!((requests.total, requests.succeeded, requests.failed, requests.retries), (100, 76, 14, 4));
        assert_eq!((requests.per_second(), requests.average_ms()), (2.5, 2.5));
        // Means are weighted by what they are means of.
        let view = View {
            listeners: vec![
                listener,
                Listener { latency: [latency("turnaround", "all", 12, 500.0)].into(), ..Listener::default() },
            ],
            ..View::default()
        };
        assert_eq!(Requests::of_view(&view).average_ms(), 1.0);
        assert_eq!(Requests::default().average_ms(), 0.0);
    }

    #[test]
    fn with_http_a_request_is_a_request() {
        let responses = |class: &str, count| Responses { method: "GET".to_owned(), class: class.to_owned(), count };
        let http = Http {
            requests: 60,
            unanswered: 2,
            opaque: 1,
            responses: vec![responses("2xx", 50), responses("4xx", 5), responses("5xx", 3)],
        };
        let listener = Listener {
            sniffs_http: true,
            accepted: 9,
            ended: 9,
            refused: 4,
            http: Some(http.clone()),
            latency: [latency("session", "10s", 9, 1.0), latency("http_response", "10s", 30, 1.0)].into(),
            ..Listener::default()
        };
        let requests = Requests::of_listener(&listener);
        assert_eq!((requests.total, requests.succeeded, requests.failed), (60, 55, 5));
        assert_eq!(requests.per_second(), 3.0);

        let backend = Backend { connections: 5, connect_failures: 6, http: Some(http), ..Backend::default() };
        let requests = Requests::of_backend(&backend, true);
        assert_eq!((requests.total, requests.succeeded, requests.failed), (60, 55, 11));
        let requests = Requests::of_backend(&Backend { failures: 2, open: 1, ..backend }, false);
        assert_eq!((requests.total, requests.succeeded, requests.failed), (5, 2, 8));
    }
}
