//! What a client that gets no backend is told in its own language.

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

/// Tells the client why it gets no backend, if it speaks what the listener is for. `ahead` is what was read of it.
pub(super) async fn last_words(listener: &ListenerState, client: &Client, ahead: Vec<u8>, ending: Ending) {
    let why = match ending {
        Ending::NoBackend => "no backend can take the request now",
        Ending::ConnectFailed => "no backend could be reached",
        Ending::OutOfResources => "the load balancer has no resources left for the request",
        _ => return,
    };
    if let Some((ListenerTls { starttls: Some(StartTls::Postgres), .. }, _)) = listener.tls() {
        let hint = Some("The load balancer's log says why; try again later.");
        let words = postgres::error_response("57P03", "no database server can take the connection now", hint);
        farewell(client, &words, Patience::SHORT).await;
    } else if listener.config().sniff == Sniff::Http {
        // An answer before the request would be taken for none, and what is no HTTP gets none.
        let mut ahead = Ahead::with(client, ahead, after(listener.config().timeouts.sniff));
        let Ok(Ok(request)) = ahead.until(http::recognise).await else { return };
        let method = Method::named(&request.method);
        let event = HttpEvent::Responded(method, StatusClass::ServerError);
        Context::with(|context| context.saw_http(listener, BackendId::NONE, event));
        farewell(client, &unavailable(method, why), Patience::LONG).await;
    }
}

/// The response to a request that no backend can take (RFC 9110, 15.6.4).
fn unavailable(method: Method, why: &str) -> Vec<u8> {
    let body = serde_json::json!({ "error": why }).to_string();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: 1\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if method == Method::Head { "" } else { &body };
    [head.as_bytes(), body.as_bytes()].concat()
}
