//! `/metrics`: for Prometheus and whatever reads as it does.
//!
//! A scrape makes [`families`] of the snapshot and the histograms of that moment; nothing is kept between two of them. They
//! are written as Prometheus' text format ([`classic`]), as OpenMetrics ([`text`]), or, for a Prometheus that asks for
//! native histograms, as protobuf ([`protobuf`]), by what the client says that it reads ([`accept`]).

mod accept;
mod buckets;
mod classic;
mod datagrams;
mod families;
mod family;
mod http;
mod protobuf;
mod queries;
mod text;
mod traffic;

use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};

use self::accept::Form;
use super::response::{ResponseBody, plain, whole};
use super::snapshot_model::Snapshot;
use crate::stats::latency::Latencies;

/// Answers a scrape with these headers.
pub(super) fn answer(headers: &HeaderMap, snapshot: &Snapshot, latencies: &Latencies) -> Response<ResponseBody> {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let form = Form::wanted(accept.flat_map(|value| value.split(',')));
    let families = families::families(snapshot, latencies);
    let body = match form {
        Form::OpenMetrics => text::encode(families).map(String::into_bytes),
        Form::Text => Ok(classic::encode(&families).into_bytes()),
        Form::Protobuf => Ok(protobuf::encode(families)),
    };
    match body {
        Ok(body) => whole(StatusCode::OK, form.content_type(), body),
        // Writing to memory does not fail.
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
    }
}
