//! `stick-table`, and rules that refuse clients by its counters.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::reasons::COUNTERS;
use super::sections::CfgLine;
use super::server::time;
use crate::cli::convert::draft::{DraftListener, DraftPersist};
use crate::cli::convert::ledger::{Ledger, StatementId};
use crate::cli::convert::quantity::{LONGEST, haproxy_count, haproxy_time};

/// Most clients that `persist` remembers.
const MAX_TABLE: u32 = 10_000_000;

/// The counters of a section by the client's address.
#[derive(Default)]
pub(super) struct Counters {
    /// Of the table, whether its keys are IPv4 addresses.
    by_address: bool,
    table: Option<StatementId>,
    /// What it counts.
    stores: Vec<String>,
    tracks: Vec<StatementId>,
    rejects: Vec<Reject>,
}

/// A rule that refuses clients with more connections than this.
struct Reject {
    counts: ClientCount,
    most: u32,
    /// Whether the connection itself is counted by then.
    is_tracked: bool,
    id: StatementId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientCount {
    Open,
    New,
}

/// What `limits` of a listener bound for each client.
#[derive(Default)]
pub(super) struct PerClient {
    pub(super) connections: Option<u32>,
    pub(super) rate: Option<String>,
}

impl Counters {
    /// Reads a `stick-table`: the size and the lifetime of its entries. Those without one stay.
    pub(super) fn table(&mut self, line: &CfgLine, ledger: &mut Ledger) -> DraftPersist {
        let mut table = DraftPersist { ttl: Some(LONGEST), size: None };
        self.table = Some(line.id);
        self.stores.clear();
        let mut words = line.words.iter().skip(1).map(String::as_str);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_default();
            match word {
                "type" => {
                    let kind = value();
                    self.by_address = kind == "ip";
                    if !["ip", "ipv6"].contains(&kind) {
                        ledger.left(line.id, format!("type {kind}: clients are known by their addresses"));
                    }
                }
                "size" => {
                    let given = value();
                    table.size = haproxy_count(given).map(|size| size.clamp(1, MAX_TABLE));
                    if haproxy_count(given) != table.size {
                        ledger.left(line.id, format!("size {given}: `persist.size` is 1 to {MAX_TABLE}"));
                    }
                }
                "expire" => {
                    if let Some(length) = time(value(), word, line, ledger) {
                        table.ttl = Some(length);
                    }
                }
                "store" => self.stores.extend(value().split(',').map(str::to_owned)),
                "peers" | "srvkey" | "write-to" | "len" => {
                    let what = value();
                    let why = "a table keeps the backend of a client, for this instance";
                    ledger.left(line.id, format!("{word} {what}: {why}"));
                }
                _ => ledger.left(line.id, format!("{word}: a table has no such option")),
            }
        }
        table
    }

    /// Reads a rule, if it counts clients or refuses them by their count.
    pub(super) fn read(&mut self, line: &CfgLine) -> bool {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["tcp-request", "connection", "track-sc0", "src"] => self.tracks.push(line.id),
            ["tcp-request", "connection" | "content" | "session", "reject", "if", "{", what, how, most, "}"] => {
                let (counts, most) = match (counted(what), *how, most.parse::<u32>()) {
                    (Some(counts), "gt", Ok(most)) => (counts, most),
                    (Some(counts), "ge", Ok(most)) => (counts, most.saturating_sub(1)),
                    _ => return false,
                };
                let is_tracked = !self.tracks.is_empty();
                self.rejects.push(Reject { counts, most, is_tracked, id: line.id });
            }
            _ => return false,
        }
        true
    }

    /// The limits of a section with these binds. What becomes none of them is reported.
    pub(super) fn limits(&self, binds: &[DraftListener], ledger: &mut Ledger) -> PerClient {
        let mut limits = PerClient::default();
        let mut kept: Vec<ClientCount> = Vec::new();
        // Each listener has counters of its own, and counts a /64 of IPv6 as one client.
        let is_ipv4 = |bind: &String| bind.parse::<SocketAddrV4>().is_ok();
        let is_alone = matches!(binds, [one] if one.trusted.is_empty() && one.bind.iter().all(is_ipv4));
        for Reject { counts, most, is_tracked, id } in &self.rejects {
            let is_exact = is_alone && self.by_address && *is_tracked && *most > 0 && !kept.contains(counts);
            match (counts, self.window()) {
                (ClientCount::Open, _) if is_exact && self.has("conn_cur") => limits.connections = Some(*most),
                (ClientCount::New, Some(unit)) if is_exact => {
                    limits.rate = Some(format!("{most}/{unit}"));
                    let why =
                        "`limits.connection_rate_per_ip` is a token bucket: a burst of this count, then an even rate";
                    ledger.left(*id, why);
                }
                (ClientCount::Open, _) => {
                    let why = "clients that it refused are let in: write `limits: { connections_per_ip:";
                    ledger.diverted(*id, format!("{why} {most} }}` at the listener"));
                    continue;
                }
                (ClientCount::New, _) => {
                    let why = "clients that it refused are let in: write `limits: { connection_rate_per_ip: 20/s }`";
                    ledger.diverted(*id, format!("{why} at the listener, with its rate in /s, /m or /h"));
                    continue;
                }
            }
            kept.push(*counts);
            ledger.translated(*id);
        }
        for id in &self.tracks {
            match kept.is_empty() {
                true => ledger.left(*id, COUNTERS),
                false => ledger.translated(*id),
            }
        }
        if let Some(id) = self.table {
            let is_kept = |store: &&String| match store.split('(').next() {
                Some("conn_cur") => kept.contains(&ClientCount::Open),
                Some("conn_rate") => kept.contains(&ClientCount::New),
                _ => false,
            };
            let (used, others): (Vec<&String>, Vec<&String>) = self.stores.iter().partition(is_kept);
            if !used.is_empty() {
                ledger.translated(id);
            }
            for store in others {
                let why = match store.split('(').next() {
                    Some("conn_cur") => "write `limits.connections_per_ip` at the listener",
                    Some("conn_rate" | "conn_cnt") => "write `limits.connection_rate_per_ip` at the listener",
                    _ => "a table keeps the backend of a client, and `limits` of a listener count connections only",
                };
                ledger.left(id, format!("store {store}: {why}"));
            }
        }
        limits
    }

    fn has(&self, counter: &str) -> bool {
        self.stores.iter().any(|store| store == counter)
    }

    /// The unit of tidegate's rates that is the period of `conn_rate`.
    fn window(&self) -> Option<&'static str> {
        let period = self.stores.iter().find_map(|store| store.strip_prefix("conn_rate(")?.strip_suffix(')'))?;
        let length = haproxy_time(period)?;
        let units = [(1, "s"), (60, "m"), (3600, "h")];
        units.into_iter().find(|(seconds, _)| length == Duration::from_secs(*seconds)).map(|(_, unit)| unit)
    }
}

/// What a counter of the client's connections counts.
fn counted(what: &str) -> Option<ClientCount> {
    match what {
        "src_conn_cur" | "sc0_conn_cur" | "sc_conn_cur(0)" => Some(ClientCount::Open),
        "src_conn_rate" | "sc0_conn_rate" | "sc_conn_rate(0)" => Some(ClientCount::New),
        _ => None,
    }
}
