//! The stats port, as a client sees it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output};

use serde_json::Value;
use tidegate::admin::snapshot_model::{BackendStats, ListenerStats, Snapshot};

use super::client::{Place, connect, read_to_end};
use super::tidegate::Tidegate;

/// The key that opens the stats port on a port of its own.
pub(crate) const ADMIN: &str = "admin: { bind: \"127.0.0.1:0\" }\n";

/// The key that opens it on a unix socket, over which everything may be changed.
pub(crate) const ADMIN_SOCKET: &str = "admin: { bind: \"unix:DIRECTORY/admin.sock\" }\n";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// As they came, in lower case.
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    /// The value of a header, in lower case; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| *known == name).map(|(_, value)| value).next().unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// GET on a connection of its own, with these further header lines.
pub(crate) fn get_with(place: &Place, path: &str, headers: &str) -> Answer {
    ask(place, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"))
}

/// GET on a connection of its own.
pub(crate) fn get(place: &Place, path: &str) -> Answer {
    get_with(place, path, "")
}

/// A call with a body, and further header lines.
pub(crate) fn call_with(place: &Place, method: &str, path: &str, body: &str, headers: &str) -> Answer {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}");
    ask(place, &format!("{head}Content-Length: {length}\r\n\r\n{body}"))
}

/// A call with a body.
pub(crate) fn call(place: &Place, method: &str, path: &str, body: &str) -> Answer {
    call_with(place, method, path, body, "")
}

/// Sends a request as it is; it must say that the connection ends with the answer.
pub(crate) fn ask(place: &Place, request: &str) -> Answer {
    let mut stream = connect(place);
    stream.write_all(request.as_bytes()).expect("send");
    let (bytes, _) = read_to_end(&mut stream);
    answer(&bytes).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)))
}

fn answer(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let headers = std::str::from_utf8(&bytes[..end]).ok()?.to_lowercase();
    let status = headers.split(' ').nth(1)?.parse().ok()?;
    let body = &bytes[end + 4..];
    let body = if headers.contains("transfer-encoding: chunked") { unchunked(body)? } else { body.to_vec() };
    Some(Answer { status, headers, body })
}

fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?, 16).ok()?;
        bytes = &bytes[line + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

/// Samples of counters and histograms in `/metrics`, by name and labels.
pub(crate) fn counters(place: &Place) -> BTreeMap<String, f64> {
    let text = get(place, "/metrics").text();
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let is_counter = |name: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        types.get(name) == Some(&"counter") || of_histogram.is_some_and(|base| types.get(base) == Some(&"histogram"))
    };
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let samples = samples.filter(|(key, _)| key.split('{').next().is_some_and(is_counter));
    samples.map(|(key, value)| (key.to_owned(), value.parse().expect("a number"))).collect()
}

/// A command that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// What it printed; fails the test unless it succeeded.
    pub(crate) fn printed(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.out
    }
}

impl Tidegate {
    /// Where its stats port is (JSON logs only).
    pub(crate) fn stats_port(&self) -> Place {
        Place::parse(&self.wait_for_log("the stats port", |line| line.is("stats port")).field("address"))
    }

    /// A call of its admin interface.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        call(&self.stats_port(), method, path, body)
    }

    /// A backend as `/api/pools` has it.
    pub(crate) fn resource(&self, path: &str) -> Value {
        let answer = get(&self.stats_port(), path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Which configuration is in effect.
    pub(crate) fn generation(&self) -> u64 {
        let answer = get(&self.stats_port(), "/api/pools");
        answer.header("etag").trim_matches('"').parse().unwrap_or_else(|_| panic!("no ETag: {answer:?}"))
    }

    /// A command of the binary's, about this process.
    pub(crate) fn command(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).current_dir(self.directory());
        Ran::of(&command.output().expect("run tidegate"))
    }

    /// What `/stats` says now.
    pub(crate) fn view(&self) -> Snapshot {
        let answer = get(&self.stats_port(), "/stats");
        assert_eq!(answer.status, 200);
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
    }
}

/// The listener of this name.
pub(crate) fn listener<'v>(view: &'v Snapshot, name: &str) -> &'v ListenerStats {
    view.listeners.iter().find(|listener| listener.name == name).unwrap_or_else(|| panic!("no listener {name}"))
}

/// The backend of this name, in whichever pool.
pub(crate) fn backend<'v>(view: &'v Snapshot, name: &str) -> &'v BackendStats {
    let mut backends = view.pools.iter().flat_map(|pool| &pool.backends);
    backends.find(|backend| backend.name == name).unwrap_or_else(|| panic!("no backend {name}"))
}
