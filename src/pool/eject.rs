//! Ejecting backends that fail for clients, and letting them back. Where and how long is decided by [`outlier`](super::outlier).

use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::Pool;
use super::backend::Backend;
use super::outlier::most_ejected;
use super::update::Writer;
use crate::stats::registry::BackendId;

/// A kind of failure that ejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// A connect or TLS handshake.
    Connect,
    /// A response with status 5xx.
    Http,
}

impl FailureKind {
    fn plural(self) -> &'static str {
        match self {
            FailureKind::Connect => "failed connects",
            FailureKind::Http => "responses with status 5xx",
        }
    }
}

impl Pool {
    /// A client's connect to the backend failed, TLS included, and after how long. May eject the backend.
    pub fn record_connect_failure(&self, backend: &Backend, took: Duration) {
        backend.record_connect_failure(took);
        self.record_failure(backend, FailureKind::Connect);
    }

    /// A session's first datagram came from the backend, which ends a row of refusals.
    pub fn record_answer(&self, backend: &Backend, took: Duration) {
        backend.runtime().connects.succeeded();
        backend.record_first_byte(took);
    }

    /// The backend answered a request; `is_error` is a status of 5xx. May eject the backend.
    pub fn record_response(&self, backend: &Backend, is_error: bool) {
        match is_error {
            true => self.record_failure(backend, FailureKind::Http),
            false => backend.runtime().responses.succeeded(),
        }
    }

    fn record_failure(&self, backend: &Backend, kind: FailureKind) {
        let now = Instant::now();
        let Some(rules) = &backend.settings().outlier else { return };
        // One of its ports says nothing of the others, and clients choose them.
        if backend.configured_address().has_client_port() {
            return;
        }
        let failures = match kind {
            FailureKind::Connect => &backend.runtime().connects,
            FailureKind::Http => &backend.runtime().responses,
        };
        if !failures.failed(rules, now) || !backend.is_up() {
            return;
        }
        // Called on a worker, which never waits: if the pool changes at this moment, the next failure ejects.
        let mut writer = match self.try_writer() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return,
        };
        self.eject(&mut writer, backend.id(), kind, now);
    }

    fn eject(&self, writer: &mut Writer, id: BackendId, kind: FailureKind, now: Instant) {
        let Some(rules) = writer.config.outlier.clone() else { return };
        let offered = writer.members.iter().filter(|member| member.backend.is_offered());
        let (all, ejected) =
            offered.fold((0, 0), |(all, ejected), it| (all + 1, ejected + usize::from(it.ejections.is_ejected())));
        if ejected >= most_ejected(&rules, all) {
            return;
        }
        let Some(member) = writer.members.iter_mut().find(|member| member.backend.id() == id) else { return };
        if member.ejections.is_ejected() || !member.backend.is_up() {
            return;
        }
        let length = member.ejections.begin(&rules, now);
        let how = match rules.window {
            None => "in a row".to_owned(),
            Some(window) => format!("within {window:?}"),
        };
        let reason: Arc<str> = format!("ejected for {length:?}: {} {} {how}", rules.failures, kind.plural()).into();
        self.settle(member, now, |causes| causes.ejection = Some(Arc::clone(&reason)));
        member.backend.counters().ejected();
        let (pool, backend) = (self.name(), member.backend.name());
        tracing::warn!(%pool, %backend, %reason, "backend ejected");
        self.record_status(writer);
        // No pick takes it from now on; the snapshot without it is made with the next tick, not on a worker.
        writer.stale = true;
    }

    /// A health check of the backend passed or failed. `rise` passes in a row end its ejection.
    pub fn record_check(&self, id: BackendId, passed: bool, rise: u32) {
        let mut writer = self.writer();
        let Some(member) = writer.members.iter_mut().find(|member| member.backend.id() == id) else { return };
        match passed {
            _ if !member.ejections.is_ejected() => return,
            false => return member.ejections.check_failed(),
            true if !member.ejections.passed(rise) => return,
            true => {}
        }
        self.readmit(&mut writer, |member| member.backend.id() == id, Instant::now(), "its health checks pass");
        self.record_status(&writer);
        self.publish(&mut writer);
    }

    /// Ends the ejections whose time is over; all of them where the pool ejects none any more. True if there were any.
    pub(super) fn end_ejections(&self, writer: &mut Writer, now: Instant) -> bool {
        let off = writer.config.outlier.is_none();
        let is_due =
            |member: &super::member::Member| member.ejections.is_over(now) || off && member.ejections.is_ejected();
        if !writer.members.iter().any(is_due) {
            return false;
        }
        self.readmit(writer, is_due, now, "its time is over");
        self.record_status(writer);
        true
    }

    /// Ends ejections beyond `max_ejected`, those that would end first: fewer backends may be left than when they began.
    pub(super) fn trim_ejections(&self, writer: &mut Writer) {
        let Some(rules) = writer.config.outlier.clone() else { return };
        loop {
            let offered = || writer.members.iter().filter(|member| member.backend.is_offered());
            let ejected = || offered().filter(|member| member.ejections.is_ejected());
            if ejected().count() <= most_ejected(&rules, offered().count()) {
                return;
            }
            let Some(first) = ejected().min_by_key(|member| member.ejections.until()) else { return };
            let id = first.backend.id();
            self.readmit(writer, |member| member.backend.id() == id, Instant::now(), "too few backends are left");
        }
    }

    fn readmit(
        &self,
        writer: &mut Writer,
        is_due: impl Fn(&super::member::Member) -> bool,
        now: Instant,
        reason: &'static str,
    ) {
        for member in writer.members.iter_mut().filter(|member| is_due(member)) {
            member.ejections.end(now);
            member.backend.runtime().connects.clear();
            member.backend.runtime().responses.clear();
            self.settle(member, now, |causes| causes.ejection = None);
            let (pool, backend) = (self.name(), member.backend.name());
            tracing::info!(%pool, %backend, reason, "ejection of a backend ends");
        }
    }
}
