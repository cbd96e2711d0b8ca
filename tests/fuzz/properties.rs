//! What must hold of the recognisers whatever the bytes are. The fuzz targets try it with bytes of their own, the test
//! `fuzz_corpus` with those in `corpus/`.

mod http_gate;
mod udp_sessions;

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use tidegate::mysql::login::{Login, LoginRules, LoginStep, ServerLink};
use tidegate::mysql::packet::{Greeting, MAX_PACKET};
use tidegate::net::name;
use tidegate::net::protocol::ClientProtocol;
use tidegate::sniff::proxy_protocol::{Addresses, ClientCertificate, Ends, Outgoing, TlsFacts};
use tidegate::sniff::queries::{QueryWatcher, WatchEvent};
use tidegate::sniff::{Recognition, client_hello, http, postgres, protocol, proxy_protocol};
use tidegate::stats::queries::QueryProtocol;
use tidegate::stats::termination::Side;

pub(crate) use http_gate::http_gate;
pub(crate) use udp_sessions::udp_sessions;

/// Bytes up to which every cut is tried; of longer inputs some are.
const EVERY_CUT: usize = 1024;

pub(crate) fn client_hello(bytes: &[u8]) {
    let looks = portions(bytes, client_hello::MAX_CLIENT_HELLO, client_hello::recognise);
    assert!(looks <= 100, "{looks} looks at {} bytes", bytes.len());
    let whole = client_hello::recognise(bytes);
    if let Recognition::No(fault) = &whole {
        // Told by the first bytes: a record of TLS, and the message in it.
        let is_other = matches!(fault, client_hello::NotTls::Message(_)) || !bytes.starts_with(&[0x16, 3]);
        assert_eq!(fault.begins_as_hello(), !is_other, "{fault:?}");
    }
    let Recognition::Yes(hello) = &whole else { return };
    assert!(hello.alpn.iter().all(|protocol| (1..=255).contains(&protocol.len())));
    if let Some(name) = &hello.server_name {
        is_normal(name);
        assert!(name.parse::<Ipv4Addr>().is_err());
    }

    // The same message in other records is the same hello, as long as it is within the limit.
    let message = first_message(bytes);
    let size = usize::from(bytes[bytes.len() - 1]) + 1;
    let records: Vec<u8> = message.chunks(size).flat_map(record).collect();
    if records.len() <= client_hello::MAX_CLIENT_HELLO {
        assert_eq!(client_hello::recognise(&records), whole);
        assert!(!matches!(client_hello::recognise(&records[..records.len() - 1]), Recognition::Yes(_)));
    }
}

pub(crate) fn proxy_protocol(bytes: &[u8]) {
    portions(bytes, proxy_protocol::MAX_HEADER, proxy_protocol::recognise);
    portions(bytes, proxy_protocol::SIGNATURE_LIMIT, proxy_protocol::recognise_signature);
    // Absent by its signature, or not at all: what strangers are turned away for is what trusted peers are read for.
    let absent = proxy_protocol::HeaderError::Absent;
    match (proxy_protocol::recognise_signature(bytes), proxy_protocol::recognise(bytes)) {
        (Recognition::Yes(_), Recognition::No(fault)) => assert_ne!(fault, absent),
        (Recognition::Yes(_), _) => {}
        (Recognition::No(_), Recognition::No(fault)) => assert_eq!(fault, absent),
        (Recognition::More(less), Recognition::More(more)) => assert_eq!(less, more),
        (signature, header) => panic!("{signature:?}, but {header:?}"),
    }
    if let Recognition::Yes(header) = proxy_protocol::recognise(bytes) {
        ends_at(bytes, header.length, proxy_protocol::recognise);
        if let Addresses::Proxied(ends) = header.addresses {
            is_read_back(&Outgoing { client: Some(ends), ..Outgoing::default() });
        }
    }
    // The same bytes as what a header is to say.
    let Some((start, text)) = bytes.split_first_chunk::<40>() else { return };
    let text = String::from_utf8_lossy(text);
    let parts: Vec<&str> = text.split('\n').collect();
    let part = |index: usize| parts.get(index).copied();
    let common_name = part(2);
    let certificate = match start[1] % 3 {
        0 => ClientCertificate::None,
        1 => ClientCertificate::Shown { common_name },
        _ => ClientCertificate::Resumed { common_name },
    };
    let tls = part(3).zip(part(4)).map(|(version, cipher)| TlsFacts { version, cipher, certificate, verified: true });
    let client = (start[0] & 4 == 0).then(|| Ends {
        source: address(start[0] & 1 == 0, &start[2..20]),
        destination: address(start[0] & 2 == 0, &start[20..38]),
    });
    let unique_id = part(5).map(str::as_bytes);
    is_read_back(&Outgoing {
        client,
        authority: part(0),
        alpn: part(1).map(str::as_bytes),
        unique_id,
        tls,
        datagrams: start[0] & 8 == 0,
        received: None,
    });
}

pub(crate) fn postgres(bytes: &[u8]) {
    portions(bytes, postgres::MAX_STARTUP_PACKET, postgres::recognise);
    match postgres::recognise(bytes) {
        Recognition::Yes(postgres::Opening::SslRequest) => assert_eq!(bytes[..8], postgres::SSL_REQUEST),
        Recognition::Yes(postgres::Opening::Cancel { length } | postgres::Opening::Startup { length }) => {
            ends_at(bytes, length, postgres::recognise);
        }
        Recognition::Yes(postgres::Opening::DirectTls) => {
            assert!(!matches!(client_hello::recognise(&bytes[..1]), Recognition::No(_)));
        }
        _ => {}
    }
    // An error is as long as it says, whatever its texts are.
    let text = String::from_utf8_lossy(bytes);
    let response = postgres::error_response("08P01", &text, Some(&text));
    let length = response[1..5].iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    assert_eq!(response.len(), 1 + length);
    assert_eq!(response[5..].split(|&byte| byte == 0).count(), 5 + 2, "five fields, and the end");
}

/// Other recognisers agree: what they take is of their protocol, and of no other.
pub(crate) fn protocol(bytes: &[u8]) {
    portions(bytes, protocol::MAX_BEGINNING, protocol::recognise);
    let found = match protocol::recognise(bytes) {
        Recognition::Yes(found) => Some(found),
        Recognition::No(_) => None,
        Recognition::More(_) => return,
    };
    if matches!(client_hello::recognise(bytes), Recognition::Yes(_)) {
        assert_eq!(found, Some(ClientProtocol::Tls));
    }
    if let Recognition::Yes(opening) = postgres::recognise(bytes) {
        let is_tls = opening == postgres::Opening::DirectTls;
        assert_eq!(found == Some(ClientProtocol::Postgres), !is_tls, "{opening:?}");
    }
    if matches!(http::recognise(bytes), Recognition::Yes(_)) && !bytes.starts_with(b"SSH-") {
        assert_eq!(found, Some(ClientProtocol::Http));
    }
    match found {
        Some(ClientProtocol::Ssh) => assert!(bytes.starts_with(b"SSH-")),
        Some(ClientProtocol::Redis) => assert!(bytes.starts_with(b"*")),
        Some(ClientProtocol::Tls) => assert!(bytes.starts_with(b"\x16\x03")),
        Some(ClientProtocol::Http | ClientProtocol::Postgres) | None => {}
    }
}

/// The first byte says where TLS is. Then records of what either side sends: a byte with the side and the length, and the bytes.
/// The outcome does not depend on the portions in which they come, and nothing is kept but a packet.
pub(crate) fn mysql_login(bytes: &[u8]) {
    let Some((&rules, records)) = bytes.split_first() else { return };
    let whole = logged_in(rules, records, usize::MAX);
    for portion in [1, 5] {
        assert_eq!(logged_in(rules, records, portion), whole, "in portions of {portion}");
    }
}

/// What the client and the server are sent, and how the login ends. TLS is none here.
fn logged_in(rules: u8, mut records: &[u8], portion: usize) -> (Vec<u8>, Vec<u8>, String) {
    let server = match rules & 3 {
        0 => ServerLink::Plain,
        1 => ServerLink::Local,
        _ => ServerLink::Tls,
    };
    let rules = LoginRules {
        offers_tls: rules & 4 != 0,
        allows_plain: rules & 8 != 0,
        client_is_local: rules & 16 != 0,
        server,
    };
    let greeting = b"\x0a8.4.3\0\x01\0\0\0abcdefgh\0\xff\xff\x2d\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0caching_sha2_password\0";
    let read = Greeting::read(greeting).expect("a greeting");
    let cipher = |pem: &[u8], password: &[u8], _: &[u8]| pem.starts_with(b"-").then(|| password.to_vec());
    let mut login = Login::new(greeting, &read, rules, cipher);
    let (mut client, mut server, mut end) = (Vec::new(), Vec::new(), String::new());
    while let Some((&head, rest)) = records.split_first() {
        let (record, rest) = rest.split_at(usize::from(head & 0x7f).min(rest.len()));
        records = rest;
        let of_client = head & 0x80 != 0;
        for part in record.chunks(portion) {
            match (end.as_str(), of_client) {
                ("", true) => login.from_client(part),
                ("", false) => login.from_server(part),
                ("done", true) => server.extend_from_slice(part),
                ("done", false) => client.extend_from_slice(part),
                _ => {}
            }
            while end.is_empty() {
                assert!(login.buffered() <= 4 * (4 + MAX_PACKET));
                match login.step() {
                    LoginStep::Read(_) => break,
                    LoginStep::ToClient(bytes) => client.extend_from_slice(&bytes),
                    LoginStep::ToServer(bytes) => server.extend_from_slice(&bytes),
                    LoginStep::ClientTls(rest) => login.from_client(&rest),
                    LoginStep::ServerTls => {}
                    LoginStep::Done => end = "done".to_owned(),
                    LoginStep::Refused(fault, answer) => end = format!("{fault:?} {answer:?}"),
                }
            }
        }
    }
    (client, server, end)
}

pub(crate) fn http(bytes: &[u8]) {
    portions(bytes, http::MAX_HEAD, http::recognise);
    if let Recognition::No(fault) = http::recognise(bytes)
        && http::looks_like_http(bytes)
        && !bytes.starts_with(b"PRI ")
    {
        assert!(fault.begins_as_http(), "{fault:?}");
    }
    let Recognition::Yes(head) = http::recognise(bytes) else { return };
    ends_at(bytes, head.length, http::recognise);
    assert!(!head.method.is_empty());
    assert!(!head.path.contains('?'));
    if let Some(host) = &head.host {
        is_normal(host);
    }
}

/// Two sides speak in turns, the client first; 0xff ends a turn, and an empty one of the backend's is its FIN. What is
/// told of that does not depend on the pieces it comes in, nor on whether what need not be seen is seen.
pub(crate) fn postgres_queries(bytes: &[u8]) {
    queries(QueryProtocol::Postgres, bytes);
}

pub(crate) fn mysql_queries(bytes: &[u8]) {
    queries(QueryProtocol::Mysql, bytes);
}

pub(crate) fn redis_queries(bytes: &[u8]) {
    queries(QueryProtocol::Redis, bytes);
}

fn queries(protocol: QueryProtocol, bytes: &[u8]) {
    let whole = watched_queries(protocol, bytes, usize::MAX, false);
    for (portion, skips) in [(1, false), (usize::MAX, true), (3, true)] {
        let seen = watched_queries(protocol, bytes, portion, skips);
        assert_eq!(seen, whole, "in portions of {portion}, skipping: {skips}");
    }
    assert!(whole.iter().filter(|event| event.starts_with("Opaque")).count() <= 1);
    assert!(whole.len() <= bytes.len(), "{} events of {} bytes", whole.len(), bytes.len());
}

/// What is seen of a dialogue, without times. Each turn has two bytes in front: whose it is, and its length.
fn watched_queries(protocol: QueryProtocol, mut bytes: &[u8], portion: usize, skips: bool) -> Vec<String> {
    let now = Instant::now();
    let (mut watcher, mut seen) = (QueryWatcher::new(protocol, now), Vec::new());
    let mut out = |event: WatchEvent<'_>| {
        seen.push(match event {
            WatchEvent::Answered { statement, failed, pipelined, .. } => {
                format!("{} {failed} {pipelined}", protocol.statement_name(statement))
            }
            event => format!("{event:?}"),
        });
    };
    while let Some((&[first, second], rest)) = bytes.split_first_chunk() {
        let from = if first & 0x80 == 0 { Side::Client } else { Side::Backend };
        let length = usize::from(u16::from_be_bytes([first & 0x7f, second])).min(rest.len());
        let (mut turn, behind) = rest.split_at(length);
        bytes = behind;
        while !turn.is_empty() {
            let unseen = watcher.skippable(from);
            let count = portion.min(turn.len());
            if skips && unseen > 0 {
                let count = usize::try_from(unseen).map_or(count, |unseen| unseen.min(count));
                watcher.skip(from, count as u64, now, &mut out);
                turn = &turn[count..];
                continue;
            }
            watcher.read(from, &turn[..count], now, &mut out);
            turn = &turn[count..];
        }
    }
    watcher.ended(&mut out);
    seen
}

pub(crate) fn http_dialogue(bytes: &[u8]) {
    let whole = watched(bytes, usize::MAX, false);
    for (portion, pass) in [(1, false), (usize::MAX, true), (3, true)] {
        assert_eq!(watched(bytes, portion, pass), whole, "in portions of {portion}, passing: {pass}");
    }
    assert!(whole.iter().filter(|event| matches!(event, http::Event::Opaque(_))).count() <= 1);
    let ends = whole.iter().filter(|event| !matches!(event, http::Event::Opaque(_))).count();
    assert!(ends * b"A / HTTP/1.1\n\n".len() <= bytes.len(), "{ends} ends of requests in {} bytes", bytes.len());
}

fn watched(bytes: &[u8], portion: usize, pass: bool) -> Vec<http::Event> {
    let mut watcher = http::Watcher::default();
    let now = Instant::now();
    let mut events = Vec::new();
    let out = &mut |event| events.push(event);
    for (index, turn) in bytes.split(|&byte| byte == 0xff).enumerate() {
        let of_client = index % 2 == 0;
        if turn.is_empty() && !of_client {
            watcher.backend_finished(now, out);
        }
        let mut turn = turn;
        while !turn.is_empty() {
            let unseen = if of_client { watcher.unseen_from_client() } else { watcher.unseen_from_backend() };
            let (piece, rest) = turn.split_at(portion.min(turn.len()));
            let passed = if pass { (piece.len() as u64).min(unseen) } else { 0 };
            match (of_client, passed) {
                (true, 0) => watcher.client_sent(piece, now, out),
                (false, 0) => watcher.backend_sent(piece, now, out),
                (true, _) => watcher.passed_from_client(passed),
                (false, _) => watcher.passed_from_backend(passed, now, out),
            }
            turn = if passed == 0 { rest } else { &turn[passed as usize..] };
        }
    }
    watcher.ended(out);
    events
}

/// The same bytes get the same answer in whatever portions they come. The number of looks that it takes when the verdicts
/// are followed.
fn portions<T: Debug + PartialEq, E: Debug + PartialEq>(
    bytes: &[u8],
    limit: usize,
    recognise: impl Fn(&[u8]) -> Recognition<T, E>,
) -> usize {
    let whole = recognise(bytes);
    let step = bytes.len() / EVERY_CUT + 1;
    let mut needed = 0;
    for cut in (0..=bytes.len()).step_by(step) {
        match recognise(&bytes[..cut]) {
            Recognition::More(more) => {
                assert!(more.get() > cut && more.get() <= limit, "{more} at {cut}");
                needed = needed.max(more.get());
            }
            decided => {
                assert_eq!(decided, whole, "at {cut} of {}", bytes.len());
                let early = matches!(decided, Recognition::Yes(_)) && cut < needed;
                assert!(!early, "yes at {cut}, where {needed} were said to be needed");
                break;
            }
        }
    }

    let (mut here, mut looks) = (0, 1);
    loop {
        match recognise(&bytes[..here]) {
            Recognition::More(more) if more.get() <= bytes.len() => here = more.get(),
            Recognition::More(_) => {
                assert!(!matches!(whole, Recognition::Yes(_)), "{whole:?}, never seen by who follows the verdicts");
                return looks;
            }
            decided => {
                assert_eq!(decided, whole);
                return looks;
            }
        }
        looks += 1;
    }
}

/// What is recognised has this length: no byte less is enough, and the others do not matter.
fn ends_at<T: Debug + PartialEq, E: Debug + PartialEq>(
    bytes: &[u8],
    length: usize,
    recognise: impl Fn(&[u8]) -> Recognition<T, E>,
) {
    assert!((1..=bytes.len()).contains(&length), "{length} of {}", bytes.len());
    assert_eq!(recognise(&bytes[..length]), recognise(bytes));
    assert!(matches!(recognise(&bytes[..length - 1]), Recognition::More(_)));
}

fn is_read_back(outgoing: &Outgoing<'_>) {
    for written in [outgoing.v1(), outgoing.v2()] {
        let Recognition::Yes(header) = proxy_protocol::recognise(&written) else {
            panic!("{outgoing:?}: {:?}", String::from_utf8_lossy(&written));
        };
        assert_eq!(header.length, written.len());
        let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
        match (header.addresses, outgoing.client) {
            (Addresses::Proxied(read), Some(client)) => {
                assert_eq!(canonical(read.source), canonical(client.source));
                assert_eq!(canonical(read.destination), canonical(client.destination));
            }
            (addresses, client) => assert_eq!((addresses, client), (Addresses::Local, None)),
        }
    }
}

fn is_normal(host: &str) {
    assert_eq!(name::normal(host), host);
    assert!(name::NamePattern::parse(host).is_some_and(|pattern| pattern.fits(host)), "{host}");
}

/// An address of 18 bytes.
fn address(v4: bool, bytes: &[u8]) -> SocketAddr {
    let ip = if v4 {
        IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
    } else {
        IpAddr::from(<[u8; 16]>::try_from(&bytes[..16]).expect("16 bytes"))
    };
    SocketAddr::new(ip, u16::from_be_bytes([bytes[16], bytes[17]]))
}

/// The first handshake message of a connection that is known to start with a whole one.
fn first_message(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    loop {
        if let Some(&[_, a, b, c]) = message.first_chunk() {
            let length = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            if message.len() >= length {
                message.truncate(length);
                return message;
            }
        }
        let end = (5 + usize::from(bytes[3]) * 256 + usize::from(bytes[4])).min(bytes.len());
        message.extend_from_slice(&bytes[5..end]);
        bytes = &bytes[end..];
    }
}

fn record(part: &[u8]) -> Vec<u8> {
    [&[22, 3, 3, (part.len() >> 8) as u8, part.len() as u8], part].concat()
}
