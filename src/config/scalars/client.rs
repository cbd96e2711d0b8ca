//! Clients by network or country.

use std::fmt;
use std::str::FromStr;

use super::proxy_protocol::Network;
use crate::config::model::ClientRule;
use crate::config::report::{Diagnostic, shown};
use crate::net::country::Country;

/// What a country in a list of clients begins with.
const COUNTRY: &str = "country:";

/// A country code such as `DE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CountryCode(pub(crate) Country);

impl FromStr for CountryCode {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<CountryCode, Diagnostic> {
        let assigned = |code: &str| Country::of_letters(code).filter(|country| country.is_assigned());
        if let Some(country) = assigned(text) {
            return Ok(CountryCode(country));
        }
        let diagnostic = Diagnostic::new(format!("`{}` is not a country code", shown(text)));
        let capitals = text.to_ascii_uppercase();
        Err(match capitals.as_str() {
            "UK" => diagnostic.hint("write GB for the United Kingdom"),
            "EL" => diagnostic.hint("write GR for Greece"),
            code if assigned(code).is_some() => diagnostic.hint(format!("write {code}")),
            _ => diagnostic.hint("write a code of ISO 3166-1 with two letters, such as DE"),
        })
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Clients: a network, an address, or `country:DE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientPattern(pub(crate) ClientRule);

impl FromStr for ClientPattern {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<ClientPattern, Diagnostic> {
        if let Some(code) = text.strip_prefix(COUNTRY) {
            return code.parse().map(|CountryCode(country)| ClientPattern(ClientRule::Country(country)));
        }
        if let Ok(CountryCode(country)) = text.parse() {
            let diagnostic = Diagnostic::new(format!("`{}` is not a network", shown(text)));
            return Err(diagnostic.hint(format!("write {COUNTRY}{country} for the country")));
        }
        text.parse().map(|Network(network)| ClientPattern(ClientRule::Network(network)))
    }
}

impl fmt::Display for ClientPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
