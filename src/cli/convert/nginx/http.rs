//! `http {}`: connections by host and by the beginning of the path.

use std::collections::HashSet;
use std::time::Duration;

use super::listen::{self, Listen};
use super::map::{Maps, names as patterns};
use super::reasons;
use super::settings::{self, Settings};
use super::tree::Directive;
use super::upstream::Upstreams;
use crate::cli::convert::draft::{Draft, DraftListener, DraftRoute, DraftSocket, REJECT, add};
use crate::cli::convert::ledger::{Ledger, Outcome, Said, StatementId};

/// Of a location that becomes no route.
const NO_LOCATION: &str =
    "routes match the beginning of the path, each once, and nothing else; its requests go to other locations";

/// Of a `return` beside locations that lead somewhere.
const ANSWERED: &str = "requests that it answered or redirected reach the servers, in plain text too";

/// A `server` block.
struct Site<'d> {
    head: &'d Directive,
    settings: Settings,
    listens: Vec<Listen>,
    hosts: Vec<String>,
    /// Directives that name them.
    names: Vec<StatementId>,
    /// Wildcards, which stand for several labels in nginx.
    deep: Vec<(String, StatementId)>,
    /// How long connections of its locations may be idle.
    idle: Vec<Said<Duration>>,
    /// Beginnings of paths with their pools, the longest first. That of all is "/".
    paths: Vec<(String, String)>,
}

/// The sites of one address.
struct Front {
    address: String,
    listen: Listen,
    /// Places in the list of sites; the default server is the first.
    sites: Vec<usize>,
}

/// Translates a block. `taken` has the addresses of listeners so far, `names` those of pools.
pub(super) fn translate(
    block: &[Directive],
    taken: &mut HashSet<String>,
    names: &mut HashSet<String>,
    draft: &mut Draft,
    ledger: &mut Ledger,
) {
    let (own, servers) = settings::of_block(block, draft, ledger);
    let mut upstreams = Upstreams::read(block, Some(80), ledger);
    Maps::read(block).close(ledger);
    let mut sites: Vec<Site<'_>> = Vec::new();
    for head in servers {
        sites.push(site(head, &own, &mut upstreams, names, draft, ledger));
    }
    upstreams.close(ledger);
    let mut listeners: Vec<DraftListener> = Vec::new();
    for front in fronts(&sites, taken, ledger) {
        let listener = listener(&front, &sites, draft, ledger);
        let same = |other: &&mut DraftListener| {
            let key = |of: &DraftListener| (of.pool.clone(), of.routes.clone(), of.tls.clone(), of.trusted.clone());
            key(other) == key(&listener) && other.socket == listener.socket && other.idle == listener.idle
        };
        match listeners.iter_mut().find(same) {
            Some(other) => other.bind.extend(listener.bind),
            None => listeners.push(listener),
        }
    }
    draft.listeners.append(&mut listeners);
}

fn site<'d>(
    head: &'d Directive,
    around: &Settings,
    upstreams: &mut Upstreams,
    names: &mut HashSet<String>,
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> Site<'d> {
    ledger.translated(head.id);
    let mut others = Vec::new();
    let settings = around.below(head.children(), ledger, &mut others);
    settings.log(draft, ledger);
    settings.lose_limits(ledger);
    let idle = settings.idle().to_vec();
    let mut site =
        Site { head, settings, idle, listens: vec![], hosts: vec![], names: vec![], deep: vec![], paths: vec![] };
    let mut rest = Vec::new();
    for line in others {
        match line.name() {
            "listen" => site.listens.extend(listen::read(line, Some(80), ledger)),
            "server_name" => {
                site.names.push(line.id);
                server_name(line, &mut site, ledger);
            }
            "location" => location(line, &mut site, upstreams, names, draft, ledger),
            _ => rest.push(line),
        }
    }
    let leads = site.paths.iter().any(|(_, pool)| pool != REJECT);
    account(&rest, leads, ledger);
    if !head.children().iter().any(|line| line.name() == "listen") {
        site.listens.push(Listen { addresses: vec!["0.0.0.0:80".to_owned()], ..Listen::default() });
    }
    // nginx takes the longest beginning.
    site.paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    site
}

/// Accounts for what a server or location says beside its settings. One that `leads` nowhere is a dead end.
fn account(lines: &[&Directive], leads: bool, ledger: &mut Ledger) {
    for line in lines {
        let (outcome, why) = match line.name() {
            "return" if leads => (Outcome::Diverted, ANSWERED),
            name if reasons::refuses(name) && !leads => {
                (Outcome::NotNeeded, "nothing is behind it: its connections are closed")
            }
            _ => reasons::of(line),
        };
        line.account(outcome, why, ledger);
    }
}

fn server_name(line: &Directive, site: &mut Site<'_>, ledger: &mut Ledger) {
    ledger.heard(line.id);
    for name in line.words.iter().skip(1).filter(|name| !["", "_"].contains(&name.as_str())) {
        match patterns(name, true) {
            Ok(found) => {
                for name in found {
                    if name.starts_with('*') {
                        site.deep.push((name.clone(), line.id));
                    }
                    add(&mut site.hosts, name);
                }
            }
            Err(why) => {
                ledger
                    .diverted(line.id, format!("{name}: {why}; its requests go to the default server of the address"));
            }
        }
    }
}

fn location(
    line: &Directive,
    site: &mut Site<'_>,
    upstreams: &mut Upstreams,
    names: &mut HashSet<String>,
    draft: &mut Draft,
    ledger: &mut Ledger,
) {
    let path = match (line.word(1), line.word(2)) {
        ("^~", path) => path,
        (path, "") if path.starts_with('/') => path,
        _ => return line.account(Outcome::Diverted, NO_LOCATION, ledger),
    };
    let is_path =
        path.starts_with('/') && !path.contains(['?', '#']) && path.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_path || site.paths.iter().any(|(known, _)| known == path) {
        return line.account(Outcome::Diverted, NO_LOCATION, ledger);
    }
    ledger.translated(line.id);
    let mut others = Vec::new();
    let mut own = site.settings.below(line.children(), ledger, &mut others);
    site.idle.extend_from_slice(own.idle());
    let (passes, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|line| line.name() == "proxy_pass");
    // What clients send passes unchanged, and upgrades with it.
    let is_kept = |line: &&Directive| {
        let (header, value) = (line.word(1).to_ascii_lowercase(), line.word(2));
        let is_host = header == "host" && (value.starts_with("$host") || value == "$http_host");
        line.name() == "proxy_set_header" && (is_host || ["upgrade", "connection"].contains(&header.as_str()))
    };
    let (headers, others): (Vec<_>, Vec<_>) = others.into_iter().partition(is_kept);
    headers.into_iter().for_each(|line| ledger.not_needed(line.id, "the client's header passes unchanged"));
    account(&others, !passes.is_empty(), ledger);
    own.log(draft, ledger);
    let Some(pass) = passes.last() else {
        ledger.left(line.id, "without proxy_pass, its connections are closed");
        let pool = draft.reject();
        return site.paths.push((path.to_owned(), pool));
    };
    own.lose_limits(ledger);
    ledger.translated(pass.id);
    let (tls, target) = match pass.word(1).split_once("://") {
        Some(("http", target)) => (false, target),
        Some(("https", target)) => (true, target),
        _ => (false, pass.word(1)),
    };
    own.to.https = tls;
    let (target, uri) = match target.strip_prefix("unix:") {
        Some(rest) => match rest.split_once(':') {
            Some((socket, uri)) => (format!("unix:{socket}"), uri),
            None => (target.to_owned(), ""),
        },
        None => {
            let (host, uri) = target.split_at(target.find('/').unwrap_or(target.len()));
            (host.to_owned(), uri)
        }
    };
    if !uri.is_empty() && uri != path {
        ledger.left(pass.id, format!("{uri}: paths are not rewritten, servers get {path}"));
    }
    let port = if tls { 443 } else { 80 };
    let pool = upstreams.pool(&target, (&own.to, Some(port)), pass.id, names, draft, ledger);
    site.paths.push((path.to_owned(), pool));
}

/// The addresses with their sites.
fn fronts(sites: &[Site<'_>], taken: &mut HashSet<String>, ledger: &mut Ledger) -> Vec<Front> {
    let mut fronts: Vec<Front> = Vec::new();
    for (index, site) in sites.iter().enumerate() {
        for listen in &site.listens {
            for address in &listen.addresses {
                match fronts.iter_mut().find(|front| front.address == *address) {
                    Some(front) => {
                        if front.sites.contains(&index) {
                            continue;
                        }
                        front.listen.tls |= listen.tls;
                        front.listen.proxy_protocol |= listen.proxy_protocol;
                        if front.listen.socket == DraftSocket::default() {
                            front.listen.socket = listen.socket.clone();
                        } else if let (Some(id), false) = (listen.id, listen.socket == front.listen.socket) {
                            ledger.left(id, "options of the socket are those of the first `listen` of the address");
                        }
                        if listen.default {
                            front.sites.insert(0, index);
                        } else {
                            front.sites.push(index);
                        }
                    }
                    None if taken.insert(address.clone()) => {
                        fronts.push(Front { address: address.clone(), listen: listen.clone(), sites: vec![index] });
                    }
                    None => ledger.diverted(site.head.id, format!("{address}: {}", listen::TAKEN)),
                }
            }
        }
    }
    fronts
}

fn listener(front: &Front, sites: &[Site<'_>], draft: &mut Draft, ledger: &mut Ledger) -> DraftListener {
    let of: Vec<&Site<'_>> = front.sites.iter().map(|index| &sites[*index]).collect();
    let mut routes: Vec<DraftRoute> = Vec::new();
    // Whole names come before wildcards. Those of the default server matter where others have wildcards.
    let has_wildcards = of.iter().skip(1).any(|site| site.hosts.iter().any(|host| host.starts_with('*')));
    let mut known = HashSet::new();
    for wildcard in [false, true] {
        for site in of.iter().skip(usize::from(!has_wildcards)) {
            let mine = |host: &&String| host.starts_with('*') == wildcard;
            let mut hosts: Vec<String> = site.hosts.iter().filter(mine).cloned().collect();
            hosts.retain(|host| known.insert(host.clone()));
            if hosts.is_empty() {
                continue;
            }
            site.names.iter().for_each(|id| ledger.translated(*id));
            let pool = site_routes(site, &hosts, &mut routes, draft);
            routes.push(DraftRoute { host: hosts, pool, ..DraftRoute::default() });
        }
    }
    for (name, id) in of.iter().skip(1).flat_map(|site| &site.deep) {
        ledger.diverted(*id, format!("{name}: {}; theirs go to the default server of the address", listen::DEEP));
    }
    let default = of[0];
    if !has_wildcards {
        default.names.iter().for_each(|id| ledger.not_needed(*id, "requests for no other server's name come here"));
    }
    let pool = site_routes(default, &[], &mut routes, draft);
    let tls = front.listen.tls.then(|| {
        let mut tls = default.settings.tls(default.head, ledger);
        of[1..].iter().for_each(|site| site.settings.certificates(&mut tls, ledger));
        settings::complete_tls(&mut tls, default.head, ledger);
        tls
    });
    of[1..].iter().for_each(|site| site.settings.give_way(&default.settings, front.listen.tls, ledger));
    let mut listener = DraftListener {
        name: default.hosts.first().map_or_else(|| "http".to_owned(), |host| host.replace("*.", "")),
        bind: vec![front.address.clone()],
        pool,
        routes,
        sniff_http: true,
        tls,
        socket: front.listen.socket.clone(),
        notes: vec!["nginx balances each request, tidegate each connection.".to_owned()],
        ..DraftListener::default()
    };
    let idle: Vec<&Said<Duration>> = of.iter().flat_map(|site| &site.idle).collect();
    default.settings.complete(&mut listener, front.listen.proxy_protocol, &idle, ledger);
    listener
}

/// Adds the routes of a site's paths, and returns the pool of all other paths.
fn site_routes(site: &Site<'_>, hosts: &[String], routes: &mut Vec<DraftRoute>, draft: &mut Draft) -> String {
    let mut rest = None;
    for (path, pool) in &site.paths {
        if path == "/" {
            rest = Some(pool.clone());
            continue;
        }
        let path_prefix = vec![path.clone()];
        routes.push(DraftRoute { host: hosts.to_vec(), path_prefix, pool: pool.clone(), ..DraftRoute::default() });
    }
    rest.unwrap_or_else(|| draft.reject())
}
