//! What a client that gets no backend is told in its own language.

use std::time::Duration;

use super::ahead::Ahead;
use super::context::{Context, ListenerState};
use super::farewell::{Patience, farewell};
use super::opening::after;
use super::peer::Client;
use crate::config::model::{ListenerTls, Sniff, StartTls};
use crate::sniff::{http, postgres};
use crate::stats::ending::Ending;
use crate::stats::http::{HttpEvent, Method, StatusClass};
use crate::stats::latency::BackendId;

/// Tells the client why it gets no backend, if it speaks what the listener is for, and when to try again. `ahead` is what was
/// read of it.
pub(super) async fn last_words(
    listener: &ListenerState,
    client: &Client,
    ahead: Vec<u8>,
    ending: Ending,
    retry_after: Duration,
) {
    let Some(why) = Why::of(ending) else { return };
    if let Some((ListenerTls { starttls: Some(StartTls::Postgres), .. }, _)) = listener.tls() {
        farewell(client, &why.to_postgres(), Patience::SHORT).await;
    } else if listener.config().sniff == Sniff::Http {
        // An answer before the request would be taken for none, and what is no HTTP gets none.
        let mut ahead = Ahead::with(client, ahead, after(listener.config().timeouts.sniff));
        let Ok(Ok(request)) = ahead.until(http::recognise).await else { return };
        let method = Method::named(&request.method);
        let class = if why.is_over_limit { StatusClass::ClientError } else { StatusClass::ServerError };
        Context::with(|context| context.saw_http(listener, BackendId::NONE, HttpEvent::Responded(method, class)));
        farewell(client, &why.to_http(method, retry_after), Patience::LONG).await;
    }
}

/// Why a client gets no backend, for itself to read.
#[derive(Clone, Copy)]
struct Why {
    words: &'static str,
    /// It is for the client to come less often, and not for somebody to mend a backend.
    is_over_limit: bool,
}

impl Why {
    /// Nothing for a client that has done something else wrong.
    fn of(ending: Ending) -> Option<Why> {
        let (words, is_over_limit) = match ending {
            Ending::NoBackend => ("no backend can take the request now", false),
            Ending::ConnectFailed => ("no backend could be reached", false),
            Ending::OutOfResources => ("the load balancer has no resources left for the request", false),
            Ending::AddressConnections => ("too many connections from this address", true),
            Ending::AddressRate => ("connections from this address come too fast", true),
            Ending::ListenerRate => ("connections come too fast", true),
            _ => return None,
        };
        Some(Why { words, is_over_limit })
    }

    /// An ErrorResponse, which a client takes at any point before its session begins.
    fn to_postgres(self) -> Vec<u8> {
        match self.is_over_limit {
            true => postgres::error_response("53300", self.words, Some("Try again later.")),
            false => {
                let hint = Some("The load balancer's log says why; try again later.");
                postgres::error_response("57P03", "no database server can take the connection now", hint)
            }
        }
    }

    /// 503 for a request that no backend can take (RFC 9110, 15.6.4), 429 for one over a limit (RFC 6585, 4).
    fn to_http(self, method: Method, retry_after: Duration) -> Vec<u8> {
        let status = if self.is_over_limit { "429 Too Many Requests" } else { "503 Service Unavailable" };
        let body = serde_json::json!({ "error": self.words }).to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: {}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            body.len(),
            retry_after.as_nanos().div_ceil(1_000_000_000).max(1),
        );
        let body = if method == Method::Head { "" } else { &body };
        [head.as_bytes(), body.as_bytes()].concat()
    }
}
