//! What a relayed connection waits for: timeouts, and what is due at an age.

use std::time::{Duration, Instant};

use crate::config::model::ListenerTimeouts;
use crate::relay::{Pacing, Relay};
use crate::stats::termination::{Side, Termination};

/// The half-close timeout of a connection whose backend has finished, while tidegate drains.
const DRAIN_HALF_CLOSE: Duration = Duration::from_secs(1);

/// When a connection that was accepted then is too old: `lifetime` ± 10 %, so that those which came together
/// do not go together.
pub(super) fn expiry(timeouts: &ListenerTimeouts, accepted: Instant) -> Option<Instant> {
    let lifetime = timeouts.lifetime?;
    accepted.checked_add(lifetime.mul_f64(0.9 + 0.2 * fastrand::f64()))
}

/// What there is to do at a moment until which no byte has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The connection ends.
    End(Termination),
    /// The relay wants to be polled.
    Relay,
    /// The connection has lasted.
    Keepalive,
}

/// The next moment at which there is something to do.
pub(super) fn next_deadline(
    relay: &Relay,
    pacing: Option<&Pacing>,
    timeouts: &ListenerTimeouts,
    draining_since: Option<Instant>,
    expires: Option<Instant>,
    keepalive_at: Option<Instant>,
) -> Option<(Instant, Due)> {
    let after = |timeout: Option<Duration>| timeout.and_then(|timeout| relay.last_moved().checked_add(timeout));
    let mut half_close = if relay.is_half_closed() { after(timeouts.half_close) } else { None };
    if let (Some(Side::Backend), Some(since)) = (relay.finished_first(), draining_since) {
        // Only the client's own FIN is missing, which a pooled connection sends when it is next used.
        let drain = relay.last_moved().max(since) + DRAIN_HALF_CLOSE;
        half_close = Some(half_close.map_or(drain, |at| at.min(drain)));
    }
    let all = [
        (relay.wake_at(), Due::Relay),
        (pacing.and_then(Pacing::wake_at), Due::Relay),
        (keepalive_at, Due::Keepalive),
        (half_close, Due::End(Termination::HalfCloseTimeout)),
        (after(timeouts.idle), Due::End(Termination::IdleTimeout)),
        (expires, Due::End(Termination::Lifetime)),
    ];
    all.into_iter().filter_map(|(at, due)| Some((at?, due))).min_by_key(|&(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
    const HOUR: Duration = Duration::from_secs(3600);

    fn timeouts() -> ListenerTimeouts {
        ListenerTimeouts {
            sniff: None,
            handshake: None,
            idle: Some(IDLE),
            half_close: Some(Duration::from_secs(1)),
            lifetime: Some(HOUR),
        }
    }

    #[test]
    fn what_is_due_first_comes_first() {
        let now = Instant::now();
        let relay = Relay::new(now, Vec::new());
        let due = |expires, keepalive_at| next_deadline(&relay, None, &timeouts(), None, expires, keepalive_at);
        // Not half-closed, so that half_close does not count.
        assert_eq!(due(None, None), Some((now + IDLE, Due::End(Termination::IdleTimeout))));
        assert_eq!(due(Some(now + HOUR), None), Some((now + IDLE, Due::End(Termination::IdleTimeout))));
        assert_eq!(due(Some(now), None), Some((now, Due::End(Termination::Lifetime))));
        assert_eq!(due(Some(now + HOUR), Some(now + KEEPALIVE_AFTER)), Some((now + KEEPALIVE_AFTER, Due::Keepalive)));
        let none = ListenerTimeouts { idle: None, half_close: None, lifetime: None, ..timeouts() };
        assert_eq!(next_deadline(&relay, None, &none, None, None, None), None);
    }

    #[test]
    fn lifetimes_are_spread_over_a_tenth_either_way() {
        let accepted = Instant::now();
        let ages: Vec<Duration> =
            (0..1000).map(|_| expiry(&timeouts(), accepted).unwrap().duration_since(accepted)).collect();
        assert!(ages.iter().all(|age| (HOUR.mul_f64(0.9)..=HOUR.mul_f64(1.1)).contains(age)));
        assert!(ages.iter().any(|&age| age < HOUR.mul_f64(0.95)) && ages.iter().any(|&age| age > HOUR.mul_f64(1.05)));
        assert_eq!(expiry(&ListenerTimeouts { lifetime: None, ..timeouts() }, accepted), None);
    }
}
