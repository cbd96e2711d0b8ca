//! Logins that do not, and what they may cost.

use proptest::prelude::*;

use super::*;

#[test]
fn what_cannot_be_mediated_is_refused_by_name() {
    use LoginFault::*;
    let (request_tls, plain) = (tls_request(), request(0, NATIVE));
    let sha256 = "sha256_password";
    let switch = b"\xfesha256_password\0ABCDEFGHIJKLMNOPQRST\0";
    let opening = [Client(1, &request_tls), ClientTls];
    let refused = |rules, lines: &[DialogueLine<'_>], fault, answer| {
        dialogue(rules, ALL, NATIVE, &[lines, &[Refused(fault, answer)]].concat());
    };
    refused(FRONT, &[Client(1, &plain)], NoTls, Some((2, 3159)));
    refused(BACK, &[Client(1, &request_tls)], TlsNotOffered, Some((2, 1043)));
    refused(FRONT, &[Client(2, &request_tls)], OutOfOrder { sequence: 2, expected: 1 }, Some((1, 1156)));
    let with = request(TLS, NATIVE);
    let login = [&opening[..], &[Client(2, &with), ToServer(1, &plain)]].concat();
    let early = [Client(4, b"proof"), Turn(Speaker::Server), Server(2, SWITCH_TO_CACHING)];
    refused(FRONT, &[&login[..], &early].concat(), EarlyAnswer, Some((3, 1156)));
    refused(FRONT, &[Client(1, &[0x85, 0xa6, 0x03, 0, 0])], OldProtocol, None);
    refused(FRONT, &[Client(1, b"")], OldProtocol, None);
    // With TLS, a password would be in the login already.
    let login = request(TLS, sha256);
    refused(FRONT, &[&opening[..], &[Client(2, &login)]].concat(), Sha256ToPlainServer, Some((3, 1251)));
    let without = request(0, NATIVE);
    let login = [&opening[..], &[Client(2, &with), ToServer(1, &without), Server(2, switch)]].concat();
    refused(FRONT, &login, Sha256ToPlainServer, Some((3, 1251)));
    let login = [Client(1, &without), ToServer(1, &with[..32]), ServerTls, ToServer(2, &with), Server(3, switch)];
    refused(BACK, &login, Sha256OfPlainClient, Some((2, 1251)));
    let login = [
        Client(1, &without),
        ToServer(1, &with[..32]),
        ServerTls,
        ToServer(2, &with),
        Server(3, SWITCH_TO_CACHING),
        ToClient(2, SWITCH_TO_CACHING),
        Client(3, b"proof"),
        ToServer(4, b"proof"),
        Server(5, &[1, 4]),
        ToClient(4, &[1, 4]),
        Client(5, &[2]),
    ];
    refused(BACK, &login, PlainPassword, Some((6, 1251)));
    refused(FRONT, &[&opening[..], &[Client(2, &with[..36])]].concat(), MalformedLogin, Some((3, 1043)));
}

#[test]
fn server_that_breaks_the_rules_is_refused() {
    use LoginFault::*;
    let (request_tls, with, without) = (tls_request(), request(TLS, CACHING), request(0, CACHING));
    let refused = |rules, lines: &[DialogueLine<'_>], fault, answer| {
        dialogue(rules, ALL, CACHING, &[lines, &[Refused(fault, answer)]].concat());
    };
    // An attacker's, before TLS: also an error.
    refused(BOTH, &[Server(1, DENIED)], PlainServerBytes, Some((1, 1105)));
    refused(FRONT, &[Server(1, OK)], EarlyServerPacket, Some((1, 1105)));
    let logged_in = [Client(1, &request_tls), ClientTls, Client(2, &with), ToServer(1, &without)];
    refused(FRONT, &[&logged_in[..], &[Server(2, b"\xfename")]].concat(), MalformedSwitch, Some((3, 1105)));
    let full = [Server(2, &[1, 4]), ToClient(3, &[1, 4]), Client(4, b"secret\0"), ToServer(3, &[2])];
    let full = [&logged_in[..], &full].concat();
    refused(FRONT, &[&full[..], &[Server(4, b"\x01other")]].concat(), BadPublicKey, Some((5, 1105)));
    refused(FRONT, &[&full[..], &[Server(4, b"what")]].concat(), NoPublicKey, Some((5, 1105)));
    // Bytes before TLS that are no packet yet.
    let body = greeting(ALL, NATIVE);
    let mut login = Login::new(&body, &Greeting::read(&body).unwrap(), BACK, cipher);
    login.from_server(b"\x07");
    login.from_client(&packet(1, &without));
    assert!(matches!(login.step(), LoginStep::ToClient(_)));
    assert!(matches!(login.step(), LoginStep::Refused(PlainServerBytes, Some(_))));
}

#[test]
fn nothing_grows_without_a_bound() {
    let body = greeting(ALL, NATIVE);
    let new = || Login::new(&body, &Greeting::read(&body).unwrap(), FRONT, cipher);
    // Other protocols.
    for first in
        [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\0", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n", b"SSH-2.0-"]
    {
        let mut login = new();
        assert!(matches!(login.step(), LoginStep::ToClient(_)));
        login.from_client(first);
        assert!(login.step() == LoginStep::Refused(LoginFault::ClientPacketTooLong, None), "{}", first.escape_ascii());
    }
    // A packet of which the end never comes, and what comes before it is asked for.
    let mut login = new();
    login.step();
    let [a, b, c, _] = (MAX_PACKET as u32).to_le_bytes();
    login.from_client(&[a, b, c, 1]);
    for _ in 0..100 {
        login.from_client(&[0; 4096]);
        login.from_server(b"");
        assert!(login.buffered() <= MAX_BUFFERED);
    }
    assert!(matches!(login.step(), LoginStep::Refused(..)));
    // A server that never comes to an end.
    let mut login = new();
    login.from_client(&packet(1, &tls_request()));
    login.from_client(&packet(2, &request(TLS, NATIVE)));
    let mut packets = 0;
    let fault = loop {
        match login.step() {
            LoginStep::Read(_) => {
                packets += 1;
                login.from_server(&packet(0, &[1, 1]));
            }
            LoginStep::ClientTls(rest) => login.from_client(&rest),
            LoginStep::Refused(fault, _) => break fault,
            _ => {}
        }
    };
    assert_eq!((fault, packets), (LoginFault::TooManyPackets, 65));
}

/// Everything that a login says, by side, and how it ends. What is TLS in life is plain here.
fn outcome(rules: LoginRules, records: &[(Speaker, Vec<u8>)], portion: usize) -> (Vec<u8>, Vec<u8>, String) {
    let body = greeting(ALL, CACHING);
    let mut login = Login::new(&body, &Greeting::read(&body).unwrap(), rules, cipher);
    let (mut client, mut server, mut end) = (Vec::new(), Vec::new(), String::new());
    for (speaker, record) in records {
        for part in record.chunks(portion) {
            match (end.as_str(), speaker) {
                ("", Speaker::Client) => login.from_client(part),
                ("", Speaker::Server) => login.from_server(part),
                ("done", Speaker::Client) => server.extend_from_slice(part),
                ("done", Speaker::Server) => client.extend_from_slice(part),
                _ => {}
            }
            while end.is_empty() {
                assert!(login.buffered() <= 2 * MAX_BUFFERED);
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

fn record() -> impl Strategy<Value = (Speaker, Vec<u8>)> {
    let bodies = vec![
        tls_request(),
        request(TLS, CACHING),
        request(0, CACHING),
        request(0, NATIVE),
        OK.to_vec(),
        DENIED.to_vec(),
        vec![1, 3],
        vec![1, 4],
        vec![2],
        b"\x01PEM".to_vec(),
        b"secret\0".to_vec(),
        SWITCH_TO_CACHING.to_vec(),
        SWITCH_TO_NATIVE.to_vec(),
        b"\xfesha256_password\0ABCDEFGHIJKLMNOPQRST\0".to_vec(),
    ];
    let speaker = prop::sample::select(vec![Speaker::Client, Speaker::Server]);
    let bytes = prop_oneof![
        8 => (0..8u8, prop::sample::select(bodies)).prop_map(|(sequence, body)| packet(sequence, &body)),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ];
    (speaker, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Random packets and bytes: no panic, and the same outcome in any portions.
    #[test]
    fn portions_change_nothing(records in prop::collection::vec(record(), 0..12), rules in 0..4usize, portion in 1..60usize) {
        let rules = [FRONT, BACK, BOTH, LoginRules { allows_plain: true, ..FRONT }][rules];
        prop_assert_eq!(outcome(rules, &records, portion), outcome(rules, &records, usize::MAX));
    }
}
