//! Conditions of routes: server names, hosts, paths.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::report::{Diagnostic, shown};
use crate::net::name::NamePattern;

/// A pattern of server names: `db.example.com`, `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NameRule(pub(crate) NamePattern);

impl FromStr for NameRule {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<NameRule, Diagnostic> {
        if text.parse::<IpAddr>().is_ok() {
            return Err(Diagnostic::new(format!(
                "`{text}` is an IP address: clients never send one as SNI (RFC 6066, 3)"
            ))
            .hint("to select by destination address, bind a listener to it"));
        }
        pattern(text).map(NameRule)
    }
}

fn pattern(text: &str) -> Result<NamePattern, Diagnostic> {
    if let Some(pattern) = NamePattern::parse(text) {
        return Ok(pattern);
    }
    let diagnostic = Diagnostic::new(format!("`{}` is not a server name", shown(text)));
    Err(if text == "*" {
        diagnostic.hint("connections that match no route go to the listener's `pool`")
    } else if text.contains(['/', ':']) {
        diagnostic.hint("write the host name only, without scheme, port and path: www.example.com")
    } else if text.contains('*') {
        diagnostic.hint("a wildcard replaces the whole first label: *.example.com")
    } else if !text.is_ascii() {
        diagnostic.hint("write it as DNS has it: xn--...")
    } else {
        diagnostic
            .hint("allowed are letters, digits, `-`, `_` and `.`, at most 63 characters per label and 253 in total")
    })
}

impl fmt::Display for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A pattern of a request's host: a server name, or an IPv4 address.
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

/// A prefix of a request's path: `/api/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PathPrefix(pub(crate) Arc<str>);

impl FromStr for PathPrefix {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<PathPrefix, Diagnostic> {
        path(text, "path prefix").map(PathPrefix)
    }
}

fn path(text: &str, kind: &str) -> Result<Arc<str>, Diagnostic> {
    let diagnostic = Diagnostic::new(format!("`{}` is not a {kind}", shown(text)));
    if !text.starts_with('/') {
        return Err(diagnostic.hint(format!("paths begin with a slash: write /{}", shown(text))));
    }
    if text.contains(['?', '#']) {
        return Err(diagnostic.hint("the query is not matched: write the path only"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(diagnostic.hint("percent-encode other characters, as requests do: %20 for a space"));
    }
    Ok(text.into())
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole path of a request: `/login`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WholePath(pub(crate) Arc<str>);

impl FromStr for WholePath {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<WholePath, Diagnostic> {
        path(text, "path").map(WholePath)
    }
}

impl fmt::Display for WholePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
