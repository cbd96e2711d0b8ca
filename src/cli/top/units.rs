//! Numbers in few letters.

use std::time::Duration;

/// A count, a rate or bytes in at most five letters: `0`, `9999`, `12.3k`, `1.23M`.
pub(in crate::cli) fn count(number: f64) -> String {
    if number < 9999.5 {
        // Of a slow rate, one digit tells that there is something.
        return if number > 0.0 && number < 9.95 { short(number) } else { format!("{number:.0}") };
    }
    let mut scaled = number;
    for unit in ["k", "M", "G", "T"] {
        scaled /= 1000.0;
        if scaled < 999.5 {
            return format!("{}{unit}", three(scaled));
        }
    }
    format!("{:.0}P", scaled / 1000.0)
}

/// Microseconds in at most six letters: `87µs`, `1.23ms`, `12.3s`.
pub(in crate::cli) fn latency(micros: u64) -> String {
    let micros = micros as f64;
    match micros {
        _ if micros < 999.5 => format!("{micros:.0}µs"),
        _ if micros < 999_500.0 => format!("{}ms", three(micros / 1e3)),
        _ if micros < 9_999_500_000.0 => format!("{}s", three(micros / 1e6)),
        _ => format!("{:.0}h", micros / 3.6e9),
    }
}

/// Seconds in two units: `5s`, `3m 2s`, `4h 5m`, `12d 3h`.
pub(in crate::cli) fn span(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// With one digit behind the point, unless that is 0.
fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Three digits.
fn three(number: f64) -> String {
    match number {
        _ if number < 9.995 => format!("{number:.2}"),
        _ if number < 99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let cases = [
            (0.0, "0"),
            (0.3, "0.3"),
            (2.0, "2"),
            (9.97, "10"),
            (123.4, "123"),
            (9999.0, "9999"),
            (10_000.0, "10.0k"),
            (999_499.0, "999k"),
            (999_600.0, "1.00M"),
            (1.234e9, "1.23G"),
            (1e15, "1P"),
        ];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
        assert!((0..600).map(|n| count(1.07_f64.powi(n / 2))).all(|text| text.chars().count() <= 5));
    }

    #[test]
    fn latencies() {
        let cases = [(0, "0µs"), (999, "999µs"), (1000, "1.00ms"), (12_345, "12.3ms"), (999_600, "1.00s")];
        for (micros, text) in cases {
            assert_eq!(latency(micros), text);
        }
        assert!((0..63).map(|n| latency(1 << n)).take(46).all(|text| text.chars().count() <= 6));
    }

    #[test]
    fn spans() {
        let cases = [(0.9, "0s"), (62.0, "1m 2s"), (3600.0, "1h 0m"), (90_000.0, "1d 1h"), (-1.0, "0s")];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(span(f64::NAN), "0s");
    }
}
