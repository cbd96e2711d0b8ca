//! `/histograms`: percentiles as JSON, or whole histograms as a log of HdrHistogram for its tools.
//!
//! `?listener=`, `?pool=`, `?backend=`, `?stage=` and `?window=` choose; a name that there is none of is an error that
//! says which there are. `?format=hdr` gives one line for each listener, pool or backend and stage, of one window (`all`,
//! unless another is named), tagged `listener/NAME/STAGE`, `pool/NAME/STAGE` or `backend/POOL/NAME/STAGE`, in microseconds; what a tag must not
//! hold, and slashes in names, are written as in a URL.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::query;
use super::response::{ResponseBody, plain, whole};
use super::snapshot_model::{BackendStats, Latency, ListenerStats, PoolStats, Snapshot};
use crate::stats::histogram::Histogram;
use crate::stats::latency::{Latencies, Measured, Stage, Window};

const JSON: &str = "application/json";
/// Values are microseconds; the log has a readable column for the largest of each line.
const COMMENT: &str = "tidegate: values are microseconds";

/// Answers a question with this query.
pub(super) fn answer(query: &str, snapshot: &Snapshot, latencies: &Latencies) -> Response<ResponseBody> {
    let chosen = match HistogramQuery::read(query, snapshot) {
        Ok(chosen) => chosen,
        Err(wrong) => return json(wrong.status, &wrong),
    };
    match chosen.hdr {
        false => json(StatusCode::OK, &chosen.percentiles(snapshot)),
        true => match chosen.log(snapshot, latencies) {
            Some(log) => whole(StatusCode::OK, "text/plain; charset=utf-8", log),
            // Serialization to memory does not fail.
            None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the histograms cannot be written\n"),
        },
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<ResponseBody> {
    match serde_json::to_vec(value) {
        Ok(text) => whole(status, JSON, text),
        // There are no keys but strings.
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "this cannot be written as JSON\n"),
    }
}

/// What is to be shown; `None` is everything.
#[derive(Debug, Default)]
struct HistogramQuery {
    listener: Option<String>,
    pool: Option<String>,
    backend: Option<String>,
    stage: Option<Stage>,
    window: Option<Window>,
    hdr: bool,
}

/// Why a question has no answer.
#[derive(Debug, Serialize)]
struct QueryError {
    error: String,
    /// What there is instead.
    known: Vec<String>,
    #[serde(skip)]
    status: StatusCode,
}

#[derive(Serialize)]
struct Percentiles<'a> {
    /// As in `/stats`.
    time: f64,
    listeners: Vec<ListenerLatency<'a>>,
    pools: Vec<PoolLatency<'a>>,
    backends: Vec<BackendLatency<'a>>,
}

#[derive(Serialize)]
struct ListenerLatency<'a> {
    listener: &'a str,
    latency: Latency,
}

#[derive(Serialize)]
struct PoolLatency<'a> {
    pool: &'a str,
    latency: Latency,
}

#[derive(Serialize)]
struct BackendLatency<'a> {
    pool: &'a str,
    backend: &'a str,
    latency: Latency,
}

impl HistogramQuery {
    fn read(text: &str, snapshot: &Snapshot) -> Result<HistogramQuery, QueryError> {
        let mut choice = HistogramQuery::default();
        let pairs = query::pairs(text).ok_or_else(|| QueryError::value("query", text, []))?;
        for (name, value) in pairs {
            match name.as_str() {
                "listener" => choice.listener = Some(value),
                "pool" => choice.pool = Some(value),
                "backend" => choice.backend = Some(value),
                "stage" => {
                    let known = || Stage::ALL.map(Stage::name);
                    choice.stage =
                        Some(Stage::named(&value).ok_or_else(|| QueryError::value("stage", &value, known()))?);
                }
                "window" => {
                    let known = || Window::ALL.map(Window::name);
                    choice.window =
                        Some(Window::named(&value).ok_or_else(|| QueryError::value("window", &value, known()))?);
                }
                "format" => {
                    choice.hdr = match value.as_str() {
                        "hdr" => true,
                        "json" => false,
                        _ => return Err(QueryError::value("format", &value, ["json", "hdr"])),
                    }
                }
                _ => {
                    let known = ["listener", "pool", "backend", "stage", "window", "format"];
                    return Err(QueryError::value("parameter", &name, known));
                }
            }
        }
        choice.check(snapshot)?;
        Ok(choice)
    }

    /// Whether there is what it names.
    fn check(&self, snapshot: &Snapshot) -> Result<(), QueryError> {
        if let Some(name) = &self.listener {
            let known: BTreeSet<&str> = snapshot.listeners.iter().map(|listener| listener.name.as_str()).collect();
            QueryError::unless_in(known, "listener", name)?;
        }
        if let Some(name) = &self.pool {
            QueryError::unless_in(snapshot.pools.iter().map(|pool| pool.name.as_str()).collect(), "pool", name)?;
        }
        if let Some(name) = &self.backend {
            let pools = snapshot.pools.iter().filter(|pool| self.pool.as_ref().is_none_or(|name| pool.name == *name));
            let known = pools.flat_map(|pool| &pool.backends).map(|backend| backend.name.as_str()).collect();
            QueryError::unless_in(known, "backend", name)?;
        }
        Ok(())
    }

    /// Who names a listener alone asks for no backends, and the other way round.
    fn listeners<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a ListenerStats> {
        let none = self.listener.is_none() && (self.pool.is_some() || self.backend.is_some());
        let listeners = snapshot.listeners.iter().filter(move |_| !none);
        listeners.filter(|listener| self.listener.as_ref().is_none_or(|name| listener.name == *name))
    }

    /// A question that names a backend is not about its pool.
    fn pools<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a PoolStats> {
        let none = self.backend.is_some() || self.listener.is_some() && self.pool.is_none();
        let pools = snapshot.pools.iter().filter(move |_| !none);
        pools.filter(|pool| self.pool.as_ref().is_none_or(|name| pool.name == *name))
    }

    /// With their pools.
    fn backends<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = (&'a PoolStats, &'a BackendStats)> {
        let none = self.listener.is_some() && self.pool.is_none() && self.backend.is_none();
        let all = snapshot.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
        all.filter(move |_| !none)
            .filter(|(pool, _)| self.pool.as_ref().is_none_or(|name| pool.name == *name))
            .filter(|(_, backend)| self.backend.as_ref().is_none_or(|name| backend.name == *name))
    }

    fn stages(&self) -> impl Iterator<Item = Stage> {
        Stage::ALL.into_iter().filter(|stage| self.stage.is_none_or(|chosen| chosen == *stage))
    }

    fn percentiles<'a>(&self, snapshot: &'a Snapshot) -> Percentiles<'a> {
        Percentiles {
            time: snapshot.time,
            listeners: self
                .listeners(snapshot)
                .map(|listener| ListenerLatency { listener: &listener.name, latency: self.of(&listener.latency) })
                .collect(),
            pools: self
                .pools(snapshot)
                .map(|pool| PoolLatency { pool: &pool.name, latency: self.of(&pool.latency) })
                .collect(),
            backends: self
                .backends(snapshot)
                .map(|(pool, backend)| BackendLatency {
                    pool: &pool.name,
                    backend: &backend.name,
                    latency: self.of(&backend.latency),
                })
                .collect(),
        }
    }

    /// The stages and windows that are to be shown.
    fn of(&self, latency: &Latency) -> Latency {
        latency.filtered(|stage, window| {
            self.stage.is_none_or(|chosen| chosen == stage) && self.window.is_none_or(|chosen| chosen == window)
        })
    }

    /// `None` when a histogram cannot be written.
    fn log(&self, snapshot: &Snapshot, latencies: &Latencies) -> Option<Vec<u8>> {
        let window = self.window.unwrap_or(Window::All);
        let length = match window {
            Window::All => snapshot.uptime,
            Window::TenSeconds => 10.0,
            Window::Minute => 60.0,
            Window::FiveMinutes => 300.0,
        };
        let uptime = Duration::try_from_secs_f64(snapshot.uptime).unwrap_or_default();
        let length = Duration::try_from_secs_f64(length).unwrap_or_default().min(uptime);
        let started = Duration::try_from_secs_f64(snapshot.started).unwrap_or_default();
        let started = UNIX_EPOCH.checked_add(started).unwrap_or(UNIX_EPOCH);

        let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut writer = IntervalLogWriterBuilder::new()
            .add_comment(COMMENT)
            .with_start_time(started)
            .with_base_time(started)
            .begin_log_with(&mut log, &mut serializer)
            .ok()?;
        let mut write = |owner: String, histogram: &dyn Fn(Stage) -> Option<Histogram>| {
            for stage in self.stages() {
                let Some(histogram) = histogram(stage).filter(|histogram| histogram.count() > 0) else { continue };
                let tag = format!("{owner}/{}", stage.name());
                writer.write_histogram(&histogram.to_hdr()?, uptime - length, length, Tag::new(&tag)).ok()?;
            }
            Some(())
        };
        let one = |measured: Option<&Measured>, stage: Stage| Some(measured?.stage(stage)?.window(window));
        for listener in self.listeners(snapshot) {
            write(format!("listener/{}", escaped(&listener.name)), &|stage| {
                one(latencies.listener(listener.id), stage)
            })?;
        }
        for pool in self.pools(snapshot) {
            write(format!("pool/{}", escaped(&pool.name)), &|stage| {
                Some(latencies.pool(pool.id)?.window(stage, window))
            })?;
        }
        for (pool, backend) in self.backends(snapshot) {
            let owner = format!("backend/{}/{}", escaped(&pool.name), escaped(&backend.name));
            write(owner, &|stage| one(latencies.backend(backend.id), stage))?;
        }
        Some(log)
    }
}

/// A name as part of a tag.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        match character {
            ',' | ' ' | '/' | '%' => {
                // Writing to a string does not fail.
                let _ = write!(text, "%{:02X}", u32::from(character));
            }
            other => text.push(other),
        }
    }
    text
}

impl QueryError {
    fn value<const N: usize>(what: &str, value: &str, known: [&str; N]) -> QueryError {
        QueryError {
            error: format!("there is no {what} {value:?}"),
            known: known.map(str::to_owned).to_vec(),
            status: StatusCode::BAD_REQUEST,
        }
    }

    fn unless_in(known: BTreeSet<&str>, what: &str, name: &str) -> Result<(), QueryError> {
        if known.contains(name) {
            return Ok(());
        }
        Err(QueryError {
            error: format!("there is no {what} {name:?}"),
            known: known.into_iter().map(str::to_owned).collect(),
            status: StatusCode::NOT_FOUND,
        })
    }
}
