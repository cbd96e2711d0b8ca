//! Directives that blocks inherit: TLS on both sides, timeouts, PROXY headers.

use std::net::IpAddr;
use std::time::Duration;

use super::reasons;
use super::tree::Directive;
use super::values::{access_log, path, period, session_cache};
use crate::cli::convert::draft::{
    Draft, DraftBackend, DraftClientAuth, DraftListener, DraftPool, DraftPoolTls, DraftTls, MAX_RETRIES, add,
};
use crate::cli::convert::ledger::{Ledger, Said, StatementId, longest};
use crate::cli::convert::quantity::{backend, bandwidth, bytes};

/// Most sessions of TLS that a listener keeps.
const MAX_SESSIONS: u32 = 1_000_000;

/// What applies in a block: the directives of the blocks around it, and its own over them.
#[derive(Clone, Default)]
pub(super) struct Settings {
    /// Of the connection, of reading and of writing.
    idle: [Said<Duration>; 3],
    sniff: Said<Duration>,
    handshake: Said<Duration>,
    /// Networks of `set_real_ip_from`.
    trusted: Vec<Said<String>>,
    access_log: Said<String>,
    delays: Said<bool>,
    /// Bytes per second from clients, and to them.
    rates: [Said<u64>; 2],
    /// Zones with the number of a client's connections.
    pub(super) limit_conn: Vec<(String, u32, StatementId)>,
    certificates: Vec<Said<String>>,
    keys: Vec<Said<String>>,
    only_1_3: Said<bool>,
    only_1_2: Said<bool>,
    no_tickets: Said<bool>,
    session_cache: Said<u32>,
    refuse_unknown_sni: Said<bool>,
    alpn: Said<Vec<String>>,
    verify: Said<String>,
    ca: Said<String>,
    crl: Said<String>,
    pub(super) to: Towards,
}

/// What applies to connections to servers. A pool exists once for each of these.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Towards {
    connect: Said<Duration>,
    /// Nothing is tried again.
    only_once: Said<bool>,
    tries: Said<u32>,
    send_proxy: Said<bool>,
    /// `None` is the kernel's choice.
    source: Said<Option<IpAddr>>,
    /// TLS by the scheme of `proxy_pass`.
    pub(super) https: bool,
    tls: Said<bool>,
    verify: Said<bool>,
    ca: Said<String>,
    name: Said<String>,
    certificate: Said<String>,
    key: Said<String>,
}

impl Settings {
    /// The settings of a block: `others` are directives that are none of them.
    pub(super) fn below<'d>(
        &self,
        block: &'d [Directive],
        ledger: &mut Ledger,
        others: &mut Vec<&'d Directive>,
    ) -> Settings {
        let mut own = self.clone();
        // Lists are inherited as a whole, or not at all.
        if block.iter().any(|directive| directive.name() == "ssl_certificate") {
            own.certificates.clear();
            own.keys.clear();
        }
        if block.iter().any(|directive| directive.name() == "set_real_ip_from") {
            own.trusted.clear();
        }
        if block.iter().any(|directive| directive.name() == "limit_conn") {
            own.limit_conn.clear();
        }
        for directive in block {
            match own.read(directive, ledger) {
                Some(Ok(())) => ledger.heard(directive.id),
                Some(Err(why)) => ledger.left(directive.id, why),
                None => others.push(directive),
            }
        }
        own
    }

    /// Reads a directive, if it is a setting; an error says why it becomes no key.
    fn read(&mut self, directive: &Directive, ledger: &mut Ledger) -> Option<Result<(), String>> {
        let (word, id) = (directive.word(1), directive.id);
        let is_on = word == "on";
        let mut done = Ok(());
        match directive.name() {
            "proxy_timeout" => done = period(word, &mut self.idle[0], id, ledger),
            "proxy_read_timeout" => done = period(word, &mut self.idle[1], id, ledger),
            "proxy_send_timeout" => done = period(word, &mut self.idle[2], id, ledger),
            "preread_timeout" | "client_header_timeout" => done = period(word, &mut self.sniff, id, ledger),
            "ssl_handshake_timeout" => done = period(word, &mut self.handshake, id, ledger),
            "proxy_connect_timeout" => done = period(word, &mut self.to.connect, id, ledger),
            "set_real_ip_from" => {
                let address = word.parse::<IpAddr>().map(|ip| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }));
                match address.unwrap_or_else(|_| word.to_owned()).parse::<ipnet::IpNet>() {
                    Ok(network) => self.trusted.push(said(network.trunc().to_string(), id, ledger)),
                    Err(_) => done = Err("write a network, such as 10.0.0.0/8".to_owned()),
                }
            }
            "access_log" if word != "off" => {
                let (target, why) = access_log(word);
                self.access_log.say(target, id, ledger);
                match why {
                    Some(why) => done = Err(why),
                    None if word.starts_with("syslog:") => {}
                    None => ledger.not_needed(
                        id,
                        "the access log is one for all listeners, on stderr: `log.access` takes a path too",
                    ),
                }
            }
            "access_log" if self.access_log.get().is_some() => {
                done = Err("the access log is one for all listeners".to_owned());
            }
            "access_log" => ledger.not_needed(id, "the access log is off unless a listener has one"),
            "ssl_certificate" => done = path(word).map(|path| self.certificates.push(said(path, id, ledger))),
            "ssl_certificate_key" => done = path(word).map(|path| self.keys.push(said(path, id, ledger))),
            "ssl_protocols" => {
                let named = &directive.words[1..];
                let has = |name: &str| named.iter().any(|named| named == name);
                self.only_1_3.say(has("TLSv1.3") && !has("TLSv1.2"), id, ledger);
                self.only_1_2.say(has("TLSv1.2") && !has("TLSv1.3"), id, ledger);
                let old: Vec<&str> =
                    named.iter().map(String::as_str).filter(|name| !["TLSv1.2", "TLSv1.3"].contains(name)).collect();
                if !old.is_empty() {
                    done = Err(format!("{}: clients need TLS 1.2 at least", old.join(" ")));
                }
            }
            "ssl_verify_client" => match word {
                "on" | "optional" | "off" => self.verify.say(word.to_owned(), id, ledger),
                _ => done = Err("write `client_auth: { mode: request }` below `tls`".to_owned()),
            },
            "ssl_client_certificate" => done = path(word).map(|path| self.ca.say(path, id, ledger)),
            "ssl_crl" => done = path(word).map(|path| self.crl.say(path, id, ledger)),
            "ssl_session_tickets" => self.no_tickets.say(word == "off", id, ledger),
            "ssl_session_cache" => match session_cache(&directive.words[1..]) {
                Some(sessions) => {
                    self.session_cache.say(sessions.min(MAX_SESSIONS), id, ledger);
                    if sessions == 0 {
                        ledger.not_needed(id, "no sessions are kept by default; tickets resume them");
                    }
                    if sessions > MAX_SESSIONS {
                        done = Err(format!("`session_cache` is {MAX_SESSIONS} at most"));
                    }
                }
                None => done = Err("write `session_cache` below `tls`: about 4000 sessions a MiB".to_owned()),
            },
            "tcp_nodelay" => {
                self.delays.say(word == "off", id, ledger);
                if word != "off" {
                    ledger.not_needed(id, "TCP_NODELAY is set by default");
                }
            }
            "ssl_reject_handshake" => self.refuse_unknown_sni.say(is_on, id, ledger),
            "ssl_alpn" => {
                let (names, unusable): (Vec<String>, Vec<String>) =
                    directive.words[1..].iter().cloned().partition(|name| (1..256).contains(&name.len()));
                if !unusable.is_empty() {
                    done = Err("a name of a protocol has 1 to 255 bytes".to_owned());
                }
                let mut alpn = Vec::new();
                names.into_iter().for_each(|name| add(&mut alpn, name));
                self.alpn.say(alpn, id, ledger);
            }
            "proxy_protocol" => self.to.send_proxy.say(is_on, id, ledger),
            "proxy_bind" => match word.parse::<IpAddr>() {
                Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => {
                    self.to.source.say(Some(ip), id, ledger);
                    if directive.words.len() > 2 {
                        done =
                            Err("transparent: backends cannot be shown the client's address as the source".to_owned());
                    }
                }
                _ if word == "off" => self.to.source.say(None, id, ledger),
                _ => done = Err("only a fixed address becomes `source` of the pool".to_owned()),
            },
            "proxy_next_upstream" => {
                self.to.only_once.say(word == "off", id, ledger);
                let is_connect = |word: &String| ["on", "off", "error", "timeout"].contains(&word.as_str());
                if !directive.words[1..].iter().all(is_connect) {
                    done = Err("only a failed connect is retried, as nothing was sent yet".to_owned());
                }
            }
            "proxy_next_upstream_tries" => match word.parse::<u32>() {
                Ok(0) => done = Err("0 is no limit: write `retries` below the pool".to_owned()),
                Ok(tries) => {
                    self.to.tries.say(tries.min(MAX_RETRIES + 1), id, ledger);
                    if tries > MAX_RETRIES + 1 {
                        done = Err(format!("{MAX_RETRIES} retries at most"));
                    }
                }
                Err(_) => done = Err("not a number".to_owned()),
            },
            "proxy_ssl" => self.to.tls.say(is_on, id, ledger),
            "proxy_ssl_verify" => self.to.verify.say(is_on, id, ledger),
            "proxy_ssl_trusted_certificate" => done = path(word).map(|path| self.to.ca.say(path, id, ledger)),
            "proxy_ssl_certificate" => done = path(word).map(|path| self.to.certificate.say(path, id, ledger)),
            "proxy_ssl_certificate_key" => done = path(word).map(|path| self.to.key.say(path, id, ledger)),
            "proxy_ssl_name" => match word {
                _ if word != "sni" && backend(word, 1).is_some() => self.to.name.say(word.to_owned(), id, ledger),
                _ => done = Err("write a fixed name as `tls.server_name`, or `sni` for the client's".to_owned()),
            },
            "limit_conn" => match directive.word(2).parse() {
                Ok(count) => {
                    ledger.heard(id);
                    self.limit_conn.push((word.to_owned(), count, id));
                }
                Err(_) => done = Err("not a number".to_owned()),
            },
            "proxy_upload_rate" | "proxy_download_rate" => {
                let said = &mut self.rates[usize::from(directive.name() == "proxy_download_rate")];
                match bytes(word) {
                    Some(0) => {
                        *said = Said::default();
                        ledger.not_needed(id, "there is no limit by default");
                    }
                    Some(rate) => said.say(rate, id, ledger),
                    None => done = Err("write `limits: { bandwidth: 1MiB/s }` at the listener".to_owned()),
                }
            }
            _ => return None,
        }
        Some(done)
    }

    /// How long connections may be idle.
    pub(super) fn idle(&self) -> &[Said<Duration>] {
        &self.idle
    }

    /// Sets the timeouts of a listener, and whose PROXY headers it takes. `idle` are those of all that it leads to.
    pub(super) fn complete(
        &self,
        listener: &mut DraftListener,
        proxy_protocol: bool,
        idle: &[&Said<Duration>],
        ledger: &mut Ledger,
    ) {
        listener.socket.delays = self.delays.used(ledger).unwrap_or_default();
        self.bound(listener, ledger);
        let idle = longest("timeouts.idle", idle.iter().copied(), ledger);
        listener.idle = idle.filter(|length| *length != Duration::from_secs(3600));
        listener.sniff = self.sniff.used(ledger).filter(|length| *length != Duration::from_secs(5));
        if listener.tls.is_some() {
            listener.handshake = self.handshake.used(ledger).filter(|length| *length != Duration::from_secs(10));
        }
        if !proxy_protocol {
            return;
        }
        for network in self.trusted.iter().filter_map(|network| network.used(ledger)) {
            add(&mut listener.trusted, network);
        }
        if listener.trusted.is_empty() {
            listener.trusted = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
            let note = "proxy_protocol: nginx takes headers from all; name the proxies in front.";
            listener.notes.push(note.to_owned());
        }
    }

    /// Bounds the bandwidth of a listener's connections, which is one for both directions.
    fn bound(&self, listener: &mut DraftListener, ledger: &mut Ledger) {
        let [up, down] = &self.rates;
        if up == down {
            listener.bandwidth = up.used(ledger).and(down.used(ledger));
            return;
        }
        for said in &self.rates {
            if let (Some(rate), Some(id)) = (said.get(), said.id()) {
                let advice = format!("`limits: {{ bandwidth: {} }}`", bandwidth(*rate));
                ledger.left(id, format!("write {advice} at the listener: it is one for both directions"));
            }
        }
    }

    /// Sends the access log where it says.
    pub(super) fn log(&self, draft: &mut Draft, ledger: &mut Ledger) {
        if let (Some(target), Some(id)) = (self.access_log.used(ledger), self.access_log.id())
            && let Err(why) = draft.log_to(&target)
        {
            ledger.left(id, why);
        }
    }

    /// Whether it names the proxies whose PROXY headers say who the client is.
    pub(super) fn names_proxies(&self) -> bool {
        !self.trusted.is_empty()
    }

    /// Accounts for limits of clients that are counted in another way than tidegate does.
    pub(super) fn lose_limits(&self, ledger: &mut Ledger) {
        self.limit_conn.iter().for_each(|(_, count, id)| lose_limit(*count, *id, ledger));
    }

    /// TLS of a listener, which may lack a certificate.
    pub(super) fn tls(&self, directive: &Directive, ledger: &mut Ledger) -> DraftTls {
        let mut tls = DraftTls {
            only_1_3: self.only_1_3.used(ledger).unwrap_or_default(),
            only_1_2: self.only_1_2.used(ledger).unwrap_or_default(),
            no_tickets: self.no_tickets.used(ledger).unwrap_or_default(),
            session_cache: self.session_cache.used(ledger).filter(|sessions| *sessions > 0),
            refuse_unknown_sni: self.refuse_unknown_sni.used(ledger).unwrap_or_default(),
            alpn: self.alpn.used(ledger).unwrap_or_default(),
            ..DraftTls::default()
        };
        self.certificates(&mut tls, ledger);
        let verify = self.verify.used(ledger).unwrap_or_default();
        if verify == "on" || verify == "optional" {
            match self.ca.used(ledger) {
                Some(ca) => {
                    let (optional, crl) = (verify == "optional", self.crl.used(ledger));
                    tls.client_auth = Some(DraftClientAuth { optional, ca, crl });
                }
                None => {
                    let why = "ssl_verify_client without ssl_client_certificate: clients without a certificate get in";
                    ledger.diverted(directive.id, why);
                }
            }
        }
        tls
    }

    /// Adds its certificates to those of a listener.
    pub(super) fn certificates(&self, tls: &mut DraftTls, ledger: &mut Ledger) {
        for (index, certificate) in self.certificates.iter().enumerate() {
            let Some(certificate) = certificate.used(ledger) else { continue };
            // One file may have both.
            let key = self.keys.get(index).and_then(|key| key.used(ledger)).unwrap_or_else(|| certificate.clone());
            add(&mut tls.certificates, (certificate, key));
        }
    }

    /// Accounts for what is one for all names of an address: it is that of the default server.
    pub(super) fn give_way(&self, default: &Settings, uses_tls: bool, ledger: &mut Ledger) {
        give_way(&self.sniff, &default.sniff, None, ledger);
        give_way(&self.delays, &default.delays, None, ledger);
        if !uses_tls {
            return;
        }
        // What refuses clients must not get lost among the rest.
        let is_set = |said: &Said<bool>| said.get() == Some(&true);
        let lets_in = |own: &Said<bool>, why| is_set(own).then_some(why);
        let why = lets_in(&self.only_1_3, "clients of TLS 1.2 get in that it refused");
        give_way(&self.only_1_3, &default.only_1_3, why, ledger);
        let why = lets_in(&self.refuse_unknown_sni, "clients get in whose handshake it refused");
        give_way(&self.refuse_unknown_sni, &default.refuse_unknown_sni, why, ledger);
        give_way(&self.only_1_2, &default.only_1_2, None, ledger);
        give_way(&self.no_tickets, &default.no_tickets, None, ledger);
        give_way(&self.session_cache, &default.session_cache, None, ledger);
        give_way(&self.alpn, &default.alpn, None, ledger);
        give_way(&self.handshake, &default.handshake, None, ledger);
        let is_loose = default.strictness() < self.strictness();
        let why = "clients get in whose certificates it refused: give its names an address of their own";
        give_way(&self.verify, &default.verify, is_loose.then_some(why), ledger);
        let why = (self.strictness() > 0).then_some(why);
        give_way(&self.ca, &default.ca, why, ledger);
        give_way(&self.crl, &default.crl, why, ledger);
        if let Some(id) = default.verify.id().filter(|_| default.strictness() > self.strictness()) {
            ledger.left(id, "it holds for all names of the address, those of servers without it too");
        }
    }

    /// How many clients `ssl_verify_client` refuses.
    fn strictness(&self) -> u8 {
        match self.verify.get().map(String::as_str) {
            Some("on") => 2,
            Some("optional") => 1,
            _ => 0,
        }
    }
}

/// A limit of clients that is not kept.
pub(super) fn lose_limit(count: u32, id: StatementId, ledger: &mut Ledger) {
    let keys = format!("`limits: {{ connections_per_ip: {count} }}`, or `max_connections`");
    ledger.diverted(id, format!("clients that it refused are let in: write {keys}, at the listener"));
}

/// Accounts for a setting that another server's takes the place of. `lets_in` says who is let in by that.
fn give_way<T: Clone + PartialEq>(own: &Said<T>, default: &Said<T>, lets_in: Option<&str>, ledger: &mut Ledger) {
    const WHY: &str = "it is one for all names of an address: that of the default server applies";
    match (own.id(), lets_in) {
        (None, _) => {}
        (Some(_), _) if own == default => drop(own.used(ledger)),
        (Some(id), None) => ledger.left(id, WHY),
        (Some(id), Some(lets_in)) => ledger.diverted(id, format!("{WHY}; {lets_in}")),
    }
}

fn said<T>(value: T, id: StatementId, ledger: &mut Ledger) -> Said<T> {
    let mut said = Said::default();
    said.say(value, id, ledger);
    said
}

impl Towards {
    /// Sets the keys of a pool. Certificates are verified against the name of its upstream, if it is of one.
    pub(super) fn apply(&self, pool: &mut DraftPool, upstream: Option<&str>, ledger: &mut Ledger) {
        pool.connect = self.connect.used(ledger).filter(|length| *length != Duration::from_secs(5));
        let retries = match self.only_once.used(ledger) {
            Some(true) => Some(0),
            // The first try counts.
            _ => self.tries.used(ledger).map(|tries| tries.saturating_sub(1)),
        };
        pool.retries = retries.filter(|retries| *retries != 2);
        pool.send_proxy = self.send_proxy.used(ledger).unwrap_or_default().then_some("v1");
        if let Some(ip) = self.source.used(ledger).flatten() {
            let reaches = |backend: &DraftBackend| match backend.address.parse::<std::net::SocketAddr>() {
                Ok(address) => address.is_ipv4() == ip.is_ipv4(),
                Err(_) => !backend.address.starts_with("unix:"),
            };
            match (pool.backends.iter().any(reaches), self.source.id()) {
                (false, Some(id)) => {
                    ledger.left(id, format!("{ip}: no server of this pool has an address of its family"));
                }
                _ => pool.source = vec![ip.to_string()],
            }
        }
        if !self.https && self.tls.used(ledger) != Some(true) {
            return;
        }
        let verify = self.verify.used(ledger).unwrap_or_default();
        let host = self.name.used(ledger);
        let host = host.or_else(|| upstream.filter(|name| verify && backend(name, 1).is_some()).map(str::to_owned));
        let pair = self.certificate.used(ledger).map(|certificate| {
            let key = self.key.used(ledger).unwrap_or_else(|| certificate.clone());
            (certificate, key)
        });
        pool.tls = Some(DraftPoolTls {
            verify: (!verify).then_some("off"),
            ca: if verify { self.ca.used(ledger) } else { None },
            server_name: host.filter(|host| host != "sni"),
            alpn: Vec::new(),
            client_certificate: pair,
        });
    }
}

/// Adds a name to replace where there is no certificate.
pub(super) fn complete_tls(tls: &mut DraftTls, directive: &Directive, ledger: &mut Ledger) {
    if tls.certificates.is_empty() {
        ledger.left(directive.id, "ssl without ssl_certificate: name the files");
        tls.certificates.push(("CHANGE-ME.pem".to_owned(), "CHANGE-ME.key".to_owned()));
    }
}

/// What applies in `stream {}` or `http {}`, and its servers. Accounts for all of it but the servers, upstreams and maps.
pub(super) fn of_block<'b>(
    block: &'b [Directive],
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> (Settings, Vec<&'b Directive>) {
    let mut others = Vec::new();
    let own = Settings::default().below(block, ledger, &mut others);
    let is_block = |directive: &&Directive| ["server", "upstream", "map"].contains(&directive.name());
    let (blocks, others): (Vec<&Directive>, Vec<&Directive>) = others.into_iter().partition(is_block);
    account(&others, ledger);
    own.log(draft, ledger);
    (own, blocks.into_iter().filter(|directive| directive.name() == "server").collect())
}

/// Accounts for directives that become no key.
pub(super) fn account(directives: &[&Directive], ledger: &mut Ledger) {
    for directive in directives {
        let (outcome, why) = reasons::of(directive);
        directive.account(outcome, why, ledger);
    }
}
