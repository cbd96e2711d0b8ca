//! Which route a client matches, in words.

use serde::{Deserialize, Serialize};

use crate::config::model::RouteTarget;
use crate::server::{Listener, RouteKey, RouteMatch};

/// Networks of a condition that are listed.
const LISTED: usize = 5;

/// A route that does not match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkippedRoute {
    /// Its place, with its name if it has one.
    pub route: String,
    /// The keys of its `match` that do not match.
    pub unmet: Vec<String>,
}

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
    let words = format!("{} matches: {}", place(listener, found.route), route.conditions(LISTED));
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

/// A route's place, with its name if it has one.
pub(super) fn place(listener: &Listener, number: usize) -> String {
    match listener.config().routes.get(number).and_then(|route| route.name.as_deref()) {
        Some(name) => format!("routes[{number}] ({name})"),
        None => format!("routes[{number}]"),
    }
}

/// The routes before the one that matches, or all, and why each does not.
pub(super) fn skipped(listener: &Listener, route: Option<RouteMatch>, key: &RouteKey<'_>) -> Vec<SkippedRoute> {
    let end = route.map_or(listener.config().routes.len(), |found| found.route);
    let skipped = (0..end).map(|number| SkippedRoute {
        route: place(listener, number),
        unmet: listener.unmet(number, key).into_iter().map(str::to_owned).collect(),
    });
    skipped.collect()
}
