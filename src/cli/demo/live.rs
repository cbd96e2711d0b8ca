//! What the demo shows while it runs: a line a second, and what happens in between.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidegate::config::model::AdminState;
use tidegate::control::status::SharedStatus;
use tidegate::pool::Backend;
use tidegate::server::DataPlane;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::balancer::backends;
use super::report::{self, BackendColumn, Moment};
use super::screen::DemoScreen;
use super::tally::Tally;

/// From one line to the next.
const LINE: Duration = Duration::from_secs(1);
/// Between two looks at the backends' health.
const HEALTH_POLL: Duration = Duration::from_millis(50);

/// What is shown, and where.
pub(super) struct LiveView<'d> {
    pub(super) plane: Arc<DataPlane>,
    pub(super) status: Arc<SharedStatus>,
    pub(super) tally: &'d Tally,
    pub(super) screen: &'d DemoScreen,
    pub(super) started: Instant,
}

impl LiveView<'_> {
    /// Shows everything.
    ///
    /// # Errors
    /// stdout has no reader.
    pub(super) async fn show(&self) -> io::Result<Infallible> {
        tokio::select! {
            ended = self.lines() => ended,
            ended = self.transitions() => ended,
            ended = self.changes() => ended,
        }
    }

    /// A line a second.
    async fn lines(&self) -> io::Result<Infallible> {
        let mut ticks = interval_at(self.started + LINE, LINE);
        // After a pause (the process was stopped, or stdout was not read) lines come once a second again, not all at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut before, mut last) = (self.tally.total(), self.started);
        let mut header = String::new();
        for number in 0_u64.. {
            ticks.tick().await;
            let (now, total) = (Instant::now(), self.tally.total());
            let seconds = now.duration_since(last).as_secs_f64().max(f64::MIN_POSITIVE);
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            let of = |answers: &BTreeMap<&'static str, u64>, name: &str| answers.get(name).copied().unwrap_or_default();
            let column = |backend: &Arc<Backend>| BackendColumn {
                name: backend.name().to_string(),
                out_of_service: out_of_service(backend),
                rate: rate(of(&total.by_backend, backend.name()), of(&before.by_backend, backend.name())),
            };
            let moment = Moment {
                elapsed: now.duration_since(self.started),
                rate: rate(total.answered, before.answered),
                failed: total.failed,
                open: self.plane.open(),
                backends: backends(&self.plane).iter().map(column).collect(),
            };
            let shown = report::header(&moment);
            let is_due = shown != header || number.is_multiple_of(report::LINES_A_HEADER);
            self.screen.line(&shown, is_due, &report::line(&moment)).await?;
            (before, last, header) = (total, now, shown);
        }
        std::future::pending().await
    }

    /// Backends that health checks take out or back.
    async fn transitions(&self) -> io::Result<Infallible> {
        let mut ticks = interval(HEALTH_POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known: BTreeMap<Arc<str>, bool> = BTreeMap::new();
        loop {
            ticks.tick().await;
            let now = backends(&self.plane);
            for backend in &now {
                let (name, is_up) = (backend.name(), backend.is_up());
                if known.insert(Arc::clone(name), is_up).is_some_and(|was_up| was_up != is_up) {
                    let reason = backend.status().reason.filter(|_| !is_up);
                    let what = report::transition(name, is_up, reason.as_deref());
                    self.screen.event(report::event(self.started.elapsed(), &what)).await?;
                }
            }
            known.retain(|name, _| now.iter().any(|backend| backend.name() == name));
        }
    }

    /// Changes of the configuration, the demo's own and those of its user.
    async fn changes(&self) -> io::Result<Infallible> {
        let own = format!("pid={}", std::process::id());
        let mut changes = self.status.changes();
        loop {
            let event = match changes.recv().await {
                Ok(event) => event,
                // Others follow.
                Err(RecvError::Lagged(_)) => continue,
                // The status is held here: its sender lives.
                Err(RecvError::Closed) => std::future::pending().await,
            };
            let is_own = event.actor.split(' ').any(|word| word == own);
            let what = report::change(&event, is_own);
            self.screen.event(report::event(self.started.elapsed(), &what)).await?;
        }
    }
}

/// Why a backend gets no connections; `None` if it does.
fn out_of_service(backend: &Backend) -> Option<&'static str> {
    match (backend.state(), backend.is_up()) {
        (AdminState::Drain, _) => Some("drain"),
        (AdminState::Maintenance, _) => Some("maint"),
        (AdminState::Ready, false) => Some("down"),
        (AdminState::Ready, true) => None,
    }
}
