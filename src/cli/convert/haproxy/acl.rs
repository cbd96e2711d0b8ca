//! `acl` and `use_backend`: conditions as routes.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tidegate::net::name::NamePattern;

use super::sections::CfgLine;
use crate::cli::convert::draft::{DraftRoute, add};
use crate::cli::convert::ledger::{Ledger, StatementId};

/// Of a condition that must not hold.
pub(super) const NEGATION: &str = "routes have no negation: put the exceptions first, as routes";

/// Of a domain anywhere in a name.
const DOMAIN: &str = "it is matched anywhere between the dots of a name: routes match whole names, and `*.` and a name";

/// Most routes of one condition: alternatives become one route each.
const MAX_ROUTES: usize = 64;

/// The conditions of a section by name: their values, or why they have none.
#[derive(Default)]
pub(super) struct Acls(HashMap<String, (Result<DraftRoute, String>, Vec<StatementId>)>);

impl Acls {
    /// Reads an `acl` line. What becomes of it is known when it is used.
    pub(super) fn read(&mut self, line: &CfgLine, ledger: &mut Ledger) {
        let [_, name, rest @ ..] = line.words.as_slice() else {
            return ledger.left(line.id, "the line is not complete");
        };
        let condition = condition(rest);
        if let Err(why) = &condition {
            ledger.left(line.id, why.clone());
        }
        let (known, lines) = self.0.entry(name.clone()).or_insert_with(|| (Ok(DraftRoute::default()), Vec::new()));
        lines.push(line.id);
        // Several lines of one name are alternatives, of one kind.
        *known = match (std::mem::replace(known, Err(String::new())), condition) {
            // TLS as one alternative cannot be a route, and must not narrow down to the others.
            (Ok(one), Ok(more)) if lines.len() > 1 && [&one, &more].contains(&&DraftRoute::default()) => {
                Err("an acl of several kinds of conditions: write a route for each".to_owned())
            }
            (Ok(known), Ok(more)) => either(known, more),
            (Err(why), _) | (_, Err(why)) => Err(why),
        };
    }

    /// Accounts for conditions that no route has used.
    pub(super) fn close(&self, ledger: &mut Ledger) {
        for id in self.0.values().flat_map(|(_, lines)| lines) {
            ledger.unused(*id, "no route uses it");
        }
    }

    /// The routes of a condition: `if A B or C`.
    pub(super) fn routes(&self, words: &[String], ledger: &mut Ledger) -> Result<Vec<DraftRoute>, String> {
        let mut routes = Vec::new();
        let mut used = Vec::new();
        for term in words.split(|word| word == "||" || word == "or" || word == "OR") {
            let mut route = DraftRoute::default();
            let mut term = term.iter();
            while let Some(word) = term.next() {
                let next = match word.as_str() {
                    "{" => {
                        let inner: Vec<String> = term.by_ref().take_while(|word| *word != "}").cloned().collect();
                        condition(&inner)?
                    }
                    "TRUE" => continue,
                    // What a route looks at is there, or the route does not match.
                    "HTTP" | "HTTP_1.1" | "REQ_CONTENT" => continue,
                    _ if word.starts_with('!') => {
                        return Err(NEGATION.to_owned());
                    }
                    _ => {
                        let (known, lines) =
                            self.0.get(word).ok_or_else(|| format!("{word} is not an acl of this section"))?;
                        used.extend(lines.iter().copied());
                        known.clone().map_err(|_| format!("{word} cannot be translated"))?
                    }
                };
                route = both(route, next)?;
            }
            if route == DraftRoute::default() {
                return Err("nothing in it is a condition to route by; TLS alone is none".to_owned());
            }
            routes.push(route);
            if routes.len() > MAX_ROUTES {
                return Err("too many alternatives".to_owned());
            }
        }
        used.into_iter().for_each(|id| ledger.translated(id));
        Ok(routes)
    }
}

/// All conditions of both.
fn both(mut one: DraftRoute, other: DraftRoute) -> Result<DraftRoute, String> {
    let pairs = [
        (&mut one.sni, other.sni),
        (&mut one.alpn, other.alpn),
        (&mut one.host, other.host),
        (&mut one.path_prefix, other.path_prefix),
        (&mut one.client, other.client),
    ];
    for (known, more) in pairs {
        if !known.is_empty() && !more.is_empty() {
            return Err("two conditions of the same kind at once: name what satisfies both".to_owned());
        }
        known.extend(more);
    }
    one.deep |= other.deep;
    Ok(one)
}

/// The conditions of one or the other, if they are of the same kind.
fn either(mut one: DraftRoute, other: DraftRoute) -> Result<DraftRoute, String> {
    let kind = |route: &DraftRoute| {
        [&route.sni, &route.alpn, &route.host, &route.path_prefix, &route.client].map(|list| !list.is_empty())
    };
    if one != DraftRoute::default() && kind(&one) != kind(&other) {
        return Err("an acl of several kinds of conditions: write a route for each".to_owned());
    }
    other.sni.into_iter().for_each(|name| add(&mut one.sni, name));
    other.alpn.into_iter().for_each(|name| add(&mut one.alpn, name));
    other.host.into_iter().for_each(|name| add(&mut one.host, name));
    other.path_prefix.into_iter().for_each(|path| add(&mut one.path_prefix, path));
    other.client.into_iter().for_each(|network| add(&mut one.client, network));
    one.deep |= other.deep;
    Ok(one)
}

/// A criterion with its flags and values.
fn condition(words: &[String]) -> Result<DraftRoute, String> {
    let [criterion, rest @ ..] = words else { return Err("the condition is empty".to_owned()) };
    let (mut method, mut has_no_case, mut has_file) = ("", false, false);
    let mut values: Vec<&str> = Vec::new();
    let mut rest = rest.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        match word {
            "-i" => has_no_case = true,
            "--" => {}
            "-m" => method = rest.next().unwrap_or_default(),
            "-f" => {
                let _ = rest.next();
                has_file = true;
            }
            value => values.push(value),
        }
    }
    // Routes by sni and alpn take connections of TLS only.
    let is_hello = ["req.ssl_hello_type", "req_ssl_hello_type"].contains(&criterion.as_str());
    if is_hello && values == ["1"] {
        return Ok(DraftRoute::default());
    }
    // Converters to lower case: names have no case.
    let criterion =
        criterion.split(",lower").next().unwrap_or_default().split(",field(1,:)").next().unwrap_or_default();
    let (criterion, suffix) = match criterion {
        "req_ssl_sni" | "req.ssl_sni" | "ssl_fc_sni" => ("sni", "str"),
        "ssl_fc_sni_end" => ("sni", "end"),
        "req.ssl_alpn" | "req_ssl_alpn" | "ssl_fc_alpn" => ("alpn", "str"),
        "hdr(host)" | "req.hdr(host)" | "hdr(Host)" | "req.hdr(Host)" => ("host", "str"),
        "hdr_end(host)" | "hdr_end(Host)" => ("host", "end"),
        "hdr_dom(host)" | "hdr_dom(Host)" => return Err(DOMAIN.to_owned()),
        "path_beg" | "url_beg" => ("path", "beg"),
        "path" if method == "beg" => ("path", "beg"),
        "src" => ("client", "str"),
        "ssl_fc" | "dst_port" | "dst" => return Err("give each address a listener of its own".to_owned()),
        "path" | "path_end" | "path_reg" | "path_dir" | "path_sub" | "url" | "url_reg" | "hdr_beg(host)"
        | "hdr_reg(host)" => {
            return Err("routes match whole hosts, `*.` and a host, and the beginning of the path".to_owned());
        }
        "nbsrv" | "srv_is_up" => return Err("backends with `backup: true` replace pools that are down".to_owned()),
        _ => {
            return Err(format!(
                "routes match sni, alpn, host, path_prefix, client and country, not {}",
                criterion.chars().take(40).collect::<String>()
            ));
        }
    };
    if has_no_case && criterion == "path" {
        return Err("-i: routes compare paths with their case".to_owned());
    }
    if has_file {
        let key = match criterion {
            "path" => "path_prefix",
            other => other,
        };
        return Err(format!("values from a file: write them into a route, `match: {{ {key}: [...] }}`"));
    }
    let method = if method.is_empty() { suffix } else { method };
    let mut route = DraftRoute::default();
    for value in values {
        let names: Vec<String> = match method {
            "str" => vec![value.to_owned()],
            "dom" => return Err(DOMAIN.to_owned()),
            "end" if ["sni", "host"].contains(&criterion) => {
                route.deep = true;
                match value.starts_with('.') {
                    true => vec![format!("*{value}")],
                    false => vec![value.to_owned(), format!("*.{value}")],
                }
            }
            "beg" => vec![value.to_owned()],
            _ => {
                return Err(format!(
                    "-m {method}: routes match whole names, `*.` and a name, and the beginning of the path"
                ));
            }
        };
        for name in names {
            let is_name = NamePattern::parse(&name).is_some();
            // A server name is never an address.
            let is_sni = is_name && name.parse::<IpAddr>().is_err();
            let is_path =
                name.starts_with('/') && !name.contains(['?', '#']) && name.bytes().all(|byte| byte.is_ascii_graphic());
            match criterion {
                "sni" if is_sni => add(&mut route.sni, name.to_ascii_lowercase()),
                "host" if is_name => add(&mut route.host, name.to_ascii_lowercase()),
                "alpn" if !name.is_empty() && name.len() < 256 => add(&mut route.alpn, name),
                "path" if is_path && method == "beg" => add(&mut route.path_prefix, name),
                "client" if method == "str" => match network(&name) {
                    Some(network) => add(&mut route.client, network),
                    None => return Err(format!("{value}: not a network")),
                },
                _ => return Err(format!("{value}: routes cannot match it")),
            }
        }
    }
    if route == DraftRoute::default() { Err("the condition has no values".to_owned()) } else { Ok(route) }
}

/// A network or an address, without bits of hosts.
fn network(text: &str) -> Option<String> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network.trunc().to_string()),
        Err(_) => text.parse::<IpAddr>().ok().map(|address| address.to_canonical().to_string()),
    }
}
