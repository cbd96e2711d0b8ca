//! Values of directives.

use std::time::Duration;

use crate::cli::convert::ledger::{Ledger, Said, StatementId};
use crate::cli::convert::quantity::{bytes, nginx_time, syslog};

/// Where an `access_log` goes, and what of it does not.
pub(super) fn access_log(word: &str) -> (String, Option<String>) {
    let Some(options) = word.strip_prefix("syslog:") else { return ("stderr".to_owned(), None) };
    let mut server = None;
    let mut others = Vec::new();
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("server", to)) => server = syslog(to.strip_prefix("unix:").unwrap_or(to)),
            Some(("facility", "local0")) | Some(("severity", "info")) => {}
            _ => others.push(option),
        }
    }
    match server {
        None => {
            let why = "only an IP address or a path becomes `log.access`: stderr instead";
            ("stderr".to_owned(), Some(why.to_owned()))
        }
        Some(server) if others.is_empty() => (server, None),
        Some(server) => (server, Some(format!("{}: the form of access lines is fixed", others.join(",")))),
    }
}

/// How many sessions of TLS are kept: nginx has about 4000 in a MiB.
pub(super) fn session_cache(words: &[String]) -> Option<u32> {
    let mut sessions = None;
    for word in words {
        let mut parts = word.split(':');
        let found = match (parts.next(), parts.next(), parts.next()) {
            (Some("off" | "none"), None, None) => 0,
            (Some("builtin"), count, None) => count.map_or(Some(20_480), |count| count.parse().ok())?,
            (Some("shared"), Some(_), Some(size)) => u32::try_from(bytes(size)?.saturating_mul(4000) >> 20).ok()?,
            _ => return None,
        };
        sessions = sessions.max(Some(found));
    }
    sessions
}

/// Says a duration that is not zero.
pub(super) fn period(
    text: &str,
    into: &mut Said<Duration>,
    id: StatementId,
    ledger: &mut Ledger,
) -> Result<(), String> {
    match nginx_time(text) {
        Some(length) if length.is_zero() => {
            *into = Said::default();
            Err("0 would be no limit: write a duration".to_owned())
        }
        Some(length) => {
            into.say(length, id, ledger);
            Ok(())
        }
        None => Err("not a duration".to_owned()),
    }
}

/// A path that tidegate accepts. nginx takes relative ones from its own directory.
pub(super) fn path(text: &str) -> Result<String, String> {
    let usable = !text.is_empty() && !text.ends_with('/') && !text.contains('$') && !text.contains(char::is_control);
    let usable = usable && !text.starts_with("data:") && !text.starts_with("engine:");
    if usable { Ok(text.to_owned()) } else { Err("name a file".to_owned()) }
}
