//! What is counted of HTTP.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::client::read_to_end;
use super::stats::{ADMIN, get};
use super::tidegate::Tidegate;
use super::{DEADLINE, eventually};

pub(crate) const WATCHED: &str = "sniff: http";

/// With the stats port.
pub(crate) fn observed(yaml: &str) -> Tidegate {
    Tidegate::start(&format!("{ADMIN}{yaml}"))
}

/// What the stats port says.
pub(crate) fn stats(tidegate: &Tidegate) -> Value {
    get(&tidegate.stats_port(), "/stats").json()
}

/// What was seen of HTTP.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) unanswered: u64,
    pub(crate) opaque: u64,
    /// `GET 2xx`, and how many.
    pub(crate) responses: Vec<(String, u64)>,
}

pub(crate) fn seen(http: &Value) -> Seen {
    let Some(http) = http.as_object() else { return Seen::default() };
    let number = |value: &Value| value.as_u64().expect("a number");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let responses = http["responses"].as_array().expect("a list");
    Seen {
        requests: number(&http["requests"]),
        unanswered: number(&http["no_response"]),
        opaque: number(&http["passthrough"]),
        responses: responses
            .iter()
            .map(|of| (format!("{} {}", text(&of["method"]), text(&of["class"])), number(&of["count"])))
            .collect(),
    }
}

/// Of the listener `in`, once its connections have ended.
pub(crate) fn seen_by_listener(tidegate: &Tidegate) -> Seen {
    ended(tidegate);
    seen(&stats(tidegate)["listeners"][0]["http"])
}

pub(crate) fn ended(tidegate: &Tidegate) {
    eventually(DEADLINE, "no connection is open", || stats(tidegate)["listeners"][0]["open"] == 0);
}

/// The listener's and its backend's, which are the same, and times of each answer.
pub(crate) fn seen_everywhere(tidegate: &Tidegate) -> Seen {
    let listener = seen_by_listener(tidegate);
    let stats = stats(tidegate);
    assert_eq!(stats["listeners"][0]["sniffs_http"], true);
    let backend = &stats["pools"][0]["backends"][0];
    assert_eq!(seen(&backend["http"]), listener);
    for stage in ["http_first_byte", "http_response"] {
        for owner in [&stats["listeners"][0], backend] {
            let timed = owner["latency"][stage]["all"]["count"].as_u64().unwrap_or_default();
            assert_eq!(timed, listener.requests - listener.unanswered, "{stage}");
        }
    }
    listener
}

pub(crate) fn responses(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(of, count)| ((*of).to_owned(), *count)).collect()
}

/// The address of a place, for clients that make URLs of it.
pub(crate) fn address(tidegate: &Tidegate) -> SocketAddr {
    tidegate.at("in").tcp()
}

/// What is left of a connection to be read.
pub(crate) fn rest(mut stream: TcpStream) -> String {
    String::from_utf8(read_to_end(&mut stream).0).unwrap()
}
