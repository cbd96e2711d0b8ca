//! What is exchanged: requests and answers of HTTP/1.1 whose bodies both sides can make by themselves.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A direction, so that no body is an echo.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Request,
    Answer,
}

/// Fills `buffer` with the bytes of a body from `offset` on.
pub(crate) fn fill(id: u64, body: Body, offset: u64, buffer: &mut [u8]) {
    let salt = if body == Body::Request { 0x9e37_79b9_7f4a_7c15 } else { 0xc2b2_ae3d_27d4_eb4f };
    let word = |at: u64| {
        // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), by place.
        let mut z = (id ^ salt).wrapping_add((at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    let (mut at, mut filled) = (offset, 0);
    while filled < buffer.len() {
        let bytes = &word(at)[(at % 8) as usize..];
        let count = bytes.len().min(buffer.len() - filled);
        buffer[filled..filled + count].copy_from_slice(&bytes[..count]);
        filled += count;
        at += count as u64;
    }
}

/// The first byte of `received` that is not the body's.
pub(crate) fn difference(id: u64, body: Body, offset: u64, received: &[u8]) -> Option<String> {
    let mut expected = vec![0; received.len()];
    fill(id, body, offset, &mut expected);
    let place = expected.iter().zip(received).position(|(expected, received)| expected != received)?;
    let what = if body == Body::Request { "request" } else { "answer" };
    Some(format!(
        "wrong byte: {what} {id:x} at {}: {:02x} instead of {:02x}",
        offset + place as u64,
        received[place],
        expected[place]
    ))
}

/// A request's head, and what it says.
pub(crate) fn request_head(id: u64, length: u64, answer: u64) -> String {
    format!("POST /{id:x}/{answer} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
}

pub(crate) fn answer_head(length: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

/// Reads a head, byte for byte. `None`: the end came before its first byte.
pub(crate) fn read_head(from: &mut impl Read) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match from.read(&mut byte) {
            Ok(0) if head.is_empty() => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if head.len() > 4096 {
            return Err(io::Error::other("a head without an end"));
        }
    }
    String::from_utf8(head).map(Some).map_err(io::Error::other)
}

/// The number of a Content-Length field.
pub(crate) fn length(head: &str) -> Option<u64> {
    head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok())
}

/// Id and length of the answer, by a request's head.
pub(crate) fn asked(head: &str) -> Option<(u64, u64)> {
    let (id, rest) = head.strip_prefix("POST /")?.split_once('/')?;
    Some((u64::from_str_radix(id, 16).ok()?, rest.split_once(' ')?.0.parse().ok()?))
}

/// Where backends write what is wrong.
pub(crate) fn report(folder: &Path) -> PathBuf {
    folder.join("wrong")
}

pub(crate) fn cert_file(folder: &Path) -> PathBuf {
    folder.join("tls.pem")
}

pub(crate) fn key_file(folder: &Path) -> PathBuf {
    folder.join("tls.key")
}

/// Makes a certificate for localhost in `folder`; a client that trusts it.
pub(crate) fn certificate(folder: &Path) -> Arc<ClientConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(cert_file(folder), made.cert.pem()).expect("write");
    fs::write(key_file(folder), made.signing_key.serialize_pem()).expect("write");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

pub(crate) fn server_config(folder: &Path) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(cert_file(folder)).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(key_file(folder)).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).expect("a pair"))
}
