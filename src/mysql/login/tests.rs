mod exchanges;
mod refusals;

use super::leg::MAX_BUFFERED;
use super::*;
use crate::mysql::packet::{
    CONNECT_WITH_DB, HEADER, MAX_PACKET, PLUGIN_AUTH, PROTOCOL_41, SECURE_CONNECTION, packet, split_error,
};

const SCRAMBLE: &[u8] = b"abcdefghijklmnopqrst";

/// TLS in front only, in the back only, on both sides.
const FRONT: LoginRules =
    LoginRules { offers_tls: true, allows_plain: false, client_is_local: false, server: ServerLink::Plain };
const BACK: LoginRules = LoginRules { offers_tls: false, server: ServerLink::Tls, ..FRONT };
const BOTH: LoginRules = LoginRules { server: ServerLink::Tls, ..FRONT };

/// What `cipher` makes of a password: not what RSA does, but as visible.
fn cipher(pem: &[u8], password: &[u8], scramble: &[u8]) -> Option<Vec<u8>> {
    (pem == b"PEM").then(|| [b"RSA:", password, b":", scramble].concat())
}

fn greeting(capabilities: u32, method: &str) -> Vec<u8> {
    let [a, b, c, d] = capabilities.to_le_bytes();
    [
        b"\x0a8.0.40\0\x01\0\0\0",
        &SCRAMBLE[..8],
        &[0, a, b, 45, 2, 0, c, d, 21],
        &[0; 10],
        &SCRAMBLE[8..],
        b"\0",
        method.as_bytes(),
        b"\0",
    ]
    .concat()
}

const ALL: u32 = 0xdfff_ffff;

/// A login with a proof of four bytes.
fn request(capabilities: u32, method: &str) -> Vec<u8> {
    let capabilities = capabilities | PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH | CONNECT_WITH_DB;
    let head = [&capabilities.to_le_bytes()[..], &[0, 0, 0, 1, 45], &[0; 23]].concat();
    [&head, &b"app\0\x04hashdb\0"[..], method.as_bytes(), b"\0attributes"].concat()
}

fn tls_request() -> Vec<u8> {
    request(TLS, "")[..TLS_REQUEST].to_vec()
}

/// One line of a dialogue.
#[derive(Clone, Copy)]
enum DialogueLine<'l> {
    /// The client sends this packet ...
    Client(u8, &'l [u8]),
    /// ... the server this one ...
    Server(u8, &'l [u8]),
    /// ... this one goes to the client ...
    ToClient(u8, &'l [u8]),
    /// ... and this one to the server.
    ToServer(u8, &'l [u8]),
    ClientTls,
    ServerTls,
    Turn(Speaker),
    Done,
    /// With the number and code of the error for the client.
    Refused(LoginFault, Option<(u8, u16)>),
}
use DialogueLine::{Client, ClientTls, Done, Refused, Server, ServerTls, ToClient, ToServer, Turn};

/// Bytes come in `portion`s.
fn follow(mut login: Login, lines: &[DialogueLine<'_>], portion: usize) {
    let feed = |login: &mut Login, bytes: &[u8], from: Speaker| {
        for part in bytes.chunks(portion) {
            assert!(matches!(login.step(), LoginStep::Read(_)), "there is more to do before");
            match from {
                Speaker::Client => login.from_client(part),
                Speaker::Server => login.from_server(part),
            }
        }
    };
    for (number, line) in lines.iter().enumerate() {
        let text = format!("line {number}");
        match line {
            Client(sequence, body) => feed(&mut login, &packet(*sequence, body), Speaker::Client),
            Server(sequence, body) => feed(&mut login, &packet(*sequence, body), Speaker::Server),
            ToClient(sequence, body) => match login.step() {
                LoginStep::ToClient(sent) => {
                    assert_eq!(sent.escape_ascii().to_string(), shown(*sequence, body), "{text}");
                }
                other => panic!("{text}: {}", describe(&other)),
            },
            ToServer(sequence, body) => match login.step() {
                LoginStep::ToServer(sent) => {
                    assert_eq!(sent.escape_ascii().to_string(), shown(*sequence, body), "{text}");
                }
                other => panic!("{text}: {}", describe(&other)),
            },
            ClientTls => assert!(login.step() == LoginStep::ClientTls(Vec::new()), "{text}"),
            ServerTls => assert!(login.step() == LoginStep::ServerTls, "{text}"),
            Turn(speaker) => assert!(login.step() == LoginStep::Read(*speaker), "{text}"),
            Done => assert!(login.step() == LoginStep::Done, "{text}"),
            Refused(fault, wanted) => match login.step() {
                LoginStep::Refused(found, answer) => {
                    let answer = answer.map(|packet| (packet[3], split_error(&packet[HEADER..]).unwrap().0));
                    assert_eq!((found, answer), (*fault, *wanted), "{text}");
                }
                other => panic!("{text}: {}", describe(&other)),
            },
        }
    }
}

fn shown(sequence: u8, body: &[u8]) -> String {
    packet(sequence, body).escape_ascii().to_string()
}

fn describe(step: &LoginStep) -> String {
    match step {
        LoginStep::Read(speaker) => format!("reads, {speaker:?} is to speak"),
        LoginStep::ToClient(bytes) => format!("to the client: {}", bytes.escape_ascii()),
        LoginStep::ToServer(bytes) => format!("to the server: {}", bytes.escape_ascii()),
        LoginStep::ClientTls(bytes) => format!("TLS with the client: {}", bytes.escape_ascii()),
        LoginStep::ServerTls => "TLS with the server".to_owned(),
        LoginStep::Done => "done".to_owned(),
        LoginStep::Refused(fault, answer) => format!("refused: {fault:?} {answer:?}"),
    }
}

/// The greeting as it goes to the client, and the rest of the dialogue, in whole packets and byte by byte.
fn dialogue(rules: LoginRules, capabilities: u32, method: &str, lines: &[DialogueLine<'_>]) {
    let body = greeting(capabilities, method);
    let offered = match rules.offers_tls {
        true => greeting(capabilities | TLS, method),
        false => greeting(capabilities & !TLS, method),
    };
    for portion in [usize::MAX, 1, 3] {
        let login = Login::new(&body, &Greeting::read(&body).unwrap(), rules, cipher);
        let lines: Vec<DialogueLine<'_>> = [ToClient(0, &offered)].iter().chain(lines).copied().collect();
        follow(login, &lines, portion);
    }
}

const OK: &[u8] = b"\x00\x00\x00\x02\x00\x00\x00";
const DENIED: &[u8] = b"\xff\x15\x04#28000Access denied for user 'app'";
const NATIVE: &str = "mysql_native_password";
const CACHING: &str = "caching_sha2_password";
const SWITCH_TO_CACHING: &[u8] = b"\xfecaching_sha2_password\0ABCDEFGHIJKLMNOPQRST\0";
const SWITCH_TO_NATIVE: &[u8] = b"\xfemysql_native_password\0ABCDEFGHIJKLMNOPQRST\0";
