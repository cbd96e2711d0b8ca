//! Scalar values of the configuration: durations, rates, sizes, addresses. Each type has one parser and one writer, and
//! parses what it writes.

mod address;
mod client;
mod http;
mod mode;
mod pattern;
mod proxy_protocol;
mod routing;
mod tls;

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub(crate) use address::{BackendEndpoint, BindAddress, SourceAddress};
pub(crate) use client::{ClientPattern, CountryCode};
pub(crate) use http::{BackendHttp, CookieName, MethodName, RetryReason, is_token};
pub(crate) use mode::FileMode;
pub(crate) use pattern::{FilePattern, part_of};
pub(crate) use proxy_protocol::Network;
pub(crate) use routing::{HostRule, NameRule, PathPrefix, WholePath};
pub(crate) use tls::{FilePath, MinVersion, ProtocolName, ServerName, TrustedBy};

use super::model::{AccessLog, Rate};
use super::report::{Diagnostic, shown};

/// Maximum duration: a year. A longer one is a typo, and adding a much longer one to a clock would overflow.
const LONGEST: Duration = Duration::from_secs(8760 * 3600);

/// A duration: `250ms`, `2s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) Duration);

impl FromStr for Period {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<Period, Diagnostic> {
        let wrong = || Diagnostic::new(format!("`{}` is not a duration", shown(text)));
        let (digits, unit) = split_number(text);
        if digits.is_empty() {
            return Err(wrong().hint("write a number and ms, s, m or h, such as 5s"));
        }
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" => {
                let diagnostic = Diagnostic::new(format!("`{digits}` has no unit"));
                return Err(diagnostic.hint(format!("write {digits}s for seconds; units are ms, s, m and h")));
            }
            _ if unit.starts_with('.') => {
                return Err(wrong().hint("write a whole number of a smaller unit: 1500ms, not 1.5s"));
            }
            _ => return Err(wrong().hint("units are ms, s, m and h, such as 5s")),
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(millis))
            .map(Duration::from_millis)
            .filter(|length| *length <= LONGEST)
            .map(Period)
            .ok_or_else(|| Diagnostic::new(format!("`{text}` is too long")).hint("the maximum is one year: 8760h"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0s"),
            _ if millis.is_multiple_of(3_600_000) => write!(f, "{}h", millis / 3_600_000),
            _ if millis.is_multiple_of(60_000) => write!(f, "{}m", millis / 60_000),
            _ if millis.is_multiple_of(1000) => write!(f, "{}s", millis / 1000),
            _ => write!(f, "{millis}ms"),
        }
    }
}

/// A rate: `20/s`, `600/m`, `1000/h`; `0` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frequency(pub(crate) Option<Rate>);

impl FromStr for Frequency {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<Frequency, Diagnostic> {
        const EXAMPLE: &str = "write a number and /s, /m or /h, such as 20/s; 0 is no limit";
        let wrong = || Diagnostic::new(format!("`{}` is not a rate", shown(text))).hint(EXAMPLE);
        let (digits, unit) = split_number(text);
        if digits.is_empty() {
            return Err(wrong());
        }
        let count = digits
            .parse::<u32>()
            .map_err(|_| Diagnostic::new(format!("`{text}` is too large")).hint(format!("at most {}/s", u32::MAX)))?;
        let seconds = match unit {
            "/s" => 1,
            "/m" => 60,
            "/h" => 3600,
            "" if count == 0 => return Ok(Frequency(None)),
            "" => {
                let diagnostic = Diagnostic::new(format!("`{digits}` has no period"));
                return Err(diagnostic.hint(format!("write {digits}/s, {digits}/m or {digits}/h")));
            }
            _ => return Err(wrong()),
        };
        Ok(Frequency(NonZeroU32::new(count).map(|count| Rate { count, per: Duration::from_secs(seconds) })))
    }
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str("0"),
        }
    }
}

/// A number of bytes: `512B`, `64KiB`, `1MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<Size, Diagnostic> {
        let wrong = || {
            Diagnostic::new(format!("`{}` is not a size", shown(text)))
                .hint("write a number and B, KiB, MiB or GiB, such as 64KiB")
        };
        let (digits, unit) = split_number(text);
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        count.checked_mul(1 << shift).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = |shift: &u32| self.0 != 0 && self.0.is_multiple_of(1 << shift);
        let (shift, unit) = units.into_iter().find(|(shift, _)| whole(shift)).unwrap_or((0, "B"));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// A [`Size`]; `0` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteCount(pub(crate) Option<NonZeroU64>);

impl FromStr for ByteCount {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<ByteCount, Diagnostic> {
        if text == "0" {
            return Ok(ByteCount(None));
        }
        text.parse().map(|Size(bytes)| ByteCount(NonZeroU64::new(bytes)))
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => Size(bytes.get()).fmt(f),
            None => f.write_str("0"),
        }
    }
}

/// Bytes in a second: `10MiB/s`; `0` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRate(pub(crate) Option<NonZeroU64>);

impl FromStr for ByteRate {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<ByteRate, Diagnostic> {
        if text == "0" {
            return Ok(ByteRate(None));
        }
        let size = text.strip_suffix("/s").and_then(|size| size.parse().ok());
        size.map(|Size(bytes)| ByteRate(NonZeroU64::new(bytes))).ok_or_else(|| {
            Diagnostic::new(format!("`{}` is not a bandwidth", shown(text)))
                .hint("write a number and B/s, KiB/s, MiB/s or GiB/s, such as 10MiB/s; 0 is no limit")
        })
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{}/s", Size(bytes.get())),
            None => f.write_str("0"),
        }
    }
}

/// Hundredths, 0 to 100: `50%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u8);

impl FromStr for Percent {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<Percent, Diagnostic> {
        match split_number(text) {
            (digits, "%") => digits.parse().ok(),
            _ => None,
        }
        .filter(|percent| *percent <= 100)
        .map(Percent)
        .ok_or_else(|| {
            Diagnostic::new(format!("`{}` is not a percentage", shown(text))).hint("write 0% to 100%, such as 50%")
        })
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// HTTP statuses: `200-399`, or one alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusRange(pub(crate) RangeInclusive<u16>);

impl FromStr for StatusRange {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<StatusRange, Diagnostic> {
        let status = |text: &str| {
            let three = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|status| three && (100..=599).contains(status))
        };
        let range = match text.split_once('-') {
            Some((first, last)) => status(first).zip(status(last)),
            None => status(text).map(|only| (only, only)),
        };
        let (first, last) = range.ok_or_else(|| {
            Diagnostic::new(format!("`{}` is not a range of HTTP statuses", shown(text)))
                .hint("write a range such as 200-399, or one status, within 100 to 599")
        })?;
        if first > last {
            return Err(Diagnostic::new(format!("`{text}` is reversed")).hint(format!("write {last}-{first}")));
        }
        Ok(StatusRange(first..=last))
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

/// Destination of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessTarget(pub(crate) AccessLog);

impl FromStr for AccessTarget {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<AccessTarget, Diagnostic> {
        if text == "syslog" || text.starts_with("syslog:") || text.starts_with("syslog+") {
            return Ok(AccessTarget(AccessLog::Syslog(address::syslog_server(text)?)));
        }
        Ok(AccessTarget(match text {
            // YAML 1.1 parsers read `off` as `false`.
            "off" | "false" => AccessLog::Off,
            "stderr" => AccessLog::Stderr,
            // Requires a slash: a typo would silently become a file.
            _ if text.contains('/') && !text.ends_with('/') && !text.contains(char::is_control) => {
                AccessLog::File(PathBuf::from(text))
            }
            _ => {
                let diagnostic =
                    Diagnostic::new(format!("`{}` is not off, stderr, a path or a syslog server", shown(text)));
                return Err(match text {
                    "no" | "none" => diagnostic.hint("write off"),
                    "stdout" | "-" | "true" | "on" | "yes" => diagnostic.hint("write stderr, or the path of a file"),
                    _ => diagnostic.hint("a path contains a slash: /var/log/tidegate.log, ./access.log"),
                });
            }
        }))
    }
}

impl fmt::Display for AccessTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The leading digits, and what follows them.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests;
