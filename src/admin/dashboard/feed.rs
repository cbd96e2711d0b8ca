//! Server-sent events (WHATWG HTML, 9.2): what changed, once a second, for every open dashboard.
//!
//! An event is made once, however many dashboards are open, and not at all while none is. A dashboard gets what is newest when
//! there is room: a slow reader misses events, and holds up neither the others nor memory. One that reads nothing at
//! all is dropped by its connection ([`super::super::write_timeout`]).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::payload::{EventsPayload, NamesPayload, NumbersPayload};
use crate::admin::collector::Collector;
use crate::admin::response::ResponseBody;
use crate::admin::snapshot_model::Snapshot;

/// Between two events.
const PERIOD: Duration = Duration::from_secs(1);

/// One event as it is sent, with a number that is another one whenever the text is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FeedEvent {
    version: u64,
    text: Bytes,
}

/// What is newest of each kind.
#[derive(Clone, Debug, Default)]
struct Latest {
    names: FeedEvent,
    journal: FeedEvent,
    numbers: FeedEvent,
}

/// Who watches, and what they are sent.
#[derive(Debug, Default)]
pub(in crate::admin) struct Feed {
    latest: watch::Sender<Latest>,
    runs: Cell<bool>,
}

/// The answer to one who wants to watch.
pub(in crate::admin) fn events(feed: &Rc<Feed>, collector: &Rc<Collector>) -> Response<ResponseBody> {
    let (sender, body) = Channel::new(1);
    tokio::task::spawn_local(send(feed.latest.subscribe(), sender));
    if !feed.runs.replace(true) {
        let (feed, collector) = (Rc::clone(feed), Rc::clone(collector));
        tokio::task::spawn_local(async move { feed.run(async || collector.snapshot().await).await });
    }
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// Sends to one who watches, until its connection ends.
async fn send(mut latest: watch::Receiver<Latest>, mut viewer: Sender<Bytes>) {
    let mut sent = Latest::default();
    // What there is now is news to it.
    latest.mark_changed();
    // The feed outlives its readers.
    while latest.changed().await.is_ok() {
        let newest = latest.borrow_and_update().clone();
        let kinds =
            [(&mut sent.names, newest.names), (&mut sent.journal, newest.journal), (&mut sent.numbers, newest.numbers)];
        for (sent, newest) in kinds {
            if sent.version == newest.version || newest.text.is_empty() {
                continue;
            }
            sent.version = newest.version;
            if viewer.send_data(newest.text).await.is_err() {
                return;
            }
        }
    }
}

impl Feed {
    /// Makes events while there are readers; then frees them.
    async fn run(&self, snapshot: impl AsyncFn() -> Rc<Snapshot>) {
        let mut seconds = interval(PERIOD);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            seconds.tick().await;
            if self.latest.receiver_count() == 0 {
                self.latest.send_modify(Latest::forget);
                self.runs.set(false);
                return;
            }
            let snapshot = snapshot().await;
            self.latest.send_modify(|latest| latest.update(&snapshot));
        }
    }
}

impl Latest {
    fn update(&mut self, snapshot: &Snapshot) {
        self.names.update("names", &NamesPayload::of(snapshot));
        self.journal.update("journal", &EventsPayload::of(snapshot));
        self.numbers.update("view", &NumbersPayload::of(snapshot));
    }

    /// Frees the texts. The versions go on, so that what comes next is new to every reader.
    fn forget(&mut self) {
        for event in [&mut self.names, &mut self.journal, &mut self.numbers] {
            event.text = Bytes::new();
        }
    }
}

impl FeedEvent {
    fn update(&mut self, kind: &str, value: &impl Serialize) {
        // Rows have no keys but strings and numbers.
        let Ok(json) = serde_json::to_string(value) else { return };
        let text = format!("event: {kind}\ndata: {json}\n\n");
        if *self.text != *text.as_bytes() {
            *self = FeedEvent { version: self.version + 1, text: text.into() };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::admin::dashboard::payload::tests::snapshot;

    /// A feed of views that a test makes, and how many were made.
    struct FeedFixture {
        feed: Rc<Feed>,
        snapshot: Rc<RefCell<Snapshot>>,
        made: Rc<Cell<u32>>,
    }

    type Viewer = Channel<Bytes>;

    impl FeedFixture {
        fn new() -> FeedFixture {
            FeedFixture { feed: Rc::default(), snapshot: Rc::new(RefCell::new(snapshot())), made: Rc::default() }
        }

        fn watch(&self) -> Viewer {
            let (sender, body) = Channel::new(1);
            spawn_local(send(self.feed.latest.subscribe(), sender));
            if !self.feed.runs.replace(true) {
                let (feed, snapshot, made) = (Rc::clone(&self.feed), Rc::clone(&self.snapshot), Rc::clone(&self.made));
                spawn_local(async move {
                    feed.run(async || {
                        made.set(made.get() + 1);
                        snapshot.borrow_mut().time += 1.0;
                        Rc::new(snapshot.borrow().clone())
                    })
                    .await;
                });
            }
            body
        }
    }

    async fn next(viewer: &mut Viewer) -> Bytes {
        viewer.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    fn kind(event: &Bytes) -> String {
        let text = std::str::from_utf8(event).unwrap();
        assert!(text.ends_with("\n\n") && text.lines().count() == 3, "{text}");
        text.lines().next().unwrap().strip_prefix("event: ").unwrap().to_owned()
    }

    async fn kinds(viewer: &mut Viewer, count: usize) -> Vec<String> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            kinds.push(kind(&next(viewer).await));
        }
        kinds
    }

    #[tokio::test(start_paused = true)]
    async fn what_seldom_changes_comes_once_and_when_it_changes() {
        let test = async {
            let stage = FeedFixture::new();
            let mut viewer = stage.watch();
            assert_eq!(kinds(&mut viewer, 5).await, ["names", "journal", "view", "view", "view"]);
            stage.snapshot.borrow_mut().pools[0].backends[0].weight = 7;
            stage.snapshot.borrow_mut().not_ready.push("draining".to_owned());
            assert_eq!(kinds(&mut viewer, 4).await, ["names", "journal", "view", "view"]);
            // Who comes later gets everything at once, not only with the next second.
            let mut later = stage.watch();
            let made = stage.made.get();
            assert_eq!(kinds(&mut later, 3).await, ["names", "journal", "view"]);
            assert_eq!(stage.made.get(), made);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_made_once_for_all() {
        let test = async {
            let stage = FeedFixture::new();
            let mut viewers: Vec<Viewer> = (0..50).map(|_| stage.watch()).collect();
            for second in 1..=3 {
                let mut numbers = Vec::new();
                for viewer in &mut viewers {
                    if second == 1 {
                        assert_eq!(kinds(viewer, 2).await, ["names", "journal"]);
                    }
                    numbers.push(next(viewer).await);
                }
                assert!(numbers.iter().all(|event| event.as_ptr() == numbers[0].as_ptr()), "one text for all");
                assert_eq!(stage.made.get(), second);
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_misses_the_old_and_holds_nobody_up() {
        let test = async {
            let stage = FeedFixture::new();
            let (mut slow, mut fast) = (stage.watch(), stage.watch());
            assert_eq!(kinds(&mut fast, 102).await.len(), 102);
            assert_eq!(stage.made.get(), 100);
            // One waits in the channel, one in the task, and then comes the newest.
            assert_eq!(kinds(&mut slow, 3).await, ["names", "journal", "view"]);
            let newest = next(&mut slow).await;
            assert!(newest.starts_with(b"event: view\ndata: {\"time\":100.0,"), "{newest:?}");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_when_nobody_watches() {
        let test = async {
            let stage = FeedFixture::new();
            for round in 1..=3 {
                let mut viewer = stage.watch();
                assert_eq!(kinds(&mut viewer, 4).await, ["names", "journal", "view", "view"]);
                assert!(stage.feed.runs.get());
                drop(viewer);
                sleep(3 * PERIOD).await;
                let made = stage.made.get();
                assert!(!stage.feed.runs.get(), "round {round}");
                assert_eq!(stage.feed.latest.receiver_count(), 0);
                assert!(stage.feed.latest.borrow().numbers.text.is_empty());
                advance(100 * PERIOD).await;
                assert_eq!(stage.made.get(), made, "made for nobody");
                assert_eq!(Rc::strong_count(&stage.feed), 1, "no task has it");
            }
        };
        LocalSet::new().run_until(test).await;
    }
}
