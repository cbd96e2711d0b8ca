//! Health checks: `option httpchk` and its like, `http-check`, `tcp-check`.

use super::sections::CfgLine;
use crate::cli::convert::draft::{DraftProbe, DraftRequest};
use crate::cli::convert::ledger::{Ledger, StatementId};

/// What the lines of a section say of its check.
#[derive(Default)]
pub(super) struct CheckLines {
    pub(super) probe: DraftProbe,
    /// Where it connects to, and the line that says so.
    pub(super) port: Option<(u16, StatementId)>,
    pub(super) notes: Vec<String>,
    read: Vec<StatementId>,
    /// What `option` says.
    kind: Option<String>,
    sent: Vec<u8>,
    /// Lines that send what `expect` has not come to yet.
    unanswered: Vec<StatementId>,
    expected: bool,
    /// A check of SMTP that names a host, which it sends no more.
    helo: Option<StatementId>,
}

/// Options that say the kind of a check.
const KINDS: [&str; 7] = ["tcp-check", "httpchk", "redis-check", "smtpchk", "ldap-check", "pgsql-check", "mysql-check"];

/// Whether a line says the kind of a check, or that there is none of this kind.
pub(super) fn is_kind(line: &CfgLine) -> bool {
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    matches!(words[..], ["option", kind, ..] | ["no", "option", kind, ..] if KINDS.contains(&kind))
}

impl CheckLines {
    /// The check, which is used: its lines are translated.
    pub(super) fn used(&self, ledger: &mut Ledger) -> DraftProbe {
        self.lines().for_each(|id| ledger.translated(id));
        if let Some(id) = self.helo {
            ledger.left(id, "HELO is not sent: the server's greeting is enough");
        }
        for id in &self.unanswered {
            ledger.left(*id, "no `expect` comes after it: nothing is sent");
        }
        self.probe.clone()
    }

    /// The lines that were read.
    pub(super) fn lines(&self) -> impl Iterator<Item = StatementId> {
        self.read.iter().copied()
    }

    /// Reads a line, if it is of a check.
    pub(super) fn read(&mut self, line: &CfgLine, ledger: &mut Ledger) -> bool {
        let word = |index: usize| line.words.get(index).map_or("", String::as_str);
        if is_kind(line) {
            // It takes the place of another kind.
            self.read.clear();
            self.helo = None;
            self.kind = (word(0) == "option").then(|| word(1).to_owned());
        }
        match (word(0), word(1)) {
            ("no", "option") if is_kind(line) => {
                self.probe = DraftProbe::Tcp;
                ledger.not_needed(line.id, "without another kind, checks connect");
            }
            ("option", "tcp-check") => {
                self.probe = DraftProbe::Tcp;
                ledger.not_needed(line.id, "checks connect; `tcp-check` lines say what they exchange");
            }
            ("option", "httpchk") => {
                let (method, path) = match (word(2), word(3)) {
                    ("", _) => ("OPTIONS", "/"),
                    (path, "") => ("OPTIONS", path),
                    (method, path) => (method, path),
                };
                let mut request = DraftRequest::default();
                set_request(&mut request, method, path, line, ledger);
                // Headers once stood behind the version: HTTP/1.1\r\nHost:\ name
                let mut more = word(4).split("\r\n");
                only_http_1_1(more.next().unwrap_or_default(), line, ledger);
                for header in more.filter(|header| !header.is_empty()) {
                    let (name, value) = header.split_once(':').unwrap_or((header, ""));
                    self.header(&mut request, name, value.trim(), line, ledger);
                }
                self.probe = DraftProbe::Http(request);
            }
            ("option", "redis-check") => self.database("redis", None),
            ("option", "smtpchk") => {
                self.exchange(b"", b"220");
                self.helo = (!word(2).is_empty()).then_some(line.id);
                self.notes.push("health: the server's greeting is enough; HELO is not sent.".to_owned());
            }
            ("option", "ldap-check") => {
                self.exchange(b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00", b"\x30");
                self.notes.push("health: an anonymous bind; any answer of LDAP passes.".to_owned());
            }
            // Its login stops where the server asks for the password, and so does a check without a user.
            ("option", "pgsql-check") => self.database("postgres", None),
            ("option", "mysql-check") => {
                self.database("mysql", (word(2) == "user").then(|| word(3)).filter(|user| !user.is_empty()));
            }
            ("http-check", _) => self.http(line, ledger),
            ("tcp-check", _) => match &self.kind {
                Some(kind) if kind != "tcp-check" => {
                    ledger.not_needed(line.id, format!("`option {kind}` says all of the check"));
                    return true;
                }
                _ => self.tcp(line, ledger),
            },
            _ => return false,
        }
        ledger.heard(line.id);
        self.read.push(line.id);
        true
    }

    fn exchange(&mut self, send: &[u8], expect: &[u8]) {
        self.probe = DraftProbe::Exchange { send: send.to_vec(), expect: expect.to_vec() };
    }

    fn database(&mut self, kind: &'static str, user: Option<&str>) {
        self.probe = DraftProbe::Database { kind, user: user.map(str::to_owned) };
        let role = "health: the server answers; with `user`, `password_file` and `role` the check tells primary and replica apart.";
        self.notes.push(role.to_owned());
    }

    fn http(&mut self, line: &CfgLine, ledger: &mut Ledger) {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let mut request = match &self.probe {
            DraftProbe::Http(request) => request.clone(),
            _ => return ledger.left(line.id, "it needs `option httpchk`"),
        };
        match words[1..] {
            ["send", ref rest @ ..] => {
                let (mut method, mut path) = (None, None);
                let mut rest = rest.iter();
                while let Some(word) = rest.next() {
                    match *word {
                        "meth" => method = rest.next(),
                        "uri" => path = rest.next(),
                        "ver" => only_http_1_1(rest.next().unwrap_or(&""), line, ledger),
                        "hdr" => {
                            let (name, value) = (rest.next().unwrap_or(&""), rest.next().unwrap_or(&""));
                            self.header(&mut request, name, value, line, ledger);
                        }
                        other => ledger.left(line.id, format!("{other}: checks send a request without a body")),
                    }
                }
                let known = (request.method.clone(), request.path.clone());
                let method = method.map_or(known.0.as_deref().unwrap_or("GET"), |method| method);
                let path = path.map_or(known.1.as_deref().unwrap_or("/health"), |path| path);
                set_request(&mut request, method, path, line, ledger);
            }
            ["expect", "status", status] if is_status(status) => request.status = Some(status.to_owned()),
            ["expect", "string", text]
                if !text.is_empty() && text.len() < 1024 && request.method.as_deref() != Some("HEAD") =>
            {
                request.body = Some(text.to_owned());
            }
            ["connect", ..] => {
                return ledger.left(line.id, "a check is one request, to the port of `health.port`, without TLS");
            }
            ["disable-on-404"] => {
                return ledger.left(line.id, "404 is a failure; `tidegate drain` takes a backend out");
            }
            _ => return ledger.left(line.id, "`status` is one range of statuses, and `body` one text in the answer"),
        }
        self.probe = DraftProbe::Http(request);
    }

    fn header(&mut self, request: &mut DraftRequest, name: &str, value: &str, line: &CfgLine, ledger: &mut Ledger) {
        let lower = name.to_ascii_lowercase();
        let value = value.trim();
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_value =
            !value.is_empty() && value.len() < 1024 && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let reserved = [
            "connection",
            "content-length",
            "transfer-encoding",
            "te",
            "upgrade",
            "expect",
            "trailer",
            "keep-alive",
            "proxy-connection",
        ];
        let is_new = !request.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        match lower.as_str() {
            "host" if is_value && !value.contains(' ') => request.host = Some(value.to_owned()),
            "connection" => ledger.not_needed(line.id, "Connection: a check closes its connection"),
            _ if is_name && is_value && is_new && lower != "host" && !reserved.contains(&lower.as_str()) => {
                request.headers.push((name.to_owned(), value.to_owned()));
            }
            _ => ledger.left(line.id, format!("{name}: checks do not send this header")),
        }
    }

    fn tcp(&mut self, line: &CfgLine, ledger: &mut Ledger) {
        const ONE: &str = "a check sends once and compares the beginning of the answer once";
        // What follows `comment` is no option.
        let end = line.words.iter().position(|word| word == "comment").unwrap_or(line.words.len());
        let words: Vec<&str> = line.words[..end].iter().map(String::as_str).collect();
        let expected = match words[1..] {
            ["connect"] => return ledger.not_needed(line.id, "a check begins with a connect"),
            ["connect", "port", port] => {
                self.port = port.parse().ok().filter(|port| *port != 0).map(|port| (port, line.id));
                if self.port.is_none() {
                    ledger.left(line.id, "port: not a port");
                }
                return;
            }
            ["connect", ..] => return ledger.left(line.id, "checks connect without TLS, to one port"),
            ["send", text] if !self.expected || self.is_redis() => {
                self.sent.extend(bytes(text));
                return self.unanswered.push(line.id);
            }
            ["send-binary", hex] if !self.expected => {
                match from_hex(hex) {
                    Some(bytes) => self.sent.extend(bytes),
                    None => ledger.left(line.id, "not hexadecimal"),
                }
                return self.unanswered.push(line.id);
            }
            ["expect", "string", text] => bytes(text),
            ["expect", "binary", hex] => from_hex(hex).unwrap_or_default(),
            _ => Vec::new(),
        };
        let role = [("role:master", "*3\r\n$6\r\nmaster", "primary"), ("role:slave", "*5\r\n$5\r\nslave", "replica")];
        let role = role.iter().find(|(text, ..)| expected == text.as_bytes());
        if let (Some((_, answer, name)), true) = (role, self.is_redis()) {
            let sent = String::from_utf8_lossy(&self.sent).into_owned();
            let login = sent.split("\r\n").find(|command| command.to_ascii_uppercase().starts_with("AUTH "));
            let (send, expect) = match login {
                Some(login) => (format!("{login}\r\nROLE\r\n"), format!("+OK\r\n{answer}")),
                None => ("ROLE\r\n".to_owned(), (*answer).to_owned()),
            };
            self.exchange(send.as_bytes(), expect.as_bytes());
            self.notes.retain(|note| !note.starts_with("health:"));
            self.notes.push(format!("health: ROLE instead of INFO: its answer begins with the role, {name}."));
            return self.unanswered.clear();
        }
        if self.is_redis() && self.expected && (expected.starts_with(b"+OK") || expected.starts_with(b"+PONG")) {
            for id in self.unanswered.drain(..).chain([line.id]) {
                ledger.not_needed(id, "a step of the dialogue beside the one that counts");
            }
            return;
        }
        if expected.is_empty() || self.expected || expected.len() > 4096 || self.sent.len() > 4096 {
            return ledger.left(line.id, ONE);
        }
        self.expected = true;
        self.unanswered.clear();
        let sent =
            if self.is_redis() && expected.starts_with(b"+PONG") { b"PING\r\n".to_vec() } else { self.sent.clone() };
        self.exchange(&sent, &expected);
        self.notes.push("health: `expect` is the beginning of the answer, not any part of it.".to_owned());
    }

    fn is_redis(&self) -> bool {
        let sent = String::from_utf8_lossy(&self.sent).to_ascii_lowercase();
        ["ping\r\n", "auth ", "info replication", "quit\r\n"].iter().any(|command| sent.starts_with(command))
    }
}

/// Versions in a request are not chosen.
fn only_http_1_1(version: &str, line: &CfgLine, ledger: &mut Ledger) {
    if !["", "HTTP/1.1"].contains(&version) {
        ledger.not_needed(line.id, format!("{version}: checks speak HTTP/1.1"));
    }
}

fn set_request(request: &mut DraftRequest, method: &str, path: &str, line: &CfgLine, ledger: &mut Ledger) {
    let method = method.to_ascii_uppercase();
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_method {
        ledger.left(line.id, format!("{method}: not a method, GET instead"));
    }
    request.method = Some(method).filter(|method| is_method && method != "GET");
    let is_path = path.starts_with('/') && path.len() < 1024 && path.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_path {
        ledger.left(line.id, format!("{path}: not a path, /health instead"));
    }
    request.path = Some(path.to_owned()).filter(|path| is_path && path != "/health");
}

fn is_status(text: &str) -> bool {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| text.len() == 3 && (100..600).contains(status));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    status(first).zip(status(last)).is_some_and(|(first, last)| first <= last)
}

/// The bytes of a text, in which an escape `\xNN` is the character of that number.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for letter in text.chars() {
        match u8::try_from(letter) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    hex.as_bytes().chunks(2).map(pair).collect()
}
