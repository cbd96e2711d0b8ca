//! Methods of authentication.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use base64ct::{Base64, Encoding};

use zeroize::Zeroizing;

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

/// SHA1(password) xor SHA1(scramble, SHA1(SHA1(password))).
pub fn native(password: &[u8], scramble: &[u8]) -> Vec<u8> {
    let hash = |parts: &[&[u8]]| hash(&SHA1_FOR_LEGACY_USE_ONLY, parts);
    let once = hash(&[password]);
    let twice = hash(&[&once]);
    xor(&once, &hash(&[scramble, &twice]))
}

/// SHA256(password) xor SHA256(SHA256(SHA256(password)), scramble).
pub fn caching_sha2(password: &[u8], scramble: &[u8]) -> Vec<u8> {
    let hash = |parts: &[&[u8]]| hash(&SHA256, parts);
    let once = hash(&[password]);
    let twice = hash(&[&once]);
    xor(&once, &hash(&[&twice, scramble]))
}

/// The password for the owner of a public key (PEM), hidden by the scramble as well. `None` if the key cannot be used.
pub fn encrypted_password(pem: &[u8], password: &[u8], scramble: &[u8]) -> Option<Vec<u8>> {
    let pem = std::str::from_utf8(pem).ok()?;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let key = PublicEncryptingKey::from_der(&Base64::decode_vec(body.trim_end_matches('\0')).ok()?).ok()?;
    let key = OaepPublicEncryptingKey::new(key).ok()?;
    if scramble.is_empty() {
        return None;
    }
    let mut hidden = Zeroizing::new(Vec::with_capacity(password.len() + 1));
    hidden.extend(password.iter().chain(&[0]).zip(scramble.iter().cycle()).map(|(one, other)| one ^ other));
    let mut encrypted = vec![0; key.ciphertext_size()];
    let length = key.encrypt(&OAEP_SHA1_MGF1SHA1, &hidden, &mut encrypted, None).ok()?.len();
    encrypted.truncate(length);
    Some(encrypted)
}

fn hash(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    digest(algorithm, &parts.concat()).as_ref().to_vec()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}
