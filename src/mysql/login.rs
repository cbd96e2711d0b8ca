//! The login of a client of MySQL or MariaDB whose TLS ends here, or begins here: a state machine without I/O.
//!
//! Client and server count the packets of a login together, and each side's request for TLS is a packet that the other side does not
//! see. So headers are rewritten, until the server's OK or error ends the login; packets after it pass as they are.
//!
//! A password is the one thing in a login that depends on TLS: with `caching_sha2_password`, a client over TLS sends it in clear text,
//! and a server without TLS expects it encrypted by its RSA key. Where only the client has TLS, the server's key is asked for and used
//! here.

mod fault;
mod leg;

use std::collections::VecDeque;

use zeroize::Zeroizing;

use self::fault::MAX_SERVER_PACKETS;
pub use self::fault::{LoginFault, Speaker};
use self::leg::Leg;
pub use self::leg::SecretBytes;
use super::method::{AuthMethod, switch};
use super::packet::{Greeting, LoginRequest, MULTI_FACTOR, TLS, TLS_REQUEST, capabilities, error_packet, set_tls};

/// Encrypts a password (the second argument) by a public key (PEM), hidden by a scramble. `None` if the key cannot be used.
pub type PasswordCipher = fn(&[u8], &[u8], &[u8]) -> Option<Vec<u8>>;

/// The fast authentication has succeeded.
const FAST_OK: &[u8] = &[0x01, 0x03];

/// The password itself is wanted.
const FULL_AUTHENTICATION: &[u8] = &[0x01, 0x04];

/// Asks for the server's public key.
const REQUEST_KEY: &[u8] = &[0x02];

/// What is between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRules {
    /// The client may ask for TLS.
    pub offers_tls: bool,
    /// It may also log in without.
    pub allows_plain: bool,
    /// The client came by a unix socket, over which it sends secrets as over TLS.
    pub client_is_local: bool,
    /// The connection to the server.
    pub server: ServerLink,
}

/// The connection to the server, as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerLink {
    /// TLS is asked for within the protocol.
    Tls,
    /// A unix socket, over which servers take secrets as over TLS.
    Local,
    /// Plain text.
    Plain,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq)]
pub enum LoginStep {
    /// Hand over what comes from either side; this one is to speak.
    Read(Speaker),
    /// Send this to the client.
    ToClient(SecretBytes),
    /// Send this to the server.
    ToServer(SecretBytes),
    /// Complete a TLS handshake with the client, which begins with these bytes.
    ClientTls(Vec<u8>),
    /// Complete a TLS handshake with the server.
    ServerTls,
    /// The login is over: relay.
    Done,
    /// The login cannot go on. The client expects this error packet, if any.
    Refused(LoginFault, Option<Vec<u8>>),
}

/// A login under way.
pub struct Login {
    rules: LoginRules,
    cipher: PasswordCipher,
    stage: LoginPhase,
    client: Leg,
    server: Leg,
    client_has_tls: bool,
    server_capabilities: u32,
    /// The client's and the server's.
    common_capabilities: u32,
    method: AuthMethod,
    scramble: Vec<u8>,
    server_packets: u8,
    passes_clear_text: bool,
    /// The client's login, for those who watch what comes after it.
    request: Option<SecretBytes>,
    keeps_request: bool,
    steps: VecDeque<LoginStep>,
}

enum LoginPhase {
    /// The client asks for TLS, or logs in without.
    Opening,
    /// The client logs in over TLS.
    Request,
    /// This side's packet of the authentication comes next.
    Exchange(Speaker),
    /// The password comes next, in clear text, which the server would not take so.
    Password,
    /// The client of a server with TLS has none itself: it may ask for a public key, which a server with TLS does not give.
    PlainPassword,
    /// The server's public key comes next, for this password.
    PublicKey(SecretBytes),
    Over,
}

impl Login {
    /// Of the server that has sent this greeting, the body of its first packet.
    pub fn new(body: &[u8], greeting: &Greeting, rules: LoginRules, cipher: PasswordCipher) -> Login {
        let mut login = Login {
            rules,
            cipher,
            stage: LoginPhase::Opening,
            client: Leg::default(),
            server: Leg::default(),
            client_has_tls: false,
            server_capabilities: greeting.capabilities,
            common_capabilities: 0,
            method: AuthMethod::Native,
            scramble: greeting.scramble.clone(),
            server_packets: 0,
            passes_clear_text: false,
            request: None,
            keeps_request: false,
            steps: VecDeque::new(),
        };
        login.server.skip();
        let mut offered = Zeroizing::new(body.to_vec());
        greeting.offer_tls(&mut offered, rules.offers_tls);
        login.tell_client(&offered);
        login
    }

    /// Keeps the client's login until the end.
    pub fn keep_request(&mut self) {
        self.keeps_request = true;
    }

    /// The body of the client's login, if it is kept.
    pub fn request_body(&self) -> Option<&[u8]> {
        self.request.as_deref().map(AsRef::as_ref)
    }

    /// Bytes of the client.
    pub fn from_client(&mut self, bytes: &[u8]) {
        self.client.push(bytes);
    }

    /// Bytes of the server.
    pub fn from_server(&mut self, bytes: &[u8]) {
        self.server.push(bytes);
    }

    /// Bytes that were handed over and are kept.
    pub fn buffered(&self) -> usize {
        self.client.buffered() + self.server.buffered()
    }

    /// Whether the client's first packet is still to come.
    pub fn awaits_first_packet(&self) -> bool {
        matches!(self.stage, LoginPhase::Opening)
    }

    /// The sequence number of the packet that the client expects next.
    pub fn next_to_client(&self) -> u8 {
        self.client.next()
    }

    /// The method by which the client sends its password in clear text, though the server's side of the connection is not encrypted.
    pub fn clear_text_method(&self) -> Option<&str> {
        self.passes_clear_text.then(|| self.method.name())
    }

    /// What to do next.
    pub fn step(&mut self) -> LoginStep {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return step;
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return LoginStep::Read(self.speaker()),
                Err(fault) => {
                    self.stage = LoginPhase::Over;
                    let answer = fault
                        .answer()
                        .map(|(code, state, message)| error_packet(self.client.next(), code, state, &message));
                    return LoginStep::Refused(fault, answer);
                }
            }
        }
    }

    fn speaker(&self) -> Speaker {
        match self.stage {
            LoginPhase::Exchange(speaker) => speaker,
            LoginPhase::PublicKey(_) | LoginPhase::Over => Speaker::Server,
            _ => Speaker::Client,
        }
    }

    /// Handles one packet; false if none is complete.
    fn advance(&mut self) -> Result<bool, LoginFault> {
        if matches!(self.stage, LoginPhase::Over) {
            return Ok(false);
        }
        if let Some((_, body)) = self.server.take().map_err(|_| LoginFault::ServerPacketTooLong)? {
            self.server_packet(&body)?;
            return Ok(true);
        }
        // Until it is the client's turn, what it sends may be its first command already.
        if self.speaker() == Speaker::Server {
            return Ok(false);
        }
        let Some((sequence, body)) = self.client.take().map_err(|_| LoginFault::ClientPacketTooLong)? else {
            return Ok(false);
        };
        if sequence != self.client.next() {
            return Err(LoginFault::OutOfOrder { sequence, expected: self.client.next() });
        }
        self.client.skip();
        self.client_packet(body)?;
        Ok(true)
    }

    fn client_packet(&mut self, body: SecretBytes) -> Result<(), LoginFault> {
        match &self.stage {
            LoginPhase::Opening => self.opening(body),
            LoginPhase::Request => self.request(body),
            LoginPhase::Password if *body != REQUEST_KEY => {
                // Servers end the password there.
                let password = body.strip_suffix(b"\0").unwrap_or(&body);
                self.stage = LoginPhase::PublicKey(Zeroizing::new(password.to_vec()));
                self.tell_server(REQUEST_KEY);
                Ok(())
            }
            LoginPhase::PlainPassword if *body == REQUEST_KEY => Err(LoginFault::PlainPassword),
            _ => {
                self.stage = LoginPhase::Exchange(Speaker::Server);
                self.tell_server(&body);
                Ok(())
            }
        }
    }

    fn opening(&mut self, body: SecretBytes) -> Result<(), LoginFault> {
        let capabilities = capabilities(&body).ok_or(LoginFault::OldProtocol)?;
        if body.len() == TLS_REQUEST && capabilities & TLS != 0 {
            if !self.rules.offers_tls {
                return Err(LoginFault::TlsNotOffered);
            }
            self.client_has_tls = true;
            self.stage = LoginPhase::Request;
            // Clients begin the handshake without waiting.
            let beginning = self.client.take_all();
            self.steps.push_back(LoginStep::ClientTls(beginning.to_vec()));
            return Ok(());
        }
        if self.rules.offers_tls && !self.rules.allows_plain {
            return Err(LoginFault::NoTls);
        }
        self.request(body)
    }

    fn request(&mut self, mut body: SecretBytes) -> Result<(), LoginFault> {
        let request = LoginRequest::read(&body).ok_or(LoginFault::MalformedLogin)?;
        self.common_capabilities = request.capabilities & self.server_capabilities;
        // Without a name, it is the method of MySQL 4.1.
        self.method = request.method.map_or(AuthMethod::Native, method);
        self.admit_method()?;
        let tls = self.rules.server == ServerLink::Tls;
        set_tls(&mut body, tls);
        self.request = self.keeps_request.then(|| body.clone());
        if tls {
            if self.server.buffered() > 0 {
                return Err(LoginFault::PlainServerBytes);
            }
            // Of the client's own capabilities: MySQL takes those, and not the ones in the login (`parse_client_handshake_packet`).
            self.tell_server(&body[..TLS_REQUEST]);
            self.steps.push_back(LoginStep::ServerTls);
        }
        self.stage = LoginPhase::Exchange(Speaker::Server);
        self.tell_server(&body);
        Ok(())
    }

    fn server_packet(&mut self, body: &[u8]) -> Result<(), LoginFault> {
        self.server.skip();
        self.server_packets += 1;
        if self.server_packets > MAX_SERVER_PACKETS {
            return Err(LoginFault::TooManyPackets);
        }
        let is_early = matches!(self.stage, LoginPhase::Opening | LoginPhase::Request);
        if is_early && self.rules.server == ServerLink::Tls {
            return Err(LoginFault::PlainServerBytes);
        }
        match body.split_first() {
            Some((0xff, _)) => return self.over(body),
            _ if is_early => return Err(LoginFault::EarlyServerPacket),
            Some((0x00, _)) => return self.over(body),
            _ => {}
        }
        if let LoginPhase::PublicKey(password) = &self.stage {
            let Some(pem) = body.strip_prefix(&[0x01]) else { return Err(LoginFault::NoPublicKey) };
            let encrypted = (self.cipher)(pem, password, &self.scramble).ok_or(LoginFault::BadPublicKey)?;
            self.stage = LoginPhase::Exchange(Speaker::Server);
            self.tell_server(&encrypted);
            return Ok(());
        }
        let next_factor = self.common_capabilities & MULTI_FACTOR != 0;
        let mut stage = LoginPhase::Exchange(Speaker::Client);
        match body.split_first() {
            Some((0xfe, [])) => self.method = AuthMethod::Other("mysql_old_password".to_owned()),
            Some((&first, rest)) if first == 0xfe || first == 0x02 && next_factor => {
                let (name, scramble) = switch(rest).ok_or(LoginFault::MalformedSwitch)?;
                (self.method, self.scramble) = (AuthMethod::named(&name), scramble);
                self.admit_method()?;
            }
            _ if self.method == AuthMethod::CachingSha2 && body == FAST_OK => {
                stage = LoginPhase::Exchange(Speaker::Server);
            }
            _ if self.method == AuthMethod::CachingSha2 && body == FULL_AUTHENTICATION => {
                stage = match (self.client_is_private(), self.server_is_private()) {
                    (true, false) => LoginPhase::Password,
                    (false, true) => LoginPhase::PlainPassword,
                    _ => stage,
                };
            }
            _ => {}
        }
        // What came before the question is no answer to it.
        if !matches!(stage, LoginPhase::Exchange(Speaker::Server)) && self.client.buffered() > 0 {
            return Err(LoginFault::EarlyAnswer);
        }
        self.stage = stage;
        self.tell_client(body);
        Ok(())
    }

    /// The server's last packet of the login. What follows it, of either side, goes on as it is.
    fn over(&mut self, body: &[u8]) -> Result<(), LoginFault> {
        self.tell_client(body);
        let (server, client) = (self.server.take_all(), self.client.take_all());
        if let (Some(LoginStep::ToClient(last)), false) = (self.steps.back_mut(), server.is_empty()) {
            last.extend_from_slice(&server);
        }
        if !client.is_empty() {
            self.steps.push_back(LoginStep::ToServer(client));
        }
        self.steps.push_back(LoginStep::Done);
        self.stage = LoginPhase::Over;
        Ok(())
    }

    /// Refuses a method of which either side would expect something else than the other sends.
    fn admit_method(&mut self) -> Result<(), LoginFault> {
        let (client, server) = (self.client_is_private(), self.server_is_private());
        self.passes_clear_text = self.method == AuthMethod::Clear && !server;
        match self.method {
            AuthMethod::Sha256 if client && !server => Err(LoginFault::Sha256ToPlainServer),
            AuthMethod::Sha256 if server && !client => Err(LoginFault::Sha256OfPlainClient),
            _ => Ok(()),
        }
    }

    /// Whether the client sends secrets in clear text.
    fn client_is_private(&self) -> bool {
        self.client_has_tls || self.rules.client_is_local
    }

    /// Whether the server expects them so.
    fn server_is_private(&self) -> bool {
        self.rules.server != ServerLink::Plain
    }

    fn tell_client(&mut self, body: &[u8]) {
        let packet = self.client.packet(body);
        self.steps.push_back(LoginStep::ToClient(packet));
    }

    fn tell_server(&mut self, body: &[u8]) {
        let packet = self.server.packet(body);
        self.steps.push_back(LoginStep::ToServer(packet));
    }
}

fn method(name: &[u8]) -> AuthMethod {
    AuthMethod::named(&String::from_utf8_lossy(name))
}

#[cfg(test)]
mod tests;
