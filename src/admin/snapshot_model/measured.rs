//! Latency and HTTP.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::stats::http::{HttpCounts, Method, StatusClass};
use crate::stats::latency::{Stage, Window};

/// Latency by stage and window. Those in which nothing was measured are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency(BTreeMap<(Stage, Window), LatencySummary>);

impl Latency {
    /// The latency of a stage in a window; `None` when nothing was measured.
    pub fn get(&self, stage: Stage, window: Window) -> Option<&LatencySummary> {
        self.0.get(&(stage, window))
    }

    /// Those of these stages and windows.
    pub fn filtered(&self, keep: impl Fn(Stage, Window) -> bool) -> Latency {
        self.0
            .iter()
            .filter(|((stage, window), _)| keep(*stage, *window))
            .map(|(key, summary)| (*key, *summary))
            .collect()
    }
}

impl FromIterator<((Stage, Window), LatencySummary)> for Latency {
    fn from_iter<I: IntoIterator<Item = ((Stage, Window), LatencySummary)>>(summaries: I) -> Latency {
        Latency(summaries.into_iter().collect())
    }
}

/// By the name of the stage (`connect`, `turnaround`, ...), and then of the window (`all`, `10s`, `1m`, `5m`).
impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stages = BTreeMap::<&str, BTreeMap<&str, &LatencySummary>>::new();
        for ((stage, window), summary) in &self.0 {
            stages.entry(stage.name()).or_default().insert(window.name(), summary);
        }
        stages.serialize(serializer)
    }
}

/// Skips stages and windows that only another version of tidegate knows.
impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
        let stages = BTreeMap::<String, BTreeMap<String, LatencySummary>>::deserialize(deserializer)?;
        let summaries = stages.into_iter().flat_map(|(stage, windows)| {
            windows
                .into_iter()
                .filter_map(move |(window, summary)| Some(((Stage::named(&stage)?, Window::named(&window)?), summary)))
        });
        Ok(summaries.collect())
    }
}

/// A histogram in a few numbers: microseconds, to within 1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Values.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// And so on.
    pub p75_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 95 %.
    pub p95_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    #[serde(rename = "p99.9_us")]
    pub p999_us: u64,
    /// 99.99 %.
    #[serde(rename = "p99.99_us")]
    pub p9999_us: u64,
    /// The longest, exactly.
    pub max_us: u64,
}

/// What was seen of HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HttpStats {
    /// Requests, answered or not.
    pub requests: u64,
    /// Those whose connection ended before their response did.
    pub no_response: u64,
    /// Connections that turned into something that is not watched: upgrades, tunnels, what is no HTTP.
    pub passthrough: u64,
    /// Those that were answered.
    pub responses: Vec<ResponseCount>,
}

impl HttpStats {
    /// Responses of all methods, by class.
    pub fn by_class(&self) -> impl Iterator<Item = (StatusClass, u64)> {
        StatusClass::ALL.into_iter().filter_map(|class| {
            let count = self.responses.iter().filter(|it| it.class == class).map(|it| it.count).sum();
            (count > 0).then_some((class, count))
        })
    }
}

/// Requests of one method that got a response of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResponseCount {
    /// `GET`, ..., or `other`.
    pub method: Method,
    /// `1xx` to `5xx`.
    pub class: StatusClass,
    /// How many.
    pub count: u64,
}

impl HttpStats {
    /// What was counted.
    pub(in crate::admin) fn of(counts: &HttpCounts) -> HttpStats {
        let responses = counts.responded().map(|(method, class, count)| ResponseCount { method, class, count });
        HttpStats {
            requests: counts.requests(),
            no_response: counts.unanswered(),
            passthrough: counts.opaque(),
            responses: responses.collect(),
        }
    }
}
