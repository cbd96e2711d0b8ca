use super::*;

const TOO_LONG: Recognition<ClientHello, NotTls> = Recognition::No(NotTls::TooLong);

/// A length of two bytes, and what it is of.
fn vector(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(value)].concat()
}

fn sni(names: &[(u8, &[u8])]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|(kind, name)| [&[*kind][..], &vector(name)].concat()).collect();
    extension(SERVER_NAME, &vector(&names))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let protocols: Vec<u8> = protocols.iter().flat_map(|name| [&[name.len() as u8], *name].concat()).collect();
    extension(ALPN, &vector(&protocols))
}

/// A handshake message.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

/// What comes before the extensions, with this session id, these cipher suites and compression methods.
fn fields(session: &[u8], suites: &[u8], compression: &[u8]) -> Vec<u8> {
    let start = [&[3, 3][..], &[7; 32], &[session.len() as u8], session].concat();
    [&start, &vector(suites)[..], &[compression.len() as u8], compression].concat()
}

/// A ClientHello message with these extensions.
fn hello_with(extensions: &[Vec<u8>]) -> Vec<u8> {
    message(CLIENT_HELLO, &[fields(&[1; 32], &[0x13, 1], &[0]), vector(&extensions.concat())].concat())
}

/// A message in records of this many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &vector(part)].concat()).collect()
}

fn record(message: &[u8]) -> Vec<u8> {
    records(message, MAX_FRAGMENT)
}

fn asked(server_name: Option<&str>, alpn: &[&[u8]]) -> Recognition<ClientHello, NotTls> {
    asked_with(Version::TLS_1_2, server_name, alpn)
}

fn asked_with(newest: Version, server_name: Option<&str>, alpn: &[&[u8]]) -> Recognition<ClientHello, NotTls> {
    let alpn = alpn.iter().map(|name| name.to_vec()).collect();
    Recognition::Yes(ClientHello { server_name: server_name.map(Arc::from), alpn, newest })
}

fn wrong(bytes: &[u8]) -> NotTls {
    let Recognition::No(fault) = recognise(bytes) else { panic!("{:?}", recognise(bytes)) };
    fault
}

/// Reads on as the verdicts say; how often that was, and the last verdict.
fn follow(bytes: &[u8]) -> (usize, Recognition<ClientHello, NotTls>) {
    let mut here = 0;
    for times in 1.. {
        match recognise(&bytes[..here]) {
            Recognition::More(more) if more.get() <= bytes.len() => here = more.get(),
            last => return (times, last),
        }
    }
    unreachable!()
}

#[test]
fn a_hello_is_read_in_records_of_any_size_and_wants_more_until_its_end() {
    let message = hello_with(&[
        extension(SUPPORTED_VERSIONS, &[2, 3, 4]),
        sni(&[(0, b"DB.Example.com.")]),
        alpn(&[b"h2", b"http/1.1"]),
    ]);
    let wanted = asked_with(Version::TLS_1_3, Some("db.example.com"), &[b"h2", b"http/1.1"]);
    for size in 1..=message.len() {
        let bytes = records(&message, size);
        for cut in 0..bytes.len() {
            let Recognition::More(more) = recognise(&bytes[..cut]) else { panic!("{size}: {cut} of {}", bytes.len()) };
            assert!(more.get() > cut && more.get() <= bytes.len(), "{size}: {cut} of {}, {more}", bytes.len());
        }
        assert_eq!(recognise(&bytes), wanted);
        assert_eq!(recognise(&[&bytes, &b"\x14\x03\x03 others"[..]].concat()), wanted);
        assert_eq!(follow(&bytes).1, wanted);
    }
}

#[test]
fn what_lacks_is_asked_for_at_once() {
    let bytes = record(&hello_of(MAX_BODY));
    // Where the length is known, one more look is enough: records are of full size.
    assert_eq!(recognise(&bytes[..9]), Recognition::more(9, bytes.len()));
    assert_eq!(follow(&bytes), (11, asked(None, &[])));
    for cut in [10, MAX_FRAGMENT + 5, MAX_FRAGMENT + 7, MAX_FRAGMENT + 10, bytes.len() - 1] {
        assert_eq!(recognise(&bytes[..cut]), Recognition::more(cut, bytes.len()), "{cut}");
    }
}

#[test]
fn the_smallest_records_cost_few_looks() {
    let message = hello_with(&[extension(0xfafa, &vec![0; MAX_CLIENT_HELLO / 6 - 120])]);
    let bytes = records(&message, 1);
    assert!((MAX_CLIENT_HELLO - 600..MAX_CLIENT_HELLO).contains(&bytes.len()), "{}", bytes.len());
    let (looks, last) = follow(&bytes);
    assert_eq!(last, asked(None, &[]));
    assert!(looks < 100, "{looks}");
}

#[test]
fn a_hello_may_lack_extensions() {
    for session in [&[][..], &[1; 32]] {
        let bytes = record(&message(CLIENT_HELLO, &fields(session, &[0, 1, 0, 2], &[1, 0])));
        assert_eq!(recognise(&bytes), asked(None, &[]));
        assert!(matches!(recognise(&bytes[..bytes.len() - 1]), Recognition::More(_)));
    }
    assert_eq!(recognise(&record(&hello_with(&[]))), asked(None, &[]));
}

#[test]
fn what_is_no_host_name_is_none() {
    for name in
        ["192.0.2.1", "192.0.2.1.", "[::1]", "::1", "*.example.com", "a b", "a..b", ".", "-\u{e4}", "a/b", "a\0b"]
    {
        assert_eq!(recognise(&record(&hello_with(&[sni(&[(0, name.as_bytes())])]))), asked(None, &[]), "{name}");
    }
    assert_eq!(recognise(&record(&hello_with(&[sni(&[(0, b"\xff\xfe")])]))), asked(None, &[]));
    // Other types of names than host names were never defined.
    let other = sni(&[(1, b"x"), (0, b"a.example"), (1, b"y")]);
    assert_eq!(recognise(&record(&hello_with(&[other]))), asked(Some("a.example"), &[]));
}

#[test]
fn the_newest_version_is_told() {
    let newest = |version: [u8; 2], extensions: &[Vec<u8>]| {
        let mut message = hello_with(extensions);
        message[MESSAGE_HEADER..MESSAGE_HEADER + 2].copy_from_slice(&version);
        match follow(&record(&message)).1 {
            Recognition::Yes(hello) => hello.newest.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let versions = |bytes: &[u8]| extension(SUPPORTED_VERSIONS, &[&[bytes.len() as u8], bytes].concat());
    assert_eq!(newest([3, 0], &[]), "SSL 3.0");
    assert_eq!(newest([3, 1], &[]), "TLS 1.0");
    assert_eq!(newest([3, 2], &[]), "TLS 1.1");
    assert_eq!(newest([3, 3], &[]), "TLS 1.2");
    assert_eq!(newest([3, 3], &[versions(&[3, 2, 3, 4, 3, 3])]), "TLS 1.3");
    assert_eq!(newest([3, 3], &[versions(&[3, 1])]), "TLS 1.0", "the extension counts");
    assert_eq!(newest([3, 3], &[versions(&[0xfa, 0xfa, 0x7f, 0x1c, 3, 4])]), "TLS 1.3", "drafts and noise do not");
    // What cannot be read is left to the handshake.
    assert_eq!(newest([3, 3], &[versions(&[0xfa, 0xfa])]), "TLS 1.2");
    assert_eq!(newest([3, 3], &[extension(SUPPORTED_VERSIONS, &[9, 3, 1])]), "TLS 1.2");
}

#[test]
fn other_protocols_are_seen_by_their_first_bytes() {
    for byte in (0..=255).filter(|byte| ![HANDSHAKE, 0x80].contains(byte)) {
        assert_eq!(wrong(&[byte]), NotTls::FirstByte(byte));
    }
    assert_eq!(wrong(&[0x80, 46, 1, 3, 1]), NotTls::Ssl2);
    assert_eq!(wrong(&[HANDSHAKE, 2]), NotTls::RecordVersion(2));
    assert_eq!(wrong(&[HANDSHAKE, 3, 1, 0, 0]), NotTls::RecordLength(0));
    assert_eq!(wrong(&[HANDSHAKE, 3, 1, 0x40, 1]), NotTls::RecordLength(16_385));
    assert_eq!(wrong(&record(&message(2, &[0; 40]))), NotTls::Message(2));
    assert_eq!(wrong(&[HANDSHAKE, 3, 1, 0, 1, 0]), NotTls::Message(0));
}

#[test]
fn a_later_record_is_held_to_the_same() {
    let first = record(&hello_with(&[sni(&[(0, b"a")])])[..20]);
    for (record, fault) in [
        (&[21, 3, 3, 0, 2][..], NotTls::RecordType(21)),
        (&[0x80], NotTls::RecordType(0x80)),
        (&[HANDSHAKE, 4], NotTls::LaterVersion(4)),
        (&[HANDSHAKE, 3, 3, 0, 0], NotTls::RecordLength(0)),
        (&[HANDSHAKE, 3, 3, 0xff, 0xff], NotTls::RecordLength(0xffff)),
    ] {
        assert_eq!(wrong(&[&first, record].concat()), fault);
        assert!(fault.begins_as_hello());
        assert_eq!(wrong(&[&first, record, &[0; 100]].concat()), fault);
    }
}

/// A ClientHello whose body has this many bytes.
fn hello_of(body: usize) -> Vec<u8> {
    let rest = hello_with(&[extension(0xfafa, &[])]).len() - MESSAGE_HEADER;
    hello_with(&[extension(0xfafa, &vec![0; body - rest])])
}

#[test]
fn a_hello_must_end_within_the_limit() {
    let fits = record(&hello_of(MAX_BODY));
    assert_eq!(fits.len(), MAX_CLIENT_HELLO);
    assert_eq!(recognise(&fits), asked(None, &[]));
    assert_eq!(follow(&fits).1, asked(None, &[]));

    // In smaller records it ends beyond the limit.
    let long = records(&hello_of(MAX_BODY), 100);
    assert!(long.len() > MAX_CLIENT_HELLO);
    assert_eq!(recognise(&long[..MAX_CLIENT_HELLO - 1]), Recognition::more(MAX_CLIENT_HELLO - 1, MAX_CLIENT_HELLO));
    assert_eq!((recognise(&long[..MAX_CLIENT_HELLO]), recognise(&long)), (TOO_LONG, TOO_LONG));
    // Its header says so at once.
    for length in [MAX_BODY + 1, 0xff_ffff] {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        assert_eq!(recognise(&[HANDSHAKE, 3, 1, 0, 50, CLIENT_HELLO, a, b, c]), TOO_LONG);
    }
}

#[test]
fn malformed_fields_are_told_apart_and_early() {
    let extended = |bytes: &[u8]| message(CLIENT_HELLO, &[&fields(&[], &[0, 1], &[0]), bytes].concat());
    let with = |one: Vec<u8>| hello_with(&[one]);
    let list = |kind, bytes: &[u8]| with(extension(kind, bytes));
    let mut old = hello_with(&[]);
    old[4] = 2;
    let two_names = hello_with(&[sni(&[(0, b"a")]), alpn(&[b"h2"]), sni(&[(0, b"b")])]);
    let cases = [
        (old, "version is not"),
        (message(CLIENT_HELLO, &[3]), "ends in the middle"),
        (message(CLIENT_HELLO, &[3; 34]), "ends in the middle"),
        (message(CLIENT_HELLO, &[[3; 34].as_slice(), &[5, 0]].concat()), "session id is longer than the message"),
        (message(CLIENT_HELLO, &fields(&[0; 33], &[0, 1], &[0])), "session id is longer than 32"),
        (message(CLIENT_HELLO, &fields(&[], &[], &[0])), "cipher suites are none"),
        (message(CLIENT_HELLO, &fields(&[], &[0, 1, 2], &[0])), "half a one"),
        (message(CLIENT_HELLO, &[[3; 34].as_slice(), &[0, 9, 9, 0]].concat()), "cipher suites are longer"),
        (message(CLIENT_HELLO, &fields(&[], &[0, 1], &[])), "no compression"),
        (message(CLIENT_HELLO, &[[3; 34].as_slice(), &[0, 0, 2, 0, 1, 9]].concat()), "methods are longer"),
        (extended(&[0]), "ends in the middle"),
        (extended(&[0, 1]), "extensions are longer"),
        (extended(&[0, 0, 7]), "extensions are shorter"),
        (extended(&vector(&[0])), "ends in the middle"),
        (extended(&vector(&[9, 9, 0, 5, 0])), "an extension is longer"),
        (two_names, "two server_name"),
        (hello_with(&[alpn(&[b"h2"]), alpn(&[b"h2"])]), "two ALPN ext"),
        (with(sni(&[(0, b"a"), (0, b"b")])), "two server names"),
        (with(sni(&[(0, b"")])), "server name is empty"),
        (with(sni(&[])), "list of server names"),
        (list(SERVER_NAME, b""), "ends in the middle"),
        (list(SERVER_NAME, &[0, 5, 0]), "list of server names"),
        (list(SERVER_NAME, &[0, 4, 0, 0, 1, b'a', 0]), "list of server names"),
        (list(SERVER_NAME, &[0, 4, 0, 0, 2, b'a']), "server name is longer"),
        (with(alpn(&[])), "list of ALPN"),
        (with(alpn(&[b"h2", b""])), "protocol is empty"),
        (list(ALPN, &[0, 3, 3, b'h', b'2']), "protocol is longer"),
        (list(ALPN, &[0, 3, 2, b'h', b'2', 0]), "list of ALPN"),
    ];
    for (message, text) in cases {
        let whole = record(&message);
        let fault = wrong(&whole);
        assert!(fault.to_string().contains(text), "{text}: {fault}");
        for size in [1, 7, 100] {
            assert_eq!(wrong(&records(&message, size)), fault, "in records of {size}");
        }
    }
}

#[test]
fn a_fault_is_known_before_the_rest_has_come() {
    let padding = extension(0xfafa, &[0; 100]);
    let (name, protocol) = (sni(&[(0, b"a")]), alpn(&[b"h2"]));
    let body = |fields: Vec<u8>| message(CLIENT_HELLO, &[fields, vector(&padding)].concat());
    for message in [
        body(fields(&[0; 33], &[0, 1], &[0])),
        body(fields(&[], &[0, 1, 2], &[0])),
        body(fields(&[], &[0, 1], &[])),
        hello_with(&[sni(&[]), padding.clone()]),
        hello_with(&[name.clone(), name, padding.clone()]),
        hello_with(&[protocol.clone(), protocol, padding.clone()]),
    ] {
        let bytes = record(&message);
        assert_eq!(wrong(&bytes[..bytes.len() - 100]), wrong(&bytes));
    }
}
