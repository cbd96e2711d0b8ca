//! Dates of certificates, as log lines and messages give them.

use std::time::SystemTime;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// The day, as in 2027-01-31, of UTC.
pub(super) fn date(at: SystemTime) -> String {
    crate::log::date::day(at).to_string()
}

/// How far off a moment is: `in 41 days`, `3 hours ago`.
pub(super) fn distance(now: SystemTime, at: SystemTime) -> String {
    let (seconds, is_past) = match at.duration_since(now) {
        Ok(ahead) => (ahead.as_secs(), false),
        Err(behind) => (behind.duration().as_secs(), true),
    };
    let (number, unit) = match seconds {
        DAY.. => (seconds / DAY, "day"),
        HOUR.. => (seconds / HOUR, "hour"),
        _ => (seconds / 60, "minute"),
    };
    let plural = if number == 1 { "" } else { "s" };
    if is_past { format!("{number} {unit}{plural} ago") } else { format!("in {number} {unit}{plural}") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn how_far_off_a_moment_is() {
        let now = at(1_000_000_000);
        let cases = [
            (2 * DAY, "in 2 days", "2 days ago"),
            (DAY + 5, "in 1 day", "1 day ago"),
            (23 * HOUR, "in 23 hours", "23 hours ago"),
            (90, "in 1 minute", "1 minute ago"),
            (0, "in 0 minutes", "in 0 minutes"),
        ];
        for (seconds, ahead, behind) in cases {
            assert_eq!(distance(now, at(1_000_000_000 + seconds)), ahead);
            assert_eq!(distance(now, at(1_000_000_000 - seconds)), behind);
        }
    }

    #[test]
    fn the_last_day_a_certificate_can_have_is_a_date() {
        // RFC 5280, 4.1.2.5: 99991231235959Z.
        assert_eq!(date(at(253_402_300_799)), "9999-12-31");
    }
}
