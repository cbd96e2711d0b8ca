//! Whether a client may come in, and what becomes of one that may not.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::model::{self, Rate, Sniff};
use crate::limits::{Capacity, Claim, Limit, Limits, Over, Permit};
use crate::net::addr::ClientAddr;
use crate::stats::termination::Termination;
use crate::worker;

/// Clients over a limit that are told so in their own language, at once and in a second: few, as it costs a TLS handshake
/// and up to some seconds of patience, which is what limits are to spare. The others are closed without a word.
const TOLD_AT_ONCE: usize = 64;
const TOLD_A_SECOND: NonZeroU32 = NonZeroU32::new(50).unwrap(); // at compile time, where a zero would be an error

/// The limits of a listener.
pub(super) struct AdmissionControl {
    limits: Limits,
    /// For a listener whose clients can be told something.
    telling: Option<RejectBudget>,
}

struct RejectBudget {
    places: Arc<Capacity>,
    pace: Limits,
}

/// A client that was let in, or is heard out to be told why it is not.
pub(super) enum Admission {
    /// With what counts against the limits of its address.
    In(Option<Claim>),
    /// It gets no backend.
    RejectSlot(RejectSlot),
}

/// A client over a limit that is told so.
pub(super) struct RejectSlot {
    pub(super) over: Over,
    _place: Permit,
}

impl AdmissionControl {
    pub(super) fn new(listener: &model::Listener) -> AdmissionControl {
        let now = Instant::now();
        let pace = Rate { count: TOLD_A_SECOND, per: Duration::from_secs(1) };
        let has_words =
            listener.sniff == Sniff::Http || listener.tls.as_ref().is_some_and(|tls| tls.starttls.is_some());
        // An eighth of the listener's places, as whoever is heard out has one.
        let places = listener.max_connections.map_or(TOLD_AT_ONCE, |most| most.get() as usize / 8);
        let telling = || RejectBudget {
            places: Capacity::new(places.clamp(1, TOLD_AT_ONCE)),
            pace: Limits::new(model::Limits { connection_rate: Some(pace), ..model::Limits::default() }, now),
        };
        AdmissionControl { limits: Limits::new(listener.limits.clone(), now), telling: has_words.then(telling) }
    }

    /// Whether a admission for one configuration serves for the other.
    pub(super) fn fits(one: &model::Listener, other: &model::Listener) -> bool {
        let starttls = |listener: &model::Listener| listener.tls.as_ref().and_then(|tls| tls.starttls);
        one.limits == other.limits
            && one.max_connections == other.max_connections
            && one.sniff == other.sniff
            && starttls(one) == starttls(other)
    }

    /// Whether somebody can be over a limit.
    pub(super) fn is_kept(&self) -> bool {
        self.limits.are_set()
    }

    /// The limit that a client of this address would be over if it came now.
    pub(super) fn would_refuse(&self, client: Option<IpAddr>) -> Option<String> {
        let limits = &self.limits;
        limits.check(client, Instant::now()).err().map(|over| format!("it {}", limits.explain(over.limit)))
    }

    /// Counts one more connection of `client`, and says by `refuse` what one does wrong that is over a limit.
    ///
    /// # Errors
    /// It is over one, and is to be closed at once.
    pub(super) fn admit(
        &self,
        client: ClientAddr,
        refuse: impl FnOnce(&dyn fmt::Display),
    ) -> Result<Admission, Termination> {
        let now = worker::now();
        let over = match self.limits.admit(client.ip(), now) {
            Ok(claim) => return Ok(Admission::In(claim)),
            Err(over) => over,
        };
        refuse(&self.limits.explain(over.limit));
        let place = self.telling.as_ref().and_then(|telling| telling.place(now));
        place.map(|place| Admission::RejectSlot(RejectSlot { over, _place: place })).ok_or(over.limit.into())
    }
}

impl RejectBudget {
    fn place(&self, now: Instant) -> Option<Permit> {
        let place = self.places.try_acquire()?;
        self.pace.admit(None, now).ok().map(|_| place)
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
