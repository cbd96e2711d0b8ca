//! Conditions of routes: server names, hosts, path prefixes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::report::{Diagnostic, shown};
use crate::net::name::NamePattern;

/// Names of servers that a route takes: `db.example.com`, `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NameRule(pub(crate) NamePattern);

impl FromStr for NameRule {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<NameRule, Diagnostic> {
        if text.parse::<IpAddr>().is_ok() {
            return Err(Diagnostic::error(format!("`{text}` is an address, which no client sends as a server's name"))
                .hint("for connections to this address, bind a listener to it (RFC 6066, 3)"));
        }
        pattern(text).map(NameRule)
    }
}

fn pattern(text: &str) -> Result<NamePattern, Diagnostic> {
    if let Some(pattern) = NamePattern::parse(text) {
        return Ok(pattern);
    }
    let diagnostic = Diagnostic::error(format!("`{}` is not the name of a server", shown(text)));
    Err(if text == "*" {
        diagnostic.hint("what no route matches goes to the listener's `pool`")
    } else if text.contains(['/', ':']) {
        diagnostic.hint("write the name alone, without scheme, port and path: www.example.com")
    } else if text.contains('*') {
        diagnostic.hint("a star stands for the whole first part of a name: *.example.com")
    } else if !text.is_ascii() {
        diagnostic.hint("write it as DNS has it: xn--...")
    } else {
        diagnostic.hint("letters, digits, `-`, `_` and `.`; at most 63 between two dots, 253 in all")
    })
}

impl fmt::Display for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hosts that a route takes, as requests name them: a server's name, or an IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostRule(pub(crate) NamePattern);

impl FromStr for HostRule {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<HostRule, Diagnostic> {
        pattern(text).map(HostRule)
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the paths of requests begin with that a route takes: `/api/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PathPrefix(pub(crate) Arc<str>);

impl FromStr for PathPrefix {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<PathPrefix, Diagnostic> {
        let diagnostic = Diagnostic::error(format!("`{}` is not the beginning of a path", shown(text)));
        if !text.starts_with('/') {
            return Err(diagnostic.hint(format!("paths begin with a slash: write /{}", shown(text))));
        }
        if text.contains(['?', '#']) {
            return Err(diagnostic.hint("the query is not looked at: write what comes before it"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                diagnostic.hint("write it as it is sent: other characters are percent-encoded, as %20 is a space")
            );
        }
        Ok(PathPrefix(text.into()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
