//! Which route a client matches, in words.

use crate::config::model::{RouteConfig, RouteTarget};
use crate::server::{Listener, RouteMatch};

/// Networks of a condition that are listed.
const LISTED: usize = 5;

/// Which route, why, and of a split which share. `by_address`: the share is that of the client's address.
pub(super) fn route_in_words(listener: &Listener, route: Option<RouteMatch>, by_address: bool) -> String {
    let config = listener.config();
    let found = route.and_then(|found| Some((found, config.routes.get(found.route)?)));
    let Some((found, route)) = found else {
        return match config.routes.is_empty() {
            true => "none: the listener has no routes".to_owned(),
            false => "none matches: the listener's own pool".to_owned(),
        };
    };
    let words = format!("routes[{}] matches: {}", found.route, conditions(route));
    match &route.target {
        RouteTarget::Pool(_) => words,
        RouteTarget::Refuse => format!("{words}; it refuses the client"),
        RouteTarget::Split(shares) => {
            let total: u32 = shares.iter().map(|share| share.weight).sum();
            let weight = shares.get(found.share).map_or(0, |share| share.weight);
            // Tenths of a percent.
            let percent = (f64::from(weight) * 1000.0 / f64::from(total.max(1))).round() / 10.0;
            let pool = listener.pool(Some(found)).name();
            let how = match by_address {
                true => "the hash of its address is in the share of",
                false => "as clients have no address, each connection draws a share, now that of",
            };
            format!("{words}; split: {how} {pool}, {percent} % of the clients")
        }
    }
}

fn conditions(route: &RouteConfig) -> String {
    let mut client: Vec<String> = route.client.iter().take(LISTED).map(ToString::to_string).collect();
    if let Some(more) = route.client.len().checked_sub(LISTED).filter(|more| *more > 0) {
        client.push(format!("{more} more"));
    }
    let shown = |list: Vec<String>| list.join(", ");
    let rules = [
        ("sni", shown(route.sni.iter().map(ToString::to_string).collect())),
        ("alpn", shown(route.alpn.iter().map(ToString::to_string).collect())),
        ("host", shown(route.host.iter().map(ToString::to_string).collect())),
        ("path_prefix", shown(route.path_prefix.iter().map(ToString::to_string).collect())),
        ("client", shown(client)),
        ("country", shown(route.country.iter().map(ToString::to_string).collect())),
        ("protocol", shown(route.protocol.iter().map(ToString::to_string).collect())),
    ];
    let rules = rules.iter().filter(|(_, names)| !names.is_empty()).map(|(key, names)| format!("{key}: [{names}]"));
    rules.collect::<Vec<_>>().join(", ")
}
