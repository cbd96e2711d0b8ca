//! Throttling of log lines that could come by the thousand: one a second, with the number of those suppressed.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// At most one line in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// Reasons that have a line of their own at a [`ReasonThrottle`]. Some reasons quote what the network sent, so their number
/// has no bound; those beyond this many share one line.
const REASONS: usize = 8;

/// Lets one event a second through.
#[derive(Debug, Default)]
pub struct Throttle {
    state: Mutex<ThrottleState>,
}

#[derive(Debug, Default)]
struct ThrottleState {
    last: Option<Instant>,
    held_back: u64,
}

impl ThrottleState {
    const fn new() -> ThrottleState {
        ThrottleState { last: None, held_back: 0 }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE)
    }

    fn admit(&mut self, now: Instant) -> Option<u64> {
        if !self.is_due(now) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

impl Throttle {
    /// A throttle that has let nothing through yet.
    pub const fn new() -> Throttle {
        Throttle { state: Mutex::new(ThrottleState::new()) }
    }

    /// `Some` if the line may be written now, with the number of events suppressed since the last.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).admit(now)
    }
}

/// Lets one event a second through for each reason, so that a frequent reason does not hide a rare one.
#[derive(Debug, Default)]
pub struct ReasonThrottle {
    reasons: Mutex<Reasons>,
}

#[derive(Debug, Default)]
struct Reasons {
    /// By the hash of the reason; at most [`REASONS`]. Empty, and without an allocation, until something goes wrong.
    known: Vec<(u64, ThrottleState)>,
    others: ThrottleState,
}

impl ReasonThrottle {
    /// A throttle that has let nothing through yet.
    pub const fn new() -> ReasonThrottle {
        ReasonThrottle { reasons: Mutex::new(Reasons { known: Vec::new(), others: ThrottleState::new() }) }
    }

    /// `Some` if the line may be written now, with the number of events for this reason suppressed since the last. Beyond
    /// eight reasons in a second, several reasons share a number.
    pub fn admit(&self, now: Instant, reason: &(impl Hash + ?Sized)) -> Option<u64> {
        let reason = BuildHasherDefault::<DefaultHasher>::default().hash_one(reason);
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let Reasons { known, others } = &mut *reasons;
        if let Some((_, state)) = known.iter_mut().find(|(known, _)| *known == reason) {
            return state.admit(now);
        }
        if known.len() < REASONS {
            known.push((reason, ThrottleState::default()));
        } else {
            let oldest = known.iter_mut().filter(|(_, state)| state.is_due(now)).min_by_key(|(_, state)| state.last);
            let Some(oldest) = oldest else { return others.admit(now) };
            others.held_back += oldest.1.held_back;
            *oldest = (reason, ThrottleState::default());
        }
        // Present: it was found, pushed or put in the place of another.
        known.iter_mut().find(|(known, _)| *known == reason).and_then(|(_, state)| state.admit(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_and_the_others_counted() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit(start + Duration::from_millis(1)), None);
        assert_eq!(throttle.admit(start + Duration::from_millis(999)), None);
        assert_eq!(throttle.admit(start + Duration::from_millis(1000)), Some(2));
        assert_eq!(throttle.admit(start + Duration::from_millis(1001)), None);
    }

    #[test]
    fn frequent_reason_does_not_hide_a_rare_one() {
        let (throttle, start) = (ReasonThrottle::new(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(throttle.admit(at(0), "refused"), Some(0));
        for millis in 1..500 {
            assert_eq!(throttle.admit(at(millis), "refused"), None);
        }
        assert_eq!(throttle.admit(at(500), "timed out"), Some(0));
        assert_eq!(throttle.admit(at(501), "timed out"), None);
        assert_eq!(throttle.admit(at(1000), "refused"), Some(499));
        assert_eq!(throttle.admit(at(1500), "timed out"), Some(1));
    }

    #[test]
    fn reasons_without_end_are_bounded_and_counted() {
        let (throttle, start) = (ReasonThrottle::new(), Instant::now());
        let mut lines = 0;
        let mut held_back = 0;
        for number in 0..1000 {
            match throttle.admit(start, &number) {
                Some(more) => (lines, held_back) = (lines + 1, held_back + more),
                None => held_back += 0,
            }
        }
        assert_eq!((lines, held_back), (REASONS + 1, 0));
        assert_eq!(throttle.reasons.lock().unwrap().known.len(), REASONS);
        // One of the suppressed is written later, with the number of the rest.
        let later = start + PAUSE;
        let more: u64 = (0..=REASONS).filter_map(|number| throttle.admit(later, &(5000 + number))).sum();
        assert_eq!(more, 1000 - (REASONS as u64 + 1));
    }
}
