//! Durations and addresses as HAProxy writes them.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tidegate::config::backend_address;

/// The longest duration of tidegate's configuration.
pub(super) const LONGEST: Duration = Duration::from_secs(8760 * 3600);

/// A duration of HAProxy: a number of milliseconds, or a number and a unit.
pub(super) fn haproxy_time(text: &str) -> Option<Duration> {
    let (digits, unit) = split_number(text);
    let count: u64 = digits.parse().ok()?;
    let micros = match unit {
        "us" => 1,
        "" | "ms" => 1000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    let length = Duration::from_micros(count.checked_mul(micros)?);
    // tidegate counts milliseconds; less than one must not become 0, which is no limit.
    let millis = length.as_nanos().div_ceil(1_000_000);
    Some(Duration::from_millis(u64::try_from(millis).ok()?).min(LONGEST))
}

/// A number of HAProxy, in which `k` is 1024 and `m` is 1024 of these.
pub(super) fn haproxy_count(text: &str) -> Option<u32> {
    let (digits, unit) = split_number(text);
    let factor = match unit {
        "" => 1,
        "k" => 1024,
        "m" => 1024 * 1024,
        "g" => 1024 * 1024 * 1024,
        _ => return None,
    };
    digits.parse::<u32>().ok()?.checked_mul(factor)
}

/// A duration of nginx: seconds, or numbers with units such as `1h30m`.
pub(super) fn nginx_time(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis = 0_u64;
    loop {
        let (digits, behind) = split_number(rest);
        let count: u64 = digits.parse().ok()?;
        let end = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(end);
        let of_unit = match unit {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "M" => 2_592_000_000,
            "y" => 31_536_000_000,
            _ => return None,
        };
        millis = millis.checked_add(count.checked_mul(of_unit)?)?;
        rest = next;
        if rest.is_empty() {
            return Some(Duration::from_millis(millis).min(LONGEST));
        }
    }
}

/// A duration as tidegate writes it.
pub(super) fn period(length: Duration) -> String {
    let millis = length.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// Host and port, by the last colon outside of brackets; the port may be absent.
pub(super) fn host_and_port(text: &str) -> (&str, Option<&str>) {
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => (text, None),
        };
    }
    match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

/// A host and a port as one address.
pub(super) fn joined(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

/// The address of a backend, if tidegate accepts it.
pub(super) fn backend(host: &str, port: u16) -> Option<String> {
    let address = joined(host, port);
    // The zone of a link-local address names an interface, which this host may lack.
    (!host.contains('%') && backend_address(&address).is_ok()).then_some(address)
}

/// A syslog server as `log.access` names it; `None` for host names. Its port is 514 unless written.
pub(super) fn syslog(text: &str) -> Option<String> {
    if text.starts_with('/') {
        return unix(text).filter(|_| !text.starts_with("//")).map(|_| format!("syslog:{text}"));
    }
    let (host, port) = match text.parse::<IpAddr>() {
        Ok(_) => (text, None),
        Err(_) => host_and_port(text),
    };
    let ip: IpAddr = if host == "localhost" { IpAddr::from([127, 0, 0, 1]) } else { host.parse().ok()? };
    let port = match port {
        Some(port) => ports(port).filter(|(first, last)| first == last)?.0,
        None => 514,
    };
    let usable = !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::from([255; 4]);
    usable.then(|| format!("syslog:{}", joined(&ip.to_string(), port)))
}

/// A number of bytes in which `k`, `m` and `g` are powers of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = split_number(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Bytes per second as tidegate writes them.
pub(super) fn bandwidth(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let (shift, unit) = units.into_iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift)).unwrap_or((0, "B"));
    format!("{}{unit}/s", bytes >> shift)
}

/// The path of a unix socket as an address, if tidegate accepts it.
pub(super) fn unix(path: &str) -> Option<String> {
    let address = format!("unix:{path}");
    backend_address(&address).is_ok().then_some(address)
}

/// An address to listen at. `None` for host names, zones and multicast.
pub(super) fn bind(host: &str, port: u16) -> Option<String> {
    let ip = match host {
        "" | "*" | "0" => IpAddr::from([0, 0, 0, 0]),
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        _ => host.parse().ok()?,
    };
    let usable = !ip.is_multicast() && ip != IpAddr::from([255; 4]);
    // Of link-local addresses, tidegate asks for the interface.
    let is_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    (usable && !is_local && port != 0).then(|| joined(&ip.to_string(), port))
}

/// A port, or a range of them; `None` if it is neither.
pub(super) fn ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (first, last) = (first, last);
    if !digits(first) || !digits(last) {
        return None;
    }
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first >= 1 && first <= last).then_some((first, last))
}

/// The leading digits, and what follows them.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxy_times_are_milliseconds_by_default() {
        for (text, expected) in [
            ("3000", "3s"),
            ("500us", "1ms"),
            ("250ms", "250ms"),
            ("90s", "90s"),
            ("2m", "2m"),
            ("1d", "24h"),
            ("0", "0s"),
            ("9999d", "8760h"),
        ] {
            assert_eq!(haproxy_time(text).map(period).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "s", "5 s", "-1", "1.5s", "99999999999999999999"] {
            assert_eq!(haproxy_time(text), None, "{text}");
        }
    }

    #[test]
    fn haproxy_counts_have_binary_units() {
        for (text, expected) in [("7", Some(7)), ("2k", Some(2048)), ("1m", Some(1 << 20)), ("9g", None), ("x", None)] {
            assert_eq!(haproxy_count(text), expected, "{text}");
        }
    }

    #[test]
    fn nginx_times_are_seconds_by_default() {
        for (text, expected) in
            [("30", "30s"), ("75s", "75s"), ("1h30m", "90m"), ("250ms", "250ms"), ("1d", "24h"), ("9y", "8760h")]
        {
            assert_eq!(nginx_time(text).map(period).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "s", "5x", "-1", "1.5s", "99999999999999999999", "18446744073709551615y", "1h30"] {
            assert_eq!(nginx_time(text).is_some(), text == "1h30", "{text}");
        }
    }

    #[test]
    fn syslog_servers_have_addresses() {
        for (text, expected) in [
            ("/dev/log", Some("syslog:/dev/log")),
            ("10.0.0.5", Some("syslog:10.0.0.5:514")),
            ("10.0.0.5:601", Some("syslog:10.0.0.5:601")),
            ("::1", Some("syslog:[::1]:514")),
            ("[::1]:601", Some("syslog:[::1]:601")),
            ("localhost:514", Some("syslog:127.0.0.1:514")),
            ("loghost", None),
            ("0.0.0.0:514", None),
            ("10.0.0.5:0", None),
        ] {
            assert_eq!(syslog(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn bandwidths_have_binary_units() {
        for (text, expected) in [("1m", "1MiB/s"), ("5k", "5KiB/s"), ("1000", "1000B/s"), ("2G", "2GiB/s")] {
            assert_eq!(bytes(text).map(bandwidth).as_deref(), Some(expected), "{text}");
        }
        assert_eq!((bytes("x"), bytes("99999999999g")), (None, None));
    }

    #[test]
    fn addresses_of_all_forms() {
        assert_eq!(host_and_port("10.0.0.1:80"), ("10.0.0.1", Some("80")));
        assert_eq!(host_and_port("2001:db8::1:80"), ("2001:db8::1", Some("80")));
        assert_eq!(host_and_port("[::1]:80"), ("::1", Some("80")));
        assert_eq!(host_and_port("[::1]"), ("::1", None));
        assert_eq!(host_and_port("db"), ("db", None));
        assert_eq!(backend("2001:db8::1", 80).as_deref(), Some("[2001:db8::1]:80"));
        assert_eq!(backend("0.0.0.0", 80), None);
        assert_eq!(bind("*", 80).as_deref(), Some("0.0.0.0:80"));
        assert_eq!(bind("::", 80).as_deref(), Some("[::]:80"));
        assert_eq!(bind("fe80::1", 80), None);
        assert_eq!(bind("db.example", 80), None);
        assert_eq!(ports("80-82"), Some((80, 82)));
        assert_eq!(ports("+80"), None);
    }
}
