//! `bind` lines.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use super::sections::CfgLine;
use super::server::file_of;
use crate::cli::convert::draft::{DraftClientAuth, DraftListener, DraftTls, add};
use crate::cli::convert::ledger::{Ledger, Said, StatementId};
use crate::cli::convert::quantity::{bind, host_and_port, ports, unix};

/// Most addresses of all binds: ranges of ports become one address each.
const MAX_BINDS: usize = 4096;

/// Options that have no effect without `ssl`.
const OF_TLS: [&str; 13] = [
    "crt",
    "crt-list",
    "alpn",
    "verify",
    "ca-file",
    "crl-file",
    "strict-sni",
    "no-tls-tickets",
    "ssl-min-ver",
    "ssl-max-ver",
    "no-tlsv12",
    "force-tlsv13",
    "npn",
];

/// What `global` says of all binds.
#[derive(Default)]
pub(super) struct BindDefaults {
    pub(super) crt_base: Said<String>,
    pub(super) ca_base: Said<String>,
    pub(super) tls: DraftTls,
    /// Lines with options of TLS.
    pub(super) options: Vec<StatementId>,
}

/// Reads `ssl-default-bind-options`.
pub(super) fn defaults(line: &CfgLine, tls: &mut DraftTls, ledger: &mut Ledger) {
    let mut words = line.words.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "no-tls-tickets" => tls.no_tickets = true,
            "no-tlsv12" | "force-tlsv13" => tls.only_1_3 = true,
            "ssl-min-ver" => match words.next().unwrap_or_default() {
                "TLSv1.3" => tls.only_1_3 = true,
                "TLSv1.2" => {}
                version => ledger.left(line.id, format!("ssl-min-ver {version}: clients need TLS 1.2 at least")),
            },
            "no-sslv3" | "no-tlsv10" | "no-tlsv11" | "force-tlsv12" | "prefer-client-ciphers" => {
                ledger.not_needed(line.id, format!("{word}: TLS 1.2 and 1.3 only"));
            }
            "ssl-max-ver" => {
                max_version(words.next().unwrap_or_default(), tls, line, ledger);
            }
            _ => ledger.left(line.id, format!("{word}: tidegate has no such option of TLS")),
        }
    }
}

/// Reads `ssl-max-ver`.
fn max_version(version: &str, tls: &mut DraftTls, line: &CfgLine, ledger: &mut Ledger) {
    match version {
        "TLSv1.3" => ledger.not_needed(line.id, "ssl-max-ver TLSv1.3: so by itself"),
        "TLSv1.2" => tls.only_1_2 = true,
        _ => ledger.left(line.id, format!("ssl-max-ver {version}: clients need TLS 1.2 at least")),
    }
}

/// Reads a line, and adds it to the listener of the same properties. `taken` has the addresses so far.
pub(super) fn read(
    line: &CfgLine,
    http: bool,
    global: &BindDefaults,
    listeners: &mut Vec<DraftListener>,
    taken: &mut HashSet<String>,
    ledger: &mut Ledger,
) {
    let mut listener = DraftListener::default();
    for text in line.words.get(1).map_or("", String::as_str).split(',') {
        addresses(text, line, &mut listener, taken, ledger);
    }
    if listener.bind.is_empty() {
        return;
    }
    ledger.translated(line.id);
    let mut tls = global.tls.clone();
    let uses_tls = line.words.iter().skip(2).any(|word| word == "ssl");
    // What is not used has no base.
    let none = Said::default();
    let (crt_base, ca_base) = if uses_tls { (&global.crt_base, &global.ca_base) } else { (&none, &none) };
    let (mut verify, mut ca, mut crl) = ("", None, None);
    let mut words = line.words.iter().skip(2).map(String::as_str);
    let mut of_tls = Vec::new();
    while let Some(word) = words.next() {
        if OF_TLS.contains(&word) {
            of_tls.push(word);
        }
        let mut value = || words.next().unwrap_or_default();
        match word {
            "ssl" => {}
            "crt" => {
                let path = based(value(), crt_base, ledger);
                certificates(&path, false, &mut tls, line, ledger);
            }
            "crt-list" => {
                let path = based(value(), crt_base, ledger);
                certificates(&path, true, &mut tls, line, ledger);
            }
            "alpn" => {
                for protocol in value().split(',').filter(|protocol| !protocol.is_empty()) {
                    if http && protocol != "http/1.1" {
                        ledger.left(
                            line.id,
                            format!("alpn {protocol}: HTTP passes unchanged, and servers would get this protocol"),
                        );
                    } else {
                        add(&mut tls.alpn, protocol.to_owned());
                    }
                }
            }
            "verify" => verify = value(),
            "ca-file" => ca = file_of(&based(value(), ca_base, ledger), word, line, ledger),
            "crl-file" => crl = file_of(&based(value(), ca_base, ledger), word, line, ledger),
            "strict-sni" => tls.refuse_unknown_sni = true,
            "no-tls-tickets" => tls.no_tickets = true,
            "ssl-min-ver" => {
                let version = value();
                tls.only_1_3 = version == "TLSv1.3";
                match version {
                    "TLSv1.3" => {}
                    "TLSv1.2" => ledger.not_needed(line.id, "ssl-min-ver TLSv1.2: so by itself"),
                    _ => ledger.left(line.id, format!("ssl-min-ver {version}: clients need TLS 1.2 at least")),
                }
            }
            "no-tlsv12" | "force-tlsv13" => tls.only_1_3 = true,
            "no-sslv3" | "no-tlsv10" | "no-tlsv11" | "force-tlsv12" | "prefer-client-ciphers" => {
                ledger.not_needed(line.id, format!("{word}: TLS 1.2 and 1.3 only"));
            }
            "ssl-max-ver" => {
                max_version(value(), &mut tls, line, ledger);
            }
            "ciphers" | "ciphersuites" | "curves" | "ecdhe" | "npn" => {
                let _ = value();
                ledger.not_needed(line.id, format!("{word}: there is no choice of ciphers, all are current ones"));
            }
            "accept-proxy" => {
                listener.trusted = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
                listener
                    .notes
                    .push("proxy_protocol: HAProxy takes headers from all; name the proxies in front.".to_owned());
            }
            "transparent" => listener.socket.transparent = true,
            "tfo" => listener.socket.fast_open = Some(1024),
            "defer-accept" => listener.socket.defer_accept = Some(Duration::from_secs(60)),
            "backlog" => {
                let length = value();
                listener.socket.backlog = length.parse().ok().filter(|length| (1..=i32::MAX as u32).contains(length));
                if listener.socket.backlog.is_none() {
                    ledger.left(line.id, format!("backlog {length}: not a length"));
                }
            }
            "v4v6" => ledger.not_needed(line.id, "v4v6: [::] takes IPv4 too, unless a listener binds 0.0.0.0"),
            "v6only" => ledger.not_needed(line.id, "v6only: [::] leaves IPv4 to a listener that binds 0.0.0.0"),
            "name" | "id" | "process" | "thread" | "nice" | "level" | "shards" => {
                let _ = value();
                ledger.not_needed(line.id, format!("{word}: nothing depends on it"));
            }
            "interface" => {
                let name = value();
                ledger.diverted(
                    line.id,
                    format!("interface {name}: clients of other interfaces are let in: bind its address"),
                );
            }
            "mode" => {
                let given = value();
                let mode = u32::from_str_radix(given, 8).ok().filter(|mode| *mode <= 0o777);
                let is_unix = listener.bind.iter().all(|bind| bind.starts_with("unix:"));
                match mode {
                    Some(mode) if is_unix => listener.socket.mode = Some(format!("{mode:04o}")),
                    Some(_) => ledger.not_needed(line.id, "mode: only of unix sockets"),
                    None => ledger.left(line.id, format!("mode {given}: not a mode")),
                }
            }
            "maxconn" | "mss" | "tcp-ut" | "user" | "group" | "uid" | "gid" | "proto" | "namespace" => {
                let _ = value();
                ledger.left(line.id, format!("{word}: tidegate has no such option of a listener"));
            }
            _ => ledger.left(line.id, format!("{word}: tidegate has no such option of a listener")),
        }
    }
    if uses_tls {
        if tls.certificates.is_empty() {
            ledger.left(line.id, "ssl without crt: name the files");
            tls.certificates.push(("CHANGE-ME.pem".to_owned(), "CHANGE-ME.pem".to_owned()));
        }
        match (verify, ca) {
            ("required" | "optional", Some(ca)) => {
                tls.client_auth = Some(DraftClientAuth { optional: verify == "optional", ca, crl });
            }
            ("required" | "optional", None) => {
                ledger.diverted(
                    line.id,
                    "verify: `client_auth` needs the file of a CA: clients without a certificate get in",
                );
            }
            ("" | "none", None) if crl.is_none() => {}
            ("" | "none", _) => {
                ledger.not_needed(line.id, "ca-file, crl-file: no certificate is asked for without `verify`");
            }
            _ => ledger.left(line.id, format!("verify {verify}: none, optional or required")),
        }
        global.options.iter().for_each(|id| ledger.translated(*id));
        if tls.only_1_3 && tls.only_1_2 {
            ledger.left(line.id, "ssl-max-ver: it is below the least version");
        }
        listener.tls = Some(tls);
    } else if !of_tls.is_empty() {
        ledger.not_needed(line.id, format!("{}: without `ssl`", of_tls.join(", ")));
    }
    let same = |other: &&mut DraftListener| {
        other.tls == listener.tls && other.trusted == listener.trusted && other.socket == listener.socket
    };
    match listeners.iter_mut().find(same) {
        Some(other) => other.bind.append(&mut listener.bind),
        None => listeners.push(listener),
    }
}

fn addresses(
    text: &str,
    line: &CfgLine,
    listener: &mut DraftListener,
    taken: &mut HashSet<String>,
    ledger: &mut Ledger,
) {
    let text = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    let mut found = Vec::new();
    if let Some(path) = text.strip_prefix("unix@").or_else(|| text.starts_with('/').then_some(text)) {
        found.extend(unix(path));
    } else if let (host, Some(port)) = host_and_port(text)
        && let Some((first, last)) = ports(port)
        && usize::from(last - first) + taken.len() < MAX_BINDS
    {
        found.extend((first..=last).filter_map(|port| bind(host, port)));
    }
    if found.is_empty() {
        ledger.left(line.id, format!("{text}: write an IP address and a port, or unix:/path"));
    }
    for address in found {
        if taken.insert(address.clone()) {
            listener.bind.push(address);
        } else {
            let why = "another listener has this address, and takes all connections to it";
            ledger.diverted(line.id, format!("{address}: {why}"));
        }
    }
}

/// A path below the directory of `crt-base` or `ca-base`.
pub(super) fn based(path: &str, base: &Said<String>, ledger: &mut Ledger) -> String {
    let is_relative = !path.starts_with(['/', '@']);
    match if is_relative { base.used(ledger) } else { None } {
        Some(base) => format!("{}/{path}", base.trim_end_matches('/')),
        _ => path.to_owned(),
    }
}

/// The files of a certificate, a directory of them, or a list of them.
fn certificates(path: &str, is_list: bool, tls: &mut DraftTls, line: &CfgLine, ledger: &mut Ledger) {
    const MAX_CERTIFICATES: usize = 10_000;
    let mut files = Vec::new();
    if is_list {
        // A list is text, and a small one.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
        files.extend(text.lines().filter_map(first).filter(|word| !word.starts_with('#')).take(MAX_CERTIFICATES));
        for options in text.lines().filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0)) {
            match options.contains("verify") {
                true => {
                    let why = "`client_auth` is one for all names of a listener: clients without a certificate get in";
                    ledger.diverted(line.id, format!("{path}: [{options}]: {why}"));
                }
                false => ledger.left(line.id, format!("{path}: [{options}]: TLS is one for all names of a listener")),
            }
        }
    } else if path.ends_with('/') || Path::new(path).extension().is_none() || Path::new(path).is_dir() {
        let folder = path.trim_end_matches('/');
        let names = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
        files.extend(
            names
                .filter_map(|name| name.into_string().ok())
                .map(|name| format!("{folder}/{name}"))
                .take(MAX_CERTIFICATES),
        );
        let others = [".key", ".ocsp", ".issuer", ".sctl", ".dh"];
        files.retain(|file| !others.iter().any(|other| file.ends_with(other)));
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    if files.is_empty() {
        ledger.left(line.id, format!("{path} cannot be read here: name each certificate, not a directory or list"));
        files.push(format!("{}/CHANGE-ME.pem", path.trim_end_matches('/')));
    }
    for file in files.into_iter().filter_map(|file| file_of(&file, "crt", line, ledger)) {
        // One file has the chain and the key.
        add(&mut tls.certificates, (file.clone(), file));
    }
}
