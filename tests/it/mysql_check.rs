//! `health: mysql` with a server that plays MySQL 8: `caching_sha2_password` in plain text, with and without the account in its cache.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64ct::{Base64, Encoding};

use crate::support::backend::{Backend, in_thread};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

const PASSWORD: &[u8] = b"correct horse";
const SCRAMBLE: &[u8; 20] = b"abcdefghijklmnopqrst";

/// A server whose cache has the account once it was authenticated in full.
struct Mysql8 {
    key: OaepPrivateDecryptingKey,
    pem: String,
    full: AtomicUsize,
    fast: AtomicUsize,
}

impl Mysql8 {
    fn new() -> Arc<Mysql8> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let text = Base64::encode_string(der.as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
        let key = OaepPrivateDecryptingKey::new(key).unwrap();
        Arc::new(Mysql8 { key, pem, full: AtomicUsize::new(0), fast: AtomicUsize::new(0) })
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let capabilities = 0x0008_f207_u32.to_le_bytes();
        let mut greeting = b"\x0a8.0.40\0\x01\0\0\0".to_vec();
        greeting.extend_from_slice(&SCRAMBLE[..8]);
        greeting.extend_from_slice(&[
            0,
            capabilities[0],
            capabilities[1],
            45,
            2,
            0,
            capabilities[2],
            capabilities[3],
            21,
        ]);
        greeting.extend_from_slice(&[0; 10]);
        greeting.extend_from_slice(&SCRAMBLE[8..]);
        greeting.extend_from_slice(b"\0caching_sha2_password\0");
        send(&mut client, 0, &greeting)?;
        let login = receive(&mut client)?;
        assert!(login[32..].starts_with(b"probe\0\x20"), "a user and a hash");
        let proof = &login[32 + 7..][..32];
        let hash = |parts: &[&[u8]]| digest(&SHA256, &parts.concat()).as_ref().to_vec();
        let once = hash(&[PASSWORD]);
        let expected = xor(&once, &hash(&[&hash(&[&once]), SCRAMBLE]));
        assert_eq!(proof, expected);
        let mut sequence = 2;
        if self.full.load(Ordering::SeqCst) == 0 {
            send(&mut client, 2, &[1, 4])?;
            assert_eq!(receive(&mut client)?, [2], "asks for the key");
            send(&mut client, 4, &[b"\x01", self.pem.as_bytes()].concat())?;
            let encrypted = receive(&mut client)?;
            let mut hidden = vec![0; self.key.min_output_size()];
            let hidden = self.key.decrypt(&OAEP_SHA1_MGF1SHA1, &encrypted, &mut hidden, None).unwrap();
            assert_eq!(xor(hidden, SCRAMBLE), [PASSWORD, b"\0"].concat());
            self.full.fetch_add(1, Ordering::SeqCst);
            sequence = 6;
        } else {
            send(&mut client, 2, &[1, 3])?;
            self.fast.fetch_add(1, Ordering::SeqCst);
            sequence += 1;
        }
        send(&mut client, sequence, &[0, 0, 0, 2, 0, 0, 0])?;
        assert!(receive(&mut client)?.starts_with(b"\x03SHOW GLOBAL VARIABLES"));
        let column = |name: &[u8]| {
            [b"\x03def\0\0\0", &[name.len() as u8][..], name, b"\0\x0c\x2d\0\0\0\0\0\xfd\0\0\0\0\0"].concat()
        };
        let end = [0xfe, 0, 0, 2, 0];
        let row = b"\x09read_only\x03OFF";
        for (body, sequence) in
            [&[2][..], &column(b"Variable_name"), &column(b"Value"), &end, row, &end].iter().zip(1..)
        {
            send(&mut client, sequence, body)?;
        }
        assert_eq!(receive(&mut client)?, [1], "COM_QUIT");
        Ok(())
    }
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other.iter().cycle()).map(|(one, other)| one ^ other).collect()
}

fn send(stream: &mut TcpStream, sequence: u8, body: &[u8]) -> io::Result<()> {
    let [a, b, c, _] = (body.len() as u32).to_le_bytes();
    stream.write_all(&[&[a, b, c, sequence], body].concat())
}

fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

#[test]
fn caching_sha2_in_full_and_fast() {
    let server = Mysql8::new();
    let of_backend = Arc::clone(&server);
    // What it finds wrong ends the connection, and the check fails.
    let backend = Backend::start(in_thread(move |client| of_backend.serve(client).unwrap_or_default()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, [PASSWORD, b"\n"].concat()).unwrap();
    let check = format!("mysql: {{ user: probe, password_file: {}, role: primary }}", file.display());
    let tidegate = Tidegate::start(&forward(backend.place(), "", &format!("health: {{ {check}, interval: 50ms }}")));
    tidegate.wait_for_up("b");
    eventually(DEADLINE, "checks from the cache", || server.fast.load(Ordering::SeqCst) >= 3);
    assert_eq!(server.full.load(Ordering::SeqCst), 1);
    assert_eq!(tidegate.count_logs(|line| line.is("backend down")), 0);
}
