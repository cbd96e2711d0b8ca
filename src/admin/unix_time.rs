//! Times as the stats port writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::log::date;

/// The last second that RFC 3339 can write: it has four digits for the year.
const LAST_DATE: f64 = 253_402_300_799.0;

/// Seconds since 1970, to the millisecond.
pub(super) fn seconds(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    (since * 1000.0).round() / 1000.0
}

/// Seconds since 1970 as RFC 3339.
pub(super) fn rfc3339(seconds: f64) -> String {
    let since = Duration::try_from_secs_f64(seconds.clamp(0.0, LAST_DATE)).unwrap_or_default();
    date::rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_date() {
        assert_eq!(rfc3339(0.0), "1970-01-01T00:00:00.000Z");
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(rfc3339(odd).ends_with('Z'), "{odd}");
        }
    }
}
