//! Access lines as syslog messages (RFC 5424), over unix sockets, UDP and TCP.

mod link;
mod sink;

use std::fmt::Write as _;
use std::time::SystemTime;

pub(super) use self::sink::SyslogSink;
use super::date;

/// Facility local0 and severity informational (RFC 5424, 6.2.1): 16 * 8 + 6. The facility is the one of most examples of
/// HAProxy's `log` lines.
const PRIORITY: u8 = 134;

/// Characters of the longest HOSTNAME (RFC 5424, 6).
const MAX_HOST_NAME: usize = 255;

/// A value that is not known.
const NIL: &str = "-";

/// What comes before the text of each message. Made once: neither the host's name nor the process changes.
#[derive(Clone, Debug)]
pub(super) struct SyslogHeader {
    /// HOSTNAME to STRUCTURED-DATA, with the spaces around.
    rest: String,
}

impl SyslogHeader {
    pub(super) fn of_this_process() -> SyslogHeader {
        SyslogHeader::new(&rustix::system::uname().nodename().to_string_lossy(), std::process::id())
    }

    fn new(host: &str, process: u32) -> SyslogHeader {
        let is_valid = (1..=MAX_HOST_NAME).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic());
        let host = if is_valid { host } else { NIL };
        SyslogHeader { rest: format!(" {host} tidegate {process} access {NIL} ") }
    }

    /// Appends the header. The text that follows is UTF-8 without a byte order mark, which receivers show as part of it.
    pub(super) fn push(&self, line: &mut String, time: SystemTime) {
        // Writing to a String cannot fail.
        let _ = match date::has_four_digit_year(time) {
            true => write!(line, "<{PRIORITY}>1 {}{}", date::rfc3339_millis(time), self.rest),
            false => write!(line, "<{PRIORITY}>1 {NIL}{}", self.rest),
        };
    }
}

#[cfg(test)]
#[path = "../../tests/support/rfc5424.rs"]
mod parser;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::parser::{Message, parse};
    use super::*;

    fn message(host: &str, time: SystemTime, text: &str) -> String {
        let mut line = String::new();
        SyslogHeader::new(host, 42).push(&mut line, time);
        line + text
    }

    #[test]
    fn header_has_the_fields_of_rfc_5424() {
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(message("lb-1", time, "x"), "<134>1 2023-11-14T22:13:20.123Z lb-1 tidegate 42 access - x");
    }

    #[test]
    fn host_name_that_is_no_hostname_is_nil() {
        for host in ["", "a b", "ä", "a\u{7f}", &"x".repeat(256)] {
            assert_eq!(parse(message(host, UNIX_EPOCH, "").as_bytes()).unwrap().host, None, "{host:?}");
        }
        let longest = "x".repeat(255);
        assert_eq!(parse(message(&longest, UNIX_EPOCH, "").as_bytes()).unwrap().host, Some(longest));
    }

    #[test]
    fn parser_is_strict() {
        let good = message("h", UNIX_EPOCH, "text");
        assert!(parse(good.as_bytes()).is_ok());
        for (from, to) in [
            ("<134>", ""),
            ("<134>", "<0134>"),
            ("<134>", "<192>"),
            (">1 ", ">2 "),
            (">1 ", ">01 "),
            ("1970-01-01", "1970-1-01"),
            ("1970-01-01", "1970-13-01"),
            ("T00", "t00"),
            ("T00", "T24"),
            (".000Z", ".0000000Z"),
            (".000Z", ".000"),
            (".000Z", ".000z"),
            (" h ", "  "),
            (" h ", " h\u{7f} "),
            ("tidegate", "ä"),
            (" access", ""),
            ("- text", "-text"),
            ("- text", "[x text"),
        ] {
            assert!(parse(good.replacen(from, to, 1).as_bytes()).is_err(), "{from:?} -> {to:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_message_is_parsed_as_what_it_was(host in ".{0,300}", seconds: i64, millis in 0..1000_u64, text in ".*") {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            let whole = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
            let Some(time) = whole.and_then(|time| time.checked_add(Duration::from_millis(millis))) else { return Ok(()) };
            let Message { priority, time: parsed, application, process, id, text: parsed_text, .. } =
                parse(message(&host, time, &text).as_bytes()).map_err(TestCaseError::fail)?;
            prop_assert_eq!((priority, &*application.unwrap(), &*process.unwrap(), &*id.unwrap()), (134, "tidegate", "42", "access"));
            prop_assert_eq!(parsed, date::has_four_digit_year(time).then(|| date::rfc3339_millis(time).to_string()));
            prop_assert_eq!(parsed_text, text);
        }
    }
}
