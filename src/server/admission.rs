//! Admission: whether a client may connect and is within its limits, and whether one that is not gets an answer.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::model::{self, AccessConfig, ClientRule, Rate};
use crate::limits::{AccessDenial, AccessList, AddressSlot, Capacity, Limit, Limits, Permit};
use crate::net::addr::ClientAddr;
use crate::net::country::Country;
use crate::stats::termination::Termination;
use crate::worker;

/// Clients over a limit, or denied, that get an answer in their own protocol, at once and per second: few, as it costs a TLS handshake
/// and up to some seconds, which limits are there to save. The others are closed at once.
const MAX_REJECT_SLOTS: usize = 64;
const REJECTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(50).unwrap(); // at compile time, where a zero would be an error

/// The access lists and limits of a listener.
pub(super) struct AdmissionControl {
    access: Arc<AccessList>,
    /// What `access` was made from.
    rules: AccessConfig,
    limits: Limits,
    /// Of requests, with `protocol: http`.
    requests: Limits,
    /// For a listener whose clients speak a protocol with errors.
    budget: Option<Arc<RejectBudget>>,
}

struct RejectBudget {
    slots: Arc<Capacity>,
    rate: Limits,
}

/// A client that is admitted, or rejected with an answer.
pub(super) enum Admission {
    /// With what counts against the limits of its address.
    Admitted(Option<AddressSlot>),
    /// It gets no backend.
    Rejected(RejectSlot),
}

/// A place among the clients that get an answer although they may not connect, or are over a limit.
pub(super) struct RejectSlot {
    pub(super) reason: Termination,
    /// When another try is worth it.
    pub(super) retry_after: Duration,
    _permit: Permit,
}

impl AdmissionControl {
    pub(super) fn new(listener: &model::ListenerConfig) -> AdmissionControl {
        let access = Arc::new(AccessList::new(&listener.access));
        AdmissionControl::with(
            listener,
            access,
            Limits::new(listener.limits.clone(), Instant::now()),
            Limits::new(of_requests(listener), Instant::now()),
            None,
        )
    }

    /// By another configuration: what counts now goes on counting.
    pub(super) fn reconfigured(&self, listener: &model::ListenerConfig) -> AdmissionControl {
        let access = match self.rules == listener.access {
            true => Arc::clone(&self.access),
            false => Arc::new(AccessList::new(&listener.access)),
        };
        let limits = self.limits.reconfigured(listener.limits.clone());
        let requests = self.requests.reconfigured(of_requests(listener));
        AdmissionControl::with(listener, access, limits, requests, self.budget.as_ref())
    }

    fn with(
        listener: &model::ListenerConfig,
        access: Arc<AccessList>,
        limits: Limits,
        requests: Limits,
        before: Option<&Arc<RejectBudget>>,
    ) -> AdmissionControl {
        // An eighth of the connections: a rejected client holds one while it is answered.
        let slots = listener.max_connections.map_or(MAX_REJECT_SLOTS, |most| most.get() as usize / 8);
        let budget = (listener.speaks().is_some() && slots > 0).then(|| {
            let budget = before.map_or_else(RejectBudget::new, Arc::clone);
            budget.slots.resize(slots.min(MAX_REJECT_SLOTS));
            budget
        });
        AdmissionControl { access, rules: listener.access.clone(), limits, requests, budget }
    }

    /// Whether admission by one configuration serves for the other.
    pub(super) fn fits(one: &model::ListenerConfig, other: &model::ListenerConfig) -> bool {
        one.access == other.access
            && one.limits == other.limits
            && one.max_connections == other.max_connections
            && one.speaks() == other.speaks()
    }

    /// Whether there is any list or limit.
    pub(super) fn may_refuse(&self) -> bool {
        self.access.is_set() || self.limits.are_set()
    }

    /// Lets one more request of `client` in.
    ///
    /// # Errors
    /// Requests of its address come too fast; when another try is worth it.
    pub(super) fn admit_request(&self, client: ClientAddr) -> Result<(), Duration> {
        if !self.requests.are_set() {
            return Ok(());
        }
        self.requests.admit(client.ip(), worker::now()).map(drop).map_err(|exceeded| exceeded.wait)
    }

    /// Whether it depends on the client's country.
    pub(super) fn needs_country(&self) -> bool {
        self.access.needs_country()
    }

    /// Why a client of this address would be refused if it came now.
    pub(super) fn would_refuse(&self, client: Option<IpAddr>, country: Option<Country>) -> Option<String> {
        if let Err(denial) = self.access.check(client, country) {
            return Some(format!("it {}", DenialReason { rules: &self.rules, denial, client, country }));
        }
        let limits = &self.limits;
        limits.check(client, Instant::now()).err().map(|exceeded| format!("it {}", limits.explain(exceeded.limit)))
    }

    /// Counts one more connection of `client`, and says by `refuse` why one is refused.
    ///
    /// # Errors
    /// It may not connect, or is over a limit, and is to be closed at once.
    pub(super) fn admit(
        &self,
        client: ClientAddr,
        country: Option<Country>,
        refuse: impl FnOnce(&dyn fmt::Display),
    ) -> Result<Admission, Termination> {
        // First: a client that may not connect takes no room in the limits' memory.
        if let Err(denial) = self.access.check(client.ip(), country) {
            refuse(&DenialReason { rules: &self.rules, denial, client: client.ip(), country });
            return self.reject(Termination::AccessDenied, Duration::ZERO);
        }
        let now = worker::now();
        let exceeded = match self.limits.admit(client.ip(), now) {
            Ok(slot) => return Ok(Admission::Admitted(slot)),
            Err(exceeded) => exceeded,
        };
        refuse(&self.limits.explain(exceeded.limit));
        self.reject(exceeded.limit.into(), exceeded.wait)
    }

    fn reject(&self, reason: Termination, retry_after: Duration) -> Result<Admission, Termination> {
        let permit = self.budget.as_ref().and_then(|budget| budget.slot(worker::now()));
        permit.map(|permit| Admission::Rejected(RejectSlot { reason, retry_after, _permit: permit })).ok_or(reason)
    }
}

/// The limits of requests, as limits of connections.
fn of_requests(listener: &model::ListenerConfig) -> model::LimitsConfig {
    let connection_rate_per_ip = listener.limits.request_rate_per_ip;
    model::LimitsConfig { connection_rate_per_ip, ..model::LimitsConfig::default() }
}

/// Why a client may not connect, after "it". The entry is looked for when this is written, which a throttle permits once a second.
struct DenialReason<'a> {
    rules: &'a AccessConfig,
    denial: AccessDenial,
    client: Option<IpAddr>,
    country: Option<Country>,
}

impl fmt::Display for DenialReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let country = |f: &mut fmt::Formatter<'_>| match self.country {
            Some(country) => write!(f, " (its country is {country})"),
            None => Ok(()),
        };
        if self.denial == AccessDenial::NotAllowed {
            f.write_str("is not in access.allow")?;
            return country(f);
        }
        let client = self.client.map(|ip| ip.to_canonical());
        let fits = |rule: &&ClientRule| match rule {
            ClientRule::Network(network) => client.is_some_and(|ip| network.contains(&ip)),
            ClientRule::Country(denied) => self.country == Some(*denied),
        };
        match self.rules.deny.iter().find(fits) {
            Some(rule) => write!(f, "is in access.deny ({rule})"),
            None => f.write_str("is in access.deny"),
        }
    }
}

impl RejectBudget {
    fn new() -> Arc<RejectBudget> {
        let rate = Rate { count: REJECTS_PER_SECOND, per: Duration::from_secs(1) };
        let rate = model::LimitsConfig { connection_rate: Some(rate), ..model::LimitsConfig::default() };
        Arc::new(RejectBudget { slots: Capacity::new(0), rate: Limits::new(rate, Instant::now()) })
    }

    fn slot(&self, now: Instant) -> Option<Permit> {
        let slot = self.slots.try_acquire()?;
        self.rate.admit(None, now).ok().map(|_| slot)
    }
}

impl From<Limit> for Termination {
    fn from(limit: Limit) -> Termination {
        match limit {
            Limit::ConnectionsOfAddress => Termination::AddressConnections,
            Limit::RateOfAddress => Termination::AddressRate,
            Limit::Rate => Termination::ListenerRate,
        }
    }
}
