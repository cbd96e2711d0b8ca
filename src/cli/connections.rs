//! `tidegate connections` and `tidegate kill`.

use std::fmt::Write;
use std::process::ExitCode;

use hyper::Method;
use ipnet::IpNet;
use tidegate::admin::connections::{ConnectionRow, ConnectionsAnswer, ConnectionsEnded};

use super::output::{print, say};
use super::stats_port::{StatsPort, Which, encoded};
use super::top::units::{count, span};

/// Which connections are meant.
#[derive(clap::Args)]
struct FilterArgs {
    /// Only those of this listener
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Only those to this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only those to this backend, or to backends of this name in all pools
    #[arg(long, value_name = "POOL/BACKEND|BACKEND", conflicts_with = "pool")]
    backend: Option<String>,
    /// Only those of this client, or of clients in this network
    #[arg(long, value_name = "IP|CIDR", value_parser = network)]
    client: Option<IpNet>,
    /// Only those that are at least this old, such as 90s, 5m or 2h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older: Option<String>,
    /// Only those of this user of a database, at listeners that watch queries (`sniff`)
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// What is asked.
#[derive(clap::Args)]
pub(crate) struct Connections {
    #[command(flatten)]
    filter: FilterArgs,
    /// Show at most N, the oldest [default: 1000, maximum: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

/// What is to be ended.
#[derive(clap::Args)]
pub(crate) struct Kill {
    /// The connection with this id, which `tidegate connections` and the access log show
    #[arg(
        value_name = "ID",
        required_unless_present_any = ["listener", "pool", "backend", "client", "older", "user"],
        conflicts_with_all = ["listener", "pool", "backend", "client", "older", "user"]
    )]
    id: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    which: Which,
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = |_| text.parse::<std::net::IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
    text.parse()
        .or_else(address)
        .map_err(|_| "write an address, such as 10.0.0.7, or a network, such as 10.0.0.0/8".into())
}

fn duration(text: &str) -> Result<String, String> {
    tidegate::config::parse_duration(text).map(|_| text.to_owned())
}

impl FilterArgs {
    /// As given, or by `POOL/BACKEND`. A backend may be named by the path of its unix socket.
    fn pool_and_backend(&self) -> (Option<String>, Option<String>) {
        let named = self.backend.as_deref().filter(|name| !name.starts_with("unix:"));
        match named.and_then(|name| name.split_once('/')) {
            Some((pool, backend)) => (Some(pool.to_owned()), Some(backend.to_owned())),
            None => (self.pool.clone(), self.backend.clone()),
        }
    }

    /// The keys and values of a query.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let client = self.client.map(|network| network.to_string());
        let (pool, backend) = self.pool_and_backend();
        let all = [
            ("listener", &self.listener),
            ("pool", &pool),
            ("backend", &backend),
            ("client", &client),
            ("older", &self.older),
            ("user", &self.user),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
    }
}

/// What the instance has, as far as filters name it.
#[derive(serde::Deserialize)]
struct NamedPools {
    pools: Vec<NamedPool>,
}

#[derive(serde::Deserialize)]
struct NamedListeners {
    listeners: Vec<NamedListener>,
}

#[derive(serde::Deserialize)]
struct NamedPool {
    name: String,
    backends: Vec<NamedBackend>,
}

#[derive(serde::Deserialize)]
struct NamedBackend {
    name: String,
}

#[derive(serde::Deserialize)]
struct NamedListener {
    name: String,
}

/// Why no connection can fit: the instance has no such listener, pool or backend. A backend that was removed may still have
/// connections, so that this is asked only where none was found.
fn unknown_name(port: &StatsPort, filter: &FilterArgs) -> Option<String> {
    let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if let Some(listener) = &filter.listener {
        let NamedListeners { listeners } = port.ask_blocking(&Method::GET, "/api/listeners").ok()?;
        if !listeners.iter().any(|it| it.name == *listener) {
            let names = listeners.into_iter().map(|it| it.name).collect();
            return Some(format!("there is no listener `{listener}`: there are {}", list(names)));
        }
    }
    let (pool, backend) = filter.pool_and_backend();
    if pool.is_none() && backend.is_none() {
        return None;
    }
    let NamedPools { pools } = port.ask_blocking(&Method::GET, "/api/pools").ok()?;
    let of = |it: &&NamedPool| pool.as_ref().is_none_or(|pool| it.name == *pool);
    if let (Some(pool), None) = (&pool, pools.iter().find(of)) {
        let names = pools.iter().map(|it| it.name.clone()).collect();
        return Some(format!("there is no pool `{pool}`: there are {}", list(names)));
    }
    let backend = backend?;
    let all = || pools.iter().filter(of).flat_map(|pool| pool.backends.iter().map(move |it| (pool, it)));
    if all().any(|(_, it)| it.name == backend) {
        return None;
    }
    let names = all().map(|(pool, it)| format!("{}/{}", pool.name, it.name)).collect();
    Some(format!("there is no backend `{backend}`: there are {}", list(names)))
}

fn path(id: Option<&str>, pairs: &[(&str, String)]) -> String {
    let mut path = "/api/connections".to_owned();
    // A write to a string never fails.
    if let Some(id) = id {
        _ = write!(path, "/{}", encoded(id));
    }
    for (place, (key, value)) in pairs.iter().enumerate() {
        _ = write!(path, "{}{key}={}", if place == 0 { '?' } else { '&' }, encoded(value));
    }
    path
}

/// Shows who is connected to a running tidegate.
pub(crate) fn connections(asked: Connections) -> ExitCode {
    let Connections { filter, limit, json, which } = asked;
    let mut pairs = filter.pairs();
    pairs.extend(limit.map(|limit| ("limit", limit.to_string())));
    let port = match which.find() {
        Ok(port) => port,
        Err(code) => return code,
    };
    let answer = match port.ask_blocking::<ConnectionsAnswer>(&Method::GET, &path(None, &pairs)) {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    if json {
        return match serde_json::to_string_pretty(&answer) {
            Ok(text) => print(format!("{text}\n").as_bytes()),
            Err(error) => failed(&error.to_string()),
        };
    }
    if answer.matched == 0
        && let Some(error) = unknown_name(&port, &filter)
    {
        return failed(&error);
    }
    let code = print(table(&answer.connections, answer.pid).as_bytes());
    answer.unreached.iter().for_each(|process| say(format_args!("warning: {process}: they are not listed")));
    if answer.more {
        let (shown, matched) = (answer.connections.len(), answer.matched);
        say(format_args!(
            "{shown} of {matched} connections, the oldest: see more with --limit, or fewer with --client, --pool or --backend"
        ));
    }
    code
}

/// Ends connections of a running tidegate.
pub(crate) fn kill(asked: Kill) -> ExitCode {
    let Kill { id, filter, which } = asked;
    let path = path(id.as_deref(), &filter.pairs());
    let port = match which.find() {
        Ok(port) => port,
        Err(code) => return code,
    };
    match port.ask_blocking::<ConnectionsEnded>(&Method::DELETE, &path) {
        Ok(ConnectionsEnded { ended, unreached }) => {
            if let (0, Some(error)) = (ended, unknown_name(&port, &filter)) {
                return failed(&error);
            }
            let plural = if ended == 1 { "connection" } else { "connections" };
            let code = print(format!("{ended} {plural} ended\n").as_bytes());
            unreached.iter().for_each(|process| say(format_args!("warning: {process}: they go on")));
            code
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    say(format_args!("error: {error}"));
    ExitCode::FAILURE
}

/// A column's heading, and whether its values are numbers.
const COLUMNS: [(&str, bool); 13] = [
    ("ID", false),
    ("LISTENER", false),
    ("CLIENT", false),
    ("POOL", false),
    ("BACKEND", false),
    ("AGE", true),
    ("IDLE", true),
    ("IN", true),
    ("OUT", true),
    ("SNI", false),
    // Left out where no connection has one.
    ("USER", false),
    ("DATABASE", false),
    // Left out where all connections are those of the process that answers.
    ("PROCESS", true),
];

/// The column of the users.
const USER: usize = COLUMNS.len() - 3;
/// The column of the processes.
const PROCESS: usize = COLUMNS.len() - 1;

/// Aligned columns under their headings.
fn table(connections: &[ConnectionRow], serving: u32) -> String {
    let mut rows: Vec<Vec<String>> = vec![COLUMNS.map(|(heading, _)| heading.to_owned()).into()];
    rows.extend(connections.iter().map(|row| cells(row).into()));
    let mut columns: Vec<(&str, bool)> = COLUMNS.into();
    if connections.iter().all(|row| row.pid == serving) {
        rows.iter_mut().for_each(|row| _ = row.remove(PROCESS));
        columns.remove(PROCESS);
    }
    if connections.iter().all(|row| row.user.is_none() && row.database.is_none()) {
        rows.iter_mut().for_each(|row| _ = row.drain(USER..=USER + 1));
        columns.drain(USER..=USER + 1);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, (_, is_number)), width) in row.iter().zip(&columns).zip(&widths) {
            _ = match is_number {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cells(row: &ConnectionRow) -> [String; COLUMNS.len()] {
    let name = |name: Option<&String>| name.map_or("-", |name| name).to_owned();
    let cells = [
        row.id.clone(),
        row.listener.clone(),
        row.client.clone(),
        name(row.pool.as_ref()),
        name(row.backend.as_ref()),
        span(row.age_s),
        span(row.idle_s),
        count(row.bytes_in as f64),
        count(row.bytes_out as f64),
        row.sni.clone().unwrap_or_default(),
        row.user.clone().unwrap_or_default(),
        row.database.clone().unwrap_or_default(),
        row.pid.to_string(),
    ];
    // A client chooses the name that it asks for.
    cells.map(|cell| cell.chars().filter(|letter| !letter.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, backend: Option<&str>, sni: Option<&str>) -> ConnectionRow {
        ConnectionRow {
            id: id.to_owned(),
            pid: 7,
            listener: "in".to_owned(),
            client: "10.0.0.7:50000".to_owned(),
            pool: backend.map(|_| "p".to_owned()),
            backend: backend.map(str::to_owned),
            since: "2026-01-01T00:00:00.000Z".to_owned(),
            age_s: 3723.5,
            bytes_in: 12_345,
            bytes_out: 7,
            idle_s: 2.25,
            sni: sni.map(str::to_owned),
            user: None,
            database: None,
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows =
            [row("8000000000000abc", Some("postgres-1"), Some("a.\u{1b}example")), row("8000000000000abd", None, None)];
        let expected = "\
ID                LISTENER  CLIENT          POOL  BACKEND       AGE  IDLE     IN  OUT  SNI
8000000000000abc  in        10.0.0.7:50000  p     postgres-1  1h 2m    2s  12.3k    7  a.example
8000000000000abd  in        10.0.0.7:50000  -     -           1h 2m    2s  12.3k    7
";
        assert_eq!(table(&rows, 7), expected);
        let replaced = table(&rows[1..], 8);
        assert!(replaced.lines().all(|line| line.ends_with("PROCESS") || line.ends_with(" 7")), "{replaced}");
        let other = ConnectionRow { pid: 123, ..row("8000000000000abe", None, None) };
        let of_two = table(&[row("8000000000000abd", None, Some("a.example")), other], 7);
        let expected = "\
ID                LISTENER  CLIENT          POOL  BACKEND    AGE  IDLE     IN  OUT  SNI        PROCESS
8000000000000abd  in        10.0.0.7:50000  -     -        1h 2m    2s  12.3k    7  a.example        7
8000000000000abe  in        10.0.0.7:50000  -     -        1h 2m    2s  12.3k    7                 123
";
        assert_eq!(of_two, expected);
        let user = |name: &str| ConnectionRow {
            user: Some(name.to_owned()),
            database: Some("shop".to_owned()),
            ..row("8000000000000abe", None, None)
        };
        let of_users = table(&[row("8000000000000abd", None, None), user("al\u{1b}ice")], 7);
        let expected = "\
ID                LISTENER  CLIENT          POOL  BACKEND    AGE  IDLE     IN  OUT  SNI  USER   DATABASE
8000000000000abd  in        10.0.0.7:50000  -     -        1h 2m    2s  12.3k    7
8000000000000abe  in        10.0.0.7:50000  -     -        1h 2m    2s  12.3k    7       alice  shop
";
        assert_eq!(of_users, expected);
        assert_eq!(table(&[], 7), "ID  LISTENER  CLIENT  POOL  BACKEND  AGE  IDLE  IN  OUT  SNI\n");
    }

    #[test]
    fn path_has_what_is_given_encoded() {
        let filter = FilterArgs {
            listener: None,
            pool: Some("a b".to_owned()),
            backend: Some("db@10.0.0.1:1".to_owned()),
            client: Some("10.0.0.0/8".parse().unwrap()),
            older: Some("5m".to_owned()),
            user: Some("al ice".to_owned()),
        };
        let expected =
            "/api/connections?pool=a%20b&backend=db%4010.0.0.1%3A1&client=10.0.0.0%2F8&older=5m&user=al%20ice";
        assert_eq!(path(None, &filter.pairs()), expected);
        assert_eq!(path(Some("a/b"), &[]), "/api/connections/a%2Fb");
    }
}
