//! haproxy.cfg as a [`Draft`].

mod acl;
mod bind;
mod check;
mod counters;
mod lexer;
mod log;
mod proxy;
pub(super) mod reasons;
mod sections;
mod server;

use std::collections::HashSet;
use std::net::SocketAddr;

use self::bind::BindDefaults;
use self::proxy::Proxy;
use self::sections::{CfgLine, Section};
use super::draft::{Draft, DraftPool, add, unique};
use super::ledger::{Ledger, Outcome, StatementId};
use super::quantity::{bind, host_and_port, ports, unix};

/// Translates a file that the ledger knows by this number.
pub(super) fn translate(text: &str, file: usize, ledger: &mut Ledger) -> Draft {
    let sections = sections::read(text, file, ledger);
    let mut draft = Draft::default();
    let mut global = BindDefaults::default();
    for section in sections.iter().filter(|section| section.kind() == "global") {
        read_global(section, &mut draft, &mut global, ledger);
    }
    let is_proxy = |section: &&Section| ["frontend", "listen", "backend"].contains(&section.kind());
    let mut taken = HashSet::new();
    let (mut proxies, mut of_proxies) = (Vec::new(), Vec::new());
    for (index, section) in sections.iter().enumerate().filter(|(_, section)| is_proxy(section)) {
        let lines = sections::effective(&sections, index);
        proxies.push(Proxy::read(section, &lines, &global, &mut taken, ledger));
        of_proxies.push(section);
    }
    for section in sections.iter().filter(|section| section.kind() == "defaults") {
        ledger.translated(section.head.id);
        // Of one that no section refers to.
        section.lines.iter().for_each(|line| ledger.heard(line.id));
    }
    // Servers without a port have that of their listener: those of a backend, the only port of its frontends.
    let mut names = HashSet::new();
    names.insert(super::draft::REJECT.to_owned());
    let mut pools: Vec<(usize, DraftPool)> = Vec::new();
    for (index, proxy) in proxies.iter().enumerate() {
        let fronts: Vec<Option<u16>> = proxies.iter().filter(|front| front.leads_to(proxy)).map(Proxy::port).collect();
        let port = fronts.first().copied().flatten().filter(|port| fronts.iter().all(|front| *front == Some(*port)));
        if let Some(mut pool) = proxy.pool(port, ledger) {
            pool.name = unique(&proxy.name, &mut names);
            pools.push((index, pool));
        }
    }
    for proxy in &proxies {
        let named = |name: &str| {
            let target = proxies.iter().position(|other| other.is_backend() && other.name == name)?;
            pools.iter().find(|(index, _)| *index == target).map(|(_, pool)| pool.name.clone())
        };
        let own = proxies.iter().position(|other| std::ptr::eq(other, proxy));
        let own = pools.iter().find(|(index, _)| Some(*index) == own).map(|(_, pool)| pool.name.clone());
        proxy.listeners(own, named, &proxies, &mut draft, ledger);
    }
    for (index, pool) in &pools {
        if !draft.leads_to(&pool.name) {
            let lines: Vec<StatementId> = of_proxies[*index].lines.iter().map(|line| line.id).collect();
            let head = of_proxies[*index].head.id;
            ledger.block(head, &lines, Outcome::Left, "no listener leads to it: its servers are left out");
        }
    }
    draft.pools.extend(pools.into_iter().map(|(_, pool)| pool));
    draft
}

fn read_global(section: &Section, draft: &mut Draft, global: &mut BindDefaults, ledger: &mut Ledger) {
    ledger.translated(section.head.id);
    for line in &section.lines {
        let word = |index: usize| line.words.get(index).map_or("", String::as_str);
        match (word(0), word(1)) {
            ("log", _) => log::read(line, draft, ledger),
            ("nbthread", count) => {
                draft.workers = count.parse().ok().filter(|count| (1..=1024).contains(count));
                if draft.workers.is_none() {
                    ledger.left(line.id, "nbthread: 1 to 1024");
                }
            }
            ("hard-stop-after", length) => draft.drain = server::time(length, word(0), line, ledger),
            ("grace", length) => draft.delay = server::time(length, word(0), line, ledger),
            ("crt-base", path) => {
                global.crt_base.say(path.to_owned(), line.id, ledger);
                continue;
            }
            ("ca-base", path) => {
                global.ca_base.say(path.to_owned(), line.id, ledger);
                continue;
            }
            ("stats", "socket") => {
                stats_socket(line, draft, ledger);
                continue;
            }
            ("maxconn", _) => {
                ledger.not_needed(
                    line.id,
                    "the limit of open files is the limit of connections: LimitNOFILE= of systemd",
                );
                continue;
            }
            ("ssl-default-bind-options", _) => {
                bind::defaults(line, &mut global.tls, ledger);
                ledger.heard(line.id);
                global.options.push(line.id);
                continue;
            }
            ("ssl-server-verify", _) => {
                ledger.left(line.id, "write `verify: \"off\"` below `tls` of each pool");
                continue;
            }
            _ => {
                proxy::account(line, ledger);
                continue;
            }
        }
        ledger.translated(line.id);
    }
}

/// Reads `stats socket`: the admin interface takes its address and mode. It speaks HTTP, not HAProxy's commands.
fn stats_socket(line: &CfgLine, draft: &mut Draft, ledger: &mut Ledger) {
    let text = line.words.get(2).map_or("", String::as_str);
    let text = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    let path = text.strip_prefix("unix@").unwrap_or(text);
    let address = match host_and_port(text) {
        _ if path.starts_with('/') => unix(path),
        (host, Some(port)) => {
            let address = ports(port).filter(|(first, last)| first == last).and_then(|(port, _)| bind(host, port));
            let is_near = |address: &String| address.parse::<SocketAddr>().is_ok_and(|it| it.ip().is_loopback());
            if address.as_ref().is_some_and(|address| !is_near(address)) {
                return ledger
                    .left(line.id, "other addresses than loopback need `admin.token_file`: write `admin.bind`");
            }
            address
        }
        _ => None,
    };
    let Some(address) = address else {
        return ledger.left(line.id, "write `admin.bind`: unix:/path, or an address of loopback and a port");
    };
    let is_unix = address.starts_with("unix:");
    add(&mut draft.admin, address);
    ledger.translated(line.id);
    ledger.left(line.id, "the admin interface speaks HTTP instead of HAProxy's commands: see docs/api.md");
    let mut words = line.words.iter().skip(3).map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "mode" => {
                let given = words.next().unwrap_or_default();
                let mode = u32::from_str_radix(given, 8).ok().filter(|mode| *mode <= 0o777);
                let mode = mode.map(|mode| format!("{mode:04o}"));
                match (mode, &draft.socket_mode) {
                    (Some(mode), None) if is_unix => draft.socket_mode = Some(mode),
                    (Some(mode), Some(known)) if is_unix && mode == *known => {}
                    (Some(_), Some(known)) if is_unix => {
                        ledger.left(
                            line.id,
                            format!("mode {given}: `admin.socket_mode` is one for all sockets, {known}"),
                        );
                    }
                    (Some(_), _) => ledger.not_needed(line.id, "mode: only of unix sockets"),
                    (None, _) => ledger.left(line.id, format!("mode {given}: not a mode")),
                }
            }
            "level" => match words.next().unwrap_or_default() {
                level if !is_unix => {
                    let why =
                        format!("level {level}: over TCP, changes need `admin.token_file`, and reading needs nothing");
                    ledger.left(line.id, why);
                }
                "admin" => ledger.not_needed(line.id, "level admin: who may open a unix socket may change everything"),
                level => ledger.diverted(
                    line.id,
                    format!("level {level}: there are no levels, who may open a unix socket may change everything"),
                ),
            },
            "user" | "group" | "uid" | "gid" => {
                let owner = words.next().unwrap_or_default();
                ledger.left(line.id, format!("{word} {owner}: sockets belong to tidegate's own user and group"));
            }
            "expose-fd" => {
                let _ = words.next();
                ledger.not_needed(line.id, "expose-fd: `tidegate upgrade` hands the sockets over by itself");
            }
            "process" | "thread" | "name" | "id" | "maxconn" | "backlog" | "severity-output" => {
                let _ = words.next();
                ledger.not_needed(line.id, format!("{word}: nothing depends on it"));
            }
            _ => ledger.left(line.id, format!("{word}: the admin interface has no such option")),
        }
    }
}
