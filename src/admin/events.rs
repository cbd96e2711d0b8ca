//! `/api/events`: server-sent events (WHATWG HTML, 9.2) of what happens: backends that go up or down, changes and reloads.
//!
//! An event is made once for all readers, and not at all without one. A reader that is too slow loses the oldest, and gets an
//! event with their number.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::collector::Collector;
use super::response::ResponseBody;
use super::sources::Sources;
use super::unix_time::{rfc3339, seconds};
use crate::stats::registry::PoolId;

/// Between two looks at what backends did.
const PERIOD: Duration = Duration::from_millis(250);
/// Events that a reader may be behind.
const MAX_BEHIND: usize = 256;
/// Without an event for so long, a comment is sent: it shows whether the reader is still there.
const SILENCE: Duration = Duration::from_secs(15);

/// Who reads events.
#[derive(Debug)]
pub(super) struct EventStreams {
    events: broadcast::Sender<Bytes>,
    runs: Cell<bool>,
}

impl Default for EventStreams {
    fn default() -> EventStreams {
        EventStreams { events: broadcast::Sender::new(MAX_BEHIND), runs: Cell::new(false) }
    }
}

/// The answer to one who wants to read.
pub(super) fn stream(streams: &Rc<EventStreams>, collector: &Rc<Collector>) -> Response<ResponseBody> {
    let (sender, body) = Channel::new(1);
    tokio::task::spawn_local(send(streams.events.subscribe(), sender));
    if !streams.runs.replace(true) {
        let (streams, collector) = (Rc::clone(streams), Rc::clone(collector));
        tokio::task::spawn_local(async move { streams.run(collector.sources()).await });
    }
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// Sends to one reader, until its connection ends.
async fn send(mut events: Receiver<Bytes>, mut reader: Sender<Bytes>) {
    // So that it knows that it is connected.
    let mut next = Bytes::from_static(b": connected\n\n");
    while reader.send_data(next).await.is_ok() {
        next = match timeout(SILENCE, events.recv()).await {
            Ok(Ok(event)) => event,
            Ok(Err(RecvError::Lagged(lost))) => event("lost", &json!({ "events": lost })),
            // The sender outlives its readers.
            Ok(Err(RecvError::Closed)) => return,
            Err(_) => Bytes::from_static(b": still here\n\n"),
        };
    }
}

impl EventStreams {
    /// Makes events while there are readers.
    async fn run(&self, sources: &Sources) {
        let mut changes = sources.status.changes();
        let mut seen = SeenTransitions::now(sources);
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.events.receiver_count() > 0 {
            tokio::select! {
                change = changes.recv() => if let Ok(change) = change {
                    self.tell("change", &change);
                },
                _ = ticks.tick() => seen.transitions(sources).iter().for_each(|it| self.tell("health", it)),
            }
        }
        self.runs.set(false);
    }

    fn tell(&self, kind: &str, value: &impl Serialize) {
        // The last reader may just have gone.
        let _ = self.events.send(event(kind, value));
    }
}

/// A backend that went up or down.
#[derive(Debug, Serialize)]
struct HealthEvent {
    time: String,
    pool: String,
    backend: String,
    up: bool,
    reason: Option<String>,
}

/// Of each pool, the time of the last transition that was told.
struct SeenTransitions(HashMap<PoolId, SystemTime>);

impl SeenTransitions {
    fn now(sources: &Sources) -> SeenTransitions {
        let last = |pool: &std::sync::Arc<crate::pool::Pool>| Some((pool.id(), pool.transitions().last()?.0));
        SeenTransitions(sources.plane.pools().iter().filter_map(last).collect())
    }

    /// Those since the last call.
    fn transitions(&mut self, sources: &Sources) -> Vec<HealthEvent> {
        let mut found = Vec::new();
        for pool in sources.plane.pools() {
            let last = self.0.get(&pool.id()).copied();
            for (time, transition) in pool.transitions() {
                if last.is_some_and(|last| time <= last) {
                    continue;
                }
                self.0.insert(pool.id(), time);
                found.push(HealthEvent {
                    time: rfc3339(seconds(time)),
                    pool: pool.name().to_string(),
                    backend: transition.name.to_string(),
                    up: transition.up,
                    reason: transition.reason.map(|reason| reason.to_string()),
                });
            }
        }
        found
    }
}

fn event(kind: &str, value: &impl Serialize) -> Bytes {
    // What is written has no keys but strings.
    let data = serde_json::to_string(value).unwrap_or_default();
    Bytes::from(format!("event: {kind}\ndata: {data}\n\n"))
}
