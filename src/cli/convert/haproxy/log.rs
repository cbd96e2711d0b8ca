//! `log` lines.

use super::sections::CfgLine;
use crate::cli::convert::draft::Draft;
use crate::cli::convert::ledger::Ledger;
use crate::cli::convert::quantity::syslog;

/// Levels that lines of connections, which are `info`, do not reach.
const ABOVE_CONNECTIONS: [&str; 6] = ["emerg", "alert", "crit", "err", "warning", "notice"];

/// Sends the access log where a line says.
pub(super) fn read(line: &CfgLine, draft: &mut Draft, ledger: &mut Ledger) {
    let to = line.words.get(1).map_or("", String::as_str);
    let prefixes = ["udp@", "udp4@", "udp6@", "ipv4@", "ipv6@", "unix@"];
    let text = prefixes.iter().find_map(|prefix| to.strip_prefix(prefix)).unwrap_or(to);
    let is_stderr = ["stdout", "stderr", "fd@1", "fd@2"].contains(&to);
    let server = syslog(text);
    ledger.translated(line.id);
    let mut words = line.words.iter().skip(2).map(String::as_str);
    let mut rest = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "len" | "format" | "sample" | "profile" => {
                let value = words.next().unwrap_or_default();
                if (word, value) != ("format", "rfc5424") {
                    ledger.left(line.id, format!("{word} {value}: the form of access lines is fixed"));
                }
            }
            word => rest.push(word),
        }
    }
    if rest.get(1).is_some_and(|level| ABOVE_CONNECTIONS.contains(level)) {
        let why = "its level leaves connections out; tidegate's own log goes to stderr, where the journal takes it";
        // The journal reads /dev/log too.
        return match is_stderr || text.starts_with('/') {
            true => ledger.not_needed(line.id, why),
            false => ledger.left(line.id, why),
        };
    }
    if let (Some(facility), Some(_)) = (rest.first().filter(|facility| **facility != "local0"), &server) {
        ledger.left(line.id, format!("{facility}: the facility of access lines is local0"));
    }
    let target = server.unwrap_or_else(|| {
        if !is_stderr {
            let why = "only an IP address or a path becomes `log.access`: stderr instead";
            ledger.left(line.id, format!("{to}: {why}"));
        }
        "stderr".to_owned()
    });
    if let Err(why) = draft.log_to(&target) {
        ledger.left(line.id, why);
    }
}
