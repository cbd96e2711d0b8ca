//! One backend: what it is, and its [`Runtime`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::members::{Target, full_name};
use super::persist::HoldId;
use super::runtime::Runtime;
use super::slow_start;
use super::status::Status;
use crate::balance;
use crate::config::model::{self, AdminState, BackendAddress, ForcedHealth};
use crate::log::throttle::ReasonThrottle;
use crate::net::addr::{Address, backend_text};
use crate::stats::counters::BackendCounters;
use crate::stats::database::DatabaseState;
use crate::stats::registry::BackendId;
use crate::stats::requests::RequestCounters;
use crate::stats::traffic::Traffic;

/// A backend of a pool.
///
/// A change of what is configured makes a new `Backend` with the same runtime state and id. A connection keeps the one with
/// which it began. Counters are exact but for the order in which they are seen.
#[derive(Clone)]
pub struct Backend {
    target: Target,
    hash: u64,
    leaving: bool,
    settings: Arc<model::PoolConfig>,
    runtime: Arc<Runtime>,
}

impl Backend {
    pub(super) fn new(target: Target, settings: &Arc<model::PoolConfig>, runtime: Arc<Runtime>) -> Backend {
        Backend {
            hash: balance::identity(&target.name),
            target,
            leaving: false,
            settings: Arc::clone(settings),
            runtime,
        }
    }

    /// The same one as it leaves its pool.
    pub(super) fn leave(&self) -> Backend {
        Backend { leaving: true, ..self.clone() }
    }

    /// The same one as `NAME@ADDRESS`.
    pub(super) fn with_full_name(&self) -> Backend {
        let name = self.target.address.as_ref().map(|address| full_name(&self.target.entry, address));
        let name = name.unwrap_or_else(|| Arc::clone(&self.target.name));
        Backend { target: Target { name, ..self.target.clone() }, ..self.clone() }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Its id, for statistics.
    pub fn id(&self) -> BackendId {
        self.runtime.id
    }

    /// Its name in logs, statistics and placement by hash: that of its entry in the configuration, or `NAME@ADDRESS` where the
    /// entry's host name has several addresses.
    pub fn name(&self) -> &Arc<str> {
        &self.target.name
    }

    /// The name of its entry in the configuration.
    pub fn entry(&self) -> &Arc<str> {
        &self.target.entry
    }

    /// The address as configured.
    pub fn configured_address(&self) -> &BackendAddress {
        &self.target.configured
    }

    /// Where to connect to; see [`Address::for_client`]. `None` while its host name has never been resolved, and then it is down.
    pub fn address(&self) -> Option<&Address> {
        self.target.address.as_ref()
    }

    /// The address as configured, or the one that tells it from the others of its host name.
    pub fn shown_address(&self) -> String {
        match (&self.target.address, self.target.name == self.target.entry) {
            (Some(Address::Tcp(address)), false) => backend_text(address),
            _ => self.target.configured.to_string(),
        }
    }

    /// Whether it stands in for backends that the pool prefers, by its role.
    pub fn is_fallback(&self) -> bool {
        self.runtime.is_fallback()
    }

    /// The settings of its pool.
    pub fn settings(&self) -> &Arc<model::PoolConfig> {
        &self.settings
    }

    /// The weight as configured; with 0 it gets no new connections.
    pub fn weight(&self) -> u32 {
        self.target.weight
    }

    /// Whether it is used only when no other backend can be: as configured, or as the primary in a pool that prefers replicas.
    pub fn is_backup(&self) -> bool {
        self.target.backup || self.runtime.is_fallback()
    }

    /// Whether it was removed: it gets no new connections, and is gone when its last one has ended.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Its administrative state.
    pub fn state(&self) -> AdminState {
        self.target.state
    }

    /// Its health by decree; `None` leaves it to the checks.
    pub fn forced(&self) -> Option<ForcedHealth> {
        self.target.forced
    }

    /// Whether it would take connections if it were up.
    pub(super) fn is_offered(&self) -> bool {
        !self.leaving && self.state() == AdminState::Ready && self.weight() > 0
    }

    /// Whether `fail_open` uses it although it is down.
    pub(super) fn may_be_tried(&self) -> bool {
        self.is_offered() && self.address().is_some() && self.forced() != Some(ForcedHealth::Down)
    }

    pub(super) fn takes_connections(&self) -> bool {
        self.is_up() && self.is_offered()
    }

    /// Connections it may have at once.
    pub fn max_connections(&self) -> Option<u32> {
        (self.target.max_connections != u32::MAX).then_some(self.target.max_connections)
    }

    /// Whether it is healthy and has an address.
    pub fn is_up(&self) -> bool {
        self.runtime.is_up()
    }

    /// Whether it is up, since when, and why not.
    pub fn status(&self) -> Status {
        self.runtime.status()
    }

    /// Role and lag, if its health check asks a database for them and the last one got an answer.
    pub fn database(&self) -> Option<DatabaseState> {
        self.runtime.database()
    }

    /// Replaces what [`Backend::database`] returns, and returns what it was.
    pub fn set_database(&self, state: Option<DatabaseState>) -> Option<DatabaseState> {
        self.runtime.set_database(state)
    }

    /// Connections leased at this moment.
    pub fn connections(&self) -> u32 {
        self.runtime.connections()
    }

    /// Moving average of connect and first-byte times in microseconds; 0 when it was never measured or not for long.
    pub fn latency_us(&self) -> u32 {
        self.runtime.latency_us()
    }

    /// What its connections and checks have left behind so far.
    pub fn counters(&self) -> &BackendCounters {
        &self.runtime.counters
    }

    /// Bytes, those of open connections included.
    pub fn traffic(&self) -> &Traffic {
        &self.runtime.traffic
    }

    /// Requests of `protocol: http` that it has.
    pub fn requests(&self) -> &RequestCounters {
        &self.runtime.requests
    }

    /// Which log lines about its failed connects may be written.
    pub fn failed_connects(&self) -> &ReasonThrottle {
        &self.runtime.failed_connects
    }

    /// How often it went down.
    pub fn downs(&self) -> u32 {
        self.runtime.downs()
    }

    /// A connect succeeded, and how long it took.
    pub fn record_connect(&self, took: Duration) {
        self.counters().connected();
        self.runtime.connects.succeeded();
        self.runtime.record_latency(took);
    }

    /// A connect failed, and after how long. Makes the backend look slower.
    pub(super) fn record_connect_failure(&self, took: Duration) {
        self.counters().connect_failed();
        self.runtime.record_failure(took);
    }

    /// The backend's first byte came, and how long after the client's first was forwarded.
    pub fn record_first_byte(&self, took: Duration) {
        self.runtime.record_latency(took);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn is_full(&self) -> bool {
        self.connections() >= self.limit()
    }

    /// Connections that it may have now: in slow start, `max_connections` grows with the weight, as HAProxy's maxconn does.
    fn limit(&self) -> u32 {
        match self.target.max_connections {
            u32::MAX => u32::MAX,
            most => slow_start::share(most, self.runtime.parts()),
        }
    }

    /// Counts one more connection, unless the backend is full, or down and that matters.
    pub(super) fn try_acquire(&self, may_be_down: bool) -> bool {
        self.runtime.try_acquire(self.limit(), may_be_down)
    }

    pub(super) fn release(&self, held: Option<HoldId>) {
        self.runtime.release(held);
    }
}

/// By id: what is configured may differ.
impl PartialEq for Backend {
    fn eq(&self, other: &Backend) -> bool {
        self.id() == other.id()
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("name", self.name()).finish_non_exhaustive()
    }
}
