//! `stream {}`.

use std::collections::HashSet;
use std::net::SocketAddrV4;

use super::listen::{self, Listen};
use super::map::Maps;
use super::settings::{self, Settings, lose_limit};
use super::tree::Directive;
use super::upstream::Upstreams;
use crate::cli::convert::draft::{Draft, DraftListener};
use crate::cli::convert::ledger::{Ledger, Outcome};
use crate::cli::convert::quantity::host_and_port;

/// Translates a block. `taken` has the addresses of listeners so far, `names` those of pools.
pub(super) fn translate(
    block: &[Directive],
    taken: &mut HashSet<String>,
    names: &mut HashSet<String>,
    draft: &mut Draft,
    ledger: &mut Ledger,
) {
    let (own, servers) = settings::of_block(block, draft, ledger);
    let mut upstreams = Upstreams::read(block, None, ledger);
    let maps = Maps::read(block);
    for server in servers {
        let mut others = Vec::new();
        let own = own.below(server.children(), ledger, &mut others);
        let (listens, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|line| line.name() == "listen");
        let (passes, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|line| line.name() == "proxy_pass");
        let Some(pass) = passes.last() else {
            server.account(Outcome::Left, "without proxy_pass, nothing is balanced", ledger);
            continue;
        };
        let mut found = Vec::new();
        for listen in &listens {
            let Some(mut read) = listen::read(listen, None, ledger) else { continue };
            read.addresses.retain(|address| {
                let is_new = taken.insert(address.clone());
                if !is_new {
                    ledger.diverted(listen.id, format!("{address}: {}", listen::TAKEN));
                }
                is_new
            });
            if !read.addresses.is_empty() {
                found.push(read);
            }
        }
        if found.is_empty() {
            // What is wrong with its addresses is said of them.
            match listens.is_empty() {
                true => server.account(Outcome::Left, "there is no address to listen at", ledger),
                false => {
                    ledger.within(&[server.id]);
                    ledger.within(&server.descendants());
                }
            }
            continue;
        }
        ledger.translated(server.id);
        ledger.translated(pass.id);
        settings::account(&others, ledger);
        own.log(draft, ledger);
        let target = pass.word(1);
        let mut notes = Vec::new();
        let mut pool = |target: &str, id, ledger: &mut Ledger, draft: &mut Draft| {
            upstreams.pool(target, (&own.to, None), id, names, draft, ledger)
        };
        let routed = match target.starts_with('$') {
            true => maps.routes(target, |target, id, ledger| pool(target, id, ledger, draft), ledger),
            false => None,
        };
        let (routes, default) = match routed {
            Some((routes, default)) => {
                let default = default.unwrap_or_else(|| {
                    notes.push("pool: there is no default; what no route matches is closed.".to_owned());
                    draft.reject()
                });
                (routes, default)
            }
            None => (Vec::new(), pool(target, pass.id, ledger, draft)),
        };
        let found = grouped(found);
        let connections_per_ip = per_client(&own, server, block, &found, ledger);
        for read in found {
            let tls = read.tls.then(|| {
                let mut tls = own.tls(server, ledger);
                settings::complete_tls(&mut tls, server, ledger);
                tls
            });
            let name = name_of(&read.addresses, target);
            let mut listener = DraftListener {
                name,
                bind: read.addresses,
                pool: default.clone(),
                routes: routes.clone(),
                tls,
                socket: read.socket,
                connections_per_ip,
                notes: notes.clone(),
                ..DraftListener::default()
            };
            own.complete(&mut listener, read.proxy_protocol, &own.idle().iter().collect::<Vec<_>>(), ledger);
            draft.listeners.push(listener);
        }
    }
    maps.close(ledger);
    upstreams.close(ledger);
}

/// The limit of each client's connections, if nginx counts as tidegate does: by address, and for this listener alone.
fn per_client(
    own: &Settings,
    server: &Directive,
    block: &[Directive],
    listens: &[Listen],
    ledger: &mut Ledger,
) -> Option<u32> {
    let is_client = |key: &str| ["$binary_remote_addr", "$remote_addr"].contains(&key);
    let names = |line: &Directive, zone: &str| {
        let mut words = line.words.iter().filter_map(|word| word.strip_prefix("zone="));
        words.any(|word| word.split(':').next() == Some(zone))
    };
    let by_address = |zone: &str| {
        let mut zones = block.iter().filter(|line| line.name() == "limit_conn_zone" && names(line, zone));
        zones.any(|line| is_client(line.word(1)))
    };
    let uses = |zone: &str| {
        let all = block.iter().chain(block.iter().flat_map(Directive::children));
        all.filter(|line| line.name() == "limit_conn" && line.word(1) == zone).count()
    };
    // An address of IPv6 is one client in nginx, and a /64 is one here.
    let is_ipv4 = |address: &String| address.parse::<SocketAddrV4>().is_ok();
    let is_alone = matches!(listens, [one] if one.addresses.iter().all(is_ipv4)
        && (!one.proxy_protocol || own.names_proxies()));
    let mut limit = None;
    for (zone, count, id) in &own.limit_conn {
        let is_own = server.children().iter().any(|line| line.id == *id) && uses(zone) == 1;
        if is_alone && is_own && by_address(zone) && limit.is_none() && *count > 0 {
            limit = Some(*count);
            ledger.translated(*id);
        } else {
            lose_limit(*count, *id, ledger);
        }
    }
    limit
}

/// One listener for what differs in nothing but its addresses.
fn grouped(found: Vec<Listen>) -> Vec<Listen> {
    let mut groups: Vec<Listen> = Vec::new();
    for mut read in found {
        let same = |other: &&mut Listen| {
            other.tls == read.tls && other.proxy_protocol == read.proxy_protocol && other.socket == read.socket
        };
        match groups.iter_mut().find(same) {
            Some(other) => other.addresses.append(&mut read.addresses),
            None => groups.push(read),
        }
    }
    groups
}

/// The upstream is the name that says most; a variable says nothing.
fn name_of(addresses: &[String], target: &str) -> String {
    let port = addresses.first().and_then(|address| host_and_port(address).1).unwrap_or("socket");
    if target.contains(['$', ':', '/']) { format!("stream-{port}") } else { target.to_owned() }
}
