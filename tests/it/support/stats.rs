//! What the stats port says.

use std::io::{Read, Write};

use serde_json::Value;

use super::client::{Place, connect};
use super::tidegate::Tidegate;
use super::{DEADLINE, eventually};

/// The stats port of a tidegate.
pub(crate) struct Stats {
    address: String,
}

/// An answer of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

impl Stats {
    pub(crate) fn of(tidegate: &Tidegate) -> Stats {
        let line = tidegate.wait_for_log("where the stats port is", |line| line.is("stats port"));
        Stats { address: line.field("address") }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_as(path, "*/*")
    }

    /// With this Accept header.
    pub(crate) fn get_as(&self, path: &str, accept: &str) -> Answer {
        let mut stream = connect(&Place::parse(&self.address));
        let host = &self.address;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a request");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut lines = head.lines();
        let content_type = lines.find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default().to_owned();
        Answer { status, content_type, body: bytes[end + 4..].to_vec() }
    }

    /// `/stats`.
    pub(crate) fn view(&self) -> Value {
        self.get("/stats").json()
    }

    /// Waits until that many connections of a listener have ended, and their bytes are counted.
    pub(crate) fn wait_for_ended(&self, listener: &str, count: u64) {
        eventually(DEADLINE, &format!("{count} connections of {listener} have ended"), || {
            let view = self.view();
            let listeners = view["listeners"].as_array().expect("listeners");
            let listener = listeners.iter().find(|entry| entry["name"] == listener).expect("the listener");
            listener["ended"] == count && listener["open"] == 0
        });
    }
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}
