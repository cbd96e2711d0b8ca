//! How long things take: samples that workers write down, and the histograms that are made of them elsewhere.
//!
//! A worker only appends to a list ([`Sample`], 16 bytes), which costs it a few nanoseconds, touches no memory of a
//! backend's, and takes no lock; the list is handed over whole. [`Latencies`] is what it becomes: for each listener and
//! each backend a histogram of each [`Stage`], over all time and over the last 10 s, 1 min and 5 min.
//! Histograms are made when first used. Pure: time comes in as a number of seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Histogram;
use super::http::{HttpCounts, HttpEvent};
use super::queries::{PackedQuery, QueryCounts, QueryEvent, QueryProtocol};
use super::registry::{BackendId, ListenerId, PoolId, RouteId};
use super::series::LONG;
pub use super::series::{Series, Window};

/// A part of a connection's life that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// The wait for a backend, from when the client's pool is known.
    Queue,
    /// From the start of the connect that succeeded to its success.
    Connect,
    /// The TLS handshake: the client's at a listener, its own at a backend.
    TlsHandshake,
    /// From the client's first byte handed to the backend to the backend's first byte; from the connect on when the
    /// backend speaks first.
    FirstByte,
    /// From the last byte handed to the backend to the first that comes back, every time the direction turns: the answer
    /// time of any protocol of requests and responses.
    Turnaround,
    /// The whole connection, from accept to end.
    Session,
    /// With `sniff: http`, from the end of a request's head to its response's first byte.
    HttpFirstByte,
    /// With `sniff: http`, from the end of a request's head to its response's end.
    HttpResponse,
    /// With `sniff: postgres`, `mysql` or `redis`, from the end of a query to its answer's first message.
    QueryFirstByte,
    /// With these, from the end of a query to its answer's end.
    Query,
}

impl Stage {
    /// Every stage, in the order of a connection's life.
    pub const ALL: [Stage; 10] = [
        Stage::Queue,
        Stage::Connect,
        Stage::TlsHandshake,
        Stage::FirstByte,
        Stage::Turnaround,
        Stage::Session,
        Stage::HttpFirstByte,
        Stage::HttpResponse,
        Stage::QueryFirstByte,
        Stage::Query,
    ];

    /// As it is written in every format.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Connect => "connect",
            Stage::TlsHandshake => "tls_handshake",
            Stage::FirstByte => "first_byte",
            Stage::Turnaround => "turnaround",
            Stage::Session => "session",
            Stage::HttpFirstByte => "http_first_byte",
            Stage::HttpResponse => "http_response",
            Stage::QueryFirstByte => "query_first_byte",
            Stage::Query => "query",
        }
    }

    /// The one that is written so.
    pub fn named(name: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Microseconds in the lower [`MICROS`] bits; in the others a [`PackedQuery`] of queries, and else a [`RouteId`].
    packed: u64,
    backend: BackendId,
    listener: ListenerId,
    kind: SampleKind,
}

#[derive(Clone, Copy, Debug)]
enum SampleKind {
    Took(Stage),
    Http(HttpEvent),
    Query(QueryProtocol),
}

/// Bits of a time in microseconds: 8.9 years.
const MICROS: u32 = 48;

impl Sample {
    /// So long it took.
    pub fn new(listener: ListenerId, backend: BackendId, stage: Stage, took: Duration) -> Sample {
        Sample { packed: packed(RouteId::NONE.bits(), took), backend, listener, kind: SampleKind::Took(stage) }
    }

    /// What was seen of HTTP.
    pub fn http(listener: ListenerId, backend: BackendId, event: HttpEvent) -> Sample {
        let packed = packed(RouteId::NONE.bits(), Duration::ZERO);
        Sample { packed, backend, listener, kind: SampleKind::Http(event) }
    }

    /// The same of a request that matched this route.
    pub fn of_route(self, route: RouteId) -> Sample {
        Sample { packed: self.micros() | u64::from(route.bits()) << MICROS, ..self }
    }

    /// What was seen of queries, and how long one took that was answered.
    pub fn query(
        listener: ListenerId,
        backend: BackendId,
        protocol: QueryProtocol,
        event: QueryEvent,
        took: Duration,
    ) -> Sample {
        let packed = packed(PackedQuery::from(event).bits(), took);
        Sample { packed, backend, listener, kind: SampleKind::Query(protocol) }
    }

    fn micros(&self) -> u64 {
        self.packed & MAX_MICROS
    }

    /// The route, of which only requests of HTTP say something.
    fn route(&self) -> RouteId {
        match self.kind {
            SampleKind::Took(_) | SampleKind::Http(_) => RouteId::of_bits((self.packed >> MICROS) as u16),
            SampleKind::Query(_) => RouteId::NONE,
        }
    }
}

const MAX_MICROS: u64 = (1 << MICROS) - 1;

fn packed(bits: u16, took: Duration) -> u64 {
    let micros = u64::try_from(took.as_micros()).map_or(MAX_MICROS, |micros| micros.min(MAX_MICROS));
    u64::from(bits) << MICROS | micros
}

/// What is measured of one listener or one backend.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    stages: [Option<Box<Series>>; Stage::ALL.len()],
    http: Option<Box<HttpCounts>>,
    queries: Option<Box<QueryCounts>>,
}

impl Measured {
    /// A stage; `None` when it never came to it.
    pub fn stage(&self, stage: Stage) -> Option<&Series> {
        self.stages[stage as usize].as_deref()
    }

    /// What was seen of HTTP; `None` where there was none.
    pub fn http(&self) -> Option<&HttpCounts> {
        self.http.as_deref()
    }

    /// What was seen of queries; `None` where there were none.
    pub fn queries(&self) -> Option<&QueryCounts> {
        self.queries.as_deref()
    }

    fn absorb(&mut self, sample: &Sample) {
        match sample.kind {
            SampleKind::Took(stage) => self.stages[stage as usize].get_or_insert_default().record(sample.micros()),
            SampleKind::Http(event) => self.http.get_or_insert_default().count(event),
            SampleKind::Query(protocol) => {
                let event = PackedQuery::of_bits((sample.packed >> MICROS) as u16).into();
                self.queries.get_or_insert_default().count(protocol, event);
                if let QueryEvent::Answered { .. } = event {
                    self.stages[Stage::Query as usize].get_or_insert_default().record(sample.micros());
                }
            }
        }
    }
}

/// What is measured of a pool: of all its backends together.
#[derive(Clone, Debug)]
pub struct PoolMeasured<'a> {
    backends: Vec<&'a Measured>,
}

impl<'a> PoolMeasured<'a> {
    /// What was measured of a stage in a window of time.
    pub fn window(&self, stage: Stage, window: Window) -> Histogram {
        let mut histogram = Histogram::default();
        self.series(stage).for_each(|series| series.add_to(&mut histogram, window));
        histogram
    }

    /// [`Series::seconds`] of a stage.
    pub fn seconds(&self, stage: Stage, after: u64) -> impl Iterator<Item = (u64, Histogram)> {
        let mut seconds = BTreeMap::<u64, Histogram>::new();
        for (second, histogram) in self.series(stage).flat_map(|series| series.seconds(after)) {
            seconds.entry(second).or_default().merge(&histogram);
        }
        seconds.into_iter()
    }

    fn series(&self, stage: Stage) -> impl Iterator<Item = &'a Series> {
        self.backends.iter().filter_map(move |measured| measured.stage(stage))
    }
}

/// Everything that is measured, by id.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    listeners: BTreeMap<ListenerId, Measured>,
    routes: BTreeMap<RouteId, Measured>,
    pools: BTreeMap<PoolId, Vec<BackendId>>,
    backends: BTreeMap<BackendId, Measured>,
    second: u64,
}

impl Latencies {
    /// Of these listeners, and of pools with these backends.
    pub fn new(
        listeners: impl IntoIterator<Item = ListenerId>,
        pools: impl IntoIterator<Item = (PoolId, Vec<BackendId>)>,
    ) -> Latencies {
        let mut latencies = Latencies::default();
        latencies.measure(listeners, pools);
        latencies
    }

    /// Measures these listeners and backends from now on. Those that were measured before keep their histograms. Of all
    /// others, histograms and late samples are dropped.
    pub fn measure(
        &mut self,
        listeners: impl IntoIterator<Item = ListenerId>,
        pools: impl IntoIterator<Item = (PoolId, Vec<BackendId>)>,
    ) {
        keep(&mut self.listeners, listeners);
        self.listeners.remove(&ListenerId::NONE);
        self.pools = pools.into_iter().collect();
        keep(&mut self.backends, self.pools.values().flatten().copied());
    }

    /// Takes what a worker wrote down.
    pub fn absorb(&mut self, samples: &[Sample]) {
        for sample in samples {
            let listener = self.listeners.get_mut(&sample.listener);
            let backend = self.backends.get_mut(&sample.backend);
            let route = self.routes.get_mut(&sample.route());
            listener.into_iter().chain(route).chain(backend).for_each(|measured| measured.absorb(sample));
        }
    }

    /// Advances to a second since the start. What was absorbed before belongs to the seconds before.
    pub fn advance(&mut self, second: u64) {
        // After a long pause (the process was stopped) there is nothing left of the windows that each second would change.
        self.second = self.second.max(second.saturating_sub(2 * LONG.1));
        while self.second < second {
            self.second += 1;
            let routes = self.routes.values_mut();
            for measured in self.listeners.values_mut().chain(routes).chain(self.backends.values_mut()) {
                measured.stages.iter_mut().flatten().for_each(|series| series.turn(self.second));
            }
        }
    }

    /// The number of the last second that is over.
    pub fn second(&self) -> u64 {
        self.second
    }

    /// What was measured of a listener.
    pub fn listener(&self, id: ListenerId) -> Option<&Measured> {
        self.listeners.get(&id)
    }

    /// Measures these routes from now on, as [`Latencies::measure`] does listeners.
    pub fn measure_routes(&mut self, routes: impl IntoIterator<Item = RouteId>) {
        keep(&mut self.routes, routes);
        self.routes.remove(&RouteId::NONE);
    }

    /// What was measured of a route.
    pub fn route(&self, id: RouteId) -> Option<&Measured> {
        self.routes.get(&id)
    }

    /// What was measured of a pool.
    pub fn pool(&self, id: PoolId) -> Option<PoolMeasured<'_>> {
        let backends = self.pools.get(&id)?;
        Some(PoolMeasured { backends: backends.iter().filter_map(|&id| self.backend(id)).collect() })
    }

    /// What was measured of a backend.
    pub fn backend(&self, id: BackendId) -> Option<&Measured> {
        self.backends.get(&id)
    }
}

fn keep<I: Copy + Ord>(all: &mut BTreeMap<I, Measured>, ids: impl IntoIterator<Item = I>) {
    let mut before = std::mem::take(all);
    all.extend(ids.into_iter().map(|id| (id, before.remove(&id).unwrap_or_default())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::registry::Registry;

    fn listener() -> ListenerId {
        Registry::default().listener()
    }

    fn pool() -> PoolId {
        Registry::default().pool()
    }

    /// Of that pool.
    fn backends<const N: usize>() -> [BackendId; N] {
        let registry = Registry::default();
        std::array::from_fn(|_| registry.backend())
    }

    fn took(micros: u64) -> Sample {
        Sample::new(listener(), BackendId::NONE, Stage::Turnaround, Duration::from_micros(micros))
    }

    fn counts(latencies: &Latencies) -> [u64; 4] {
        let series = latencies.listener(listener()).unwrap().stage(Stage::Turnaround).unwrap();
        Window::ALL.map(|window| series.window(window).count())
    }

    #[test]
    fn a_sample_is_small() {
        assert_eq!(size_of::<Sample>(), 16);
    }

    #[test]
    fn names_are_found_again() {
        assert!(Stage::ALL.into_iter().all(|stage| Stage::named(stage.name()) == Some(stage)));
        assert!(Stage::ALL.iter().enumerate().all(|(place, stage)| *stage as usize == place));
        assert!(Window::ALL.into_iter().all(|window| Window::named(window.name()) == Some(window)));
        assert!(Window::ALL.iter().enumerate().all(|(place, window)| *window as usize == place));
    }

    #[test]
    fn a_window_has_what_came_within_it() {
        let mut latencies = Latencies::new([listener()], []);
        for second in 0..1000 {
            latencies.absorb(&[took(second); 3]);
            latencies.advance(second + 1);
            let lasted = second + 1;
            let [all, ten, minute, five] = counts(&latencies);
            assert_eq!((all, ten), (3 * lasted, 3 * lasted.min(10)), "after {lasted} s");
            // Up to one span more.
            assert!((3 * lasted.min(60)..=3 * lasted.min(65)).contains(&minute), "{minute} after {lasted} s");
            assert!((3 * lasted.min(300)..=3 * lasted.min(335)).contains(&five), "{five} after {lasted} s");
        }
    }

    #[test]
    fn each_value_is_in_a_window_once() {
        let mut latencies = Latencies::new([listener()], []);
        for second in 0..400 {
            latencies.absorb(&[took(second)]);
            latencies.advance(second + 1);
        }
        let series = latencies.listener(listener()).unwrap().stage(Stage::Turnaround).unwrap();
        for window in Window::ALL {
            let histogram = series.window(window);
            let smallest = histogram.ranges().next().unwrap().0;
            // One value a second, so that each is there that is not older than the oldest.
            assert_eq!(histogram.count(), 400 - smallest, "{window:?}");
            assert_eq!(histogram.max(), 399);
        }
    }

    #[test]
    fn what_is_silent_is_forgotten_but_in_the_whole() {
        let mut latencies = Latencies::new([listener()], []);
        latencies.absorb(&[took(7), took(8)]);
        latencies.advance(1);
        assert_eq!(counts(&latencies), [2, 2, 2, 2]);
        latencies.advance(12);
        assert_eq!(counts(&latencies), [2, 0, 2, 2]);
        latencies.advance(70);
        assert_eq!(counts(&latencies), [2, 0, 0, 2]);
        latencies.advance(1_000_000);
        assert_eq!(counts(&latencies), [2, 0, 0, 0]);
        latencies.absorb(&[took(9)]);
        assert_eq!(counts(&latencies), [3, 1, 1, 1]);
    }

    #[test]
    fn a_sample_counts_for_its_listener_and_its_backend() {
        let [one, two, unknown] = backends();
        let mut latencies = Latencies::new([listener()], [(pool(), vec![one, two])]);
        let connect = |backend| Sample::new(listener(), backend, Stage::Connect, Duration::from_micros(1));
        latencies.absorb(&[connect(two), connect(BackendId::NONE), connect(unknown)]);
        let count = |measured: Option<&Measured>| measured.unwrap().stage(Stage::Connect).map(|s| s.total().count());
        assert_eq!(count(latencies.listener(listener())), Some(3));
        assert_eq!(count(latencies.backend(one)), None, "made when first used");
        assert_eq!(count(latencies.backend(two)), Some(1));
    }

    #[test]
    fn a_backend_that_is_removed_leaves_its_histograms_to_none_that_is_added() {
        let [stays, goes, comes] = backends();
        let connect = |backend| Sample::new(ListenerId::NONE, backend, Stage::Connect, Duration::from_micros(1));
        let count = |latencies: &Latencies, id| Some(latencies.backend(id)?.stage(Stage::Connect)?.total().count());
        let mut latencies = Latencies::new([], [(pool(), vec![stays, goes])]);
        latencies.absorb(&[connect(stays), connect(goes)]);
        latencies.measure([], [(pool(), vec![comes, stays])]);
        // A worker had one of them yet.
        latencies.absorb(&[connect(goes), connect(stays)]);
        assert_eq!([stays, goes, comes].map(|id| count(&latencies, id)), [Some(2), None, None]);
        latencies.measure([], [(pool(), vec![goes])]);
        assert_eq!([stays, goes, comes].map(|id| count(&latencies, id)), [None; 3]);
    }

    #[test]
    fn a_route_has_what_was_measured_of_its_requests() {
        let registry = Registry::default();
        let [stays, goes] = std::array::from_fn(|_| registry.route());
        let mut latencies = Latencies::new([listener()], []);
        latencies.measure_routes([stays, goes, RouteId::NONE]);
        let took = |route, micros| {
            let took = Duration::from_micros(micros);
            Sample::new(listener(), BackendId::NONE, Stage::HttpResponse, took).of_route(route)
        };
        let answered =
            HttpEvent::Responded(super::super::http::Method::Get, super::super::http::StatusClass::Successful);
        let event = |route| Sample::http(listener(), BackendId::NONE, answered).of_route(route);
        let samples = [took(stays, 5), took(goes, 7), took(RouteId::NONE, 9), event(stays), event(RouteId::NONE)];
        latencies.absorb(&samples);
        latencies.absorb(&[Sample::new(listener(), BackendId::NONE, Stage::HttpResponse, Duration::MAX)]);
        let maximum = |measured: &Measured| measured.stage(Stage::HttpResponse).map(|series| series.total().max());
        let requests = |measured: &Measured| measured.http().map(HttpCounts::requests);
        let of = |latencies: &Latencies, id| latencies.route(id).map(|it| (maximum(it), requests(it)));
        assert_eq!(of(&latencies, stays), Some((Some(5), Some(1))));
        assert_eq!(of(&latencies, goes), Some((Some(7), None)));
        assert_eq!(of(&latencies, RouteId::NONE), None, "what matches no route is the listener's alone");
        assert_eq!(latencies.listener(listener()).and_then(requests), Some(2));
        latencies.measure_routes([stays]);
        latencies.absorb(&[took(stays, 6), took(goes, 6)]);
        assert_eq!(of(&latencies, stays), Some((Some(6), Some(1))));
        assert_eq!(of(&latencies, goes), None);
    }

    #[test]
    fn pool_percentiles_are_those_of_its_traffic() {
        let (registry, ids) = (Registry::default(), backends::<4>());
        let [before, middle, after] = std::array::from_fn(|_| registry.pool());
        let pools = [(before, vec![ids[0]]), (middle, vec![ids[1], ids[2]]), (after, vec![ids[3]])];
        let mut latencies = Latencies::new([], pools);
        let took = |backend: usize, micros| {
            Sample::new(ListenerId::NONE, ids[backend], Stage::Turnaround, Duration::from_micros(micros))
        };
        // In the middle pool the slow backend has one connection of a hundred; its neighbours are slower still.
        let samples = [&[took(0, 9_000), took(3, 9_000)][..], &[took(1, 100); 99], &[took(2, 5_000)]].concat();
        latencies.absorb(&samples);
        latencies.advance(1);
        latencies.absorb(&[took(2, 70)]);
        let pool = latencies.pool(middle).unwrap();
        for window in Window::ALL {
            let histogram = pool.window(Stage::Turnaround, window);
            assert_eq!((histogram.count(), histogram.max()), (101, 5_000), "{window:?}");
            assert_eq!(histogram.quantiles([0.5, 0.98, 1.0]), [100, 100, 5_000], "{window:?}");
        }
        assert_eq!(pool.window(Stage::Connect, Window::All).count(), 0);
        latencies.advance(2);
        let pool = latencies.pool(middle).unwrap();
        let seconds =
            |after| pool.seconds(Stage::Turnaround, after).map(|(at, it)| (at, it.count())).collect::<Vec<_>>();
        assert_eq!((seconds(0), seconds(1)), (vec![(1, 100), (2, 1)], vec![(2, 1)]));
    }
}
