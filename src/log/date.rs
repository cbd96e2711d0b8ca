//! Dates in UTC. Any time of the system's clock has one: it may be before 1970, or beyond the year 9999.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// A moment as RFC 3339 has it, to the second: `2009-02-06T12:14:14Z`.
pub fn rfc3339(at: SystemTime) -> impl fmt::Display {
    let date = Date::of(at);
    fmt::from_fn(move |f| write!(f, "{}T{}Z", date.day(), date.time()))
}

/// The same with milliseconds: `2009-02-06T12:14:14.655Z`.
pub fn rfc3339_millis(at: SystemTime) -> impl fmt::Display {
    let date = Date::of(at);
    fmt::from_fn(move |f| write!(f, "{}T{}.{:03}Z", date.day(), date.time(), date.millisecond))
}

/// Whether the year has four digits, as RFC 3339 demands.
pub fn has_four_digit_year(at: SystemTime) -> bool {
    (0..=9999).contains(&Date::of(at).year)
}

/// The day alone: `2009-02-06`.
pub fn day(at: SystemTime) -> impl fmt::Display {
    let date = Date::of(at);
    fmt::from_fn(move |f| write!(f, "{}", date.day()))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// As the common log format has it: `06/Feb/2009:12:14:14 +0000`.
pub fn common(at: SystemTime) -> impl fmt::Display {
    let date = Date::of(at);
    fmt::from_fn(move |f| {
        let Date { year, month, day, .. } = date;
        let month = MONTHS[month as usize - 1];
        write!(f, "{day:02}/{month}/{year:04}:{} +0000", date.time())
    })
}

/// As HAProxy's log has it: `06/Feb/2009:12:14:14.655`.
pub fn haproxy(at: SystemTime) -> impl fmt::Display {
    let date = Date::of(at);
    fmt::from_fn(move |f| {
        let Date { year, month, day, millisecond, .. } = date;
        let month = MONTHS[month as usize - 1];
        write!(f, "{day:02}/{month}/{year:04}:{}.{millisecond:03}", date.time())
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    year: i64,
    /// From 1.
    month: u8,
    /// From 1.
    day: u8,
    second_of_day: u32,
    millisecond: u32,
}

impl Date {
    fn of(at: SystemTime) -> Date {
        // A SystemTime's seconds are an i64, so the distance fits on either side.
        let (seconds, nanos) = match at.duration_since(UNIX_EPOCH) {
            Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
            Err(error) => {
                let before = error.duration();
                let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
                match before.subsec_nanos() {
                    0 => (seconds, 0),
                    nanos => (seconds.saturating_sub(1), 1_000_000_000 - nanos),
                }
            }
        };
        let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
        // Both are below their bounds, and so fit.
        let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
        Date { year, month, day, second_of_day, millisecond: nanos / 1_000_000 }
    }

    fn day(self) -> impl fmt::Display {
        fmt::from_fn(move |f| write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day))
    }

    fn time(self) -> impl fmt::Display {
        let second = self.second_of_day;
        fmt::from_fn(move |f| write!(f, "{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60))
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March here, so that the day that some have and others lack comes last. Four hundred of
/// them have the same number of days, always.
fn civil(day: i64) -> (i64, u8, u8) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    const FROM_0000_03_01_TO_1970_01_01: i64 = 719_468;
    let day = day + FROM_0000_03_01_TO_1970_01_01;
    let (era, day) = (day.div_euclid(DAYS_IN_400_YEARS), day.rem_euclid(DAYS_IN_400_YEARS));
    // Without the leap days that came before, each year has 365 days.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on, five months have 153 days.
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, of_next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + of_next_year, month as u8, day_of_month as u8)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: i64, millis: u64) -> SystemTime {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let whole = if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance };
        whole + Duration::from_millis(millis)
    }

    #[test]
    fn dates_known_from_elsewhere() {
        for (seconds, millis, expected) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000, 123, "2023-11-14T22:13:20.123Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400, 999, "2100-03-01T00:00:00.999Z"),
            (-1, 500, "1969-12-31T23:59:59.500Z"),
            (-2_203_891_200, 0, "1900-03-01T00:00:00.000Z"),
            (253_402_300_800, 0, "10000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339_millis(at(seconds, millis)).to_string(), expected);
        }
        assert_eq!(haproxy(at(1_233_922_454, 655)).to_string(), "06/Feb/2009:12:14:14.655");
        assert_eq!(day(at(1_233_922_454, 0)).to_string(), "2009-02-06");
        assert_eq!(rfc3339(at(1_233_922_454, 655)).to_string(), "2009-02-06T12:14:14Z");
    }

    #[test]
    fn every_day_of_a_thousand_years_follows_the_one_before() {
        let length = |year: i64, month: u8| match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = civil(-200_000);
        for number in -200_000..200_000 {
            assert_eq!(civil(number), expected, "day {number}");
            let (year, month, day) = expected;
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                _ if day == length(year, month) => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn the_ends_of_the_clock_have_a_date_too() {
        for seconds in [i64::MAX as u64, i64::MAX as u64 / 2] {
            for at in [
                UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
                UNIX_EPOCH.checked_sub(Duration::from_secs(seconds)),
            ] {
                assert!(haproxy(at.expect("an i64 of seconds")).to_string().contains('/'));
            }
        }
    }
}
