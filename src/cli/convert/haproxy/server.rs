//! `server` and `default-server` lines.

use std::time::Duration;

use super::reasons::{Reason, server_option};
use super::sections::CfgLine;
use crate::cli::convert::draft::{DraftBackend, DraftHealth, DraftPool, DraftPoolTls};
use crate::cli::convert::ledger::{Ledger, StatementId};
use crate::cli::convert::quantity::{backend, haproxy_time, host_and_port, ports, unix};

/// Most weight that HAProxy knows.
const MAX_WEIGHT: u32 = 256;

/// Of an option that has no effect without another one.
const NO_CHECK: &str = "without `check`";
const NO_TLS: &str = "without `ssl`";

/// What servers say of their pool: tidegate has one value for all backends.
#[derive(Clone, Default)]
pub(super) struct ServerOptions {
    checked: bool,
    has_tls: bool,
    unverified: bool,
    health: DraftHealth,
    pub(super) pool: DraftPool,
    backend: DraftBackend,
    sni: Option<String>,
    verify_host: Option<String>,
    /// Options of checks and of TLS, with their lines.
    of_checks: Vec<(StatementId, String)>,
    of_tls: Vec<(StatementId, String)>,
}

impl ServerOptions {
    /// Reads the options of a line, over those of `default-server` lines.
    fn read(&mut self, words: &[String], line: &CfgLine, ledger: &mut Ledger) {
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            if ["inter", "rise", "fall", "port"].contains(&word) {
                self.of_checks.push((line.id, word.to_owned()));
            }
            if ["verify", "ca-file", "crt", "alpn", "sni", "verifyhost"].contains(&word) {
                self.of_tls.push((line.id, word.to_owned()));
            }
            if word == "source" {
                let mut given: Vec<String> = words.next().into_iter().map(str::to_owned).collect();
                while let Some(more) = words.next_if(|word| ["usesrc", "interface"].contains(word)) {
                    given.extend([more.to_owned(), words.next().unwrap_or_default().to_owned()]);
                }
                self.pool.source = source(&given, line, ledger).into_iter().collect();
                continue;
            }
            let mut value = || words.next().unwrap_or_default();
            match word {
                "check" => self.checked = true,
                "no-check" => self.checked = false,
                "backup" => self.backend.backup = true,
                "disabled" => self.backend.maintenance = true,
                "enabled" => self.backend.maintenance = false,
                "weight" => {
                    let weight = number(value(), word, line, ledger);
                    if let Some(weight @ 257..) = weight {
                        let why =
                            format!("weight: {weight} is none of HAProxy's, which are 0 to {MAX_WEIGHT}: 1 instead");
                        ledger.left(line.id, why);
                    }
                    self.backend.weight = weight.filter(|weight| *weight <= MAX_WEIGHT && *weight != 1);
                }
                "maxconn" => {
                    self.backend.max_connections = number(value(), word, line, ledger).filter(|limit| *limit != 0);
                }
                "inter" => {
                    self.health.interval =
                        time(value(), word, line, ledger).filter(|length| *length != Duration::from_secs(2));
                }
                "rise" => self.health.rise = count(value(), word, line, ledger).filter(|count| *count != 2),
                "fall" => self.health.fall = count(value(), word, line, ledger).filter(|count| *count != 3),
                "port" => {
                    let port = number(value(), word, line, ledger);
                    if port.is_some_and(|port| port > u32::from(u16::MAX)) {
                        ledger.left(line.id, "port: not a port");
                    }
                    self.health.port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
                }
                "slowstart" => self.pool.slow_start = time(value(), word, line, ledger),
                "send-proxy" => self.pool.send_proxy = Some("v1"),
                "send-proxy-v2" => self.pool.send_proxy = Some("v2"),
                "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn" => {
                    self.pool.send_proxy = Some("v2");
                    ledger.not_needed(line.id, format!("{word}: what is known of TLS is sent in any case"));
                }
                "on-marked-down" => {
                    let action = value();
                    self.pool.on_down_cut = action == "shutdown-sessions";
                    if !self.pool.on_down_cut {
                        ledger.left(line.id, format!("on-marked-down {action}: `on_down` is keep or cut"));
                    }
                }
                "ssl" => self.has_tls = true,
                "no-ssl" => self.has_tls = false,
                "verify" => self.unverified = value() == "none",
                "ca-file" => self.tls().ca = file_of(value(), word, line, ledger),
                "crt" => {
                    let file = file_of(value(), word, line, ledger);
                    self.tls().client_certificate = file.map(|file| (file.clone(), file));
                }
                "alpn" => {
                    let protocols = value();
                    self.tls().alpn = protocols.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                }
                "sni" | "verifyhost" => {
                    let name = value();
                    let name = name.strip_prefix("str(").and_then(|name| name.strip_suffix(')')).unwrap_or(name);
                    let usable = backend(name, 1).is_some() && name != "sni";
                    let name = usable.then(|| name.to_owned());
                    if !usable {
                        let why = format!("{word}: write a fixed name as `tls.server_name`, or `sni` for the client's");
                        ledger.left(line.id, why);
                    }
                    *(if word == "sni" { &mut self.sni } else { &mut self.verify_host }) = name;
                }
                _ => match server_option(word) {
                    Some((count, reason)) => {
                        for _ in 0..count {
                            words.next();
                        }
                        match reason {
                            Reason::NotNeeded(why) => ledger.not_needed(line.id, format!("{word}: {why}")),
                            Reason::Left(why) => ledger.left(line.id, format!("{word}: {why}")),
                            Reason::Diverted(why) => ledger.diverted(line.id, format!("{word}: {why}")),
                        }
                    }
                    None => ledger.left(line.id, format!("{word}: tidegate has no such option of a backend")),
                },
            }
        }
    }

    /// Chooses the name of `sni` and `verifyhost`, which are one.
    fn name_servers(&mut self, line: &CfgLine, ledger: &mut Ledger) {
        if let (Some(sni), Some(verified)) = (&self.sni, &self.verify_host)
            && sni != verified
        {
            ledger.left(
                line.id,
                format!("verifyhost {verified}: the name that is sent, {sni}, is the one that is verified"),
            );
        }
        if let Some(name) = self.sni.clone().or_else(|| self.verify_host.clone()) {
            self.tls().server_name = Some(name);
        }
    }

    /// Options by which another server differs, though they are one for all backends of a pool.
    fn differences(&self, other: &ServerOptions) -> Vec<&'static str> {
        let (own, its) = (&self.pool, &other.pool);
        let of_tls = |of: &ServerOptions| of.pool.tls.clone().filter(|_| of.has_tls).unwrap_or_default();
        let (mine, theirs) = (of_tls(self), of_tls(other));
        let all = [
            ("ssl", self.has_tls != other.has_tls),
            ("verify", self.unverified != other.unverified),
            ("ca-file", mine.ca != theirs.ca),
            ("sni", mine.server_name != theirs.server_name),
            ("alpn", mine.alpn != theirs.alpn),
            ("crt", mine.client_certificate != theirs.client_certificate),
            ("send-proxy", own.send_proxy != its.send_proxy),
            ("slowstart", own.slow_start != its.slow_start),
            ("on-marked-down", own.on_down_cut != its.on_down_cut),
            ("source", own.source != its.source),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(option, _)| option).collect()
    }

    fn tls(&mut self) -> &mut DraftPoolTls {
        self.pool.tls.get_or_insert_default()
    }
}

/// The backends of a section, and what their lines say of the pool. `port` is that of the listener, for servers without one.
pub(super) fn servers(lines: &[CfgLine], port: Option<u16>, ledger: &mut Ledger) -> (DraftPool, Option<DraftHealth>) {
    let mut defaults = ServerOptions::default();
    let mut of_defaults: Vec<StatementId> = Vec::new();
    let mut pool = DraftPool::default();
    let mut health: Option<DraftHealth> = None;
    let mut first: Option<ServerOptions> = None;
    let mut unchecked = false;
    for line in lines {
        let words = &line.words;
        let (name, address, options) = match (words[0].as_str(), words.len()) {
            ("default-server", _) => {
                of_defaults.push(line.id);
                defaults.read(&words[1..], line, ledger);
                continue;
            }
            ("server", 3..) => (words[1].clone(), words[2].clone(), &words[3..]),
            ("server-template", 4..) => {
                template(line, ledger);
                (words[1].clone(), words[3].clone(), &words[4..])
            }
            ("server" | "server-template", _) => {
                ledger.left(line.id, "the line is not complete");
                continue;
            }
            _ => continue,
        };
        let Some(address) = server_address(&address, port) else {
            ledger.left(line.id, format!("{address}: write host:port or unix:/path"));
            continue;
        };
        let mut own = ServerOptions { of_checks: Vec::new(), of_tls: Vec::new(), ..defaults.clone() };
        ledger.translated(line.id);
        of_defaults.iter().for_each(|id| ledger.translated(*id));
        own.read(options, line, ledger);
        own.name_servers(line, ledger);
        pool.backends.push(DraftBackend { name: Some(name), address, ..own.backend.clone() });
        if own.checked {
            used(&defaults.of_checks, ledger);
            match &health {
                Some(health) if *health != own.health => {
                    ledger
                        .left(line.id, "the health check of a pool is one for all backends: that of the first server");
                }
                Some(_) => {}
                None => health = Some(own.health.clone()),
            }
        } else {
            without(&own.of_checks, NO_CHECK, ledger);
            unchecked = true;
        }
        match own.has_tls {
            true => used(&defaults.of_tls, ledger),
            false => without(&own.of_tls, NO_TLS, ledger),
        }
        match &first {
            Some(first) => {
                for option in first.differences(&own) {
                    let why = "it is one for all backends of a pool: that of the first server applies";
                    ledger.left(line.id, format!("{option}: {why}"));
                }
            }
            None => first = Some(own),
        }
    }
    if health.is_none() {
        without(&defaults.of_checks, NO_CHECK, ledger);
    }
    if first.as_ref().is_none_or(|first| !first.has_tls) {
        without(&defaults.of_tls, NO_TLS, ledger);
    }
    if let Some(first) = first {
        let backends = std::mem::take(&mut pool.backends);
        pool = DraftPool { backends, ..first.pool };
        pool.tls = first.has_tls.then(|| pool.tls.take().unwrap_or_default());
        if let Some(tls) = &mut pool.tls {
            // HAProxy verifies the name only where one is given.
            tls.verify = match (first.unverified, &tls.server_name) {
                (true, _) => Some("off"),
                (false, None) => Some("ca"),
                (false, Some(_)) => None,
            };
            if first.unverified && tls.ca.take().is_some() {
                let options = defaults.of_tls.iter().chain(&first.of_tls);
                for (id, _) in options.filter(|(_, word)| word == "ca-file") {
                    ledger.not_needed(*id, "ca-file: without effect at `verify none`");
                }
            }
        }
    }
    if health.is_some() && unchecked {
        pool.notes.push("health: applies to the servers that had no `check` too.".to_owned());
    }
    (pool, health)
}

/// Accounts for options that have no effect without another one.
fn without(options: &[(StatementId, String)], why: &'static str, ledger: &mut Ledger) {
    options.iter().for_each(|(id, word)| ledger.option_unused(*id, word, why));
}

fn used(options: &[(StatementId, String)], ledger: &mut Ledger) {
    options.iter().for_each(|(id, word)| ledger.option_used(*id, word));
}

/// Accounts for the number of servers of a `server-template`.
fn template(line: &CfgLine, ledger: &mut Ledger) {
    let (count, address) = (&line.words[2], &line.words[3]);
    let host = host_and_port(address).0;
    if host.parse::<std::net::IpAddr>().is_ok() {
        ledger.left(line.id, format!("server-template {count}: {host} is one address, and becomes one backend"));
    } else {
        ledger.not_needed(
            line.id,
            format!("server-template {count}: {host} becomes as many backends as it has addresses"),
        );
    }
}

/// The address of `source`, if it is one to connect from.
pub(super) fn source(words: &[String], line: &CfgLine, ledger: &mut Ledger) -> Option<String> {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let text = word(0).strip_prefix("ipv4@").or_else(|| word(0).strip_prefix("ipv6@")).unwrap_or(word(0));
    let is_address = |text: &str| text.parse::<std::net::IpAddr>().ok();
    let (host, port) = if is_address(text).is_some() { (text, None) } else { host_and_port(text) };
    if port.is_some_and(|port| port != "0") {
        ledger.left(line.id, "source: the kernel chooses the port");
    }
    for option in words.get(1..).unwrap_or_default().chunks(2) {
        let why = match option[0].as_str() {
            "usesrc" => "usesrc: backends cannot be shown the client's address as the source: `send_proxy` tells them",
            _ => "source: only an address becomes `source` of the pool",
        };
        ledger.left(line.id, why);
    }
    match is_address(if host == "*" { "0.0.0.0" } else { host }) {
        Some(ip) if ip.is_unspecified() => {
            ledger.not_needed(line.id, "source: the kernel chooses the address");
            None
        }
        Some(ip) if !ip.is_multicast() => Some(ip.to_string()),
        // `usesrc` says it all.
        _ if host.is_empty() && words.len() > 1 => None,
        _ => {
            ledger.left(line.id, "source: only an address becomes `source` of the pool");
            None
        }
    }
}

/// The address of a server as tidegate's.
pub(super) fn server_address(text: &str, port: Option<u16>) -> Option<String> {
    if let Some(path) = text.strip_prefix("unix@").or_else(|| text.starts_with('/').then_some(text)) {
        return unix(path);
    }
    let text = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    let (host, written) = host_and_port(text);
    let port = match written {
        Some(written) => ports(written).filter(|(first, last)| first == last)?.0,
        // Without a port, it is the one that the client connected to.
        None => port?,
    };
    backend(host, port)
}

/// The file of an option.
pub(super) fn file_of(path: &str, word: &str, line: &CfgLine, ledger: &mut Ledger) -> Option<String> {
    let file = file_name(path);
    if file.is_none() {
        ledger.left(line.id, format!("{word}: name a file"));
    }
    file
}

/// A path that tidegate accepts.
pub(super) fn file_name(path: &str) -> Option<String> {
    (!path.is_empty() && !path.ends_with('/') && !path.contains(char::is_control)).then(|| path.to_owned())
}

pub(super) fn number(text: &str, word: &str, line: &CfgLine, ledger: &mut Ledger) -> Option<u32> {
    let number = text.parse().ok();
    if number.is_none() {
        ledger.left(line.id, format!("{word}: not a number"));
    }
    number
}

fn count(text: &str, word: &str, line: &CfgLine, ledger: &mut Ledger) -> Option<u32> {
    let count = number(text, word, line, ledger)?;
    if !(1..=1000).contains(&count) {
        ledger.left(line.id, format!("{word}: 1 to 1000"));
    }
    Some(count.clamp(1, 1000))
}

/// A duration that is not zero.
pub(super) fn time(text: &str, word: &str, line: &CfgLine, ledger: &mut Ledger) -> Option<Duration> {
    let length = haproxy_time(text);
    if length.is_none() {
        ledger.left(line.id, format!("{word}: not a duration"));
    }
    length.filter(|length| !length.is_zero())
}
