//! HTTP: versions, paths, methods, and what a request is sent again for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::model::{HttpRetry, HttpVersion};
use crate::config::report::{Diagnostic, shown};

/// Whether text is a token (RFC 9110, 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_letter)
}

/// The version of HTTP to a backend: `1.1` or `2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendHttp(pub(crate) HttpVersion);

impl FromStr for BackendHttp {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<BackendHttp, Diagnostic> {
        match text {
            "1.1" => Ok(BackendHttp(HttpVersion::Http1)),
            "2" => Ok(BackendHttp(HttpVersion::Http2)),
            _ => {
                let diagnostic = Diagnostic::new(format!("`{}` is not a supported version of HTTP", shown(text)));
                Err(diagnostic.hint("write 1.1 or 2"))
            }
        }
    }
}

impl fmt::Display for BackendHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            HttpVersion::Http1 => "1.1",
            HttpVersion::Http2 => "2",
        })
    }
}

/// A failure after which a request is sent again: `connect`, `closed`, `502`, `503`, `504`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RetryReason(pub(crate) HttpRetry);

impl FromStr for RetryReason {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<RetryReason, Diagnostic> {
        let status = text.parse().ok().filter(|status| (502..=504).contains(status));
        match (text, status) {
            ("connect", _) => Ok(RetryReason(HttpRetry::Connect)),
            ("closed", _) => Ok(RetryReason(HttpRetry::Closed)),
            (_, Some(status)) => Ok(RetryReason(HttpRetry::Status(status))),
            _ => {
                let diagnostic = Diagnostic::new(format!("requests are not sent again after `{}`", shown(text)));
                Err(diagnostic.hint("write connect, closed, 502, 503 or 504"))
            }
        }
    }
}

impl fmt::Display for RetryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            HttpRetry::Connect => f.write_str("connect"),
            HttpRetry::Closed => f.write_str("closed"),
            HttpRetry::Status(status) => status.fmt(f),
        }
    }
}

/// The method of a request. Lower case is refused, although a token may have it: methods are case-sensitive, and `get` is a typo.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MethodName(pub(crate) Arc<str>);

impl FromStr for MethodName {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<MethodName, Diagnostic> {
        if !is_token(text) {
            let diagnostic = Diagnostic::new(format!("`{}` is not an HTTP method", shown(text)));
            return Err(diagnostic.hint("for example GET, POST or PUT"));
        }
        let upper = text.to_ascii_uppercase();
        if upper != text {
            return Err(Diagnostic::new(format!("`{text}` is not upper case")).hint(format!("write {upper}")));
        }
        Ok(MethodName(text.into()))
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a cookie (RFC 6265, 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CookieName(pub(crate) Arc<str>);

impl FromStr for CookieName {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<CookieName, Diagnostic> {
        if !is_token(text) {
            let diagnostic = Diagnostic::new(format!("`{}` is not the name of a cookie", shown(text)));
            return Err(diagnostic.hint("allowed are letters, digits, `-`, `_` and `.`, such as backend"));
        }
        Ok(CookieName(text.into()))
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
