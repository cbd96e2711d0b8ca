//! `tidegate explain`.

use std::fmt::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use hyper::Method;
use tidegate::admin::explain::{AtBackend, AtListener, Explanation, SkippedRoute};
use tidegate::config::model::ListenerState;

use super::output::{print, say};
use super::stats_port::{Which, encoded};

/// What is asked.
#[derive(clap::Args)]
pub(crate) struct Explain {
    /// Client address
    #[arg(long, value_name = "IP")]
    client: IpAddr,
    /// Server name in the ClientHello (SNI)
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Application protocol that the client offers (ALPN), most preferred first; may be repeated
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Vec<String>,
    /// Host of the request, for listeners with protocol: http; of the first request with sniff: http
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Path of the request [default: /]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Method of the request, for listeners with protocol: http [default: GET]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Field of the request, for listeners with protocol: http, such as "X-Canary: 1"; may be repeated
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,
    /// Protocol of the client's first bytes, for routes by protocol: tls, http, ssh, postgres or redis
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// Listener to connect to [default: all]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

/// Asks a running tidegate which backend a client would get now, and why.
pub(crate) fn explain(asked: Explain) -> ExitCode {
    let query = query(&asked);
    let json = asked.json;
    let port = match asked.which.find() {
        Ok(port) => port,
        Err(code) => return code,
    };
    let answer = port.ask_blocking::<Explanation>(&Method::GET, &query);
    match answer {
        Ok(explanation) if json => match serde_json::to_string_pretty(&explanation) {
            Ok(text) => print(format!("{text}\n").as_bytes()),
            Err(error) => failed(&error.to_string()),
        },
        Ok(explanation) => print(in_words(&explanation).as_bytes()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    say(format_args!("error: {error}"));
    ExitCode::FAILURE
}

fn query(asked: &Explain) -> String {
    let mut query = format!("/explain?client={}", encoded(&asked.client.to_string()));
    let others = [
        ("sni", &asked.sni),
        ("host", &asked.host),
        ("path", &asked.path),
        ("method", &asked.method),
        ("protocol", &asked.protocol),
        ("listener", &asked.listener),
    ];
    let others = others.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    let lists =
        asked.alpn.iter().map(|value| ("alpn", value)).chain(asked.header.iter().map(|value| ("header", value)));
    for (key, value) in others.chain(lists) {
        _ = write!(query, "&{key}={}", encoded(value));
    }
    query
}

/// For people: a paragraph for each listener.
fn in_words(explanation: &Explanation) -> String {
    let mut text = String::new();
    for (place, listener) in explanation.listeners.iter().enumerate() {
        if place > 0 {
            text.push('\n');
        }
        at_listener(&mut text, &explanation.client, listener);
    }
    text
}

fn at_listener(text: &mut String, client: &str, at: &AtListener) {
    let target = match (&at.rejected, &at.backend) {
        (Some(_), _) => "rejected".to_owned(),
        _ if at.state == ListenerState::Paused => "waits".to_owned(),
        (None, Some(backend)) => backend.clone(),
        (None, None) if at.backends.iter().any(|backend| backend.chosen) => "one of several".to_owned(),
        (None, None) => "no backend".to_owned(),
    };
    // A write to a string never fails.
    _ = writeln!(text, "{client} at listener {} ({}): {target}", at.listener, at.addresses.join(", "));
    for note in &at.notes {
        _ = writeln!(text, "  note      {note}");
    }
    if let Some(why) = &at.rejected {
        _ = writeln!(text, "  rejected  {why}");
        return;
    }
    for SkippedRoute { route, unmet } in &at.skipped {
        _ = writeln!(text, "  skipped   {route}: no match by {}", unmet.join(", "));
    }
    _ = writeln!(text, "  route     {}", at.route);
    _ = writeln!(text, "  pool      {}", at.pool);
    _ = writeln!(text, "  because   {}", at.why);
    let width = at.backends.iter().map(|backend| backend.backend.chars().count()).max().unwrap_or_default();
    for AtBackend { backend, address, chosen, why, .. } in &at.backends {
        let mark = if *chosen { '>' } else { ' ' };
        let address = if address == backend { String::new() } else { format!("{address}  ") };
        _ = writeln!(text, "  {mark} {backend:width$}  {address}{why}");
    }
}

#[cfg(test)]
mod tests {
    use tidegate::config::model::Balance;

    use super::*;

    #[test]
    fn a_rejection_names_no_backend() {
        let at = AtListener {
            listener: "in".to_owned(),
            addresses: vec!["127.0.0.1:1".to_owned()],
            state: ListenerState::Ready,
            notes: Vec::new(),
            rejected: Some("no certificate fits".to_owned()),
            skipped: Vec::new(),
            route: "none".to_owned(),
            pool: "p".to_owned(),
            balance: Balance::Random,
            backend: Some("b".to_owned()),
            why: "x".to_owned(),
            backends: Vec::new(),
        };
        let text = in_words(&Explanation { client: "::1".to_owned(), time: 0.0, listeners: vec![at] });
        assert_eq!(text, "::1 at listener in (127.0.0.1:1): rejected\n  rejected  no certificate fits\n");
    }
}
