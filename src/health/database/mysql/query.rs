//! Queries about a server's role, and what their rows say.

use std::time::Duration;

use super::super::client::printable;
use super::packet::ServerError;
use crate::health::observation::Observation;
use crate::stats::database::ServerRole;

/// Syntax error: the server does not know the statement.
const SYNTAX_ERROR: u16 = 1064;

/// A query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MysqlQuery {
    ReadOnly,
    ReplicaStatus,
    /// The name of [`MysqlQuery::ReplicaStatus`] before MySQL 8.0.22 and MariaDB 10.5.
    SlaveStatus,
    Galera,
    GroupReplication,
}

/// Rows with the names of their columns; NULL is `None`.
pub(super) type Rows = Vec<Vec<(String, Option<String>)>>;

/// What came of a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QueryAnswer {
    Rows(Rows),
    Error(ServerError),
}

impl MysqlQuery {
    /// MariaDB has no super_read_only, which is an error in SELECT and no row here.
    pub(super) fn text(self) -> &'static str {
        match self {
            MysqlQuery::ReadOnly => {
                "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'super_read_only', 'innodb_read_only')"
            }
            MysqlQuery::ReplicaStatus => "SHOW REPLICA STATUS",
            MysqlQuery::SlaveStatus => "SHOW SLAVE STATUS",
            MysqlQuery::Galera => {
                "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_local_state', 'wsrep_ready', 'wsrep_cluster_status')"
            }
            // A member of a minority calls itself ONLINE, and the others UNREACHABLE.
            MysqlQuery::GroupReplication => {
                "SELECT m.MEMBER_STATE AS state, m.MEMBER_ROLE AS role, \
                 (SELECT COUNT(*) FROM performance_schema.replication_group_members) AS members, \
                 (SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE <> 'UNREACHABLE') AS reachable \
                 FROM performance_schema.replication_group_members m WHERE m.MEMBER_ID = @@server_uuid"
            }
        }
    }

    /// What to ask after an error.
    pub(super) fn instead(self, code: u16) -> Option<MysqlQuery> {
        (self == MysqlQuery::ReplicaStatus && code == SYNTAX_ERROR).then_some(MysqlQuery::SlaveStatus)
    }

    /// What the rows say, or what to ask next.
    pub(super) fn observe(self, rows: &Rows) -> Result<Observation, MysqlQuery> {
        Ok(match self {
            MysqlQuery::ReadOnly => read_only(rows),
            MysqlQuery::ReplicaStatus | MysqlQuery::SlaveStatus => replica(rows),
            // MySQL without Galera has no such status; MariaDB has it always.
            MysqlQuery::Galera if rows.is_empty() => return Err(MysqlQuery::GroupReplication),
            MysqlQuery::Galera => galera(rows),
            MysqlQuery::GroupReplication => group(rows),
        })
    }

    /// Adds what it says to what other queries of the same session have said.
    pub(super) fn merge(self, all: &mut Observation, said: Observation) {
        let is_first = *all == Observation::default();
        match self {
            MysqlQuery::ReadOnly => {
                if is_first {
                    *all = said.clone();
                }
                (all.is_writable, all.read_only) = (said.role == Some(ServerRole::Primary), said.read_only);
            }
            // Whether it accepts writes says more than that it follows no source.
            MysqlQuery::ReplicaStatus | MysqlQuery::SlaveStatus if said.role == Some(ServerRole::Primary) => {
                match &all.read_only {
                    _ if is_first => all.role = said.role,
                    Some(read_only) => all.fault = Some(format!("{read_only} and follows no primary")),
                    None => {}
                }
            }
            MysqlQuery::ReplicaStatus | MysqlQuery::SlaveStatus => {
                if all.role != Some(ServerRole::Synced) {
                    let (is_writable, read_only) = (all.is_writable, all.read_only.take());
                    *all = Observation { is_writable, read_only, ..said };
                }
            }
            MysqlQuery::Galera | MysqlQuery::GroupReplication => *all = said,
        }
    }
}

fn of_role(role: ServerRole) -> Observation {
    Observation { role: Some(role), ..Observation::default() }
}

fn faulty(fault: impl Into<String>) -> Observation {
    Observation { fault: Some(fault.into()), ..Observation::default() }
}

/// Pairs of a name and a value.
fn variables(rows: &Rows) -> impl Iterator<Item = (&str, &str)> {
    rows.iter().filter_map(|row| match row.as_slice() {
        [(_, Some(name)), (_, Some(value)), ..] => Some((name.as_str(), value.as_str())),
        _ => None,
    })
}

fn read_only(rows: &Rows) -> Observation {
    let is_off = |value: &str| value.eq_ignore_ascii_case("OFF") || value == "0";
    match variables(rows).find(|(_, value)| !is_off(value)) {
        // Other modes too: NO_LOCK and NO_LOCK_NO_ADMIN of MariaDB 12.
        Some((name, value)) => Observation {
            read_only: Some(format!("is read-only ({name} = {})", printable(value.as_bytes()))),
            ..of_role(ServerRole::Replica)
        },
        None if rows.is_empty() => faulty("does not say whether it is read-only"),
        None => of_role(ServerRole::Primary),
    }
}

/// Each channel has a row: the one that is furthest behind counts.
fn replica(rows: &Rows) -> Observation {
    let column = |row: &[(String, Option<String>)], names: [&str; 2]| {
        let found = row.iter().find(|(name, _)| names.contains(&name.as_str()));
        found.and_then(|(_, value)| value.clone())
    };
    let mut seen = of_role(ServerRole::Replica);
    for row in rows {
        let behind = column(row, ["Seconds_Behind_Source", "Seconds_Behind_Master"]);
        match behind.and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => seen.delay = seen.delay.max(Some(Duration::from_secs(seconds))),
            // NULL: a thread of its replication does not run, or is not connected.
            None => {
                let error = |names| column(row, names).filter(|error| !error.is_empty());
                let error = error(["Last_SQL_Error", "Last_Error"]).or_else(|| error(["Last_IO_Error", ""]));
                let why = error.map(|error| format!(": {}", printable(error.as_bytes()))).unwrap_or_default();
                seen.fault = Some(format!("replica whose replication does not run{why}"));
            }
        }
    }
    match rows.is_empty() {
        true => of_role(ServerRole::Primary),
        false => seen,
    }
}

fn galera(rows: &Rows) -> Observation {
    let value = |name: &str| {
        let found = variables(rows).find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    };
    let state = value("wsrep_local_state");
    let is_ready = value("wsrep_ready").eq_ignore_ascii_case("ON");
    let is_primary = value("wsrep_cluster_status").eq_ignore_ascii_case("Primary");
    let word = |value: &str| printable(value.as_bytes());
    if state == "4" && is_ready && is_primary {
        return of_role(ServerRole::Synced);
    }
    faulty(match state {
        _ if !is_primary => {
            format!(
                "is not part of the primary component (wsrep_cluster_status = {})",
                word(value("wsrep_cluster_status"))
            )
        }
        "1" => "is joining (wsrep_local_state = 1)".to_owned(),
        "2" => "is a donor (wsrep_local_state = 2)".to_owned(),
        "3" => "has joined and is not synced yet (wsrep_local_state = 3)".to_owned(),
        "4" => format!("is not ready (wsrep_ready = {})", word(value("wsrep_ready"))),
        other => format!("is not synced (wsrep_local_state = {})", word(other)),
    })
}

fn group(rows: &Rows) -> Observation {
    let Some(row) = rows.first() else { return faulty("is no member of a group") };
    let column = |name: &str| row.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_deref());
    let number = |name: &str| column(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
    let state = column("state").unwrap_or_default();
    let (members, reachable) = (number("members"), number("reachable"));
    if state != "ONLINE" {
        return faulty(format!("is not online in its group (MEMBER_STATE = {})", printable(state.as_bytes())));
    }
    if reachable * 2 <= members {
        return faulty(format!("reaches {reachable} of {members} members of its group, which is no majority"));
    }
    of_role(ServerRole::Synced)
}

/// A result set as it arrives: the columns' names, then rows.
#[derive(Debug, Default)]
pub(super) struct ResultSet {
    /// Columns whose definition is still to come; `None` before their number.
    left: Option<u64>,
    names: Vec<String>,
    /// The packet after the definitions has come.
    has_rows: bool,
    rows: Rows,
}

impl ResultSet {
    /// Takes a packet: the whole answer once it is there; `None` if the packet breaks the protocol.
    pub(super) fn take(&mut self, body: &[u8]) -> Option<Option<QueryAnswer>> {
        if let Some(error) = ServerError::read(body) {
            return Some(Some(QueryAnswer::Error(error)));
        }
        let is_end = body.first() == Some(&0xfe) && body.len() < 9;
        match self.left {
            None => match length(body)? {
                // OK: a statement without rows.
                (Some(0), _) => Some(Some(QueryAnswer::Rows(Vec::new()))),
                (Some(count @ 1..=256), _) => {
                    self.left = Some(count);
                    Some(None)
                }
                _ => None,
            },
            Some(0) if !self.has_rows => {
                self.has_rows = is_end;
                is_end.then_some(None)
            }
            Some(0) if is_end => Some(Some(QueryAnswer::Rows(std::mem::take(&mut self.rows)))),
            Some(0) => {
                let (mut row, mut rest) = (Vec::with_capacity(self.names.len()), body);
                for name in &self.names {
                    let (value, tail) = string(rest)?;
                    row.push((name.clone(), value.map(|value| String::from_utf8_lossy(value).into_owned())));
                    rest = tail;
                }
                self.rows.push(row);
                Some(None)
            }
            Some(left) => {
                // Catalog, schema, table, original table, name.
                let mut rest = body;
                let mut name = None;
                for _ in 0..5 {
                    (name, rest) = string(rest)?;
                }
                self.names.push(String::from_utf8_lossy(name?).into_owned());
                self.left = Some(left - 1);
                Some(None)
            }
        }
    }
}

/// A length-encoded integer, `None` for NULL, and what follows it.
fn length(bytes: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let wide = |count: usize| {
        let (number, rest) = rest.split_at_checked(count)?;
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(number).for_each(|(to, from)| *to = *from);
        Some((Some(u64::from_le_bytes(bytes)), rest))
    };
    match first {
        0xfb => Some((None, rest)),
        0xfc => wide(2),
        0xfd => wide(3),
        0xfe => wide(8),
        0xff => None,
        small => Some((Some(u64::from(small)), rest)),
    }
}

/// A length-encoded string.
fn string(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = length(bytes)?;
    let Some(length) = length else { return Some((None, rest)) };
    let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((Some(value), rest))
}
