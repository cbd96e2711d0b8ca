//! `upstream`, and the pools that come of it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::settings::Towards;
use super::tree::Directive;
use crate::cli::convert::draft::{Draft, DraftBackend, DraftPool, unique};
use crate::cli::convert::ledger::{Ledger, Outcome, StatementId};
use crate::cli::convert::quantity::{backend, host_and_port, nginx_time, ports, unix};

/// How long connections wait in the queue of NGINX Plus, unless it says so.
const PLUS_QUEUE: Duration = Duration::from_secs(60);

/// The upstreams of a block, and the pools that servers have asked for.
pub(super) struct Upstreams {
    found: HashMap<String, (DraftPool, Directive)>,
    made: Vec<(String, Towards, String)>,
    /// The port of servers without one.
    port: Option<u16>,
}

impl Upstreams {
    pub(super) fn read(directives: &[Directive], port: Option<u16>, ledger: &mut Ledger) -> Upstreams {
        let mut found = HashMap::new();
        for directive in directives.iter().filter(|directive| directive.name() == "upstream") {
            let pool = upstream(directive, port, ledger);
            if found.insert(directive.word(1).to_owned(), (pool, directive.clone())).is_some() {
                ledger.left(directive.id, "an earlier upstream has this name");
            }
        }
        Upstreams { found, made: Vec::new(), port }
    }

    /// Accounts for upstreams that no server has used.
    pub(super) fn close(&self, ledger: &mut Ledger) {
        for (name, (_, directive)) in &self.found {
            if self.made.iter().all(|(target, ..)| target != name) {
                directive.account(Outcome::Left, "no server leads to it: it is left out", ledger);
            }
        }
    }

    /// The name of the pool of a `proxy_pass`: that of an upstream or of an address.
    pub(super) fn pool(
        &mut self,
        target: &str,
        (to, port): (&Towards, Option<u16>),
        id: StatementId,
        names: &mut HashSet<String>,
        draft: &mut Draft,
        ledger: &mut Ledger,
    ) -> String {
        let key = |made: &&(String, Towards, String)| made.0 == target && made.1 == *to;
        let upstream = self.found.contains_key(target).then_some(target);
        if let Some((.., name)) = self.made.iter().find(key) {
            // Other directives say the same.
            if let Some(pool) = draft.pools.iter_mut().find(|pool| pool.name == *name) {
                to.apply(pool, upstream, ledger);
            }
            return name.clone();
        }
        let (mut pool, wanted) = match self.found.get(target) {
            Some((pool, _)) if pool.backends.is_empty() => {
                ledger.left(id, format!("{target} has no servers: its connections are closed"));
                return draft.reject();
            }
            Some((pool, directive)) => {
                ledger.translated(directive.id);
                (pool.clone(), target)
            }
            None => match address(target, port.or(self.port)) {
                Some(address) => {
                    let backends = vec![DraftBackend { address, ..DraftBackend::default() }];
                    let host =
                        target.strip_prefix("unix:").map_or(host_and_port(target).0, |path| path.trim_matches('/'));
                    (DraftPool { backends, ..DraftPool::default() }, host)
                }
                None => {
                    let why = match target.contains('$') {
                        true => "addresses are fixed: write a route for each name",
                        false => "it is neither an upstream nor host:port nor unix:/path",
                    };
                    ledger.left(id, format!("{why}; its connections are closed"));
                    return draft.reject();
                }
            },
        };
        to.apply(&mut pool, upstream, ledger);
        pool.name = unique(&wanted.replace(['/', ':'], "-"), names);
        let name = pool.name.clone();
        draft.pools.push(pool);
        self.made.push((target.to_owned(), to.clone(), name.clone()));
        name
    }
}

fn upstream(directive: &Directive, port: Option<u16>, ledger: &mut Ledger) -> DraftPool {
    let mut pool = DraftPool::default();
    for line in directive.children() {
        let is_client = ["$remote_addr", "$binary_remote_addr", "${remote_addr}"].contains(&line.word(1));
        match (line.name(), line.word(1)) {
            ("server", _) => {
                server(line, port, &mut pool, ledger);
                continue;
            }
            ("least_conn", _) => pool.balance = Some("least_connections"),
            ("ip_hash", _) => pool.balance = Some("ip_hash"),
            ("hash", _) if is_client => pool.balance = Some("ip_hash"),
            ("hash", _) => {
                ledger.left(line.id, "only the client's address is hashed: round robin instead");
                continue;
            }
            ("random", "two") if ["", "least_conn"].contains(&line.word(2)) => pool.balance = Some("power_of_two"),
            ("random", "") => pool.balance = Some("random"),
            ("least_time", _) | ("random", "two") => pool.balance = Some("least_latency"),
            ("zone", _) => {
                ledger.not_needed(line.id, "workers share the state of backends");
                continue;
            }
            ("keepalive" | "keepalive_requests" | "keepalive_timeout" | "keepalive_time", _) => {
                ledger.not_needed(line.id, "connections to servers are not shared");
                continue;
            }
            ("resolver", _) => {
                ledger
                    .left(line.id, "names are looked up by the system's resolver every 30 s: enter its servers there");
                continue;
            }
            ("resolver_timeout", _) => {
                ledger.not_needed(line.id, "names are looked up by the system's resolver every 30 s");
                continue;
            }
            ("queue", size) => {
                let wait = line.word(2).strip_prefix("timeout=").map_or(Some(PLUS_QUEUE), nginx_time);
                match (size.parse().ok().filter(|size| (1..=1_000_000).contains(size)), wait) {
                    (Some(size), Some(wait)) => pool.queue = Some((size, Some(wait))),
                    _ => {
                        ledger.left(line.id, "write `queue: { size: N, timeout: T }` below the pool");
                        continue;
                    }
                }
            }
            ("sticky", _) => {
                ledger.left(line.id, "no cookie is written; `persist` keeps a client address with its server");
                continue;
            }
            ("check" | "health_check", _) => {
                ledger.left(line.id, "write `health: { tcp: {} }` below the pool");
                continue;
            }
            _ => {
                line.account(Outcome::Left, "tidegate has no such option of a pool", ledger);
                continue;
            }
        }
        ledger.translated(line.id);
    }
    pool
}

fn server(line: &Directive, port: Option<u16>, pool: &mut DraftPool, ledger: &mut Ledger) {
    let Some(address) = address(line.word(1), port) else {
        return ledger.left(line.id, "write host:port or unix:/path");
    };
    ledger.translated(line.id);
    let mut server = DraftBackend { address, ..DraftBackend::default() };
    for option in line.words.get(2..).unwrap_or_default() {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number = value.parse::<u32>().ok();
        match (name, number) {
            ("weight", Some(weight @ 1..=1000)) => server.weight = Some(weight).filter(|weight| *weight != 1),
            ("weight", Some(1001..)) => {
                server.weight = Some(1000);
                ledger.left(line.id, "weight: 1000 at most");
            }
            ("max_conns", Some(limit)) => server.max_connections = Some(limit).filter(|limit| *limit != 0),
            ("backup", _) => server.backup = true,
            ("down", _) => server.maintenance = true,
            ("max_fails", Some(0)) => {
                ledger.not_needed(line.id, "max_fails: failures of connections put no backend down");
            }
            ("max_fails", Some(_)) => {
                ledger.left(line.id, "max_fails: write `outlier` below the pool, and `health`");
            }
            ("fail_timeout", _) if nginx_time(value).is_some() => {
                ledger.left(line.id, "fail_timeout: `outlier` of the pool has `window` and `ejection`");
            }
            ("slow_start", _) => match nginx_time(value).filter(|length| !length.is_zero()) {
                Some(length) if pool.slow_start.is_some_and(|known| known != length) => {
                    ledger.left(line.id, "slow_start: it is one for all servers, the longest");
                    pool.slow_start = pool.slow_start.max(Some(length));
                }
                Some(length) => pool.slow_start = Some(length),
                None => ledger.left(line.id, "slow_start: not a duration"),
            },
            ("weight" | "max_conns" | "max_fails", _) => ledger.left(line.id, format!("{name}: not a number from 1")),
            ("fail_timeout", _) => ledger.left(line.id, "fail_timeout: not a duration"),
            ("resolve", _) => ledger.not_needed(line.id, "resolve: names are looked up again every 30 s"),
            _ => ledger.left(line.id, format!("{name}: tidegate has no such option of a backend")),
        }
    }
    pool.backends.push(server);
}

fn address(text: &str, port: Option<u16>) -> Option<String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    let (host, written) = host_and_port(text);
    let port = match written {
        Some(written) => ports(written).filter(|(first, last)| first == last)?.0,
        None => port?,
    };
    backend(host, port)
}
