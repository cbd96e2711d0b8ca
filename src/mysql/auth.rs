//! Proofs of a password.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use base64ct::{Base64, Encoding};

use zeroize::Zeroizing;

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
