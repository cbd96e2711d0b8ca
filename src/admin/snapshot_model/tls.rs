//! Certificates, keys, authorities and revocation lists in service.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose TLS files they are. Written as `listener NAME`, `pool NAME` or `admin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum TlsOwner {
    /// The listener at which TLS ends.
    Listener(String),
    /// The pool whose backends are spoken to by TLS.
    Pool(String),
    /// The admin interface.
    Admin,
}

impl fmt::Display for TlsOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsOwner::Listener(name) => write!(f, "listener {name}"),
            TlsOwner::Pool(name) => write!(f, "pool {name}"),
            TlsOwner::Admin => f.write_str("admin"),
        }
    }
}

impl From<TlsOwner> for String {
    fn from(owner: TlsOwner) -> String {
        owner.to_string()
    }
}

impl TryFrom<String> for TlsOwner {
    type Error = String;

    fn try_from(text: String) -> Result<TlsOwner, String> {
        match text.split_once(' ') {
            Some(("listener", name)) => Ok(TlsOwner::Listener(name.to_owned())),
            Some(("pool", name)) => Ok(TlsOwner::Pool(name.to_owned())),
            None if text == "admin" => Ok(TlsOwner::Admin),
            _ => Err(format!("`{text}` is neither a listener nor a pool")),
        }
    }
}

/// A certificate in service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServedCertificate {
    /// The listener that shows it, or the pool whose backends are shown it.
    pub owner: TlsOwner,
    /// Its file.
    pub path: String,
    /// What it is for.
    pub names: Vec<String>,
    /// The kind of its key.
    pub key: String,
    /// From when it is valid.
    pub not_before: f64,
    /// Until when.
    pub not_after: f64,
}

/// Certificates, keys, authorities and revocation lists of a listener or a pool, which are reloaded when they change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TlsFiles {
    /// Whose they are.
    pub owner: TlsOwner,
    /// Changes that went into service.
    pub replaced: u64,
    /// Changes that were rejected.
    pub rejected: u64,
    /// Why what they hold now is not in service; empty when it is.
    pub faults: Vec<String>,
}
