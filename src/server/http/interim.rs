//! Interim responses (1xx) of a backend: 100 for the request's body, others for a client of HTTP/1.1.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::CONTENT_LENGTH;
use hyper::http::Extensions;
use hyper::{HeaderMap, Request, StatusCode};

use crate::http::forward::strip_hop_by_hop;

/// Interim responses of a request that are forwarded. A browser takes few: each is a line of progress or a list of hints.
const MAX_INTERIM: usize = 16;

/// What a backend has sent ahead of its response. hyper's callback may be called by any thread, as far as its type says.
#[derive(Default)]
pub(super) struct Interim {
    wants_body: AtomicBool,
    heads: Mutex<Heads>,
}

#[derive(Default)]
struct Heads {
    /// Those that were not forwarded yet.
    bytes: Vec<u8>,
    count: usize,
}

impl Interim {
    /// Notes interim responses to each request with these extensions; with `forwards`, those other than 100 for the client.
    pub(super) fn of(extensions: &mut Extensions, forwards: bool) -> Arc<Interim> {
        let interim = Arc::new(Interim::default());
        let noted = Arc::clone(&interim);
        let mut carrier = Request::new(());
        std::mem::swap(carrier.extensions_mut(), extensions);
        hyper::ext::on_informational(&mut carrier, move |response| match response.status() {
            StatusCode::CONTINUE => noted.wants_body.store(true, Ordering::Relaxed),
            status if forwards => noted.note(status, response.headers().clone()),
            _ => {}
        });
        std::mem::swap(carrier.extensions_mut(), extensions);
        interim
    }

    fn note(&self, status: StatusCode, mut headers: HeaderMap) {
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.count == MAX_INTERIM {
            return;
        }
        heads.count += 1;
        strip_hop_by_hop(&mut headers);
        // It has no body (RFC 9110, 8.6).
        headers.remove(CONTENT_LENGTH);
        encode(status, &headers, &mut heads.bytes);
    }

    /// Whether the backend has asked for the body.
    pub(super) fn wants_body(&self) -> bool {
        self.wants_body.load(Ordering::Relaxed)
    }

    /// Heads that have come since the last call.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.heads.lock().unwrap_or_else(PoisonError::into_inner).bytes)
    }
}

fn encode(status: StatusCode, headers: &HeaderMap, into: &mut Vec<u8>) {
    into.extend_from_slice(b"HTTP/1.1 ");
    into.extend_from_slice(status.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in headers {
        for part in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
            into.extend_from_slice(part);
        }
    }
    into.extend_from_slice(b"\r\n\r\n");
}
