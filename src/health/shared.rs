//! One check of a server, for all pools that have it as a backend.
//!
//! The pool whose check is due first runs it; the others take what it found, if that is recent enough. They are then due at about
//! the same time, so one check per interval serves all of them.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::failure::ProbeFailure;
use super::observation::{Observation, Questions};
use crate::config::model::{BackendAddress, HealthCheck, PoolTls, SendProxy};
use crate::net::addr::Address;

/// The checks that run in this process.
#[derive(Clone, Default)]
pub struct SharedProbes(Arc<ProbeTable>);

/// By address; within one, by what else a check goes by.
type ProbeTable = Mutex<HashMap<Address, Vec<(ProbeKey, Weak<SharedProbe>)>>>;

/// All that the outcome of a check depends on but what is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ProbeKey {
    /// Where it connects to.
    pub(super) address: Address,
    /// By which a certificate is verified, and an HTTP server named.
    pub(super) configured: BackendAddress,
    /// Whatever role is wanted.
    pub(super) check: HealthCheck,
    /// It is another port than that of connections.
    pub(super) has_port: bool,
    pub(super) by_datagrams: bool,
    pub(super) timeout: Duration,
    pub(super) send_proxy: Option<SendProxy>,
    pub(super) source: Vec<IpAddr>,
    pub(super) tls: Option<PoolTls>,
}

/// A check that pools may share.
pub(super) struct SharedProbe {
    address: Address,
    table: Weak<ProbeTable>,
    /// Locked while the check runs.
    state: tokio::sync::Mutex<ProbeState>,
}

#[derive(Default)]
struct ProbeState {
    /// All that was ever asked.
    questions: Questions,
    last: Option<(Questions, ProbeOutcome)>,
}

/// What came of a check.
#[derive(Clone, Debug)]
pub(super) struct ProbeOutcome {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) result: Result<Observation, ProbeFailure>,
}

impl SharedProbes {
    /// The check of this kind; a new one if there is none.
    pub(super) fn get(&self, key: ProbeKey) -> Arc<SharedProbe> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = table.entry(key.address.clone()).or_default();
        // No other one is upgraded: its last reference must not go away under the lock.
        if let Some(known) = same.iter().filter(|(known, _)| *known == key).find_map(|(_, probe)| probe.upgrade()) {
            return known;
        }
        let (address, table) = (key.address.clone(), Arc::downgrade(&self.0));
        let new = Arc::new(SharedProbe { address, table, state: tokio::sync::Mutex::default() });
        same.push((key, Arc::downgrade(&new)));
        new
    }
}

impl Drop for SharedProbe {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else { return };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = table.get_mut(&self.address) {
            same.retain(|(_, probe)| probe.strong_count() > 0);
            if same.is_empty() {
                table.remove(&self.address);
            }
        }
    }
}

impl SharedProbe {
    /// What the check found that began last, if it began at `since` or later and asked these questions; otherwise what it finds
    /// now. Its failures of this host are not shared.
    pub(super) async fn outcome<F>(
        &self,
        questions: Questions,
        since: Instant,
        probe: impl FnOnce(Questions) -> F,
    ) -> ProbeOutcome
    where
        F: Future<Output = Result<Observation, ProbeFailure>>,
    {
        let mut state = self.state.lock().await;
        state.questions = state.questions.and(questions);
        let asked = state.questions;
        if let Some((answered, last)) = &state.last
            && last.began >= since
            && answered.cover(questions)
        {
            return last.clone();
        }
        let began = Instant::now();
        let result = probe(asked).await;
        let outcome = ProbeOutcome { began, ended: Instant::now(), result };
        state.last = match outcome.result {
            Err(ProbeFailure::Local(_)) => None,
            _ => Some((asked, outcome.clone())),
        };
        outcome
    }
}
