//! MySQL's protocol: a server that plays MySQL 8, and a client.
//!
//! Debian has MariaDB only, which has no `caching_sha2_password`.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64ct::{Base64, Encoding};
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};

pub(crate) const CACHING: &str = "caching_sha2_password";
pub(crate) const NATIVE: &str = "mysql_native_password";
pub(crate) const SHA256_PASSWORD: &str = "sha256_password";
pub(crate) const CLEAR: &str = "mysql_clear_password";

pub(crate) const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
/// PROTOCOL_41, SSL, SECURE_CONNECTION, PLUGIN_AUTH.
pub(crate) const SSL: u32 = 0x800;
const BASE: u32 = 0x0008_8200;

const SCRAMBLE: &[u8; 20] = b"abcdefghijklmnopqrst";
const SECOND_SCRAMBLE: &[u8; 20] = b"ABCDEFGHIJKLMNOPQRST";

/// Reads and writes packets over any stream, and counts them as both sides do.
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    pub(crate) next: u8,
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn new(stream: S) -> Wire<S> {
        Wire { stream, next: 0 }
    }

    pub(crate) fn send(&mut self, body: &[u8]) -> Result<()> {
        let [a, b, c, _] = (body.len() as u32).to_le_bytes();
        self.stream.write_all(&[&[a, b, c, self.next], body].concat())?;
        self.next = self.next.wrapping_add(1);
        self.stream.flush()
    }

    /// The next packet, which must have the next number.
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        self.stream.read_exact(&mut body)?;
        if head[3] != self.next {
            return Err(Error::other(format!("packets out of order: {} instead of {}", head[3], self.next)));
        }
        self.next = self.next.wrapping_add(1);
        Ok(body)
    }

    fn over<T: Read + Write>(self, wrap: impl FnOnce(S) -> T) -> Wire<T> {
        Wire { stream: wrap(self.stream), next: self.next }
    }
}

/// Any stream.
pub(crate) trait ReadWrite: Read + Write + Send {}
impl<S: Read + Write + Send> ReadWrite for S {}
pub(crate) type AnyWire = Wire<Box<dyn ReadWrite>>;

/// Where a server breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorAt {
    Greeting,
    Login,
    Switch,
    Full,
    Key,
}

/// What a server does.
#[derive(Clone)]
pub(crate) struct Mysql8 {
    pub(crate) password: &'static [u8],
    /// The account's method.
    pub(crate) method: &'static str,
    /// The method in the greeting.
    pub(crate) default: &'static str,
    /// Its TLS; `None` is off.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// What comes by it is private, as over a unix socket.
    pub(crate) is_local: bool,
    pub(crate) error_at: Option<ErrorAt>,
    /// What comes after the login.
    pub(crate) session: fn(&mut AnyWire) -> Result<()>,
    shared: Arc<Shared>,
}

struct Shared {
    key: OaepPrivateDecryptingKey,
    pem: String,
    is_cached: AtomicBool,
    full: AtomicUsize,
    fast: AtomicUsize,
    /// Capabilities of the request for TLS and of the login, and what went wrong.
    seen: Mutex<Vec<String>>,
}

impl Mysql8 {
    /// An account with `method`, on a server whose default that is.
    pub(crate) fn new(method: &'static str) -> Mysql8 {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let text = Base64::encode_string(der.as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
        let shared = Shared {
            key: OaepPrivateDecryptingKey::new(key).unwrap(),
            pem,
            is_cached: AtomicBool::new(false),
            full: AtomicUsize::new(0),
            fast: AtomicUsize::new(0),
            seen: Mutex::default(),
        };
        Mysql8 {
            password: b"correct horse",
            method,
            default: method,
            tls: None,
            is_local: false,
            error_at: None,
            session: echo,
            shared: Arc::new(shared),
        }
    }

    /// Logins by the full authentication, and from the cache.
    pub(crate) fn logins(&self) -> (usize, usize) {
        (self.shared.full.load(Ordering::SeqCst), self.shared.fast.load(Ordering::SeqCst))
    }

    /// What the server has noticed: `ssl login`, `plain login`, and what went wrong.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().clone()
    }

    fn saw(&self, what: impl Into<String>) {
        self.shared.seen.lock().unwrap().push(what.into());
    }

    /// Its cache forgets the account, as after a restart.
    pub(crate) fn forget(&self) {
        self.shared.is_cached.store(false, Ordering::SeqCst);
    }

    /// Serves one connection.
    pub(crate) fn serve(&self, stream: TcpStream) {
        if let Err(error) = self.try_serve(stream) {
            self.saw(format!("error: {error}"));
        }
    }

    fn try_serve(&self, stream: TcpStream) -> Result<()> {
        let mut wire = Wire::new(stream);
        if self.error_at == Some(ErrorAt::Greeting) {
            return wire.send(&error(1040, "08004", "Too many connections"));
        }
        wire.send(&self.greeting())?;
        let mut first = wire.receive()?;
        let is_request = first.len() == 32;
        let (mut wire, is_private): (AnyWire, bool) = match (is_request, &self.tls) {
            (true, Some(config)) => {
                self.saw(format!("request {:08x}", capabilities(&first)));
                let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                let mut wire = wire.over(|stream| Box::new(StreamOwned::new(connection, stream)) as Box<dyn ReadWrite>);
                let capabilities_then = capabilities(&first);
                first = wire.receive()?;
                if capabilities(&first) != capabilities_then {
                    self.saw("other capabilities in the login than in the request for TLS");
                }
                (wire, true)
            }
            (true, None) => return Err(Error::other("a request for TLS that was not offered")),
            (false, _) => (wire.over(|stream| Box::new(stream) as Box<dyn ReadWrite>), self.is_local),
        };
        self.saw(match capabilities(&first) & SSL {
            0 => "plain login",
            _ => "ssl login",
        });
        self.authenticate(&mut wire, &first, is_private)?;
        self.saw("logged in");
        (self.session)(&mut wire)
    }

    fn greeting(&self) -> Vec<u8> {
        let [a, b, c, d] = (BASE | if self.tls.is_some() { SSL } else { 0 }).to_le_bytes();
        let version = b"\x0a8.4.3\0\x01\0\0\0";
        let flags = [0, a, b, 45, 2, 0, c, d, 21];
        let method = self.default.as_bytes();
        [version, &SCRAMBLE[..8], &flags, &[0; 10], &SCRAMBLE[8..], b"\0", method, b"\0"].concat()
    }

    fn fails(&self, wire: &mut AnyWire, at: ErrorAt) -> Result<()> {
        if self.error_at != Some(at) {
            return Ok(());
        }
        wire.send(&error(1045, "28000", &format!("denied at {at:?}")))?;
        Err(Error::other(format!("{at:?}")))
    }

    fn authenticate(&self, wire: &mut AnyWire, login: &[u8], is_private: bool) -> Result<()> {
        let (_user, rest) = zero_ended(&login[32..]);
        let length = usize::from(rest[0]);
        let (mut proof, rest) = (rest[1..1 + length].to_vec(), &rest[1 + length..]);
        let mut scramble = &SCRAMBLE[..];
        self.fails(wire, ErrorAt::Login)?;
        if zero_ended(rest).0 != self.method.as_bytes() {
            scramble = SECOND_SCRAMBLE;
            wire.send(&[b"\xfe", self.method.as_bytes(), b"\0", scramble, b"\0"].concat())?;
            proof = wire.receive()?;
            self.fails(wire, ErrorAt::Switch)?;
        }
        let accepted = match self.method {
            NATIVE => proof == native(self.password, scramble),
            CLEAR => proof == [self.password, b"\0"].concat(),
            SHA256_PASSWORD => return Err(Error::other("sha256_password is not played")),
            _ => self.caching_sha2(wire, &proof, scramble, is_private)?,
        };
        if !accepted {
            wire.send(&error(1045, "28000", "Access denied for user 'app'@'localhost' (using password: YES)"))?;
            return Err(Error::other("access denied"));
        }
        wire.send(OK)
    }

    fn caching_sha2(&self, wire: &mut AnyWire, proof: &[u8], scramble: &[u8], is_private: bool) -> Result<bool> {
        let shared = &self.shared;
        if shared.is_cached.load(Ordering::SeqCst) && proof == caching_sha2(self.password, scramble) {
            shared.fast.fetch_add(1, Ordering::SeqCst);
            wire.send(&[1, 3])?;
            return Ok(true);
        }
        wire.send(&[1, 4])?;
        let mut answer = wire.receive()?;
        self.fails(wire, ErrorAt::Full)?;
        let password = if is_private {
            answer
        } else {
            if answer == [2] {
                wire.send(&[b"\x01", shared.pem.as_bytes()].concat())?;
                answer = wire.receive()?;
                self.fails(wire, ErrorAt::Key)?;
            }
            let mut hidden = vec![0; shared.key.min_output_size()];
            match shared.key.decrypt(&OAEP_SHA1_MGF1SHA1, &answer, &mut hidden, None) {
                Ok(hidden) => xor(hidden, scramble),
                Err(_) => {
                    self.saw("not encrypted");
                    Vec::new()
                }
            }
        };
        let accepted = password == [self.password, b"\0"].concat();
        if accepted {
            shared.full.fetch_add(1, Ordering::SeqCst);
            shared.is_cached.store(true, Ordering::SeqCst);
        }
        Ok(accepted)
    }
}

/// Each packet comes back, until COM_QUIT or the end.
pub(crate) fn echo(wire: &mut AnyWire) -> Result<()> {
    while let Some(command) = command(wire)? {
        wire.send(&command)?;
    }
    Ok(())
}

/// Each command succeeds without a result.
pub(crate) fn answer_ok(wire: &mut AnyWire) -> Result<()> {
    while command(wire)?.is_some() {
        wire.send(OK)?;
    }
    Ok(())
}

/// The next command; `None` for COM_QUIT and the end.
pub(crate) fn command(wire: &mut AnyWire) -> Result<Option<Vec<u8>>> {
    wire.next = 0;
    match wire.receive() {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Ok(quit) if quit == [1] => Ok(None),
        command => command.map(Some),
    }
}

/// A client.
pub(crate) struct MysqlClient {
    pub(crate) password: &'static [u8],
    /// The method of its proof in the login.
    pub(crate) method: &'static str,
    /// Its TLS, if it asks for it.
    pub(crate) tls: Option<ClientConnection>,
    /// Encrypts for the server's key without TLS, as with --get-server-public-key.
    pub(crate) asks_for_key: bool,
}

/// How a login ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LoginEnd {
    Ok,
    /// Number and message.
    Error(u16, String),
}

impl MysqlClient {
    /// Logs in over `stream`. The session comes with OK only.
    pub(crate) fn log_in(self, stream: TcpStream) -> Result<(LoginEnd, AnyWire)> {
        let mut wire = Wire::new(stream);
        let greeting = wire.receive()?;
        if let Some(error) = as_error(&greeting) {
            return Ok((error, wire.over(|stream| Box::new(stream) as Box<dyn ReadWrite>)));
        }
        let (scramble, offers_tls) = read_greeting(&greeting);
        let mut capabilities = BASE;
        let is_private = self.tls.is_some();
        let mut wire = match self.tls {
            Some(tls) => {
                assert!(offers_tls, "TLS is offered");
                capabilities |= SSL;
                wire.send(&head(capabilities))?;
                wire.over(|stream| Box::new(StreamOwned::new(tls, stream)) as Box<dyn ReadWrite>)
            }
            None => wire.over(|stream| Box::new(stream) as Box<dyn ReadWrite>),
        };
        let mut method = self.method.to_owned();
        let mut scramble = scramble;
        let proof = proof(&method, self.password, &scramble);
        let login =
            [&head(capabilities)[..], b"app\0", &[proof.len() as u8], &proof, method.as_bytes(), b"\0"].concat();
        wire.send(&login)?;
        loop {
            let body = wire.receive()?;
            let clear = [self.password, b"\0"].concat();
            match body.as_slice() {
                [0, ..] => return Ok((LoginEnd::Ok, wire)),
                [0xff, ..] => return Ok((as_error(&body).unwrap(), wire)),
                [0xfe, rest @ ..] => {
                    let (name, seed) = zero_ended(rest);
                    method = String::from_utf8(name.to_vec()).unwrap();
                    scramble = seed.strip_suffix(b"\0").unwrap_or(seed).to_vec();
                    wire.send(&self::proof(&method, self.password, &scramble))?;
                }
                [1, 3] => {}
                [1, 4] if is_private => wire.send(&clear)?,
                [1, 4] if self.asks_for_key => wire.send(&[2])?,
                [1, 4] => return Err(Error::other("authentication requires a secure connection")),
                other => return Err(Error::other(format!("unexpected: {other:?}"))),
            }
        }
    }
}

/// Sends a command, and checks that it comes back.
pub(crate) fn echoes(wire: &mut AnyWire, command: &[u8]) {
    wire.next = 0;
    wire.send(command).unwrap();
    assert_eq!(wire.receive().unwrap(), command);
}

pub(crate) fn head(capabilities: u32) -> Vec<u8> {
    [&capabilities.to_le_bytes()[..], &[0, 0, 0, 1, 45], &[0; 23]].concat()
}

/// Number and message of an error packet.
pub(crate) fn as_error(body: &[u8]) -> Option<LoginEnd> {
    let rest = body.strip_prefix(b"\xff")?;
    let message = String::from_utf8_lossy(&rest[2 + 6..]).into_owned();
    Some(LoginEnd::Error(u16::from_le_bytes([rest[0], rest[1]]), message))
}

pub(crate) fn error(code: u16, state: &str, message: &str) -> Vec<u8> {
    [b"\xff", &code.to_le_bytes()[..], b"#", state.as_bytes(), message.as_bytes()].concat()
}

/// The scramble, and whether TLS is offered.
fn read_greeting(body: &[u8]) -> (Vec<u8>, bool) {
    let rest = zero_ended(&body[1..]).1;
    let capabilities = u16::from_le_bytes([rest[13], rest[14]]);
    ([&rest[4..12], &rest[31..43]].concat(), u32::from(capabilities) & SSL != 0)
}

fn capabilities(body: &[u8]) -> u32 {
    u32::from_le_bytes(*body.first_chunk().unwrap())
}

fn proof(method: &str, password: &[u8], scramble: &[u8]) -> Vec<u8> {
    match method {
        NATIVE => native(password, scramble),
        CACHING => caching_sha2(password, scramble),
        // In clear text.
        _ => [password, b"\0"].concat(),
    }
}

fn native(password: &[u8], scramble: &[u8]) -> Vec<u8> {
    let once = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[password]);
    let twice = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[&once]);
    xor(&once, &hash(&SHA1_FOR_LEGACY_USE_ONLY, &[scramble, &twice]))
}

fn caching_sha2(password: &[u8], scramble: &[u8]) -> Vec<u8> {
    let once = hash(&SHA256, &[password]);
    let twice = hash(&SHA256, &[&once]);
    xor(&once, &hash(&SHA256, &[&twice, scramble]))
}

fn hash(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    digest(algorithm, &parts.concat()).as_ref().to_vec()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other.iter().cycle()).map(|(one, other)| one ^ other).collect()
}

fn zero_ended(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| byte == 0).expect("a zero");
    (&bytes[..end], &bytes[end + 1..])
}
