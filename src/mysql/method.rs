//! Methods of authentication.

use super::packet::text;

/// A method that a server asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// mysql_native_password.
    Native,
    /// caching_sha2_password.
    CachingSha2,
    /// sha256_password.
    Sha256,
    /// mysql_clear_password.
    Clear,
    /// Another one.
    Other(String),
}

impl AuthMethod {
    /// By its name.
    pub fn named(name: &str) -> AuthMethod {
        match name {
            "mysql_native_password" => AuthMethod::Native,
            "caching_sha2_password" => AuthMethod::CachingSha2,
            "sha256_password" => AuthMethod::Sha256,
            "mysql_clear_password" => AuthMethod::Clear,
            other => AuthMethod::Other(other.to_owned()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            AuthMethod::Native => "mysql_native_password",
            AuthMethod::CachingSha2 => "caching_sha2_password",
            AuthMethod::Sha256 => "sha256_password",
            AuthMethod::Clear => "mysql_clear_password",
            AuthMethod::Other(name) => name,
        }
    }
}

/// The method and the new scramble of an AuthSwitchRequest.
pub fn switch(body: &[u8]) -> Option<(String, Vec<u8>)> {
    let (name, seed) = text(body)?;
    let seed = seed.strip_suffix(b"\0").unwrap_or(seed);
    Some((String::from_utf8_lossy(name).into_owned(), seed.to_vec()))
}
